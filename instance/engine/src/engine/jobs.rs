//! Flushes and compactions: begun, looked at, called off.

use std::sync::Arc;

use kalamdb_api::flush::{FlushJob, FlushReason};

use super::Engine;
use crate::EngineError;
use crate::flush::{Job, JobObserver};
use crate::schema::{Table, TableName};

/// Unflushed rows of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct Unflushed {
    /// The table.
    pub table: Arc<Table>,
    /// Row versions above `flushed_through`.
    pub rows: u64,
    /// Their encoded size in bytes.
    pub bytes: u64,
    /// `_updated` of the oldest, in microseconds since the Unix epoch.
    pub oldest: i64,
}

impl Engine {
    /// Begins a flush job, or answers with the one that has this id already (then `false`).
    pub async fn start_flush(
        &self,
        id: &str,
        table: &TableName,
        reason: FlushReason,
    ) -> Result<(FlushJob, bool), EngineError> {
        self.inner.flusher.start_flush(id, table, reason)
    }

    /// The flush job of that id.
    pub fn flush_job(&self, id: &str) -> Option<FlushJob> {
        self.inner.flusher.flush_job(id)
    }

    /// All flush jobs that are remembered, newest first.
    pub fn flush_jobs(&self) -> Vec<FlushJob> {
        self.inner.flusher.flush_jobs()
    }

    /// Begins a compaction job of all that one job may merge, or answers with the job that has this id already (then `false`).
    pub async fn start_compaction(
        &self,
        id: &str,
        table: &TableName,
        reason: FlushReason,
    ) -> Result<(FlushJob, bool), EngineError> {
        self.inner.flusher.start_compaction(id, table, reason)
    }

    /// Whether a compaction would change anything of the table.
    pub async fn is_compactable(&self, table: &TableName) -> Result<bool, EngineError> {
        self.inner.flusher.is_compactable(table).await
    }

    /// Calls off a job that waits; one that runs can't be.
    pub fn cancel_job(&self, id: &str) -> Result<(), EngineError> {
        self.inner.flusher.cancel(id)
    }

    /// All jobs that are remembered, newest first.
    pub fn jobs(&self) -> Vec<Job> {
        self.inner.flusher.jobs()
    }

    /// Tells the engine that an outside scheduler is alive, which keeps its own safety net at rest.
    pub fn scheduler_seen(&self) {
        self.inner.flusher.scheduler_seen()
    }

    /// Tables that have unflushed rows, the most urgent first.
    pub fn unflushed(&self) -> Vec<Unflushed> {
        self.inner.flusher.unflushed()
    }

    /// From now on `observer` is told of each job that ends well: its kind, the table, and how long it took.
    pub fn observe_jobs(&self, observer: JobObserver) {
        self.inner.flusher.observe(observer);
    }
}
