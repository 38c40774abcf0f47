//! Footers, page indexes and bloom filters of cold files, kept in memory within a bound of bytes.
//!
//! Files never change, so nothing here ever goes stale.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::DateTime;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::cache::default_cache::DefaultCache;
use object_store::ObjectMeta;
use object_store::path::Path;
use parking_lot::Mutex;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::reader::RangeReader;
use super::snapshot::ColdFile;
use super::store::ColdStore;
use crate::EngineError;

/// Bytes read from a file's end at once, in the hope that the whole footer and the page index are among them.
const FOOTER_READ_BYTES: usize = 64 << 10;
/// Of the cache's bytes, one part in this many is for bloom filters.
const BLOOM_SHARE: usize = 3;
const BLOOM_BLOCK_BYTES: usize = 32;

/// The cache, and the only way to footers and bloom filters.
#[derive(Debug)]
pub struct FileCache {
    store: ColdStore,
    footers: Arc<FileMetadataCache>,
    blooms: Mutex<Blooms>,
}

type BloomKey = (Path, usize, usize);

#[derive(Debug)]
struct Blooms {
    limit: usize,
    bytes: usize,
    /// Counts uses; an entry's last one says how recently it was needed.
    uses: u64,
    filters: HashMap<BloomKey, (Option<Arc<Sbbf>>, u64)>,
}

impl FileCache {
    /// An empty cache of at most `bytes`.
    pub fn new(store: ColdStore, bytes: usize) -> Self {
        let blooms = bytes / BLOOM_SHARE;
        Self {
            store,
            footers: Arc::new(DefaultCache::new(bytes - blooms).with_name("footers")),
            blooms: Mutex::new(Blooms { limit: blooms, bytes: 0, uses: 0, filters: HashMap::new() }),
        }
    }

    /// The object store that the files lie in.
    pub fn store(&self) -> &ColdStore {
        &self.store
    }

    /// What DataFusion's scans read files with: through the same footers.
    pub fn reader_factory(&self) -> Arc<CachedParquetFileReaderFactory> {
        Arc::new(CachedParquetFileReaderFactory::new(self.store.objects().clone(), self.footers.clone()))
    }

    /// The file's footer with its page index.
    pub async fn footer(&self, path: &Path, file: &ColdFile) -> Result<Arc<ParquetMetaData>, EngineError> {
        let meta = object_meta(path, file);
        let footer = DFParquetMetadata::new(self.store.objects().as_ref(), &meta)
            .with_metadata_size_hint(Some(FOOTER_READ_BYTES))
            .with_file_metadata_cache(Some(self.footers.clone()))
            .fetch_metadata()
            .await;
        match footer {
            Ok(footer) => Ok(footer),
            Err(error) => {
                let error = self.store.read_failed(format!("read the footer of {path}"), error.into());
                Err(self.store.blame(path, Some(file.size), error).await)
            }
        }
    }

    /// The bloom filter of a column chunk; none where it has none.
    pub async fn bloom(
        &self,
        path: &Path,
        footer: &Arc<ParquetMetaData>,
        row_group: usize,
        column: usize,
    ) -> Result<Option<Arc<Sbbf>>, EngineError> {
        let key = (path.clone(), row_group, column);
        if let Some(known) = self.blooms.lock().get(&key) {
            return Ok(known);
        }
        let failed =
            |error: ParquetError| self.store.read_failed(format!("read a bloom filter of {path}"), error.into());
        let reader = RangeReader::new(self.store.objects().clone(), path.clone(), footer.clone());
        let metadata = ArrowReaderMetadata::try_new(footer.clone(), ArrowReaderOptions::new()).map_err(failed)?;
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata);
        let filter = builder.get_row_group_column_bloom_filter(row_group, column).await.map_err(failed)?;
        let filter = filter.map(Arc::new);
        self.blooms.lock().put(key, filter.clone());
        Ok(filter)
    }

    /// Drops what is cached of a file that is gone.
    pub fn forget(&self, path: &Path) {
        self.footers.remove(path);
        self.blooms.lock().forget(path);
    }
}

impl Blooms {
    fn get(&mut self, key: &BloomKey) -> Option<Option<Arc<Sbbf>>> {
        self.uses += 1;
        let (filter, used) = self.filters.get_mut(key)?;
        *used = self.uses;
        Some(filter.clone())
    }

    fn put(&mut self, key: BloomKey, filter: Option<Arc<Sbbf>>) {
        self.uses += 1;
        self.bytes += size_of_bloom(filter.as_deref());
        if let Some((old, _)) = self.filters.insert(key, (filter, self.uses)) {
            self.bytes -= size_of_bloom(old.as_deref());
        }
        if self.bytes > self.limit {
            self.evict();
        }
    }

    fn forget(&mut self, path: &Path) {
        let gone = self.filters.extract_if(|(file, ..), _| file == path);
        self.bytes -= gone.map(|(_, (filter, _))| size_of_bloom(filter.as_deref())).sum::<usize>();
    }

    /// Drops the least recently used until a quarter is free, so that the next puts need not look again.
    fn evict(&mut self) {
        let mut by_use: Vec<(u64, BloomKey)> =
            self.filters.iter().map(|(key, (_, used))| (*used, key.clone())).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in by_use {
            if self.bytes <= self.limit / 4 * 3 {
                break;
            }
            if let Some((filter, _)) = self.filters.remove(&key) {
                self.bytes -= size_of_bloom(filter.as_deref());
            }
        }
    }
}

fn size_of_bloom(filter: Option<&Sbbf>) -> usize {
    filter.map_or(0, |filter| filter.num_blocks() * BLOOM_BLOCK_BYTES) + size_of::<BloomKey>() + BLOOM_BLOCK_BYTES
}

/// The file as `object_store` would describe it: no request is needed, the log knows its size.
pub fn object_meta(path: &Path, file: &ColdFile) -> ObjectMeta {
    ObjectMeta {
        location: path.clone(),
        last_modified: DateTime::from_timestamp_millis(file.modified).unwrap_or_default(),
        size: file.size,
        e_tag: None,
        version: None,
    }
}
