//! When compactions run: at a statement, and by the instance itself after a flush that made one due.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kalamdb_api::flush::{FlushJob, FlushReason};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Attempt, CompactionJob, Extent};
use crate::EngineError;
use crate::config::{CompactionConfig, EngineConfig, VacuumConfig};
use crate::flush::jobs::JobKind;
use crate::flush::rests::Rests;
use crate::flush::{Ended, Flusher};
use crate::point;
use crate::schema::{Table, TableId, TableKind, TableName};

/// How often the instance looks whether a table that was flushed is due.
const TENDING_PERIOD: Duration = Duration::from_secs(1);

/// What keeps cold files few and their folder clean.
pub struct Tending {
    config: CompactionConfig,
    pub(crate) vacuum: VacuumConfig,
    /// As many compactions run at once as it has permits. Flushes have their own, and never wait for these.
    running: Semaphore,
    /// One compaction of a table at a time.
    turns: Mutex<HashMap<TableId, Arc<tokio::sync::Mutex<()>>>>,
    /// Tables that changed since they were last looked at: whether a compaction is due.
    changed: Mutex<HashSet<TableName>>,
    /// Tables that a compaction left files behind of.
    pub(crate) littered: Mutex<HashSet<TableName>>,
}

impl Tending {
    /// Nothing is known to be due.
    pub fn new(config: &EngineConfig) -> Self {
        Self {
            config: config.compaction.clone(),
            vacuum: config.vacuum.clone(),
            running: Semaphore::new(config.compaction.max_concurrent.max(1)),
            turns: Mutex::default(),
            changed: Mutex::default(),
            littered: Mutex::default(),
        }
    }

    /// A job has changed the table's cold files.
    pub fn consider(&self, table: &TableName, kind: JobKind) {
        self.changed.lock().insert(table.clone());
        if kind == JobKind::Compact {
            self.littered.lock().insert(table.clone());
        }
    }

    fn turn(&self, table: &Table) -> Arc<tokio::sync::Mutex<()>> {
        self.turns.lock().entry(table.id).or_default().clone()
    }
}

impl Flusher {
    /// Begins a job, or answers with the one that has this id already (then `false`). A statement's takes all that one job may, the
    /// instance's own what is due.
    pub fn start_compaction(
        self: &Arc<Self>,
        id: &str,
        name: &TableName,
        reason: FlushReason,
    ) -> Result<(FlushJob, bool), EngineError> {
        if let Some(known) = self.known(JobKind::Compact, id, name)? {
            return Ok((known, false));
        }
        if self.table(name)?.kind == TableKind::Stream {
            return Err(EngineError::Invalid(format!(
                "table {name} is a STREAM table: it has no cold files to compact"
            )));
        }
        self.start(JobKind::Compact, id, name, reason)
    }

    /// Whether a compaction that a statement asks for would change anything.
    pub async fn is_compactable(&self, name: &TableName) -> Result<bool, EngineError> {
        self.runner.is_compactable(&self.table(name)?, Extent::All, &self.tending.config).await
    }

    /// A job that waits can be called off; one that runs goes on to its end.
    pub(crate) async fn run_compaction(&self, id: &str, name: &TableName) -> Result<Ended, EngineError> {
        let table = self.table(name)?;
        let turn = self.tending.turn(&table);
        let wait = async {
            self.runner.owner.first_try().await;
            let turn = point::lock(&turn).await;
            (turn, self.tending.running.acquire().await.expect("the semaphore is never closed"))
        };
        tokio::select! {
            (_turn, _permit) = wait => self.compact_now(id, &table).await,
            () = self.stop.cancelled() => {
                Err(EngineError::Unavailable("the instance was shut down before the job began".into()))
            }
        }
    }

    /// Beside flushes first; where one came between, once more with the table's turn held, so that busy tables are compacted too.
    async fn compact_now(&self, id: &str, table: &Arc<Table>) -> Result<Ended, EngineError> {
        let (lane, began) = (self.lane(table), Instant::now());
        self.check_not_stopped(table)?;
        for holds in [false, true] {
            let mut held = if holds { Some(point::lock(&lane).await) } else { None };
            let alive = self.runner.begin_attempt(table);
            if !self.jobs.begin(id, alive.id(), self.runner.now_ms())? {
                return Ok(Ended::CalledOff);
            }
            let of_statement = self.jobs.get(id).is_none_or(|job| job.reason == FlushReason::Statement);
            let extent = if of_statement { Extent::All } else { Extent::Due };
            let job = CompactionJob { attempt: alive.id(), extent, config: &self.tending.config };
            let begun = |version| self.jobs.change(id, |record| record.version = Some(version));
            let attempt = self.runner.compact(table, &lane, held.as_deref_mut(), job, begun).await?;
            match attempt {
                Attempt::Compacted(done) => {
                    self.tell(JobKind::Compact, &table.name, began.elapsed());
                    tracing::info!(
                        table = %table.name, replaced = done.replaced, files = done.files, rows = done.rows,
                        bytes = done.bytes, milliseconds = began.elapsed().as_millis() as u64, "compacted cold files"
                    );
                    return Ok(Ended::Compacted(done));
                }
                Attempt::NothingToDo => return Ok(Ended::NothingToDo),
                Attempt::GivenUp => {
                    tracing::debug!(table = %table.name, "a compaction was given up: a flush came first")
                }
            }
        }
        Err(EngineError::Unavailable(format!("table {} changed while it was compacted; try again", table.name)))
    }

    /// Starts what is due of the tables that changed. Tables whose last job failed rest for a while, and are looked at again.
    pub(crate) async fn watch_runs(self: Arc<Self>) {
        let mut rests = Rests::default();
        while self.tending.config.automatic && !self.stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(TENDING_PERIOD) => {}
                () = self.stop.cancelled() => return,
            }
            let failed = rests.learn(&self.jobs);
            let changed: Vec<_> = {
                let mut changed = self.tending.changed.lock();
                changed.extend(failed);
                changed.iter().cloned().collect()
            };
            for name in changed {
                if !rests.rests(&name) && !self.jobs.is_active(JobKind::Compact, &name) {
                    self.start_if_due(&name, &mut rests).await;
                }
            }
        }
    }

    async fn start_if_due(self: &Arc<Self>, name: &TableName, rests: &mut Rests) {
        self.tending.changed.lock().remove(name);
        let Ok(table) = self.table(name) else { return };
        match self.runner.is_compactable(&table, Extent::Due, &self.tending.config).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(table = %name, %error, "it is not known whether a compaction is due; the next flush asks again");
                return;
            }
        }
        let id = Uuid::new_v4().to_string();
        match self.start_compaction(&id, name, FlushReason::Safety) {
            Ok(_) => rests.start(name, id),
            Err(error) => tracing::warn!(table = %name, %error, "a due compaction was not started"),
        }
    }
}
