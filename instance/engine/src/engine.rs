//! The whole engine behind one handle: what the SQL layer and the HTTP layer call.
//!
//! * `rows`: what statements find and write; `reading`: snapshots, and look-ups in them;
//! * `alter`, `jobs`, `storages`, `resume`: ALTER TABLE, flushes and compactions, storage locations, clients that come back.

mod alter;
mod jobs;
mod reading;
mod resume;
mod rows;
mod storages;

pub use jobs::Unflushed;
pub use reading::ReadSnapshot;
pub use resume::{Resumed, Seen};
pub use rows::{Committed, FoundRow, LookUp, Place, RowWrite};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::EngineError;
use crate::access::AccessChange;
use crate::catalog::{self, Catalog, CatalogChange};
use crate::cold::ColdTier;
use crate::commit::Committer;
use crate::commit::clock::{Clock, SystemClock};
use crate::config::EngineConfig;
use crate::flush::Flusher;
use crate::hot::{Hot, Key, key, stream};
use crate::observe::ChangeObserver;
use crate::schema::{SchemaVersion, Table, TableId};
use crate::seq::Seq;
use crate::value::{Row, Value};

/// One database: RocksDB, the object store, the committer and the jobs. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    config: EngineConfig,
    hot: Arc<Hot>,
    cold: Arc<ColdTier>,
    committer: Committer,
    flusher: Arc<Flusher>,
    closing: AtomicBool,
    /// Held by every commit of rows. An ALTER TABLE that writers outrun stops them with it for its last look at the rows.
    writes: tokio::sync::RwLock<()>,
}

/// Whether writes would succeed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// They would.
    Ready,
    /// They would not.
    NotReady {
        /// One word for programs: `ObjectStoreUnavailable`, `Recovering`, `VolumeEmpty`, `VolumeForeign`, `VolumeBehind`,
        /// `DiskFull`, `Starting`.
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
        Self::open_with(config, Arc::new(SystemClock)).await
    }

    /// As [`Engine::open`], with a clock of the caller's.
    pub async fn open_with(config: EngineConfig, clock: Arc<dyn Clock>) -> Result<Self, EngineError> {
        let cold = ColdTier::open(&config.object_store, config.limits.footer_cache_bytes)?;
        Self::open_over(config, clock, cold).await
    }

    /// As [`Engine::open_with`], over a cold tier that is set up already.
    pub async fn open_over(
        config: EngineConfig,
        clock: Arc<dyn Clock>,
        cold: Arc<ColdTier>,
    ) -> Result<Self, EngineError> {
        let engine = Self::assemble(config, clock, cold).await?;
        engine.inner.flusher.start_up().await;
        Ok(engine)
    }

    /// Opens the volume and starts the committer. Nothing else runs by itself yet, and the object store is not claimed.
    pub(crate) async fn assemble(
        config: EngineConfig,
        clock: Arc<dyn Clock>,
        cold: Arc<ColdTier>,
    ) -> Result<Self, EngineError> {
        let (opening, time) = (config.clone(), clock.clone());
        #[cfg(test)]
        let plant = crate::plant::testing::current();
        let open = move || {
            #[cfg(test)]
            crate::plant::testing::plant(plant);
            let hot = Arc::new(Hot::open(&opening, time.now_micros() / 1000)?);
            let committer = Committer::start(hot.clone(), &opening, time)?;
            Ok::<_, EngineError>((hot, committer))
        };
        let (hot, committer) = tokio::task::spawn_blocking(open).await.expect("opening the volume does not panic")?;
        cold.place_all(&committer.catalog(), &hot.snapshot().dropped_tables()?)?;
        let flusher = Flusher::new(hot.clone(), committer.clone(), cold.clone(), &config, clock)?;
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                hot,
                cold,
                committer,
                flusher,
                closing: AtomicBool::new(false),
                writes: tokio::sync::RwLock::default(),
            }),
        })
    }

    pub(crate) fn hot(&self) -> &Arc<Hot> {
        &self.inner.hot
    }

    pub(crate) fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    pub(crate) fn committer(&self) -> &Committer {
        &self.inner.committer
    }

    /// The flush jobs, for tests that let them die.
    #[cfg(test)]
    pub(crate) fn flusher(&self) -> &Arc<Flusher> {
        &self.inner.flusher
    }

    /// Stops taking writes, ends running jobs at a safe point, flushes and closes RocksDB.
    pub async fn close(&self) {
        if self.inner.closing.swap(true, Ordering::SeqCst) {
            return;
        }
        self.inner.flusher.close().await;
        self.inner.committer.close().await;
        let hot = self.inner.hot.clone();
        let closed = tokio::task::spawn_blocking(move || hot.close()).await.expect("closing the volume does not panic");
        if let Err(error) = closed {
            tracing::error!(%error, "failed to close the volume; nothing is lost, the next start replays its log");
        }
    }

    /// Whether writes would succeed.
    pub fn readiness(&self) -> Readiness {
        if self.inner.closing.load(Ordering::SeqCst) {
            let message = "the instance is shutting down".into();
            return Readiness::NotReady { reason: "Starting", message };
        }
        if let Err(error) = self.inner.hot.disk().check() {
            return Readiness::NotReady { reason: "DiskFull", message: error.to_string() };
        }
        self.inner.flusher.not_ready().unwrap_or(Readiness::Ready)
    }

    /// Fails while the volume's history is not the database's: it is being recovered, can't be, or was displaced by another one. What
    /// could be read then would be an empty or an old database that looks like the real one.
    pub fn check_history(&self) -> Result<(), EngineError> {
        match self.inner.flusher.not_ready() {
            Some(Readiness::NotReady { reason: "Recovering" | "VolumeEmpty" | "VolumeBehind", message }) => {
                Err(EngineError::Unavailable(message))
            }
            _ => Ok(()),
        }
    }

    /// Rows and tables wait until a new volume has proven its prefix; else an empty database would look like a ready one.
    fn check_owned(&self) -> Result<(), EngineError> {
        if self.inner.closing.load(Ordering::SeqCst) {
            return Err(EngineError::Unavailable("the instance is shutting down; retry once it is up again".into()));
        }
        match self.inner.flusher.not_ready() {
            Some(Readiness::NotReady { message, .. }) => Err(EngineError::Unavailable(message)),
            _ => Ok(()),
        }
    }

    /// The catalog as of the last catalog change that was acknowledged.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.inner.committer.catalog()
    }

    /// Commits one change of the catalog: durable when it returns. Validates it against the newest catalog.
    pub async fn change_catalog(&self, change: CatalogChange) -> Result<(), EngineError> {
        self.change_catalog_recorded(change, Vec::new()).await
    }

    /// The same, and keeps who did it in the same commit.
    pub async fn change_catalog_recorded(
        &self,
        change: CatalogChange,
        recorded: Vec<AccessChange>,
    ) -> Result<(), EngineError> {
        self.inner.hot.disk().check()?;
        // Users may be made before: the first start sets root's password whether or not the object store is there.
        if !matches!(change, CatalogChange::PutUser(_)) {
            self.check_owned()?;
        }
        if let CatalogChange::CreateTable(table) = &change {
            self.inner.cold.place(&self.catalog(), table)?;
        }
        let dropped = match &change {
            CatalogChange::DropTable { name, .. } => self.catalog().tables.get(name).map(|table| table.uuid),
            _ => None,
        };
        self.inner.committer.catalog_change(change, recorded).await?;
        self.inner.flusher.catalog_changed();
        if let Some(table) = dropped {
            self.inner.cold.forget(table);
        }
        Ok(())
    }

    /// The encoded primary key of a row of the table.
    pub fn key(table: &Table, row: &Row) -> Result<Key, EngineError> {
        key::key_of_row(table, row)
    }

    /// The encoded primary key of these values, in key order.
    pub fn key_of(table: &Table, values: &[Value]) -> Result<Key, EngineError> {
        key::encode_key(table, values)
    }

    /// The key of a row of a stream table without primary key, which is its `_seq`.
    pub fn hidden_key(seq: Seq) -> Key {
        Key(stream::hidden_key(seq).into())
    }

    /// Refuses where these rows can't be written now: the prefix is not owned, a table has stopped, the disk is full.
    pub(crate) fn check_writable(&self, writes: &[RowWrite]) -> Result<(), EngineError> {
        self.check_owned()?;
        // Once for each run of one table's rows, of which a statement has many.
        for rows in writes.chunk_by(|one, next| one.table.id == next.table.id) {
            self.inner.flusher.check_not_stopped(&rows[0].table)?;
        }
        self.inner.hot.disk().check()
    }

    /// Held by a commit of rows while it goes on.
    pub(crate) async fn writing(&self) -> tokio::sync::RwLockReadGuard<'_, ()> {
        self.inner.writes.read().await
    }

    /// A new unique id from the `_seq` clock, for `SNOWFLAKE_ID()`.
    pub fn snowflake_id(&self) -> i64 {
        self.draw_seq().0
    }

    pub(crate) fn draw_seq(&self) -> Seq {
        self.inner.committer.shared().clock.id()
    }

    /// From now on `observer` is told of each change of the catalog and of the jobs: after it can be read, before it is acknowledged.
    pub fn observe_changes(&self, observer: ChangeObserver) {
        self.inner.committer.shared().observing.set(Arc::clone(&observer));
        self.inner.flusher.observe_changes(observer);
    }

    /// A version of a table as it is stored; none of a table that was dropped.
    pub fn stored_table(&self, table: TableId, version: SchemaVersion) -> Result<Option<Table>, EngineError> {
        catalog::stored_table(&self.inner.hot, table, version)
    }

    /// Why the object store can't be used now, for people; none where it can. Writes and reads of hot rows go on without it.
    pub fn object_store_trouble(&self) -> Option<String> {
        self.inner.flusher.store_trouble()
    }

    /// The id of the database, which it keeps when it is recovered.
    pub fn database_id(&self) -> uuid::Uuid {
        self.inner.hot.volume().database_id
    }

    /// Sizes of the hot tier and its disk.
    pub fn storage_sizes(&self) -> StorageSizes {
        let disk = self.inner.hot.disk().space().unwrap_or_default();
        StorageSizes { column_families: self.inner.hot.sizes(), disk_used: disk.used, disk_free: disk.free }
    }
}
