//! An object store that fails on command, for tests: for a while, or at one call and for good, as for a process that dies there.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// What goes wrong now.
#[derive(Debug, Default)]
pub struct Faults {
    /// Nothing is reached.
    pub away: AtomicBool,
    /// Create-only puts of Delta commits happen, and their answers do not arrive; nor does what follows, until it is mended.
    pub loses_commit_answers: AtomicBool,
    /// Puts of objects whose path holds it fail.
    pub refuses: Mutex<Option<&'static str>>,
    /// Create-only puts of objects whose path holds it meet another put at the same time: they are refused, and nothing is there.
    pub conflicts: Mutex<Option<&'static str>>,
    /// The bounded ranges of bytes that were asked for.
    pub ranges: Mutex<Vec<Range<u64>>>,
    /// After how many calls the process dies, and how.
    death: Mutex<Option<(usize, Dies)>>,
}

/// How the process dies at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dies {
    /// The call never arrives.
    Before,
    /// The call does its work, and its answer never arrives.
    After,
}

impl Faults {
    /// The process dies after so many calls: nothing is reached from then on.
    pub fn die_after(&self, calls: usize, dies: Dies) {
        *self.death.lock() = Some((calls, dies));
    }

    /// Whether nothing is reached any more.
    pub fn died(&self) -> bool {
        self.away.load(Ordering::SeqCst)
    }

    /// A new process reaches the store.
    pub fn revive(&self) {
        *self.death.lock() = None;
        self.away.store(false, Ordering::SeqCst);
    }

    /// One call; answers whether its answer arrives.
    fn arrive(&self) -> Result<bool> {
        if self.died() {
            return Err(lost("the store is away"));
        }
        let mut death = self.death.lock();
        match &mut *death {
            Some((0, dies)) => {
                self.away.store(true, Ordering::SeqCst);
                if *dies == Dies::Before { Err(lost("the process has died")) } else { Ok(false) }
            }
            Some((calls, _)) => {
                *calls -= 1;
                Ok(true)
            }
            None => Ok(true),
        }
    }

    async fn call<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let is_answered = self.arrive()?;
        let answer = work.await;
        if is_answered { answer } else { Err(lost("the process has died")) }
    }
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
        if self.faults.refuses.lock().is_some_and(|part| path.as_ref().contains(part)) {
            return Err(lost("the put was refused"));
        }
        let is_create = options.mode == PutMode::Create;
        if is_create && self.faults.conflicts.lock().is_some_and(|part| path.as_ref().contains(part)) {
            return Err(Error::AlreadyExists {
                path: path.to_string(),
                source: "409 ConditionalRequestConflict".into(),
            });
        }
        let is_commit = is_create && path.as_ref().contains("_delta_log");
        let put = self.faults.call(self.inner.put_opts(path, bytes, options)).await;
        if is_commit && !self.faults.died() && self.faults.loses_commit_answers.swap(false, Ordering::SeqCst) {
            self.faults.away.store(true, Ordering::SeqCst);
            return Err(lost("the answer was lost"));
        }
        put
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.faults.call(self.inner.put_multipart_opts(path, options)).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(GetRange::Bounded(range)) = &options.range {
            self.faults.ranges.lock().push(range.clone());
        }
        self.faults.call(self.inner.get_opts(path, options)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, faults) = (self.inner.clone(), self.faults.clone());
        let delete = move |path: Result<Path>| {
            let (inner, faults) = (inner.clone(), faults.clone());
            async move {
                let path = path?;
                faults.call(inner.delete(&path)).await.map(|()| path)
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.faults.arrive() {
            Ok(true) => self.inner.list(prefix),
            Ok(false) => futures::stream::iter([Err(lost("the process has died"))]).boxed(),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.faults.call(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.faults.call(self.inner.copy_opts(from, to, options)).await
    }
}
