//! The whole engine behind one handle: what the SQL layer and the HTTP layer call.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use kalamdb_api::flush::{FlushJob, FlushReason};

use crate::EngineError;
use crate::catalog::{Catalog, CatalogChange};
use crate::config::EngineConfig;
use crate::hot::Key;
use crate::schema::{Table, TableName, UserId};
use crate::seq::Seq;
use crate::value::Row;

/// One database: RocksDB, the object store, the committer and the jobs. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner;

/// A consistent view of every table: one RocksDB snapshot, and the version of each cold table that it names.
#[derive(Clone)]
pub struct ReadSnapshot {
    inner: Arc<Inner>,
}

/// A live row, as a look-up found it.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundRow {
    /// The version's commit sequence.
    pub seq: Seq,
    /// The version's `_updated`, in microseconds since the Unix epoch.
    pub updated: i64,
    /// One value for each of the table's columns.
    pub row: Row,
    /// Where it lies in the cold tier; none for a hot row.
    pub place: Option<Place>,
}

/// A row of a cold file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file's path below the table's folder.
    pub file: Arc<str>,
    /// The row's number in the file, from 0.
    pub row: u64,
}

/// What a statement read of one key before it writes it.
#[derive(Debug, Clone)]
pub enum LookUp {
    /// The key was looked up in a snapshot.
    Read {
        /// What lives there.
        found: Option<FoundRow>,
        /// The cold version that was looked in.
        cold_version: i64,
    },
    /// The statement generated the key from the `_seq` clock itself: nothing can live there.
    Generated,
}

/// One row of a commit. Within a commit each key stands once.
#[derive(Debug, Clone)]
pub struct RowWrite {
    /// The table, as the statement saw it.
    pub table: Arc<Table>,
    /// Whose row it is, in per-user tables.
    pub user: Option<UserId>,
    /// The encoded primary key, without table and user: [`Engine::key`].
    pub key: Key,
    /// What was read.
    pub look_up: LookUp,
    /// The new row; none deletes.
    pub new: Option<Row>,
}

/// What was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The last sequence of the commit; its rows have consecutive ones in the order of the writes.
    pub last_seq: Seq,
    /// `_updated` of its rows, in microseconds since the Unix epoch.
    pub updated: i64,
}

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

/// Whether writes would succeed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// They would.
    Ready,
    /// They would not.
    NotReady {
        /// One word for programs: `ObjectStoreUnavailable`, `VolumeEmpty`, `VolumeForeign`, `DiskFull`, `Starting`.
        reason: &'static str,
        /// For people: what is wrong and how to mend it.
        message: String,
    },
}

/// Sizes for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageSizes {
    /// Column family name -> bytes on disk and in memtables.
    pub column_families: BTreeMap<String, u64>,
    /// Bytes used on the data directory's file system.
    pub disk_used: u64,
    /// Bytes free there.
    pub disk_free: u64,
}

impl Engine {
    /// Opens the volume, recovers, settles what a crash left, and starts the committer and the jobs. An object store that can't be
    /// reached does not fail the start: [`Engine::readiness`] tells. A foreign or newer volume does.
    pub async fn open(config: EngineConfig) -> Result<Self, EngineError> {
        unimplemented!("{config:?}")
    }

    /// Stops taking writes, ends running jobs at a safe point, flushes and closes RocksDB.
    pub async fn close(&self) {
        unimplemented!()
    }

    /// Whether writes would succeed.
    pub fn readiness(&self) -> Readiness {
        unimplemented!()
    }

    /// The catalog as of the last catalog change that was acknowledged.
    pub fn catalog(&self) -> Arc<Catalog> {
        unimplemented!()
    }

    /// Commits one change of the catalog: durable when it returns. Validates it against the newest catalog.
    pub async fn change_catalog(&self, change: CatalogChange) -> Result<(), EngineError> {
        unimplemented!("{change:?}")
    }

    /// A consistent view of everything that was acknowledged before the call.
    pub fn snapshot(&self) -> ReadSnapshot {
        unimplemented!()
    }

    /// The encoded primary key of a row of the table.
    pub fn key(table: &Table, row: &Row) -> Result<Key, EngineError> {
        unimplemented!("{table:?} {row:?}")
    }

    /// The encoded primary key of these values, in key order.
    pub fn key_of(table: &Table, values: &[crate::value::Value]) -> Result<Key, EngineError> {
        unimplemented!("{table:?} {values:?}")
    }

    /// Commits all writes or none. [`EngineError::Stale`] where anything that was read has changed: look up again and retry.
    pub async fn commit(&self, writes: Vec<RowWrite>) -> Result<Committed, EngineError> {
        unimplemented!("{writes:?}")
    }

    /// A new unique id from the `_seq` clock, for `SNOWFLAKE_ID()`.
    pub fn snowflake_id(&self) -> i64 {
        unimplemented!()
    }

    /// Begins a flush job, or answers with the one that has this id already (then `false`).
    pub async fn start_flush(
        &self,
        id: &str,
        table: &TableName,
        reason: FlushReason,
    ) -> Result<(FlushJob, bool), EngineError> {
        unimplemented!("{id} {table} {reason:?}")
    }

    /// The flush job of that id.
    pub fn flush_job(&self, id: &str) -> Option<FlushJob> {
        unimplemented!("{id}")
    }

    /// All flush jobs that are remembered, newest first.
    pub fn flush_jobs(&self) -> Vec<FlushJob> {
        unimplemented!()
    }

    /// Tells the engine that an outside scheduler is alive, which keeps its own safety net at rest.
    pub fn scheduler_seen(&self) {
        unimplemented!()
    }

    /// Tables that have unflushed rows.
    pub fn unflushed(&self) -> Vec<Unflushed> {
        unimplemented!()
    }

    /// Sizes of the hot tier and its disk.
    pub fn storage_sizes(&self) -> StorageSizes {
        unimplemented!()
    }
}

impl ReadSnapshot {
    /// Looks the keys up, hot then cold, in this snapshot; answers in the order of the keys. Every answer is a [`LookUp::Read`].
    pub async fn look_up(
        &self,
        table: &Arc<Table>,
        user: Option<&UserId>,
        keys: &[Key],
    ) -> Result<Vec<LookUp>, EngineError> {
        unimplemented!("{table:?} {user:?} {keys:?}")
    }

    /// DataFusion's view of the table in this snapshot, with [`Table::sql_schema`]; of a per-user table only that user's rows.
    pub fn provider(&self, table: &Arc<Table>, user: Option<&UserId>) -> Arc<dyn TableProvider> {
        unimplemented!("{table:?} {user:?}")
    }
}
