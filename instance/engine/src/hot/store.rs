//! RocksDB, opened once: its families and their options, whose volume it is, and the few records that pass no committer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    FlushOptions, IteratorMode, LogLevel, Options, WriteBatch, WriteOptions,
};
use uuid::Uuid;

use crate::EngineError;
use crate::config::{EngineConfig, Limits};
use crate::hot::HotSnapshot;
use crate::hot::disk::Disk;
use crate::hot::dropped::DroppedTable;
use crate::hot::snapshot::Newest;
use crate::hot::volume::{self, HighWater, Life, Lives, VolumeRecord};
use crate::plant::{Plant, planted};
use crate::schema::TableKind;
use crate::seq::WorkerId;

/// Bytes of a memtable from which it is written out after a flush has deleted rows.
const RELEASED_BYTES: u64 = 1 << 20;

/// The column families. Many tables share one; their keys begin with the table's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Rows of user tables.
    UserTable,
    /// Rows of shared tables.
    SharedTable,
    /// Rows of stream tables.
    StreamTable,
    /// Namespaces by name.
    SystemNamespaces,
    /// Tables by id and version; every version stays while the table lives.
    SystemTables,
    /// Live queries by id.
    SystemLiveQueries,
    /// Storage locations by id.
    SystemStorageLocations,
    /// Flush jobs by id.
    SystemFlushJobs,
    /// Users by id.
    SystemUsers,
    /// The audit log by kind and number.
    SystemAuditLog,
    /// The change log.
    Changes,
    /// Masks by table, file and row.
    Masks,
    /// Keys that were superseded while a flush runs, by table and job.
    Dirty,
    /// Tier records by table.
    Tiers,
    /// The volume's own records.
    Meta,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::UserTable,
        Self::SharedTable,
        Self::StreamTable,
        Self::SystemNamespaces,
        Self::SystemTables,
        Self::SystemLiveQueries,
        Self::SystemStorageLocations,
        Self::SystemFlushJobs,
        Self::SystemUsers,
        Self::SystemAuditLog,
        Self::Changes,
        Self::Masks,
        Self::Dirty,
        Self::Tiers,
        Self::Meta,
    ];

    /// Its name in RocksDB and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserTable => "user_table",
            Self::SharedTable => "shared_table",
            Self::StreamTable => "stream_table",
            Self::SystemNamespaces => "system_namespaces",
            Self::SystemTables => "system_tables",
            Self::SystemLiveQueries => "system_live_queries",
            Self::SystemStorageLocations => "system_storage_locations",
            Self::SystemFlushJobs => "system_flush_jobs",
            Self::SystemUsers => "system_users",
            Self::SystemAuditLog => "system_audit_log",
            Self::Changes => "changes",
            Self::Masks => "masks",
            Self::Dirty => "dirty",
            Self::Tiers => "tiers",
            Self::Meta => "meta",
        }
    }

    /// Where the rows of tables of that kind lie.
    pub fn of_rows(kind: TableKind) -> Self {
        match kind {
            TableKind::User => Self::UserTable,
            TableKind::Shared => Self::SharedTable,
            TableKind::Stream => Self::StreamTable,
        }
    }

    fn holds_rows(self) -> bool {
        matches!(self, Self::UserTable | Self::SharedTable | Self::StreamTable)
    }
}

/// The hot tier's database.
pub struct Hot {
    db: Arc<DB>,
    disk: Disk,
    volume: ArcSwap<VolumeRecord>,
    volume_id: Uuid,
    lives: Lives,
    high_water: HighWater,
    is_new: bool,
    newest: Arc<Newest>,
}

/// An error of RocksDB, with what was being done.
pub(crate) fn failed(action: &'static str) -> impl FnOnce(rocksdb::Error) -> EngineError {
    move |source| EngineError::Hot { action, source }
}

impl Hot {
    /// Opens the volume of that configuration, or begins one where there is none, and draws a new life. `now_ms`: milliseconds
    /// since the Unix epoch.
    pub fn open(config: &EngineConfig, now_ms: i64) -> Result<Self, EngineError> {
        let dir = &config.data_dir;
        let refused = |reason: String| EngineError::Volume { path: dir.clone(), reason };
        let path = folder(dir);
        crate::folder::make(&path).map_err(|error| refused(format!("failed to make the folder: {error}")))?;
        let cache = Cache::new_lru_cache(config.limits.block_cache_bytes);
        // First, for it frees the reserve of a full disk, without which the recovery could not write.
        let disk = Disk::watch(dir, config.limits.disk_reserve_bytes, config.limits.reserve_file_bytes)?;
        check_current(&path).map_err(refused)?;
        let db = open_database(&path, &config.limits, &cache).map_err(|error| match is_held(&error) {
            true => EngineError::VolumeInUse { path: dir.clone(), reason: error.to_string() },
            false => refused(reason_of(&path, &error)),
        })?;
        let is_new = is_empty(&db)?;
        if !is_new {
            let format =
                db.cf_handle(Family::Meta.as_str()).map(|meta| db.get_cf(meta, volume::FORMAT_KEY)).transpose();
            let format = format.map_err(failed("read the volume's format"))?.flatten();
            volume::check_format(format.as_deref()).map_err(refused)?;
        }
        let db = with_all_families(db, &config.limits, &cache)?;
        Self::begin_life(db, disk, is_new, now_ms)
    }

    fn begin_life(db: DB, disk: Disk, is_new: bool, now_ms: i64) -> Result<Self, EngineError> {
        let meta = |key: &[u8]| db.get_cf(handle(&db, Family::Meta), key).map_err(failed("read the volume's records"));
        let mut batch = WriteBatch::default();
        let record = match meta(volume::VOLUME_KEY)? {
            Some(bytes) => volume::decode(&bytes, "volume record")?,
            None if is_new => {
                VolumeRecord { database_id: Uuid::new_v4(), worker: WorkerId::new(rand::random()), created_at: now_ms }
            }
            None => {
                return Err(EngineError::Corrupt { what: "volume record".into(), reason: "it is missing".into() });
            }
        };
        let high_water: HighWater = meta(volume::HIGH_WATER_KEY)?
            .map_or(Ok(HighWater::default()), |bytes| volume::decode(&bytes, "high-water mark"))?;
        let before = meta(volume::LIVES_KEY)?.map(|bytes| volume::decode(&bytes, "lives")).transpose()?;
        let lives = Lives::begin(before, high_water.seq, Life(Uuid::new_v4()));
        let volume_id = match meta(volume::VOLUME_ID_KEY)? {
            Some(bytes) => volume::decode(&bytes, "volume id")?,
            // A volume of before there was one gets it now.
            None => Uuid::new_v4(),
        };
        if planted(Plant::DirtyKeysInMemory) {
            batch.delete_range_cf(handle(&db, Family::Dirty), &[0][..], &[u8::MAX][..]);
        }
        let family = handle(&db, Family::Meta);
        batch.put_cf(family, volume::VOLUME_ID_KEY, volume::encode(&volume_id));
        batch.put_cf(family, volume::FORMAT_KEY, volume::format_bytes());
        batch.put_cf(family, volume::VOLUME_KEY, volume::encode(&record));
        batch.put_cf(family, volume::LIVES_KEY, volume::encode(&lives));
        crash_point!("start.volume_opened");
        db.write_opt(batch, &synced()).map_err(failed("begin a life of the volume"))?;
        crash_point!("start.life_begun");
        let volume = ArcSwap::from_pointee(record);
        let newest = Arc::default();
        Ok(Self { db: Arc::new(db), disk, volume, volume_id, lives, high_water, is_new, newest })
    }

    /// A consistent view of everything that was committed before the call.
    pub fn snapshot(&self) -> HotSnapshot {
        HotSnapshot::take(self.db.clone(), self.newest.clone())
    }

    /// What is known of the newest rows. Written by the committer alone.
    pub(crate) fn newest(&self) -> &Newest {
        &self.newest
    }

    /// The volume's own record.
    pub fn volume(&self) -> Arc<VolumeRecord> {
        self.volume.load_full()
    }

    /// Tells this volume from others of the same database: one that was lost, or one that was recovered beside it.
    pub fn volume_id(&self) -> Uuid {
        self.volume_id
    }

    /// Takes the record that a batch has just stored for the present one.
    pub(crate) fn set_volume(&self, record: VolumeRecord) {
        self.volume.store(Arc::new(record));
    }

    /// Returns once every commit is on disk, also where acknowledgements do not wait for that.
    pub fn sync(&self) -> Result<(), EngineError> {
        self.db.flush_wal(true).map_err(failed("sync the write-ahead log"))
    }

    /// Has the memtable of these tables' rows written out in the background, if it has grown: what was deleted from it takes no memory
    /// any more then, and no time of a scan.
    pub fn release_memtable(&self, kind: TableKind) -> Result<(), EngineError> {
        let family = self.family(Family::of_rows(kind));
        let size = self.db.property_int_value_cf(family, "rocksdb.cur-size-active-mem-table");
        if size.map_err(failed("measure a memtable"))?.is_none_or(|bytes| bytes < RELEASED_BYTES) {
            return Ok(());
        }
        let mut options = FlushOptions::default();
        options.set_wait(false);
        self.db.flush_cf_opt(family, &options).map_err(failed("write out a memtable"))
    }

    /// The present life and those before it.
    pub fn lives(&self) -> &Lives {
        &self.lives
    }

    /// The high-water mark at the start.
    pub fn high_water(&self) -> HighWater {
        self.high_water
    }

    /// Whether this start began the volume.
    pub fn volume_is_new(&self) -> bool {
        self.is_new
    }

    /// The disk below it.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Whether the volume has met its identity object in the object store: until then it might meet another database's.
    pub fn prefix_proven(&self) -> Result<bool, EngineError> {
        let stored = self.db.get_cf(self.family(Family::Meta), volume::PREFIX_PROVEN_KEY);
        Ok(stored.map_err(failed("read whether the prefix is proven"))?.is_some_and(|bytes| bytes == [1]))
    }

    /// Notes that the volume has met its identity object.
    pub fn set_prefix_proven(&self, proven: bool) -> Result<(), EngineError> {
        let stored =
            self.db.put_cf_opt(self.family(Family::Meta), volume::PREFIX_PROVEN_KEY, [u8::from(proven)], &synced());
        stored.map_err(failed("store that the prefix is proven"))
    }

    /// Stores a flush job's record, durably.
    pub fn put_flush_job(&self, id: &str, record: &[u8]) -> Result<(), EngineError> {
        let stored = self.db.put_cf_opt(self.family(Family::SystemFlushJobs), id, record, &synced());
        stored.map_err(failed("store a flush job"))
    }

    /// Forgets a flush job's record. A crash may bring it back, which harms nothing.
    pub fn delete_flush_job(&self, id: &str) -> Result<(), EngineError> {
        self.db.delete_cf(self.family(Family::SystemFlushJobs), id).map_err(failed("forget a flush job"))
    }

    /// All flush jobs' records, by id.
    pub fn flush_jobs(&self) -> Result<Vec<(String, Vec<u8>)>, EngineError> {
        let jobs = self.db.iterator_cf(self.family(Family::SystemFlushJobs), IteratorMode::Start);
        jobs.map(|job| {
            let (id, record) = job.map_err(failed("read flush jobs"))?;
            Ok((String::from_utf8_lossy(&id).into_owned(), record.into_vec()))
        })
        .collect()
    }

    /// Forgets a dropped table, whose folder is gone. A crash may bring it back, which harms nothing.
    pub fn forget_dropped(&self, table: &DroppedTable) -> Result<(), EngineError> {
        self.db.delete_cf(self.family(Family::Meta), table.key()).map_err(failed("forget a dropped table"))
    }

    /// Bytes of each family on disk and in memtables.
    pub fn sizes(&self) -> BTreeMap<String, u64> {
        let property = |family: Family, name: &str| {
            self.db.property_int_value_cf(self.family(family), name).ok().flatten().unwrap_or(0)
        };
        let size = |family| {
            property(family, "rocksdb.total-sst-files-size") + property(family, "rocksdb.cur-size-all-mem-tables")
        };
        Family::ALL.into_iter().map(|family| (family.as_str().to_owned(), size(family))).collect()
    }

    /// Writes memtables out, so that the next start replays no log, and stops background work.
    pub fn close(&self) -> Result<(), EngineError> {
        for family in Family::ALL {
            self.db.flush_cf(self.family(family)).map_err(failed("write out memtables"))?;
        }
        self.db.cancel_all_background_work(true);
        Ok(())
    }

    pub(crate) fn db(&self) -> &Arc<DB> {
        &self.db
    }

    pub(crate) fn family(&self, family: Family) -> &ColumnFamily {
        handle(&self.db, family)
    }
}

/// The handle of a family.
pub(crate) fn handle(db: &DB, family: Family) -> &ColumnFamily {
    db.cf_handle(family.as_str()).expect("every family is made when the volume is opened")
}

/// Options of a write that is on disk when it returns.
pub(crate) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// Opens the families that there are. A volume of another format stays as it is until its format has been read.
/// Without its file CURRENT RocksDB would take the folder for a new one, and delete what lies there.
fn check_current(path: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("failed to list the folder {}: {error}", path.display());
    let is_data = |name: &str| name.ends_with(".sst") || name.ends_with(".log");
    let current = path.join("CURRENT");
    if current.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name.to_str().is_some_and(is_data) {
            return Err(format!(
                "{} is missing, and {} beside it is not: the volume is damaged; restore it. Nothing was changed",
                current.display(),
                name.display()
            ));
        }
    }
    Ok(())
}

fn open_database(path: &Path, limits: &Limits, cache: &Cache) -> Result<DB, rocksdb::Error> {
    let options = database_options(limits);
    let exists = path.join("CURRENT").exists();
    let families = if exists { DB::list_cf(&options, path)? } else { vec!["default".to_owned()] };
    let descriptors = families.into_iter().map(|name| {
        let known = Family::ALL.into_iter().find(|family| family.as_str() == name);
        ColumnFamilyDescriptor::new(name, family_options(known, limits, cache))
    });
    DB::open_cf_descriptors(&options, path, descriptors.collect::<Vec<_>>())
}

fn with_all_families(mut db: DB, limits: &Limits, cache: &Cache) -> Result<DB, EngineError> {
    for family in Family::ALL {
        if db.cf_handle(family.as_str()).is_none() {
            let options = family_options(Some(family), limits, cache);
            db.create_cf(family.as_str(), &options).map_err(failed("make a column family"))?;
        }
    }
    Ok(db)
}

/// Whether no family holds anything: a new volume, or one whose first start was cut short.
fn is_empty(db: &DB) -> Result<bool, EngineError> {
    let names = std::iter::once("default").chain(Family::ALL.map(Family::as_str));
    for family in names.filter_map(|name| db.cf_handle(name)) {
        if let Some(first) = db.iterator_cf(family, IteratorMode::Start).next() {
            first.map_err(failed("read the volume"))?;
            return Ok(false);
        }
    }
    Ok(true)
}

fn database_options(limits: &Limits) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    // A write that was cut off by a power cut was never acknowledged, so a torn tail may go. Anything else that is wrong with
    // the log stops the start: a part of it that was acknowledged would be lost.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    // Families that are seldom written would pin the log for ever.
    options.set_max_total_wal_size(limits.wal_bytes);
    options.set_db_write_buffer_size(limits.memtable_bytes);
    options.set_max_background_jobs(4);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(4);
    options.set_log_level(LogLevel::Warn);
    if cfg!(test) {
        // Tests open small volumes by the thousand: RocksDB would start so many threads, and set so much aside, for each.
        options.set_max_file_opening_threads(1);
        options.set_manifest_preallocation_size(64 << 10);
    }
    options
}

fn family_options(family: Option<Family>, limits: &Limits, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    let holds_rows = family.is_some_and(Family::holds_rows);
    if holds_rows || family == Some(Family::Changes) {
        options.set_write_buffer_size(limits.memtable_bytes / 2);
    } else {
        options.set_write_buffer_size(4 << 20);
    }
    if holds_rows {
        // Inserts look for keys that are not there: the filter answers most of them without a search of the memtable.
        // It is of some sixteen bits a row: a larger one leaves the processor's cache, and every write waits for it.
        options.set_memtable_prefix_bloom_ratio(0.01);
        options.set_memtable_whole_key_filtering(true);
    }
    options
}

/// Whether another process has the folder open; RocksDB tells that by its text alone.
fn is_held(error: &rocksdb::Error) -> bool {
    let text = error.to_string();
    text.contains("lock") && (text.contains("LOCK") || text.contains("hold by current process"))
}

fn reason_of(path: &Path, error: &rocksdb::Error) -> String {
    let mut text = error.to_string();
    if error.kind() == rocksdb::ErrorKind::Corruption {
        // Of these alone it does not name the file.
        let logs = write_ahead_logs(path);
        if !text.contains(".sst") && !text.contains("MANIFEST") && !logs.is_empty() {
            text = format!("{text} in a write-ahead log: {}", logs.join(" or "));
        }
        return format!(
            "it is damaged, and was not opened so that nothing acknowledged is dropped; restore it or its disk ({text})"
        );
    }
    text
}

fn write_ahead_logs(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut logs: Vec<_> = entries.map(|entry| entry.path()).collect();
    logs.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    logs.iter().map(|file| file.display().to_string()).collect()
}

/// The folder of the hot tier below a data folder.
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("hot")
}
