//! The cold tier: identity and epochs, Delta logs, Parquet files, deletion vectors, look-ups by key.
//!
//! * [`store`], [`trouble`], [`folder`], `whole`, [`routes`], [`probe`], [`identity`]: the object stores, why they fail, and who owns their
//!   prefix;
//! * [`schema`], [`stats`], [`file`], [`key_filter`], [`upload`], [`vector`]: what is written;
//! * [`log`], [`end`], [`blame`], [`tombstones`], [`snapshot`], [`versions`]: the Delta log, and versions of it in memory;
//! * [`name`], [`pins`]: what a file's name tells, and which files somebody may still read;
//! * [`footer`], [`blooms`], [`scan_reader`]: what is kept in memory of files;
//! * [`ranges`], [`reader`], [`look_up`]: reading single rows by key.
//!
//! Nothing here decides when something is flushed, and nothing here writes to the hot tier.

pub mod blame;
pub mod blooms;
pub mod end;
#[cfg(test)]
pub(crate) mod faults;
pub mod file;
pub mod folder;
pub mod footer;
pub mod identity;
pub mod key_filter;
pub mod log;
pub mod look_up;
pub mod name;
pub mod pins;
pub mod probe;
pub mod ranges;
pub mod reader;
pub mod routes;
pub mod scalar;
pub mod scan_reader;
pub mod schema;
pub mod snapshot;
pub mod stats;
pub mod store;
pub mod tombstones;
pub mod trouble;
pub mod upload;
pub mod vector;
pub mod versions;
mod whole;

use std::collections::HashSet;
use std::sync::Arc;

use roaring::RoaringTreemap;
use uuid::Uuid;

pub use self::footer::FileCache;
pub use self::log::DeltaLog;
pub use self::look_up::look_up;
pub use self::snapshot::{ColdFile, ColdSnapshot};
pub use self::store::ColdStore;
use crate::EngineError;
use crate::config::ObjectStoreConfig;
use crate::schema::Table;
use pins::Pins;
use versions::{Tables, Versions};

/// Of the memory for what is known of cold files, one part in this many is for versions of tables.
const VERSIONS_SHARE: usize = 4;

/// The cold tier of the whole database.
#[derive(Debug)]
pub struct ColdTier {
    store: ColdStore,
    cache: FileCache,
    versions: Versions,
    pins: Pins,
    /// One load of a log at a time: many readers of a table that is not in memory yet wait for the same one.
    loading: tokio::sync::Mutex<()>,
}

impl ColdTier {
    /// Sets up the client of the object store; reaches nothing.
    pub fn open(config: &ObjectStoreConfig, cache_bytes: usize) -> Result<Arc<Self>, EngineError> {
        Ok(Self::over(ColdStore::open(config)?, cache_bytes))
    }

    /// The same over a store that is there already.
    pub fn over(store: ColdStore, cache_bytes: usize) -> Arc<Self> {
        let versions = cache_bytes / VERSIONS_SHARE;
        let cache = FileCache::new(store.clone(), cache_bytes - versions);
        Arc::new(Self {
            store,
            cache,
            versions: Versions::new(versions),
            pins: Pins::default(),
            loading: tokio::sync::Mutex::default(),
        })
    }

    /// The object store.
    pub fn store(&self) -> &ColdStore {
        &self.store
    }

    /// The tables that live in other stores.
    pub fn routes(&self) -> &routes::Routes {
        self.store.routes()
    }

    /// Footers and bloom filters.
    pub fn cache(&self) -> &FileCache {
        &self.cache
    }

    /// The Delta log of a table.
    pub fn log(&self, table: Uuid) -> DeltaLog {
        DeltaLog::of(&self.store, table)
    }

    /// Holds what is in memory now. A reader takes its RocksDB snapshot first, then this: it then has the version that its
    /// snapshot names, whether or not a flush ends in between.
    pub fn pin(self: &Arc<Self>) -> PinnedCold {
        PinnedCold { tables: self.versions.load(), tier: self.clone() }
    }

    /// Puts a version into memory. Before the batch that names it is committed, so that no reader finds it missing.
    pub fn install(&self, table: Uuid, snapshot: Arc<ColdSnapshot>) {
        self.pins.add(table, &snapshot.files);
        self.versions.put(table, &snapshot);
    }

    /// Names of files, deletion vectors among them, that somebody in this process may still read.
    pub fn pinned(&self, table: Uuid) -> HashSet<String> {
        self.pins.names(table)
    }

    /// Lets go of the versions before that one: whoever reads one of them holds it.
    pub fn forget_before(&self, table: Uuid, version: i64) {
        self.versions.forget_before(table, version);
    }

    /// Forgets a table that was dropped.
    pub fn forget(&self, table: Uuid) {
        self.versions.forget(table);
    }

    /// A version of a table, from memory or from its log.
    pub async fn at(&self, table: &Table, version: i64) -> Result<Arc<ColdSnapshot>, EngineError> {
        if version < 0 {
            return Ok(Arc::new(ColdSnapshot::empty()));
        }
        if let Some(found) = self.versions.find(table.uuid, version) {
            return Ok(found);
        }
        let _loading = self.loading.lock().await;
        if let Some(found) = self.versions.find(table.uuid, version) {
            return Ok(found);
        }
        let loaded = Arc::new(self.log(table.uuid).load(table, version).await?);
        self.install(table.uuid, loaded.clone());
        Ok(loaded)
    }

    /// A version of a table, from memory or from its log, which is not kept in memory for that.
    pub async fn at_once(&self, table: &Table, version: i64) -> Result<Arc<ColdSnapshot>, EngineError> {
        if version < 0 {
            return Ok(Arc::new(ColdSnapshot::empty()));
        }
        match self.versions.find(table.uuid, version) {
            Some(found) => Ok(found),
            None => self.log(table.uuid).load(table, version).await.map(Arc::new),
        }
    }

    /// The rows of a file that its deletion vector hides.
    pub async fn hidden_rows<'a>(
        &self,
        table: Uuid,
        file: &'a ColdFile,
    ) -> Result<Option<&'a RoaringTreemap>, EngineError> {
        let Some(vector) = &file.vector else { return Ok(None) };
        if let Some(rows) = vector.rows.get() {
            return Ok(Some(rows));
        }
        let read = || async { self.log(table).read_vector(&vector.descriptor).await };
        let rows = vector.rows.get_or_try_init(read).await?;
        self.versions.has_grown(table);
        Ok(Some(rows))
    }
}

/// What was in memory when it was taken; older and newer versions are still found, in their logs.
#[derive(Debug, Clone)]
pub struct PinnedCold {
    tables: Arc<Tables>,
    tier: Arc<ColdTier>,
}

impl PinnedCold {
    /// The tier.
    pub fn tier(&self) -> &Arc<ColdTier> {
        &self.tier
    }

    /// A version of a table.
    pub async fn at(&self, table: &Table, version: i64) -> Result<Arc<ColdSnapshot>, EngineError> {
        match self.tier.versions.find_in(&self.tables, table.uuid, version) {
            Some(found) => Ok(found),
            None => self.tier.at(table, version).await,
        }
    }
}
