//! Flush jobs: `POST /v1/api/flush-jobs` asks for one, `GET /v1/api/flush-jobs/{id}` follows it.
//!
//! Posting is idempotent: the same `id` again answers with the job that exists and starts nothing. A new job is answered with
//! 202, a known one with 200, an unknown id in a GET with 404. Both calls carry `Authorization: Bearer <scheduler token>`.

use serde::{Deserialize, Serialize};

/// The path of the collection of flush jobs.
pub const FLUSH_JOBS_PATH: &str = "/v1/api/flush-jobs";

/// What a scheduler asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushRequest {
    /// Chosen by the scheduler, unique for ever: `[A-Za-z0-9-]{1,64}`.
    pub id: String,
    /// `namespace.table`.
    pub table: String,
    /// Why the table is due, for people who read `system.flush_jobs`.
    pub reason: FlushReason,
}

/// Which threshold made a table due, or who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlushReason {
    /// Unflushed bytes reached their threshold.
    Bytes,
    /// Unflushed rows reached their threshold.
    Rows,
    /// The oldest unflushed row reached its age.
    Age,
    /// The disk is nearly full.
    Disk,
    /// A `STORAGE FLUSH` statement.
    Statement,
    /// The instance's own safety net: no scheduler was heard from.
    Safety,
}

/// Where a flush job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlushState {
    /// Accepted, waits for its turn.
    Queued,
    /// Writes files or commits.
    Running,
    /// The rows are in the cold tier.
    Completed,
    /// Ended with an error; the rows are still in the hot tier.
    Failed,
    /// There was nothing to flush.
    Skipped,
    /// Called off before it began.
    Cancelled,
}

impl FlushState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Completed, Self::Failed, Self::Skipped, Self::Cancelled];

    /// The state's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the job has come to its end.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Skipped | Self::Cancelled)
    }
}

/// A flush job as the instance reports it. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushJob {
    /// The id of the request.
    pub id: String,
    /// `namespace.table`.
    pub table: String,
    /// Why it was asked for.
    pub reason: FlushReason,
    /// Where it stands.
    pub state: FlushState,
    /// Rows written to the cold tier.
    pub rows: u64,
    /// Bytes of Parquet written.
    pub bytes: u64,
    /// Why it failed, or why there was nothing to do.
    pub message: Option<String>,
    /// When it was accepted.
    pub created_at: i64,
    /// When it began to run.
    pub started_at: Option<i64>,
    /// When it ended.
    pub finished_at: Option<i64>,
}
