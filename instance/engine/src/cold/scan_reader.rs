//! What DataFusion's scans read a file with: footers and bloom filters come from the cache that look-ups use too.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::bloom_filter::Sbbf;
use parquet::errors::Result;
use parquet::file::metadata::ParquetMetaData;

use super::blooms::{Blooms, Over};

/// Makes the readers of scans.
#[derive(Debug)]
pub struct ScanReaders {
    files: CachedParquetFileReaderFactory,
    blooms: Blooms,
}

impl ScanReaders {
    /// Over files in that store.
    pub fn new(objects: Arc<dyn ObjectStore>, footers: Arc<FileMetadataCache>, blooms: Blooms) -> Self {
        Self { files: CachedParquetFileReaderFactory::new(objects, footers), blooms }
    }
}

impl ParquetFileReaderFactory for ScanReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let path = file.object_meta.location.clone();
        let file = self.files.create_reader(partition, file, size_hint, metrics)?;
        Ok(Box::new(ScanReader { file, path, blooms: self.blooms.clone(), footer: None }))
    }
}

struct ScanReader {
    file: Box<dyn AsyncFileReader + Send>,
    path: Path,
    blooms: Blooms,
    /// Once it was asked for: it says which bytes are a bloom filter.
    footer: Option<Arc<ParquetMetaData>>,
}

impl ScanReader {
    /// Whose bloom filter begins there: row group and column.
    fn filter_at(&self, start: u64) -> Option<(usize, usize)> {
        let groups = self.footer.as_ref()?.row_groups().iter().enumerate();
        groups
            .flat_map(|(group, of)| of.columns().iter().enumerate().map(move |(place, column)| (group, place, column)))
            .find(|(_, _, column)| column.bloom_filter_offset().is_some_and(|offset| offset.unsigned_abs() == start))
            .map(|(group, place, _)| (group, place))
    }

    async fn filter(&mut self, group: usize, column: usize, range: Range<u64>) -> Result<Bytes> {
        if let Some(Some(known)) = self.blooms.get(&self.path, group, Over::Column(column)) {
            let mut bytes = Vec::new();
            known.write(&mut bytes)?;
            return Ok(bytes.into());
        }
        let bytes = self.file.get_bytes(range).await?;
        // What is no filter is for the decoder to tell.
        if let Ok(filter) = Sbbf::from_bytes(&bytes) {
            self.blooms.put(&self.path, group, Over::Column(column), Some(Arc::new(filter)));
        }
        Ok(bytes)
    }
}

impl AsyncFileReader for ScanReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        match self.filter_at(range.start) {
            Some((group, column)) => self.filter(group, column, range).boxed(),
            None => self.file.get_bytes(range),
        }
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        self.file.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let footer = self.file.get_metadata(options).await?;
            self.footer = Some(footer.clone());
            Ok(footer)
        }
        .boxed()
    }
}
