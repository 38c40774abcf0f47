//! The whole engine behind one handle: what the SQL layer and the HTTP layer call.

mod alter;
mod resume;

pub use resume::{Resumed, Seen};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::catalog::TableProvider;
use kalamdb_api::flush::{FlushJob, FlushReason};
use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::catalog::{Catalog, CatalogChange};
use crate::cold::{self, ColdTier, PinnedCold};
use crate::commit::Committer;
use crate::commit::clock::{Clock, SystemClock};
use crate::config::EngineConfig;
use crate::flush::{Flusher, Job, JobObserver};
use crate::hot::{Hot, HotRow, HotSnapshot, Key, RowKey, key, stream};
use crate::scan;
use crate::schema::{Table, TableName, UserId};
use crate::seq::Seq;
use crate::transaction::{Overlay, Transaction, TransactionLimits};
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

/// A consistent view of every table: one RocksDB snapshot, and the version of each cold table that it names.
#[derive(Clone)]
pub struct ReadSnapshot {
    hot: HotSnapshot,
    cold: PinnedCold,
    /// What the transaction that reads has written itself.
    overlay: Option<Arc<Overlay>>,
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The file's path below the table's folder.
    pub file: Arc<str>,
    /// The row's number in the file, from 0.
    pub row: u64,
}

/// What a statement read of one key before it writes it.
#[derive(Debug, Clone, PartialEq)]
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
    /// The encoded primary key, without table and user: [`Engine::key`]. Empty for a new row of a stream table without primary key.
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

impl LookUp {
    /// The row that lives there.
    pub fn found(&self) -> Option<&FoundRow> {
        match self {
            Self::Read { found, .. } => found.as_ref(),
            Self::Generated => None,
        }
    }

    /// The version that lives there.
    pub fn seq(&self) -> Option<Seq> {
        self.found().map(|found| found.seq)
    }
}

impl Committed {
    /// The sequences of a commit of so many rows, in the order of its writes.
    pub fn seqs(&self, rows: usize) -> Vec<Seq> {
        let mut seqs: Vec<_> =
            std::iter::successors(Some(self.last_seq), |seq| Some(seq.before())).take(rows).collect();
        seqs.reverse();
        seqs
    }
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
    pub(crate) async fn open_over(
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

    /// The hot tier, for tests that look at what is stored.
    #[cfg(test)]
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
        self.inner.hot.disk().check()?;
        // Users may be made before: the first start sets root's password whether or not the object store is there.
        if !matches!(change, CatalogChange::PutUser(_)) {
            self.check_owned()?;
        }
        let dropped = match &change {
            CatalogChange::DropTable { name, .. } => self.catalog().tables.get(name).map(|table| table.uuid),
            _ => None,
        };
        self.inner.committer.catalog_change(change).await?;
        self.inner.flusher.catalog_changed();
        if let Some(table) = dropped {
            self.inner.cold.forget(table);
        }
        Ok(())
    }

    /// A consistent view of everything that was acknowledged before the call.
    pub fn snapshot(&self) -> ReadSnapshot {
        // In this order: what is pinned after the RocksDB snapshot has the cold versions that the snapshot names.
        let hot = self.inner.hot.snapshot().at(self.inner.committer.shared().clock.moment());
        ReadSnapshot { hot, cold: self.inner.cold.pin(), overlay: None }
    }

    /// Begins a transaction over a consistent view of everything that was acknowledged before the call.
    pub fn begin(&self, limits: TransactionLimits) -> Transaction {
        Transaction::begin(self.clone(), limits)
    }

    /// The catalog, and a snapshot of the same moment: no row in it was written with a later schema, and every row of it holds to
    /// the present one.
    pub fn read(&self) -> (Arc<Catalog>, ReadSnapshot) {
        loop {
            let catalog = self.catalog();
            let snapshot = self.snapshot();
            if Arc::ptr_eq(&catalog, &self.catalog()) {
                return (catalog, snapshot);
            }
        }
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

    /// Why the object store can't be used now, for people; none where it can. Writes and reads of hot rows go on without it.
    pub fn object_store_trouble(&self) -> Option<String> {
        self.inner.flusher.store_trouble()
    }

    /// Sizes of the hot tier and its disk.
    pub fn storage_sizes(&self) -> StorageSizes {
        let disk = self.inner.hot.disk().space().unwrap_or_default();
        StorageSizes { column_families: self.inner.hot.sizes(), disk_used: disk.used, disk_free: disk.free }
    }
}

impl ReadSnapshot {
    pub(crate) fn with_overlay(self, overlay: Arc<Overlay>) -> Self {
        Self { overlay: Some(overlay), ..self }
    }

    /// When it was taken, by the database's own time, in microseconds since the Unix epoch: rows of stream tables expire by it.
    pub fn read_at(&self) -> i64 {
        self.hot.moment().now
    }

    /// Looks the keys up, first in what the transaction has written, then hot, then cold, in this snapshot; answers in the order of
    /// the keys. Every answer is a [`LookUp::Read`].
    pub async fn look_up(
        &self,
        table: &Arc<Table>,
        user: Option<&UserId>,
        keys: &[Key],
    ) -> Result<Vec<LookUp>, EngineError> {
        let Some(overlay) = &self.overlay else { return self.look_up_committed(table, user, keys).await };
        Overlay::check(table)?;
        let written = overlay.found(table, user, keys);
        let others: Vec<Key> =
            keys.iter().zip(&written).filter(|(_, written)| written.is_none()).map(|(key, _)| key.clone()).collect();
        let mut committed = self.look_up_committed(table, user, &others).await?.into_iter();
        let cold_version = self.hot.tier(table.id)?.cold_version;
        let look_up = |written: Option<Option<FoundRow>>| match written {
            Some(found) => LookUp::Read { found, cold_version },
            None => committed.next().expect("every other key was looked up"),
        };
        Ok(written.into_iter().map(look_up).collect())
    }

    async fn look_up_committed(
        &self,
        table: &Arc<Table>,
        user: Option<&UserId>,
        keys: &[Key],
    ) -> Result<Vec<LookUp>, EngineError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let cold_version = self.hot.tier(table.id)?.cold_version;
        let hot = self.hot_rows(table, user, keys).await?;
        // A key with a hot version, be it a tombstone, lives nowhere else; one without is masked nowhere.
        let elsewhere: Vec<_> = hot.iter().enumerate().filter(|(_, hot)| hot.is_none()).map(|(at, _)| at).collect();
        let mut found: Vec<_> = hot.into_iter().map(|hot| hot.and_then(FoundRow::of_hot)).collect();
        if cold_version >= 0 && !elsewhere.is_empty() {
            let keys = elsewhere.iter().map(|at| RowKey { user: user.cloned(), key: keys[*at].clone() });
            let snapshot = self.cold.at(table, cold_version).await?;
            let rows = cold::look_up(self.cold.tier(), &snapshot, table, &keys.collect::<Vec<_>>()).await?;
            for (at, row) in elsewhere.into_iter().zip(rows) {
                found[at] = row;
            }
        }
        Ok(found.into_iter().map(|found| LookUp::Read { found, cold_version }).collect())
    }

    /// Few keys are read in place, many on a blocking thread.
    async fn hot_rows(
        &self,
        table: &Arc<Table>,
        user: Option<&UserId>,
        keys: &[Key],
    ) -> Result<Vec<Option<HotRow>>, EngineError> {
        if keys.len() <= INLINE_KEYS {
            return self.hot.rows_at(table, user, keys);
        }
        let (hot, table, user, keys) = (self.hot.clone(), table.clone(), user.cloned(), keys.to_vec());
        let read = move || hot.rows_at(&table, user.as_ref(), &keys);
        tokio::task::spawn_blocking(read).await.expect("reading rows does not panic")
    }

    /// DataFusion's view of the table in this snapshot, with [`Table::sql_schema`]; of a per-user table only that user's rows.
    pub fn provider(&self, table: &Arc<Table>, user: Option<&UserId>) -> Arc<dyn TableProvider> {
        scan::provider(self.hot.clone(), self.cold.clone(), table.clone(), user.cloned(), self.overlay.clone())
    }
}

impl FoundRow {
    /// A hot row; none for a tombstone.
    fn of_hot(hot: HotRow) -> Option<Self> {
        Some(Self { seq: hot.seq, updated: hot.updated, row: hot.row?, place: None })
    }
}

/// Point reads of up to so many keys run on the calling thread.
const INLINE_KEYS: usize = 16;
