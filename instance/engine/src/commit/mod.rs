//! The committer: every change passes here, one at a time, and is durable before it is acknowledged.
//!
//! One named thread takes all writes that wait, checks that what each of them read still holds, puts them into one RocksDB batch,
//! syncs once, and then answers each. It does no I/O but RocksDB's: what has gone stale returns to its caller. The ends of a
//! flush, fences and catalog changes are commits of their own, and pass through the same queue ([`record`]).
//!
//! * [`clock`]: where `_seq` and `_updated` come from;
//! * [`judge`]: whether what a write read still holds; pure;
//! * `queue`: the way in, and the thread; `group`: the batch of all rows that wait;
//! * `writer`, `tiers`, `compaction`, `access`, [`recovery`]: commits that go alone;
//! * `trim`, `expiry`: `background` threads that let the oldest changes, and expired rows of stream tables, go;
//! * [`unflushed`], [`retention`], `rebuild`: what is known in memory of rows to flush and of the change log.

mod access;
mod background;
pub mod clock;
mod compaction;
mod expiry;
mod group;
pub mod judge;
mod queue;
mod rebuild;
pub mod record;
pub mod recovery;
pub mod retention;
mod tiers;
mod trim;
pub mod unflushed;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use crate::EngineError;
use crate::access::{Access, AccessChange};
use crate::catalog::{self, Catalog, CatalogChange};
use crate::config::EngineConfig;
use crate::engine::{Place, Unflushed};
use crate::flush::{Epoch, Intent};
#[cfg(test)]
use crate::hot::stream::Buckets;
use crate::hot::{Hot, HotSnapshot, RowKey};
use crate::observe::Observing;
use crate::point::point;
use crate::recovery::fence::Fenced;
use crate::schema::{Table, TableId};
use crate::seq::Seq;

use background::Background;
use clock::{Clock, SeqClock};
use queue::{Message, Outcome, QUEUE_UNIT};
use record::{CommitRecord, FlushedRows};
use recovery::Recovered;
use retention::ChangeLogs;
use unflushed::Counters;
use writer::Writer;

/// The committer's handle. Cheap to clone; all clones feed the same thread.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::Sender<Message>,
    waiting: Arc<Semaphore>,
    waiting_units: u32,
    shared: Arc<Shared>,
    threads: Arc<Threads>,
}

/// What the committer's thread publishes.
pub(crate) struct Shared {
    pub(crate) hot: Arc<Hot>,
    pub(crate) clock: SeqClock,
    pub(crate) catalog: ArcSwap<Catalog>,
    pub(crate) unflushed: Mutex<HashMap<TableId, Counters>>,
    pub(crate) changes: Mutex<ChangeLogs>,
    /// The last sequence of a commit of rows that is on disk.
    committed: AtomicI64,
    /// Who is told that the catalog has changed.
    pub(crate) observing: Observing,
    pub(crate) access: Mutex<Access>,
}

impl Shared {
    /// Every snapshot that is taken from now on has all commits of rows up to this one.
    pub(crate) fn committed(&self) -> Seq {
        Seq(self.committed.load(Ordering::Acquire))
    }

    /// Called once a commit up to this one is on disk, and before it is answered.
    fn set_committed(&self, last: Seq) {
        self.committed.store(last.0, Ordering::Release);
    }
}

struct Threads {
    writer: Mutex<Option<JoinHandle<()>>>,
    background: Mutex<Vec<Background>>,
}

/// A flush that the committer has begun.
pub struct Begun {
    /// What was stored: the Delta version to take, and W.
    pub intent: Intent,
    /// Rows and masks exactly as of W.
    pub snapshot: HotSnapshot,
}

impl Committer {
    /// Loads the catalog, rebuilds what is known of unflushed rows and of the change log, and starts the thread.
    pub fn start(hot: Arc<Hot>, config: &EngineConfig, clock: Arc<dyn Clock>) -> Result<Self, EngineError> {
        let catalog = catalog::load_or_begin(&hot, clock.now_micros() / 1000)?;
        let rebuilt = rebuild::rebuild(&hot, &catalog)?;
        rebuild::check_high_water(&hot, &rebuilt.tables)?;
        let shared = Arc::new(Shared {
            clock: SeqClock::new(clock, hot.volume().worker, hot.high_water()),
            catalog: ArcSwap::from_pointee(catalog),
            unflushed: Mutex::new(rebuilt.unflushed),
            changes: Mutex::new(rebuilt.changes),
            committed: AtomicI64::new(hot.high_water().seq.0),
            observing: Observing::default(),
            access: Mutex::new(crate::access::load(&hot)?),
            hot,
        });
        let (queue, messages) = mpsc::channel(config.limits.commit_queue);
        let writer = Writer::new(shared.clone(), rebuilt.tables, config).spawn(messages)?;
        let waiting_units = u32::try_from(config.limits.commit_queue_bytes / QUEUE_UNIT).unwrap_or(u32::MAX).max(1);
        let committer = Self {
            queue,
            waiting: Arc::new(Semaphore::new(waiting_units as usize)),
            waiting_units,
            shared,
            threads: Arc::new(Threads { writer: Mutex::new(Some(writer)), background: Mutex::default() }),
        };
        let trimmer = trim::start(committer.queue.clone(), committer.shared.clone(), &config.limits)?;
        let expiry = expiry::start(committer.queue.clone(), committer.shared.clone())?;
        committer.threads.background.lock().extend([trimmer, expiry]);
        Ok(committer)
    }

    /// Commits one change of the catalog, with what is kept of who made it.
    pub async fn catalog_change(&self, change: CatalogChange, recorded: Vec<AccessChange>) -> Result<(), EngineError> {
        self.submit(CommitRecord::Catalog { change, recorded }, QUEUE_UNIT).await.map(drop)
    }

    /// Brings an empty volume back from what the object store holds, in one batch. Refuses where the volume is not empty.
    pub async fn recover(&self, recovered: Recovered) -> Result<(), EngineError> {
        self.submit(CommitRecord::Recover(Box::new(recovered)), QUEUE_UNIT).await.map(drop)
    }

    /// Brings a table back whose Delta log could not be read when its volume was recovered, in its next version if there is one.
    pub async fn recover_table(&self, table: TableId, fenced: Fenced, next: Option<Table>) -> Result<(), EngineError> {
        let Fenced { tier, high_water, .. } = fenced;
        let next = next.map(Box::new);
        self.submit(CommitRecord::RecoverTable { table, tier, high_water, next }, QUEUE_UNIT).await.map(drop)
    }

    /// Step 1 of a flush: fixes W, stores the intent, and takes the snapshot from which files are written, at one point of the
    /// order of commits. Refuses where an intent of the table is unsettled, or nothing lies above `flushed_through`.
    pub async fn begin_flush(&self, table: &Table, epoch: Epoch, job: Uuid) -> Result<Begun, EngineError> {
        match self.submit(CommitRecord::BeginFlush { table: table.id, epoch, job }, QUEUE_UNIT).await? {
            Outcome::Begun(intent, snapshot) => Ok(Begun { intent, snapshot }),
            other => unreachable!("the begin of a flush ends in {other:?}"),
        }
    }

    /// Stores the intent of a fence. It joins unsettled ones: until something took their version, theirs may still land.
    pub async fn store_fence(&self, table: TableId, epoch: Epoch, job: Uuid) -> Result<Intent, EngineError> {
        match self.submit(CommitRecord::StoreFence { table, epoch, job }, QUEUE_UNIT).await? {
            Outcome::Stored(intent) => Ok(intent),
            other => unreachable!("a fence's intent ends in {other:?}"),
        }
    }

    /// Step 4 of a flush whose Delta commit has landed. `places` says for each dirty key where it lies in the new files, or that
    /// it does not; the keys that it leaves out come back, and nothing has changed then.
    pub async fn end_flush(
        &self,
        table: TableId,
        intent: &Intent,
        places: HashMap<RowKey, Option<Place>>,
    ) -> Result<Result<(), Vec<RowKey>>, EngineError> {
        let places = places.into_iter().collect();
        let record = CommitRecord::EndFlush { table, intent: intent.clone(), places };
        match self.submit(record, QUEUE_UNIT).await? {
            Outcome::Done => Ok(Ok(())),
            Outcome::Missing(keys) => Ok(Err(keys)),
            other => unreachable!("the end of a flush ends in {other:?}"),
        }
    }

    /// Stores the intent of a compaction that has read version `base`. [`EngineError::Stale`] where that is no longer the newest: it
    /// is given up then, and never rebased.
    pub async fn store_compaction(
        &self,
        table: TableId,
        epoch: Epoch,
        job: Uuid,
        base: i64,
    ) -> Result<Intent, EngineError> {
        match self.submit(CommitRecord::StoreCompaction { table, epoch, job, base }, QUEUE_UNIT).await? {
            Outcome::Stored(intent) => Ok(intent),
            other => unreachable!("a compaction's intent ends in {other:?}"),
        }
    }

    /// A compaction has landed. `places` says for each mask on a replaced file where its key lies in the new files, or that it does
    /// not; the keys that it leaves out come back, and nothing has changed then.
    pub async fn end_compaction(
        &self,
        table: TableId,
        intent: &Intent,
        replaced: Vec<Arc<str>>,
        places: HashMap<RowKey, Option<Place>>,
    ) -> Result<Result<(), Vec<RowKey>>, EngineError> {
        let places = places.into_iter().collect();
        let record = CommitRecord::EndCompaction { table, intent: intent.clone(), replaced, places };
        match self.submit(record, QUEUE_UNIT).await? {
            Outcome::Done => Ok(Ok(())),
            Outcome::Missing(keys) => Ok(Err(keys)),
            other => unreachable!("the end of a compaction ends in {other:?}"),
        }
    }

    /// A fence has landed: its version is the table's, and no other intent can land any more.
    pub async fn end_fence(&self, table: TableId, intent: &Intent) -> Result<(), EngineError> {
        self.submit(CommitRecord::EndFence { table, intent: intent.clone() }, QUEUE_UNIT).await.map(drop)
    }

    /// Step 5 of a flush: deletes rows that lie in the cold tier now, from the key `after` on. All of them at once where the table has no
    /// newer one; otherwise those among at most `limit` rows. Answers where to go on; none at the end of the table.
    pub async fn delete_flushed(
        &self,
        table: &Table,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let (id, kind) = (table.id, table.kind);
        let delete = async |what, bytes| self.submit(CommitRecord::DeleteFlushed { table: id, what }, bytes).await;
        if after.is_none() && !matches!(delete(FlushedRows::Whole, QUEUE_UNIT).await?, Outcome::NotAll) {
            return Ok(None);
        }
        let hot = self.shared.hot.clone();
        let scan = move || hot.snapshot().flushed_part(id, kind, &after.unwrap_or_default(), limit);
        let part = tokio::task::spawn_blocking(scan).await.expect("the scan does not panic")?;
        point!("flush.scanned");
        if let Some(range) = part.range {
            delete(FlushedRows::Part(range), part.bytes).await?;
        }
        Ok(part.next)
    }

    /// The newest catalog.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.catalog.load_full()
    }

    /// Tables that have row versions above `flushed_through`.
    pub fn unflushed(&self) -> Vec<Unflushed> {
        let catalog = self.shared.catalog.load();
        let counted = self.shared.unflushed.lock();
        let unflushed = |table: &Arc<Table>| {
            let counters = counted.get(&table.id)?;
            let (rows, bytes, oldest) = (counters.rows(), counters.bytes(), counters.oldest()?);
            Some(Unflushed { table: table.clone(), rows, bytes, oldest })
        };
        catalog.tables.values().filter_map(unflushed).collect()
    }

    /// Lets the oldest changes of a table go at once.
    #[cfg(test)]
    pub(crate) fn trim(&self, table: TableId, floor: crate::seq::Seq) -> Result<(), EngineError> {
        trim::trim(&self.queue, &self.shared, table, floor)
    }

    /// Drops what has expired of a stream table at once.
    #[cfg(test)]
    pub(crate) fn drop_expired(&self, table: &Table) -> Result<(), EngineError> {
        let Some(buckets) = Buckets::of(table) else { return Ok(()) };
        expiry::drop_expired(&self.queue, &self.shared, table, buckets, &mut expiry::Dropped::new()).map(drop)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Ends the threads that send commits of their own.
    pub(crate) async fn end_background(&self) {
        let background = std::mem::take(&mut *self.threads.background.lock());
        let stopped = tokio::task::spawn_blocking(move || background.into_iter().for_each(Background::stop));
        stopped.await.expect("joining threads does not panic");
    }

    /// Commits what waits, and ends the threads: first those that send commits of their own.
    pub async fn close(&self) {
        self.end_background().await;
        // Where the thread is gone already, there is nothing to stop.
        let _ = self.queue.send(Message::Stop).await;
        let writer = self.threads.writer.lock().take();
        // The thread ends the process where it panics, so that joining it can't fail.
        let joined = tokio::task::spawn_blocking(move || drop(writer.map(JoinHandle::join)));
        joined.await.expect("joining threads does not panic");
    }
}

#[cfg(test)]
mod tests;
