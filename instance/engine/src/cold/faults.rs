//! An object store that fails on command, for tests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What goes wrong now.
#[derive(Debug, Default)]
pub struct Faults {
    /// Nothing is reached.
    pub away: AtomicBool,
    /// Create-only puts of Delta commits happen, and their answers do not arrive; nor does what follows, until it is mended.
    pub loses_commit_answers: AtomicBool,
}

/// The store with its faults.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Arc<Faults>,
}

impl FaultyStore {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn ObjectStore>, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }

    fn reach(&self) -> Result<()> {
        if self.faults.away.load(Ordering::SeqCst) { Err(lost("the store is away")) } else { Ok(()) }
    }
}

fn lost(why: &'static str) -> Error {
    Error::Generic { store: "faulty", source: why.into() }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.reach()?;
        let is_commit = options.mode == PutMode::Create && path.as_ref().contains("_delta_log");
        let put = self.inner.put_opts(path, bytes, options).await;
        if is_commit && self.faults.loses_commit_answers.swap(false, Ordering::SeqCst) {
            self.faults.away.store(true, Ordering::SeqCst);
            return Err(lost("the answer was lost"));
        }
        put
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.reach()?;
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.reach()?;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.reach() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.reach()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.reach()?;
        self.inner.copy_opts(from, to, options).await
    }
}
