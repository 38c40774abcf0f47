//! Bounds of the SQL layer.

use std::time::Duration;

use kalamdb_engine::TransactionLimits;

use crate::cache::CacheConfig;
use crate::load::LoadConfig;
use crate::password::HashCost;
use crate::planner::PlannerConfig;
use crate::turns::TurnsConfig;

/// Bounds of the SQL layer.
#[derive(Debug, Clone)]
pub struct SqlConfig {
    /// Bounds of the query engine.
    pub planner: PlannerConfig,
    /// Bounds of the caches.
    pub cache: CacheConfig,
    /// Bounds of loading rows in bulk.
    pub load: LoadConfig,
    /// How many statements work at the same time.
    pub turns: TurnsConfig,
    /// How long one statement may run; of a result that is streamed, how long one piece may take to be made, and to be taken.
    pub statement_timeout: Duration,
    /// How large the rows of one reply may be in memory, in bytes.
    pub reply_bytes: usize,
    /// How many rows one statement may write.
    pub write_rows: usize,
    /// How large a transaction may become.
    pub transaction: TransactionLimits,
    /// What hashing a password costs.
    pub hash_cost: HashCost,
    /// Whether a namespace with tables is dropped without CASCADE.
    pub drop_namespace: DropNamespace,
}

/// What `DROP NAMESPACE` without CASCADE does to a namespace that holds tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropNamespace {
    /// It is an error.
    Restrict,
    /// The tables are dropped too.
    Cascade,
}
