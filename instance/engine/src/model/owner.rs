//! One process: a real engine over a volume of its own, of which nothing runs by itself, and the history that it must serve.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rocksdb::checkpoint::Checkpoint;
use tempfile::TempDir;

use super::bucket::{Bucket, ColdRow, Place};
use super::reference::{RowId, State, TableHistory, VALUE, key_of, known_user, number_of, row_ids, to_cells, user_of};
use super::wire::{Fate, Sea, Wire};
use crate::cold::{ColdStore, ColdTier};
use crate::commit::clock::{Clock, SystemClock};
use crate::config::{CompactionConfig, Durability, EngineConfig, FlushConfig, Limits, ObjectStoreConfig, VacuumConfig};
use crate::engine::{Engine, ReadSnapshot, Readiness};
use crate::flush::Epoch;
use crate::hot::row::{RowReader, decode_row};
use crate::hot::store::Family;
use crate::hot::volume::Life;
use crate::hot::{HotSnapshot, RowKey, key};
use crate::schema::{Table, TableId, TableName};
use crate::seq::{EPOCH_MS, Seq};

/// A clock that every reading moves by a millisecond. It begins in the present: readers of a Delta log count the age of tombstones by the
/// computer's clock.
pub struct Ticks(AtomicI64);

impl Ticks {
    /// Begins when the process that runs the tests first asked.
    pub fn new() -> Self {
        static BEGAN: OnceLock<i64> = OnceLock::new();
        // At the same place in the buckets of stream tables, whenever that is.
        let minute = |now: i64| now - (now - EPOCH_MS * 1000).rem_euclid(62_000_000);
        Self(AtomicI64::new(*BEGAN.get_or_init(|| minute(SystemClock.now_micros()))))
    }

    /// Begins when every tick of the first is over.
    pub fn later() -> Self {
        let ticks = Self::new();
        ticks.0.fetch_add(1_000_000_000, Ordering::SeqCst);
        ticks
    }

    /// What the next reading says.
    pub fn next(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Time goes by.
    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for Ticks {
    fn now_micros(&self) -> i64 {
        self.0.fetch_add(1000, Ordering::SeqCst)
    }
}

/// Versions from one checkpoint to the next: few, so that short programs write some.
const CHECKPOINT_INTERVAL: i64 = 4;

/// A volume that is not in use: a copy of one as it was at a moment.
#[derive(Debug)]
pub struct Volume(TempDir);

/// A process.
pub struct Owner {
    /// Tells it from all others.
    pub id: u32,
    /// Which line of volumes it goes on: a restart keeps it, an empty or a restored volume begins a new one.
    pub line: u32,
    /// The engine.
    pub engine: Engine,
    /// What it must serve, by table; nothing before it is known whether it serves.
    pub tables: BTreeMap<TableName, TableHistory>,
    /// Whether it knows its history: not so an empty volume that is still to be recovered.
    pub serves: bool,
    /// What becomes of the next Delta commit that it sends.
    pub fate: Arc<Mutex<Fate>>,
    /// Commits that it has sent to the store.
    pub sent: Arc<AtomicUsize>,
    /// After the engine: it goes when that is gone.
    _volume: Volume,
}

/// A row that reads see, and where it lies; none is the hot tier.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveRow {
    /// Which.
    pub row: RowId,
    /// [`VALUE`].
    pub value: i64,
    /// Its place in the cold tier.
    pub place: Option<Place>,
}

/// A mask as it is stored, and the hot version that must explain it.
#[derive(Debug)]
pub struct MaskedRow {
    /// Where the row lies that it hides.
    pub place: Place,
    /// The key that it names.
    pub row: RowId,
    /// The version that superseded the row.
    pub seq: Seq,
    /// The newest version of the key above `flushed_through`.
    pub newest: Option<Seq>,
}

impl Volume {
    /// An empty one, in memory where the computer offers that.
    pub fn empty() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self(folder.expect("a folder can be made"))
    }

    fn hot(&self) -> PathBuf {
        self.0.path().join("hot")
    }

    /// Another with the same content.
    pub fn copy(&self) -> Self {
        let copy = Self::empty();
        std::fs::create_dir(copy.hot()).expect("a folder can be made");
        for entry in std::fs::read_dir(self.hot()).expect("the volume can be listed") {
            let entry = entry.expect("the volume can be listed");
            std::fs::copy(entry.path(), copy.hot().join(entry.file_name())).expect("a file can be copied");
        }
        copy
    }
}

fn config(volume: &Volume) -> EngineConfig {
    EngineConfig {
        data_dir: volume.0.path().into(),
        object_store: ObjectStoreConfig::Local { path: volume.0.path().join("unused") },
        durability: Durability::Os,
        flush: FlushConfig { max_concurrent: 64, ..FlushConfig::default() },
        compaction: CompactionConfig { automatic: false, max_concurrent: 64, ..CompactionConfig::default() },
        vacuum: VacuumConfig { retention: Duration::from_secs(3600), ..VacuumConfig::default() },
        limits: Limits {
            block_cache_bytes: 1 << 20,
            footer_cache_bytes: 1 << 20,
            disk_reserve_bytes: 0,
            reserve_file_bytes: 0,
            memtable_bytes: 4 << 20,
            // RocksDB sets so much aside for each log.
            wal_bytes: 512 << 10,
            ..Limits::default()
        },
    }
}

impl Owner {
    /// Opens a volume.
    pub async fn open(id: u32, line: u32, volume: Volume, sea: Arc<Sea>, clock: Arc<Ticks>) -> Self {
        let wire = Wire::new(sea);
        let (fate, sent) = (wire.fate.clone(), wire.sent.clone());
        let store = ColdStore::over(Arc::new(wire), "", "the model's store");
        let engine = Engine::assemble(config(&volume), clock, ColdTier::over(store, 1 << 20)).await;
        let engine = engine.expect("a volume that was closed or killed can be opened");
        engine.committer().end_background().await;
        engine.flusher().runner.checkpoint_interval.store(CHECKPOINT_INTERVAL, Ordering::Relaxed);
        Self { id, line, engine, tables: BTreeMap::new(), serves: false, fate, sent, _volume: volume }
    }

    /// The volume as it is now, which is what a crash would leave: commits since the last memtable are in the log.
    pub fn volume(&self) -> Volume {
        self.checkpoint(u64::MAX)
    }

    /// The same with an empty log, which is opened faster.
    pub fn settled_volume(&self) -> Volume {
        self.checkpoint(0)
    }

    fn checkpoint(&self, largest_log: u64) -> Volume {
        let copy = Volume::empty();
        let checkpoint = Checkpoint::new(self.engine.hot().db().as_ref()).expect("a checkpoint can be begun");
        checkpoint.create_checkpoint_with_log_size(copy.hot(), largest_log).expect("a checkpoint can be made");
        copy
    }

    /// Its epoch; none before it has claimed one.
    pub fn epoch(&self) -> Option<Epoch> {
        self.engine.flusher().runner.owner.epoch().ok()
    }

    /// The present life of its volume.
    pub fn life(&self) -> Life {
        self.engine.life()
    }

    /// Why a table takes nothing any more.
    pub fn stopped(&self, table: TableId) -> Option<String> {
        self.engine.flusher().runner.stopped.lock().get(&table).cloned()
    }

    /// Why it may not go on as an owner at all.
    pub fn refused(&self) -> Option<String> {
        match self.engine.readiness() {
            Readiness::NotReady { reason: reason @ ("VolumeBehind" | "VolumeEmpty" | "VolumeForeign"), message } => {
                Some(format!("{reason}: {message}"))
            }
            _ => None,
        }
    }

    /// The histories of tables that are served.
    pub fn served(&self) -> impl Iterator<Item = &TableHistory> {
        let serves = self.serves;
        self.tables.values().filter(move |history| serves && self.stopped(history.table.id).is_none())
    }

    /// What a reader must find in its snapshot, which was taken just now.
    pub fn expected(&self, snapshot: &ReadSnapshot) -> Vec<(Arc<Table>, Arc<State>)> {
        self.served().map(|history| (history.table.clone(), history.seen_at(snapshot.read_at()))).collect()
    }

    /// What one RocksDB snapshot sees of a table: cold rows minus masks, and hot rows above `flushed_through`. Fails with what is not to be.
    pub fn live_rows(&self, table: &Arc<Table>, bucket: &Bucket) -> Result<Vec<LiveRow>, String> {
        let hot = self.engine.hot().snapshot();
        let tier = hot.tier(table.id).map_err(|error| error.to_string())?;
        let masked: HashSet<Place> = hot
            .masks(table)
            .map_err(|error| error.to_string())?
            .into_iter()
            .map(|mask| (mask.file, mask.row))
            .collect();
        let mut live = Vec::new();
        if tier.cold_version >= 0 {
            let version = bucket.version(table.uuid, tier.cold_version);
            let version = version.ok_or_else(|| format!("its cold version {} is not in the log", tier.cold_version))?;
            let visible = version.rows.iter().filter(|(place, _)| !masked.contains(place));
            live.extend(visible.map(|(place, ColdRow { row, value, .. })| LiveRow {
                row: *row,
                value: *value,
                place: Some(place.clone()),
            }));
        }
        for found in hot.rows(table, None) {
            let found = found.map_err(|error| error.to_string())?;
            if let Some(cells) = found.row.map(|row| to_cells(table, &row)) {
                live.push(LiveRow { row: row_id(table, &found.key), value: cells[VALUE], place: None });
            }
        }
        Ok(live)
    }

    /// What is hot now, read at this moment.
    pub fn now(&self) -> HotSnapshot {
        self.engine.hot().snapshot().at(self.engine.committer().shared().clock.moment())
    }

    /// Every stored version of a stream table's rows, and its `_updated`.
    pub fn stream_versions(&self, hot: &HotSnapshot, table: &Arc<Table>) -> Result<Vec<(LiveRow, i64)>, String> {
        let (mut versions, reader) = (Vec::new(), RowReader::of_all(table));
        let read = hot.each(Family::StreamTable, &key::table_prefix(table.id), |stored, bytes| {
            // After its time bucket.
            let found = RowKey::from_bytes(table.kind, &stored[8..])?;
            let (header, row) = decode_row(table, &reader, bytes)?;
            let value = row.map(|row| to_cells(table, &row)[VALUE]).expect("stream tables have no tombstones");
            versions.push((LiveRow { row: row_id(table, &found), value, place: None }, header.updated));
            Ok(())
        });
        read.map_err(|error| error.to_string())?;
        Ok(versions)
    }

    /// What look-ups find in the hot tier.
    pub fn looked_up(&self, hot: &HotSnapshot, table: &Arc<Table>) -> Result<BTreeMap<RowId, i64>, String> {
        let text = |error: crate::EngineError| error.to_string();
        let mut found = BTreeMap::new();
        for row in row_ids(table) {
            let key = key_of(table, row).map_err(text)?;
            let rows = hot.rows_at(table, user_of(row).as_ref(), &[key]).map_err(text)?;
            let cells = rows.into_iter().flatten().filter_map(|found| found.row).map(|cells| to_cells(table, &cells));
            found.extend(cells.map(|cells| (row, cells[VALUE])));
        }
        Ok(found)
    }

    /// The masks of a table.
    pub fn masks(&self, table: &Arc<Table>) -> Result<Vec<MaskedRow>, String> {
        let hot = self.engine.hot().snapshot();
        let text = |error: crate::EngineError| error.to_string();
        let newest: Result<BTreeMap<_, _>, _> =
            hot.rows(table, None).map(|row| row.map(|row| (row_id(table, &row.key), row.seq))).collect();
        let newest = newest.map_err(text)?;
        let masks = hot.masks(table).map_err(text)?.into_iter().map(|mask| {
            let row = row_id(table, &mask.key);
            MaskedRow { place: (mask.file, mask.row), row, seq: mask.seq, newest: newest.get(&row).copied() }
        });
        Ok(masks.collect())
    }
}

/// Which row a stored key is of.
pub fn row_id(table: &Table, found: &RowKey) -> RowId {
    let user = found.user.as_ref().map(|user| known_user(user.as_str()));
    let values = key::decode_key(table, &found.key).expect("a stored key can be read");
    let number = values.first().and_then(number_of).expect("keys are integers");
    (user, i32::try_from(number).expect("keys are small"))
}
