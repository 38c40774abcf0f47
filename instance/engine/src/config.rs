//! What the engine is told at its start. Every limit has a name, a unit and a default here.

use std::path::PathBuf;
use std::time::Duration;

/// All of the engine's configuration.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The folder of the hot tier.
    pub data_dir: PathBuf,
    /// Where the cold tier lies.
    pub object_store: ObjectStoreConfig,
    /// Whether a commit is acknowledged only once it is on disk.
    pub durability: Durability,
    /// When and how flushes run.
    pub flush: FlushConfig,
    /// Which cold files are merged.
    pub compaction: CompactionConfig,
    /// When files that left their table are deleted.
    pub vacuum: VacuumConfig,
    /// Bounds.
    pub limits: Limits,
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A power cut loses nothing that was acknowledged: fsync by group commit.
    Sync,
    /// A power cut can lose what the operating system had not written yet; a crash of the process loses nothing.
    Os,
}

/// Where the cold tier lies.
#[derive(Debug, Clone)]
pub enum ObjectStoreConfig {
    /// A folder.
    Local {
        /// Its path; made when missing.
        path: PathBuf,
    },
    /// S3 or a compatible store.
    S3 {
        /// The bucket, which must exist.
        bucket: String,
        /// What every object's name begins with; may be empty.
        prefix: String,
        /// The endpoint's URL; none for AWS itself.
        endpoint: Option<String>,
        /// The region.
        region: String,
        /// Credentials; none takes what the environment offers.
        access_key_id: Option<String>,
        /// Credentials; none takes what the environment offers.
        secret_access_key: Option<String>,
        /// How long a request may take, and how often it is repeated.
        patience: Patience,
    },
}

/// How long the store is waited for. Every request ends within `request` and `retry_within` together, well or by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until the last byte of one request's answer.
    pub request: Duration,
    /// Until a connection has come about.
    pub connect: Duration,
    /// How often a request is repeated by the client itself; jobs are repeated by whoever started them, however long it takes.
    pub retries: usize,
    /// How long after its begin a request may still be repeated.
    pub retry_within: Duration,
}

/// When and how flushes run.
#[derive(Debug, Clone)]
pub struct FlushConfig {
    /// Unflushed bytes of a table from which the instance flushes by itself.
    pub max_bytes: u64,
    /// Unflushed rows of a table from which the instance flushes by itself.
    pub max_rows: u64,
    /// Age of a table's oldest unflushed row from which the instance flushes by itself.
    pub max_age: Duration,
    /// Jobs that run at once.
    pub max_concurrent: usize,
    /// With no scheduler heard from for this long, the instance follows its own policy.
    pub scheduler_timeout: Duration,
    /// Size at which a Parquet file is closed and the next one begun, in bytes.
    pub target_file_bytes: u64,
}

/// Which runs of cold files are merged. A run is what one job wrote.
#[derive(Debug, Clone)]
pub struct CompactionConfig {
    /// Whether the instance compacts by itself after a flush; statements compact in any case.
    pub automatic: bool,
    /// Neighbouring runs of similar size from which they are merged.
    pub min_runs: usize,
    /// Runs that may overlap in key; beyond it the smallest neighbours are merged whatever their size.
    pub max_runs: usize,
    /// An older run joins a merge where its size is at most this share of the newer ones together, in percent.
    pub size_percent: u64,
    /// Share of deleted rows from which a run is rewritten, in percent.
    pub deleted_percent: u64,
    /// Runs that one job merges at most; each holds about one row group in memory.
    pub merge_runs: usize,
    /// Bytes of Parquet that one job reads at most.
    pub max_bytes: u64,
    /// Jobs that run at once, beside flushes.
    pub max_concurrent: usize,
}

/// When files that left their table are deleted.
#[derive(Debug, Clone)]
pub struct VacuumConfig {
    /// How long files stay after they left their table, for readers outside; at most [`LONGEST_RETENTION`].
    pub retention: Duration,
    /// How often all tables are looked at.
    pub interval: Duration,
}

/// The Delta log remembers removed files for so long: 30 days.
pub const LONGEST_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// Bounds on memory and disk.
#[derive(Debug, Clone)]
pub struct Limits {
    /// RocksDB's block cache, in bytes.
    pub block_cache_bytes: usize,
    /// What is kept of cold files, in bytes: footers, page indexes, bloom filters, versions of tables with their deletion vectors.
    pub footer_cache_bytes: usize,
    /// Write-ahead log in all, in bytes: beyond it the oldest column family is written out.
    pub wal_bytes: u64,
    /// Free disk below which writes are refused, in bytes.
    pub disk_reserve_bytes: u64,
    /// Free disk that is set aside in a file, and given up on a full disk so that a flush can still end, in bytes.
    pub reserve_file_bytes: u64,
    /// RocksDB's memtables in all, in bytes.
    pub memtable_bytes: usize,
    /// Writes that may wait for the committer.
    pub commit_queue: usize,
    /// Bytes of rows that may wait for the committer.
    pub commit_queue_bytes: usize,
    /// One row's encoded size, in bytes.
    pub row_bytes: usize,
    /// Change log kept, in bytes a table.
    pub change_log_bytes: u64,
    /// Change log kept.
    pub change_log_age: Duration,
    /// Entries of the audit log that are kept, of changes and of log-ins each.
    pub audit_entries: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            connect: Duration::from_secs(5),
            retries: 3,
            retry_within: Duration::from_secs(20),
        }
    }
}

impl Default for FlushConfig {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            max_rows: 1_000_000,
            max_age: Duration::from_secs(600),
            max_concurrent: 2,
            scheduler_timeout: Duration::from_secs(60),
            target_file_bytes: 128 << 20,
        }
    }
}

impl Default for CompactionConfig {
    fn default() -> Self {
        Self {
            automatic: true,
            min_runs: 4,
            max_runs: 8,
            size_percent: 200,
            deleted_percent: 20,
            merge_runs: 16,
            max_bytes: 8 << 30,
            max_concurrent: 1,
        }
    }
}

impl Default for VacuumConfig {
    fn default() -> Self {
        Self { retention: Duration::from_secs(7 * 24 * 3600), interval: Duration::from_secs(3600) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            block_cache_bytes: 128 << 20,
            footer_cache_bytes: 64 << 20,
            wal_bytes: 256 << 20,
            disk_reserve_bytes: 256 << 20,
            reserve_file_bytes: 64 << 20,
            memtable_bytes: 128 << 20,
            commit_queue: 1024,
            commit_queue_bytes: 64 << 20,
            row_bytes: 8 << 20,
            change_log_bytes: 64 << 20,
            change_log_age: Duration::from_secs(24 * 3600),
            audit_entries: 10_000,
        }
    }
}
