//! Reads ranges of one cold file for the Parquet decoder; the footer comes from the cache.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaData;

/// A reader of one file whose footer is known.
pub struct RangeReader {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    footer: Arc<ParquetMetaData>,
    /// What was fetched in advance.
    fetched: Vec<(Range<u64>, Bytes)>,
}

impl RangeReader {
    /// Reads nothing yet.
    pub fn new(objects: Arc<dyn ObjectStore>, path: Path, footer: Arc<ParquetMetaData>) -> Self {
        Self { objects, path, footer, fetched: Vec::new() }
    }

    /// Reads these ranges at once. Whatever lies within them is not asked of the object store again.
    pub async fn fetch(&mut self, ranges: Vec<Range<u64>>) -> Result<()> {
        let bytes = self.objects.get_ranges(&self.path, &ranges).await.map_err(failed)?;
        self.fetched = ranges.into_iter().zip(bytes).collect();
        Ok(())
    }

    /// A range out of what was fetched.
    fn held(&self, range: &Range<u64>) -> Option<Bytes> {
        let (around, bytes) =
            self.fetched.iter().find(|(held, _)| held.start <= range.start && range.end <= held.end)?;
        let at = |offset: u64| usize::try_from(offset - around.start).ok();
        Some(bytes.slice(at(range.start)?..at(range.end)?))
    }
}

fn failed(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for RangeReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            match self.held(&range) {
                Some(bytes) => Ok(bytes),
                None => self.objects.get_range(&self.path, range).await.map_err(failed),
            }
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move {
            match ranges.iter().map(|range| self.held(range)).collect() {
                Some(held) => Ok(held),
                None => self.objects.get_ranges(&self.path, &ranges).await.map_err(failed),
            }
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        let footer = self.footer.clone();
        async move { Ok(footer) }.boxed()
    }
}
