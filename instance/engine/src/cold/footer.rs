//! Footers, page indexes and bloom filters of cold files, kept in memory within a bound of bytes. Look-ups and scans share them.
//!
//! Files never change, so nothing here ever goes stale.

use std::ops::Range;
use std::sync::Arc;

use chrono::DateTime;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::cache::default_cache::DefaultCache;
use object_store::ObjectMeta;
use object_store::path::Path;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::blooms::{Blooms, Over};
use super::reader::RangeReader;
use super::scan_reader::ScanReaders;
use super::snapshot::ColdFile;
use super::store::ColdStore;
use crate::EngineError;

/// Bytes read from a file's end at once, in the hope that the whole footer and the page index are among them.
const FOOTER_READ_BYTES: usize = 64 << 10;
/// Of the cache's bytes, one part in this many is for bloom filters.
const BLOOM_SHARE: usize = 3;

/// The cache, and the only way to footers and bloom filters.
#[derive(Debug)]
pub struct FileCache {
    store: ColdStore,
    footers: Arc<FileMetadataCache>,
    blooms: Blooms,
}

impl FileCache {
    /// An empty cache of at most `bytes`.
    pub fn new(store: ColdStore, bytes: usize) -> Self {
        let blooms = bytes / BLOOM_SHARE;
        Self {
            store,
            footers: Arc::new(DefaultCache::new(bytes - blooms).with_name("footers")),
            blooms: Blooms::new(blooms),
        }
    }

    /// The object store that the files lie in.
    pub fn store(&self) -> &ColdStore {
        &self.store
    }

    /// What DataFusion's scans read files with: through the same footers and bloom filters.
    pub fn reader_factory(&self) -> Arc<ScanReaders> {
        Arc::new(ScanReaders::new(self.store.objects().clone(), self.footers.clone(), self.blooms.clone()))
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
        if let Some(known) = self.blooms.get(path, row_group, Over::Column(column)) {
            return Ok(known);
        }
        let reader = RangeReader::new(self.store.objects().clone(), path.clone(), footer.clone());
        let metadata = ArrowReaderMetadata::try_new(footer.clone(), ArrowReaderOptions::new());
        let metadata = metadata.map_err(|error| self.failed(path, error))?;
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata);
        let filter = builder.get_row_group_column_bloom_filter(row_group, column).await;
        let filter = filter.map_err(|error| self.failed(path, error))?.map(Arc::new);
        self.blooms.put(path, row_group, Over::Column(column), filter.clone());
        Ok(filter)
    }

    /// The filter over the whole keys of a row group, which lies there.
    pub async fn key_filter(
        &self,
        path: &Path,
        footer: &Arc<ParquetMetaData>,
        row_group: usize,
        place: Range<u64>,
    ) -> Result<Arc<Sbbf>, EngineError> {
        if let Some(Some(known)) = self.blooms.get(path, row_group, Over::Key) {
            return Ok(known);
        }
        let mut reader = RangeReader::new(self.store.objects().clone(), path.clone(), footer.clone());
        let bytes = reader.get_bytes(place).await;
        let filter = bytes.and_then(|bytes| Sbbf::from_bytes(&bytes));
        let filter = filter.map(Arc::new).map_err(|error| self.failed(path, error))?;
        self.blooms.put(path, row_group, Over::Key, Some(filter.clone()));
        Ok(filter)
    }

    fn failed(&self, path: &Path, error: ParquetError) -> EngineError {
        self.store.read_failed(format!("read a bloom filter of {path}"), error.into())
    }

    /// Drops what is cached of a file that is gone.
    pub fn forget(&self, path: &Path) {
        self.footers.remove(path);
        self.blooms.forget(path);
    }
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
