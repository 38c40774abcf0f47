//! A flush job and its id.
//!
//! The id is derived, not drawn: the same instance, table, epoch and attempt give the same id. An operator that restarts and
//! finds a table still due derives the id that it posted before, and the instance answers with the job that exists.

use std::fmt;

use kalamdb_api::flush::FlushReason;
use sha2::{Digest, Sha256};

use crate::{StoreKey, TableName, TargetId};

/// The id of a flush job: `[A-Za-z0-9-]{1,64}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(String);

/// What an instance's flushes have come to, as its metrics show it: the time of the last completed one in milliseconds, or
/// 0 before the first. It moves on when a job completes, so that the next job of the table gets another id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

/// A flush job that was decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The instance.
    pub target: TargetId,
    /// Where the instance's flushes go.
    pub store: StoreKey,
    /// The table.
    pub table: TableName,
    /// Why it is due.
    pub reason: FlushReason,
    /// The epoch in which it was decided on.
    pub epoch: Epoch,
    /// How often the table failed in a row before this job.
    pub attempt: u32,
}

impl JobId {
    /// The id of a table's job.
    pub fn derive(target: &TargetId, table: &TableName, epoch: Epoch, attempt: u32) -> Self {
        let mut hash = Sha256::new();
        for part in [target.0.as_bytes(), table.0.as_bytes(), &epoch.0.to_be_bytes(), &attempt.to_be_bytes()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digits: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self(format!("op-{digits}"))
    }

    /// The id as it travels.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_stable_and_every_part_of_it_counts() {
        let id = |target: &str, table: &str, epoch, attempt| {
            JobId::derive(&TargetId(target.into()), &TableName(table.into()), Epoch(epoch), attempt)
        };
        let first = id("a", "b.c", 1, 0);
        assert_eq!(first, id("a", "b.c", 1, 0));
        for other in [id("ab", ".c", 1, 0), id("a", "b.d", 1, 0), id("a", "b.c", 2, 0), id("a", "b.c", 1, 1)] {
            assert_ne!(first, other);
        }
        assert!(first.as_str().len() <= 64);
        assert!(first.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    }
}
