//! The jobs, flushes and compactions, that are remembered: in memory, and as records of the family `system_flush_jobs`, which is the truth.

use std::collections::HashMap;
use std::sync::Arc;

use kalamdb_api::flush::{FlushJob, FlushReason, FlushState};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::hot::Hot;
use crate::observe::{Changed, Observing};
use crate::schema::TableName;
use crate::{EngineError, codec};

const JOB_FORMAT: u8 = 3;
/// Before the version: a record said only whether there was an intent.
const BEGUN_JOB_FORMAT: u8 = 2;
/// Before compactions: a record was a flush's, and did not say so.
const FLUSH_JOB_FORMAT: u8 = 1;
/// Ended jobs that are kept; older ones are forgotten, and their ids with them.
const ENDED_JOBS_KEPT: usize = 1000;
/// Jobs that may wait or run; more are refused, to be asked for again.
const UNENDED_JOBS: usize = 1000;
const LONGEST_ID: usize = 64;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobKind {
    /// Moves hot rows to the cold tier.
    Flush,
    /// Merges cold files.
    Compact,
}

impl JobKind {
    /// `flush` or `compact`, as `system.jobs` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flush => "flush",
            Self::Compact => "compact",
        }
    }
}

/// A job as callers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// What it does.
    pub kind: JobKind,
    /// Where it stands; of a compaction, rows and bytes are those that it wrote.
    pub job: FlushJob,
}

/// A job as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobRecord {
    /// What it does.
    pub kind: JobKind,
    /// What callers see.
    pub job: FlushJob,
    /// The id in the intent, once there is one: tells after a crash which Delta commit was this job's.
    pub attempt: Option<Uuid>,
    /// The Delta version that its intent asks for, once that is stored: what occupies it tells how the job ended.
    pub version: Option<i64>,
}

/// The jobs.
pub struct Jobs {
    hot: Arc<Hot>,
    known: Mutex<HashMap<String, JobRecord>>,
    /// Who is told of each change, under the lock: no look at the jobs comes between a change and its news.
    pub(super) observing: Observing,
}

impl Jobs {
    /// Reads the jobs of earlier lives.
    pub fn load(hot: Arc<Hot>) -> Result<Self, EngineError> {
        let decode = |(id, bytes): (String, Vec<u8>)| Ok((id.clone(), decode(&id, &bytes)?));
        let known = hot.flush_jobs()?.into_iter().map(decode).collect::<Result<_, EngineError>>()?;
        Ok(Self { hot, known: Mutex::new(known), observing: Observing::default() })
    }

    /// Adds a queued job, or answers with the one of that id (then `false`).
    pub fn add(
        &self,
        kind: JobKind,
        id: &str,
        table: &TableName,
        reason: FlushReason,
        now_ms: i64,
    ) -> Result<(FlushJob, bool), EngineError> {
        check_id(id)?;
        let mut known = self.known.lock();
        if let Some(record) = known.get(id) {
            return Ok((record.job.clone(), false));
        }
        if known.values().filter(|record| !record.job.state.is_final()).count() >= UNENDED_JOBS {
            return Err(EngineError::Unavailable(format!("{UNENDED_JOBS} jobs wait already; ask again later")));
        }
        let job = FlushJob {
            id: id.into(),
            table: table.to_string(),
            reason,
            state: FlushState::Queued,
            rows: 0,
            bytes: 0,
            message: None,
            created_at: now_ms,
            started_at: None,
            finished_at: None,
        };
        let record = JobRecord { kind, job: job.clone(), attempt: None, version: None };
        self.store(&record)?;
        known.insert(id.into(), record);
        let forgotten = self.forget_old(&mut known);
        self.observing.tell(&Changed::Job);
        forgotten?;
        Ok((job, true))
    }

    /// Changes a job and stores it.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut JobRecord)) -> Result<(), EngineError> {
        let mut known = self.known.lock();
        let Some(record) = known.get_mut(id) else { return Ok(()) };
        change(record);
        self.observing.tell(&Changed::Job);
        self.store(record)
    }

    /// The job runs from now on, as that attempt; `false` where it was called off before.
    pub fn begin(&self, id: &str, attempt: Uuid, now_ms: i64) -> Result<bool, EngineError> {
        let mut begins = true;
        self.change(id, |record| {
            begins = !record.job.state.is_final();
            if begins {
                (record.job.state, record.job.rows) = (FlushState::Running, 0);
                record.job.started_at.get_or_insert(now_ms);
                record.attempt = Some(attempt);
            }
        })?;
        Ok(begins)
    }

    /// So many rows of a job that runs are on their way into files. Only told: after a crash the log says what became of them.
    pub fn wrote(&self, id: &str, rows: u64) {
        let mut known = self.known.lock();
        let Some(record) = known.get_mut(id).filter(|record| record.job.state == FlushState::Running) else { return };
        record.job.rows += rows;
        self.observing.tell(&Changed::Job);
    }

    /// Calls a job off that waits. One that runs goes on to its end: half of it may be committed already.
    pub fn cancel(&self, id: &str, now_ms: i64) -> Result<(), EngineError> {
        let mut known = self.known.lock();
        let missing = || EngineError::NotFound { what: "job", name: id.into() };
        let record = known.get_mut(id).ok_or_else(missing)?;
        match record.job.state {
            FlushState::Queued => {
                (record.job.state, record.job.finished_at) = (FlushState::Cancelled, Some(now_ms));
                record.job.message = Some("called off before it began".into());
                self.store(record)
            }
            FlushState::Running => Err(EngineError::Invalid(format!(
                "job {id} runs already, and goes on to its end: only one that waits can be killed"
            ))),
            state => Err(EngineError::Invalid(format!("job {id} has ended already: {}", state.as_str()))),
        }
    }

    /// The job of that id.
    pub fn get(&self, id: &str) -> Option<FlushJob> {
        self.known.lock().get(id).map(|record| record.job.clone())
    }

    /// The job of that id, and what it does.
    pub fn find(&self, id: &str) -> Option<Job> {
        self.known.lock().get(id).map(|record| Job { kind: record.kind, job: record.job.clone() })
    }

    /// All jobs, newest first.
    pub fn all(&self) -> Vec<Job> {
        let job = |record: &JobRecord| Job { kind: record.kind, job: record.job.clone() };
        let mut jobs: Vec<_> = self.known.lock().values().map(job).collect();
        jobs.sort_by(|Job { job: a, .. }, Job { job: b, .. }| {
            b.created_at.cmp(&a.created_at).then_with(|| b.id.cmp(&a.id))
        });
        jobs
    }

    /// Jobs that had not ended when the process before this one did, oldest first.
    pub fn unended(&self) -> Vec<JobRecord> {
        let known = self.known.lock();
        let mut unended: Vec<_> = known.values().filter(|record| !record.job.state.is_final()).cloned().collect();
        unended.sort_by(|a, b| (a.job.created_at, &a.job.id).cmp(&(b.job.created_at, &b.job.id)));
        unended
    }

    /// Whether a job of that kind waits or runs for the table.
    pub fn is_active(&self, kind: JobKind, table: &TableName) -> bool {
        let table = table.to_string();
        let is_meant = |record: &&JobRecord| record.kind == kind && record.job.table == table;
        self.known.lock().values().filter(is_meant).any(|record| !record.job.state.is_final())
    }

    fn store(&self, record: &JobRecord) -> Result<(), EngineError> {
        self.hot.put_flush_job(&record.job.id, &codec::encode(JOB_FORMAT, record))
    }

    fn forget_old(&self, known: &mut HashMap<String, JobRecord>) -> Result<(), EngineError> {
        let mut ended: Vec<_> = known
            .values()
            .filter(|record| record.job.state.is_final())
            .map(|record| (record.job.finished_at, record.job.id.clone()))
            .collect();
        ended.sort();
        let too_many = ended.len().saturating_sub(ENDED_JOBS_KEPT);
        for (_, id) in ended.into_iter().take(too_many) {
            self.hot.delete_flush_job(&id)?;
            known.remove(&id);
        }
        Ok(())
    }
}

/// A flush's record of before compactions; what is now the kind was not there.
#[derive(Serialize, Deserialize)]
struct FlushRecord {
    job: FlushJob,
    attempt: Option<Uuid>,
    begun: bool,
}

/// A record of before the version: one that had not ended counts as failed, whatever became of it.
#[derive(Serialize, Deserialize)]
struct BegunRecord {
    kind: JobKind,
    job: FlushJob,
    attempt: Option<Uuid>,
    begun: bool,
}

fn decode(id: &str, bytes: &[u8]) -> Result<JobRecord, EngineError> {
    let what = format!("job {id}");
    match bytes.first() {
        Some(&FLUSH_JOB_FORMAT) => {
            let FlushRecord { job, attempt, .. } = codec::decode(FLUSH_JOB_FORMAT, bytes, &what)?;
            Ok(JobRecord { kind: JobKind::Flush, job, attempt, version: None })
        }
        Some(&BEGUN_JOB_FORMAT) => {
            let BegunRecord { kind, job, attempt, .. } = codec::decode(BEGUN_JOB_FORMAT, bytes, &what)?;
            Ok(JobRecord { kind, job, attempt, version: None })
        }
        _ => codec::decode(JOB_FORMAT, bytes, &what),
    }
}

fn check_id(id: &str) -> Result<(), EngineError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(EngineError::Invalid(format!("'{id}' is no id of a job: 1 to {LONGEST_ID} letters, digits and hyphens")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_waits_can_be_called_off_and_never_begins_then() {
        let folder = tempfile::tempdir().unwrap();
        let hot = Hot::open(&crate::flush::tests::config(folder.path()), 0).unwrap();
        let jobs = Jobs::load(Arc::new(hot)).unwrap();
        let table = TableName::new("n", "t");
        for id in ["waits", "runs"] {
            jobs.add(JobKind::Flush, id, &table, FlushReason::Statement, 1).unwrap();
        }
        assert!(jobs.begin("runs", Uuid::from_u128(1), 2).unwrap());
        assert!(jobs.cancel("runs", 3).unwrap_err().to_string().contains("runs already"));
        jobs.cancel("waits", 3).unwrap();
        assert!(!jobs.begin("waits", Uuid::from_u128(2), 4).unwrap());
        assert_eq!(jobs.get("waits").unwrap().state, FlushState::Cancelled);
        assert!(jobs.cancel("waits", 5).unwrap_err().to_string().contains("has ended already: cancelled"));
        assert!(matches!(jobs.cancel("nobody", 5), Err(EngineError::NotFound { .. })));
    }

    #[test]
    fn records_of_earlier_formats_are_read() {
        let job = FlushJob {
            id: "a".into(),
            table: "n.t".into(),
            reason: FlushReason::Age,
            state: FlushState::Completed,
            rows: 1,
            bytes: 2,
            message: None,
            created_at: 3,
            started_at: Some(4),
            finished_at: Some(5),
        };
        let old = FlushRecord { job: job.clone(), attempt: Some(Uuid::from_u128(1)), begun: true };
        let read = decode("a", &codec::encode(FLUSH_JOB_FORMAT, &old)).unwrap();
        assert_eq!((read.kind, &read.job, read.attempt), (JobKind::Flush, &job, old.attempt));
        let old = BegunRecord { kind: JobKind::Compact, job: job.clone(), attempt: old.attempt, begun: true };
        let read = decode("a", &codec::encode(BEGUN_JOB_FORMAT, &old)).unwrap();
        assert_eq!((read.kind, &read.job, read.attempt, read.version), (JobKind::Compact, &job, old.attempt, None));
        let new = JobRecord { version: Some(7), ..read };
        let again = decode("a", &codec::encode(JOB_FORMAT, &new)).unwrap();
        assert_eq!((again.kind, again.job, again.version), (JobKind::Compact, job, Some(7)));
    }
}
