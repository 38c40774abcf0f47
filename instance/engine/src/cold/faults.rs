//! An object store that fails on command, for tests: for a while, at one call alone, or at one call and for good, as for a process that dies
//! there. Every request of an upload in parts is a call of its own.

mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;
use tokio::sync::watch;

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
    /// How often an entry of a Delta log was read.
    pub log_reads: AtomicUsize,
    /// The bounded ranges of bytes that were asked for.
    pub ranges: Mutex<Vec<Range<u64>>>,
    /// The objects that they are of.
    pub ranged: Mutex<Vec<Path>>,
    /// After how many calls what happens.
    next: Mutex<Option<(usize, Fault)>>,
    /// Whether a call hangs.
    hangs: watch::Sender<bool>,
}

/// How the process dies at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dies {
    /// The call never arrives.
    Before,
    /// The call does its work, and its answer never arrives.
    After,
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process dies, and reaches nothing any more.
    Dies(Dies),
    /// The call fails and does nothing.
    Fails,
    /// The call does its work, and its answer is lost.
    LosesAnswer,
    /// The bytes of a read, or the names of a listing, break off half-way with an error. Any other call does its work, and its answer is
    /// lost.
    BreaksOff,
    /// The bytes of a read end half-way as if that were their end. Listings break off, for half an answer of theirs can't be parsed; any
    /// other answer is lost.
    EndsEarly,
    /// The call hangs until it is let go, and fails then, as one does whose patience ends. Nothing was done.
    Hangs,
}

impl Faults {
    /// The process dies after so many calls: nothing is reached from then on.
    pub fn die_after(&self, calls: usize, dies: Dies) {
        self.strike_after(calls, Fault::Dies(dies));
    }

    /// So many calls go well; then that happens to one.
    pub fn strike_after(&self, calls: usize, fault: Fault) {
        *self.next.lock() = Some((calls, fault));
    }

    /// Whether what was to happen has happened.
    pub fn has_struck(&self) -> bool {
        self.next.lock().is_none()
    }

    /// Whether a call hangs.
    pub fn hangs(&self) -> bool {
        *self.hangs.borrow()
    }

    /// Lets the call that hangs go on to its failure.
    pub fn let_go(&self) {
        self.hangs.send_replace(false);
    }

    /// Whether nothing is reached any more.
    pub fn died(&self) -> bool {
        self.away.load(Ordering::SeqCst)
    }

    /// Everything goes well again; a new process reaches the store.
    pub fn revive(&self) {
        *self.next.lock() = None;
        self.away.store(false, Ordering::SeqCst);
        self.let_go();
    }

    /// A read, whose bytes may come half.
    async fn read(&self, work: impl Future<Output = Result<GetResult>>) -> Result<GetResult> {
        let half = match self.arrive()? {
            Some(half @ (Fault::BreaksOff | Fault::EndsEarly)) => half,
            struck => return self.strike(struck, work).await,
        };
        let got = work.await?;
        let (meta, range, attributes) = (got.meta.clone(), got.range.clone(), got.attributes.clone());
        let mut bytes = got.bytes().await?;
        bytes.truncate(bytes.len() / 2);
        let end = (half == Fault::BreaksOff).then(|| Err(lost("the answer broke off")));
        let payload = GetResultPayload::Stream(futures::stream::iter([Ok(bytes)].into_iter().chain(end)).boxed());
        Ok(GetResult { payload, meta, range, attributes })
    }

    /// A listing, of which only the first half may come.
    async fn list(
        &self,
        listed: BoxStream<'static, Result<ObjectMeta>>,
    ) -> Result<BoxStream<'static, Result<ObjectMeta>>> {
        match self.arrive()? {
            Some(Fault::BreaksOff | Fault::EndsEarly) => {
                let all: Vec<_> = listed.try_collect().await?;
                let half = all.len() / 2;
                let page = all.into_iter().take(half).map(Ok).chain([Err(lost("the answer broke off"))]);
                Ok(futures::stream::iter(page).boxed())
            }
            struck => self.strike(struck, async { Ok(listed) }).await,
        }
    }

    /// One call; answers what happens to it.
    fn arrive(&self) -> Result<Option<Fault>> {
        if self.died() {
            return Err(lost("the store is away"));
        }
        let mut next = self.next.lock();
        match &mut *next {
            Some((0, fault)) => {
                let fault = *fault;
                *next = None;
                self.away.store(matches!(fault, Fault::Dies(_)), Ordering::SeqCst);
                self.hangs.send_replace(fault == Fault::Hangs);
                Ok(Some(fault))
            }
            Some((calls, _)) => {
                *calls -= 1;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    async fn call<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let struck = self.arrive()?;
        self.strike(struck, work).await
    }

    async fn strike<T>(&self, struck: Option<Fault>, work: impl Future<Output = Result<T>>) -> Result<T> {
        match struck {
            None => work.await,
            Some(Fault::Dies(Dies::Before) | Fault::Fails) => Err(lost("the request failed")),
            Some(Fault::Dies(Dies::After) | Fault::LosesAnswer | Fault::BreaksOff | Fault::EndsEarly) => {
                let _ = work.await;
                Err(lost("the answer was lost"))
            }
            Some(Fault::Hangs) => {
                // The sender lives as long as `self` does.
                let _ = self.hangs.subscribe().wait_for(|hangs| !hangs).await;
                Err(lost("the request took too long"))
            }
        }
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

    fn check_refused(&self, path: &Path) -> Result<()> {
        let is_refused = self.faults.refuses.lock().is_some_and(|part| path.as_ref().contains(part));
        if is_refused { Err(lost("the put was refused")) } else { Ok(()) }
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
        self.check_refused(path)?;
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
        self.check_refused(path)?;
        let (inner, faults) =
            (self.faults.call(self.inner.put_multipart_opts(path, options)).await?, self.faults.clone());
        Ok(Box::new(FaultyUpload { inner, faults }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(GetRange::Bounded(range)) = &options.range {
            self.faults.ranges.lock().push(range.clone());
            self.faults.ranged.lock().push(path.clone());
        }
        if path.as_ref().contains("_delta_log/") {
            self.faults.log_reads.fetch_add(1, Ordering::SeqCst);
        }
        let is_head = options.head;
        let got = self.inner.get_opts(path, options);
        if is_head { self.faults.call(got).await } else { self.faults.read(got).await }
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
        let (listed, faults) = (self.inner.list(prefix), self.faults.clone());
        let begun = async move { faults.list(listed).await };
        futures::stream::once(begun).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.faults.call(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.faults.call(self.inner.copy_opts(from, to, options)).await
    }
}

/// An upload in parts with its faults.
#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    faults: Arc<Faults>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, bytes: PutPayload) -> UploadPart {
        let (part, faults) = (self.inner.put_part(bytes), self.faults.clone());
        async move { faults.call(part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.faults.call(self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.faults.call(self.inner.abort()).await
    }
}
