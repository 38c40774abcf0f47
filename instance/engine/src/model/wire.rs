//! The way from one process to the object store that all of them share. A Delta commit waits at its end for a turn, and what becomes of it
//! there is the program's choice: it lands, its answer is lost, it is lost itself, or it arrives much later.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use crate::point::point;

/// What becomes of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    /// It arrives, and so does its answer.
    #[default]
    Lands,
    /// It arrives, and its answer does not.
    AnswerLost,
    /// It never arrives.
    Lost,
    /// It arrives at a later time, or never; its sender hears nothing.
    Late,
}

/// A put that is still on its way.
#[derive(Debug, Clone)]
pub struct Late {
    path: Path,
    bytes: PutPayload,
}

/// What the processes share.
#[derive(Debug, Default)]
pub struct Sea {
    /// The objects.
    pub objects: InMemory,
    /// Commits that are still on their way.
    pub late: Mutex<Vec<Late>>,
    /// How many objects were deleted.
    pub deleted: AtomicUsize,
    /// Time that has gone by beside the computer's, in microseconds.
    pub passed: AtomicU64,
    /// How much of it had when an object was put.
    put_after: Mutex<HashMap<Path, Duration>>,
}

impl Sea {
    /// The same objects, from which both go their own ways.
    pub fn fork(&self) -> Self {
        Self { objects: self.objects.fork(), ..Self::default() }
    }

    /// A late put arrives: it takes its version, or another has.
    pub async fn arrive(&self, number: usize) {
        let Late { path, bytes } = self.late.lock().remove(number);
        match self.objects.put_opts(&path, bytes, create()).await {
            Ok(_) => self.note(&path),
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => panic!("a store in memory fails: {error}"),
        }
    }

    async fn put(&self, path: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        let put = self.objects.put_opts(path, bytes, options).await?;
        self.note(path);
        Ok(put)
    }

    fn note(&self, path: &Path) {
        let passed = Duration::from_micros(self.passed.load(Ordering::SeqCst));
        self.put_after.lock().insert(path.clone(), passed);
    }

    /// The store's clock goes by the model's.
    fn aged(&self, mut object: ObjectMeta) -> ObjectMeta {
        if let Some(passed) = self.put_after.lock().get(&object.location) {
            object.last_modified += *passed;
        }
        object
    }
}

/// The store as one process reaches it.
#[derive(Debug)]
pub struct Wire {
    sea: Arc<Sea>,
    /// What becomes of the next commit.
    pub fate: Arc<Mutex<Fate>>,
    /// Commits that were sent so far.
    pub sent: Arc<AtomicUsize>,
}

impl Wire {
    /// A process's way to the store.
    pub fn new(sea: Arc<Sea>) -> Self {
        Self { sea, fate: Arc::default(), sent: Arc::default() }
    }
}

fn create() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

fn lost() -> Error {
    Error::Generic { store: "wire", source: "no answer has come".into() }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a wire to a store in memory")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Wire {
    async fn put_opts(&self, path: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_commit = options.mode == PutMode::Create && path.as_ref().contains("/_delta_log/");
        if !is_commit {
            return self.sea.put(path, bytes, options).await;
        }
        point!("put");
        let fate = std::mem::take(&mut *self.fate.lock());
        self.sent.fetch_add(1, Ordering::SeqCst);
        match fate {
            Fate::Lands => self.sea.put(path, bytes, options).await,
            Fate::AnswerLost => {
                // Whether it was taken or refused, nobody hears of it.
                let _ = self.sea.put(path, bytes, options).await;
                Err(lost())
            }
            Fate::Lost => Err(lost()),
            Fate::Late => {
                self.sea.late.lock().push(Late { path: path.clone(), bytes });
                Err(lost())
            }
        }
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.sea.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.sea.objects.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let sea = self.sea.clone();
        let counted = paths.inspect(move |_| {
            sea.deleted.fetch_add(1, Ordering::SeqCst);
        });
        self.sea.objects.delete_stream(counted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let sea = self.sea.clone();
        self.sea.objects.list(prefix).map_ok(move |object| sea.aged(object)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.sea.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.sea.objects.copy_opts(from, to, options).await
    }
}
