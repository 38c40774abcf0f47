//! Jobs that die between two steps, as if with their process: they go on to one of the engine's points, and no further.

use kalamdb_api::flush::FlushState;

use super::World;
use crate::engine::Engine;
use crate::flush::JobKind;
use crate::model::scheduler::Task;
use crate::model::tasks::{self, Ended};
use crate::schema::TableName;

/// What a job has done last when it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The intent is stored, and W is fixed.
    Begun,
    /// The files are in the object store.
    Written,
    /// The Delta commit has landed; the volume does not know it.
    Committed,
    /// The new version is the table's.
    Ended,
}

impl Step {
    pub(crate) const ALL: [Self; 4] = [Self::Begun, Self::Written, Self::Committed, Self::Ended];

    /// The points that it passes, up to the one where it dies. A fence that comes first is settled at the same points as the job.
    fn points(self, kind: JobKind) -> &'static [&'static str] {
        match (kind, self) {
            (JobKind::Flush, Self::Begun) => &["flush.begun"],
            (JobKind::Flush, Self::Written) => &["flush.written"],
            (JobKind::Flush, Self::Committed) => &["flush.written", "settle.read"],
            (JobKind::Flush, Self::Ended) => &["flush.ended"],
            (JobKind::Compact, Self::Begun) => &["compaction.begun"],
            (JobKind::Compact, Self::Written) => &["compaction.written"],
            (JobKind::Compact, Self::Committed) => &["compaction.begun", "settle.read"],
            (JobKind::Compact, Self::Ended) => &["compaction.ended"],
        }
    }
}

/// Begins a job, which goes on to where it has done a step, and waits there; none where it ended before.
async fn begin(engine: &Engine, kind: JobKind, id: String, table: &TableName, step: Step) -> Option<Task<(), Ended>> {
    let mut job = Task::new((), tasks::job(engine.clone(), kind, id, table.clone()));
    let mut ended = job.begin().await;
    for point in step.points(kind) {
        while ended.is_none() && job.waits_at() != *point {
            // It may wait for a lock of a task that nobody schedules.
            tokio::task::yield_now().await;
            ended = job.go_on().await;
        }
    }
    ended.is_none().then_some(job)
}

/// Begins a job, which dies after a step: nothing is written of how it ends. `false` where it ended before.
pub(crate) async fn die(engine: &Engine, kind: JobKind, id: String, table: &TableName, step: Step) -> bool {
    begin(engine, kind, id, table, step).await.is_some()
}

impl World {
    /// Lets a job die after a step; `false` where it ended before.
    pub(crate) async fn die_after(&mut self, kind: JobKind, step: Step) -> bool {
        self.jobs += 1;
        die(self.engine(), kind, format!("job-{}", self.jobs), &self.table.name, step).await
    }

    /// A flush that stalls where its files are written, until `passes` is over, and then goes on to its end.
    pub(crate) async fn flush_that_stalls(&mut self, passes: impl FnOnce(&Self)) -> FlushState {
        self.jobs += 1;
        let id = format!("job-{}", self.jobs);
        let job = begin(self.engine(), JobKind::Flush, id, &self.table.name, Step::Written).await;
        let mut job = job.expect("it flushes something");
        passes(self);
        loop {
            if let Some(ended) = job.go_on().await {
                let Ended::Job(job) = ended else { unreachable!("a job ends as one") };
                return job.state;
            }
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn die_in_flush(&mut self, step: Step) {
        assert!(self.die_after(JobKind::Flush, step).await, "it flushes something");
    }

    pub(crate) async fn die_in_compaction(&mut self, step: Step) {
        assert!(self.die_after(JobKind::Compact, step).await, "it merges something");
    }
}
