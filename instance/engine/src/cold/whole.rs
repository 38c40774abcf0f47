//! An object store that answers a range whole or not at all.
//!
//! Stores answer as much of a range as the object has. Who knows the size from elsewhere, as from a Delta log, takes the answer for what was
//! asked: of an object that was cut off, the Parquet decoder would panic.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// The store with that promise; all else is that of the store below.
#[derive(Debug)]
pub struct WholeRanges(pub Arc<dyn ObjectStore>);

impl fmt::Display for WholeRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn cut_off(path: &Path, asked: &Range<u64>, end: u64) -> Error {
    let source = format!("{path} was asked for its bytes {} to {}, and ends at {end}", asked.start, asked.end);
    Error::Generic { store: "range", source: source.into() }
}

#[async_trait]
impl ObjectStore for WholeRanges {
    async fn put_opts(&self, path: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(path, bytes, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let asked = match (&options.range, options.head) {
            (Some(GetRange::Bounded(range)), false) => Some(range.clone()),
            _ => None,
        };
        let got = self.0.get_opts(path, options).await?;
        match asked {
            Some(asked) if got.range != asked => Err(cut_off(path, &asked, got.range.end)),
            _ => Ok(got),
        }
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let got = self.0.get_ranges(path, ranges).await?;
        for (asked, bytes) in ranges.iter().zip(&got) {
            if bytes.len() as u64 != asked.end - asked.start {
                return Err(cut_off(path, asked, asked.start + bytes.len() as u64));
            }
        }
        Ok(got)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_range_beyond_the_end_is_refused() {
        let (store, path) = (WholeRanges(Arc::new(InMemory::new())), Path::from("a"));
        store.put(&path, PutPayload::from_static(b"0123456789")).await.unwrap();
        assert_eq!(store.get_range(&path, 4..10).await.unwrap(), "456789");
        let error = store.get_range(&path, 4..11).await.unwrap_err().to_string();
        assert!(error.contains("bytes 4 to 11, and ends at 10"), "{error}");
        assert_eq!(store.get_ranges(&path, &[0..2, 8..10]).await.unwrap(), ["01", "89"]);
        assert!(store.get_ranges(&path, &[0..2, 8..12]).await.is_err());
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap().len(), 10);
    }
}
