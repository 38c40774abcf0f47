//! An object store that answers whole or not at all.
//!
//! Stores answer as much of a range as the object has. Who knows the size from elsewhere, as from a Delta log, takes the answer for what was
//! asked: of an object that was cut off, the Parquet decoder would panic. And an answer may end before all bytes that its head promised,
//! without an error: a Delta commit of which some lines are missing would still be read.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result, coalesce_ranges,
};

/// The store with that promise; all else is that of the store below.
#[derive(Debug)]
pub struct WholeRanges(pub Arc<dyn ObjectStore>);

impl fmt::Display for WholeRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn ended_early(path: &Path, got: u64, promised: u64) -> Error {
    let source = format!("the answer to a read of {path} has {got} bytes, and promised {promised}");
    Error::Generic { store: "range", source: source.into() }
}

/// The bytes, and an error where their end is not that of the range.
fn whole(path: Path, promised: u64, bytes: BoxStream<'static, Result<Bytes>>) -> BoxStream<'static, Result<Bytes>> {
    let next = move |(mut bytes, got): (BoxStream<'static, Result<Bytes>>, u64)| {
        let path = path.clone();
        async move {
            match bytes.next().await.transpose()? {
                Some(some) => {
                    let got = got + some.len() as u64;
                    Ok(Some((some, (bytes, got))))
                }
                None if got == promised => Ok(None),
                None => Err(ended_early(&path, got, promised)),
            }
        }
    };
    futures::stream::try_unfold((bytes, 0), next).boxed()
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
        let is_head = options.head;
        let mut got = self.0.get_opts(path, options).await?;
        if let Some(asked) = asked.filter(|asked| got.range != *asked) {
            return Err(cut_off(path, &asked, got.range.end));
        }
        // A file is read by its range, which fails where it ends before.
        got.payload = match got.payload {
            GetResultPayload::Stream(bytes) if !is_head => {
                GetResultPayload::Stream(whole(path.clone(), got.range.end - got.range.start, bytes))
            }
            payload => payload,
        };
        Ok(got)
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        // Not by the store's own: it would cut the ranges out of whatever it got.
        let read = |range| async move { self.get_range(path, range).await };
        coalesce_ranges(ranges, read, OBJECT_STORE_COALESCE_DEFAULT).await
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
    use object_store::memory::InMemory;

    use super::*;
    use crate::cold::faults::{Fault, Faults, FaultyStore};

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

    #[tokio::test]
    async fn an_answer_that_ends_early_is_refused() {
        let (faults, path) = (Arc::new(Faults::default()), Path::from("a"));
        let store = WholeRanges(Arc::new(FaultyStore::new(Arc::new(InMemory::new()), faults.clone())));
        store.put(&path, PutPayload::from_static(b"0123456789")).await.unwrap();
        let half = || faults.strike_after(0, Fault::EndsEarly);
        half();
        let error = store.get(&path).await.unwrap().bytes().await.unwrap_err().to_string();
        assert!(error.contains("read of a has 5 bytes, and promised 10"), "{error}");
        half();
        assert!(store.get_range(&path, 2..4).await.is_err());
        half();
        assert!(store.get_ranges(&path, &[0..2, 8..10]).await.is_err(), "the second lies beyond what came");
        assert_eq!(store.head(&path).await.unwrap().size, 10);
        assert_eq!(store.get_ranges(&path, &[0..2, 8..10]).await.unwrap(), ["01", "89"]);
    }
}
