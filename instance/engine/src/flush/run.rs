//! One flush of one table, in five steps that each survive a crash.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use deltalake_core::kernel::Action;
use roaring::RoaringTreemap;
use uuid::Uuid;

use super::Intent;
use super::checkpoints::Checkpoints;
use super::owner::{Owner, StoppedTables};
use super::places::JobPlaces;
use crate::EngineError;
use crate::catalog;
use crate::cold::file::{FilePlan, Layout, WrittenFile, write_files};
use crate::cold::log::{self, DeltaLog};
use crate::cold::name::JobName;
use crate::cold::schema::{self, FileColumn};
use crate::cold::snapshot::{ColdFile, Vector};
use crate::cold::{ColdSnapshot, ColdTier, vector};
use crate::commit::clock::Clock;
use crate::commit::{Begun, Committer};
use crate::hot::ahead::RowsAhead;
use crate::hot::batch::RowDecoder;
use crate::hot::{Hot, HotSnapshot};
use crate::plant::{Plant, planted};
use crate::point::point;
use crate::recovery::keeper::Keeper;
use crate::schema::{Table, TableId, USER_ID};
use crate::seq::Seq;

/// Rows that go from the hot tier to the encoder at once.
const BATCH_ROWS: usize = 8192;
/// Hot rows that one commit of step 5 deletes: few enough that no writer waits long behind it.
const DELETE_ROWS: usize = 2048;
/// How long entries of a Delta log stay once a checkpoint has replaced them: 30 days, Delta's own default.
pub(super) const LOG_RETENTION_MS: i64 = 30 * 24 * 3600 * 1000;

/// What one process knows of a table's Delta commits, which are serial: whoever makes one holds this.
#[derive(Debug, Default)]
pub struct Lane {
    /// Whether this epoch has taken a version, so that no earlier one can commit any more.
    pub fenced: bool,
    /// When a checkpoint of the log is due.
    pub checkpoints: Checkpoints,
    /// When the whole log was last listed, in milliseconds since the Unix epoch; none before the first time.
    pub listed: Option<i64>,
}

/// What a flush moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Rows written.
    pub rows: u64,
    /// Bytes of Parquet.
    pub bytes: u64,
}

/// All that a flush needs.
pub struct Runner {
    pub(crate) hot: Arc<Hot>,
    pub(crate) committer: Committer,
    pub(crate) cold: Arc<ColdTier>,
    pub(crate) owner: Arc<Owner>,
    pub(crate) clock: Arc<dyn Clock>,
    /// What a Delta commit waits for.
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) target_file_bytes: u64,
    /// Tables that met a commit which nobody here began, and why: for the rest of this process's life they take nothing.
    pub(crate) stopped: StoppedTables,
    /// Attempts of this process that may still write files or begin a commit: nothing of theirs is an orphan.
    pub(crate) alive: parking_lot::Mutex<HashMap<Uuid, TableId>>,
    /// Where the rows lie of the flushes that run.
    pub(crate) places: parking_lot::Mutex<HashMap<Uuid, Arc<JobPlaces>>>,
    /// Versions from one checkpoint to the next; tests let them come sooner.
    pub(crate) checkpoint_interval: AtomicI64,
}

/// Says that an attempt is alive, as long as it exists.
pub struct Alive<'a> {
    runner: &'a Runner,
    attempt: Uuid,
}

impl Alive<'_> {
    /// Its id.
    pub fn id(&self) -> Uuid {
        self.attempt
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.runner.alive.lock().remove(&self.attempt);
    }
}

/// Says that the places of a job's rows are known, as long as it exists.
struct KnownPlaces<'a> {
    runner: &'a Runner,
    job: Uuid,
}

impl Drop for KnownPlaces<'_> {
    fn drop(&mut self) {
        self.runner.places.lock().remove(&self.job);
    }
}

impl Runner {
    /// Begins an attempt on the table, under an id of its own.
    pub(crate) fn begin_attempt(&self, table: &Table) -> Alive<'_> {
        let attempt = Uuid::new_v4();
        self.alive.lock().insert(attempt, table.id);
        Alive { runner: self, attempt }
    }

    /// Stops the table: nothing may be overwritten.
    pub(crate) fn stop(&self, table: &Table, reason: String) -> EngineError {
        tracing::error!(table = %table.name, %reason, "the table is stopped");
        self.stopped.lock().insert(table.id, reason.clone());
        EngineError::TableStopped { table: table.name.clone(), reason }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_micros() / 1000
    }

    /// Flushes everything above `flushed_through`. `begun` is told the intent's version once that is stored, `wrote` of
    /// rows as they go into files.
    pub async fn flush(
        &self,
        table: &Arc<Table>,
        lane: &mut Lane,
        attempt: Uuid,
        begun: impl FnOnce(i64) -> Result<(), EngineError>,
        wrote: impl Fn(u64) + Send + 'static,
    ) -> Result<Flushed, EngineError> {
        self.take_over(table, lane).await?;
        // An earlier job whose end was unknown may turn out to have moved everything.
        if !self.has_unflushed(table) {
            self.delete_flushed(table).await?;
            return Ok(Flushed::default());
        }
        let Begun { intent, snapshot } = self.committer.begin_flush(table, self.owner.epoch()?, attempt).await?;
        crash_point!("flush.begun");
        begun(intent.version)?;
        crash_point!("flush.noted");
        point!("flush.begun");
        // An ALTER may have come first: the files need the schema that their rows were written with.
        let table = &catalog::table_at(&snapshot, table.id)?.map_or_else(|| table.clone(), Arc::new);
        let before = self.cold.at(table, intent.version - 1).await?;
        let (files, places) = self.write_rows(table, &intent, snapshot.clone(), wrote).await?;
        let _known = self.know_places(intent.job, places);
        crash_point!("flush.files_written");
        let mut actions = log::schema_actions(table, &before);
        actions.extend(self.hide_masked_rows(table, &intent, &before, &snapshot).await?);
        actions.extend(files.iter().map(|file| Action::Add(self.cold_file(file).to_add())));
        crash_point!("flush.vectors_written");
        point!("flush.written");
        self.commit(table, lane, &intent, &actions).await?;
        crash_point!("flush.settled");
        point!("flush.ended");
        self.delete_flushed(table).await?;
        crash_point!("flush.deleted");
        self.checkpoint(table, lane, intent.version).await;
        Ok(Flushed {
            rows: files.iter().map(|file| file.stats.rows).sum(),
            bytes: files.iter().map(|file| file.size).sum(),
        })
    }

    /// Step 2: the rows of the snapshot, which is exactly that of W, in key order.
    async fn write_rows(
        &self,
        table: &Arc<Table>,
        intent: &Intent,
        snapshot: HotSnapshot,
        wrote: impl Fn(u64) + Send + 'static,
    ) -> Result<(Vec<WrittenFile>, Option<JobPlaces>), EngineError> {
        let schema = schema::file_schema(table);
        let plan = self.file_plan(table, JobName::of(intent));
        let columns = schema::file_columns(table);
        let with_user = table.kind.is_per_user();
        let mut scan = snapshot.scan(table, None, with_user);
        if planted(Plant::RowsUpToW) {
            scan = scan.between(Seq::ZERO, intent.w);
        } else if planted(Plant::SnapshotAfterStep1) {
            let flushed_through = snapshot.tier(table.id)?.flushed_through;
            let later = self.hot.snapshot().scan(table, None, with_user);
            scan = later.between(flushed_through, intent.w);
        }
        let decoder = RowDecoder::new(table, None, with_user);
        let (mut rows, scanned) = RowsAhead::begin(scan.once(), BATCH_ROWS);
        let next = move || rows.blocking_next().transpose();
        let batches = std::iter::from_fn(next).fuse().map(move |rows| {
            let batch = decoder.decode(rows?)?;
            wrote(batch.num_rows() as u64);
            let arrays = columns.iter().map(|column| {
                let array = batch.column_by_name(&column.name).ok_or_else(|| EngineError::Corrupt {
                    what: "batch of hot rows".into(),
                    reason: format!("it has no column {}", if column.name == USER_ID { USER_ID } else { &column.name }),
                })?;
                as_stored(array, column)
            });
            let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
            RecordBatch::try_new(schema.clone(), arrays)
                .map_err(|error| EngineError::Cold { action: "shape hot rows for a file".into(), source: error.into() })
        });
        let files = write_files(self.cold.store(), &self.cold.log(table.uuid), plan, batches).await?;
        let ordinals = scanned.await.ok().and_then(|mut scan| scan.take_ordinals());
        let places = ordinals.and_then(|ordinals| JobPlaces::new(table.clone(), snapshot, ordinals, &files));
        Ok((files, places))
    }

    /// Remembers where a job's rows lie, until what is returned is dropped.
    fn know_places(&self, job: Uuid, places: Option<JobPlaces>) -> KnownPlaces<'_> {
        if let Some(places) = places {
            self.places.lock().insert(job, Arc::new(places));
        }
        KnownPlaces { runner: self, job }
    }

    /// How a job writes its files.
    pub(crate) fn file_plan(&self, table: &Table, job: JobName) -> FilePlan {
        FilePlan {
            schema: schema::file_schema(table),
            looked_up: schema::looked_up_columns(table),
            name_prefix: job.file_prefix(),
            target_bytes: self.target_file_bytes,
            layout: Layout::default(),
        }
    }

    /// The masks of versions up to W as deletion vectors: each file's old entry goes, its new one comes.
    async fn hide_masked_rows(
        &self,
        table: &Arc<Table>,
        intent: &Intent,
        before: &ColdSnapshot,
        snapshot: &HotSnapshot,
    ) -> Result<Vec<Action>, EngineError> {
        let masks = snapshot.masked_rows(table.id)?;
        let mut changed = Vec::with_capacity(masks.len());
        for (path, mut rows) in masks {
            let file = before.file(&path).ok_or_else(|| EngineError::Corrupt {
                what: format!("mask of table {}", table.name),
                reason: format!("version {} has no file {path}", before.version),
            })?;
            if let Some(hidden) = self.cold.hidden_rows(table.uuid, file).await? {
                rows |= hidden;
            }
            changed.push((file.clone(), rows));
        }
        let kept: Vec<RoaringTreemap> =
            changed.iter().filter(|(file, rows)| is_kept(file, rows)).map(|(_, rows)| rows.clone()).collect();
        let mut descriptors = Vec::new();
        if !kept.is_empty() {
            let encoded = vector::encode(&JobName::of(intent), &kept)?;
            let path = self.cold.log(table.uuid).path_of(&encoded.name);
            self.cold.store().put(&path, encoded.bytes).await?;
            descriptors = encoded.descriptors;
        }
        let mut descriptors = descriptors.into_iter();
        let mut actions = Vec::new();
        for (file, rows) in changed {
            actions.push(Action::Remove(file.to_remove(self.now_ms())));
            if is_kept(&file, &rows) {
                let vector = descriptors.next().map(|descriptor| Arc::new(Vector::new(descriptor)));
                actions.push(Action::Add(ColdFile { vector, ..ColdFile::clone(&file) }.to_add()));
            }
        }
        Ok(actions)
    }

    /// Steps 3 and 4.
    pub(crate) async fn commit(
        &self,
        table: &Arc<Table>,
        lane: &mut Lane,
        intent: &Intent,
        actions: &[Action],
    ) -> Result<(), EngineError> {
        // Once it has landed, a commit that does not fit the version before it could never be settled.
        self.cold.at(table, intent.version - 1).await?.after(actions, &schema::file_schema(table))?;
        // An ALTER since the job began may have brought a schema that no mirror names yet.
        self.keeper.await_named(table, intent.epoch).await?;
        crash_point!("delta.named");
        let commit = DeltaLog::encode(intent, actions, self.now_ms());
        let settled = self.put_and_settle(table, lane, intent, commit).await?;
        if settled == *intent {
            Ok(())
        } else {
            Err(EngineError::Unavailable(format!("{settled} came first; try again")))
        }
    }

    /// Step 5: hot rows that no read sees any more.
    pub(crate) async fn delete_flushed(&self, table: &Table) -> Result<(), EngineError> {
        let mut after = None;
        loop {
            after = self.committer.delete_flushed(table, after, DELETE_ROWS).await?;
            if after.is_none() {
                break;
            }
        }
        // Until then every scan of the hot tier steps over what was deleted. Nothing else depends on it.
        let (hot, kind) = (self.hot.clone(), table.kind);
        let released = tokio::task::spawn_blocking(move || hot.release_memtable(kind));
        if let Err(error) = released.await.expect("RocksDB does not panic") {
            tracing::warn!(table = %table.name, %error, "a memtable was not written out; it will be once it is full");
        }
        Ok(())
    }

    /// A checkpoint only saves later loads some reads: where it fails, the job has still succeeded, and a later one writes it.
    pub(crate) async fn checkpoint(&self, table: &Table, lane: &mut Lane, version: i64) {
        let interval = self.checkpoint_interval.load(Ordering::Relaxed);
        if !lane.checkpoints.is_due(version, interval) {
            return;
        }
        crash_point!("checkpoint.due");
        let log = self.cold.log(table.uuid);
        if let Err(error) = log.checkpoint(version).await {
            tracing::warn!(table = %table.name, version, %error, "a checkpoint was not written; a later job will write it");
            lane.checkpoints.failed(version);
            return;
        }
        crash_point!("checkpoint.written");
        lane.checkpoints.written(version);
        if let Err(error) = log.clean_up(version, self.now_ms() - LOG_RETENTION_MS).await {
            tracing::warn!(table = %table.name, version, %error, "old entries of a log were not removed; the next checkpoint tries again");
        }
    }

    /// Whether the table has row versions above `flushed_through`.
    pub(crate) fn has_unflushed(&self, table: &Table) -> bool {
        self.committer.unflushed().iter().any(|unflushed| unflushed.table.id == table.id && unflushed.rows > 0)
    }

    pub(crate) fn cold_file(&self, file: &WrittenFile) -> ColdFile {
        ColdFile {
            path: file.name.as_str().into(),
            size: file.size,
            modified: self.now_ms(),
            stats: Arc::new(file.stats.clone()),
            vector: None,
        }
    }
}

/// The values in the type that files have, which is wider where the column was narrowed.
fn as_stored(array: &ArrayRef, column: &FileColumn) -> Result<ArrayRef, EngineError> {
    let wanted = column.sql_type.arrow();
    if *array.data_type() == wanted {
        return Ok(array.clone());
    }
    cast(array, &wanted)
        .map_err(|error| EngineError::Cold { action: "shape hot rows for a file".into(), source: error.into() })
}

/// A file of which every row is hidden leaves the table.
fn is_kept(file: &ColdFile, hidden: &RoaringTreemap) -> bool {
    hidden.len() < file.stats.rows
}
