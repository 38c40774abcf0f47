//! The object store below which everything cold lies: a local folder or S3. It knows no tables.
//!
//! Every path is relative to the database's own prefix. What is put here is durable once the put has returned; what was uploaded in
//! parts needs `make_durable`, for a local folder's sake ([`super::folder`]).

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig};
use uuid::Uuid;

use super::folder::{self, DurableFolder, Staged};
use super::routes::{Routed, Routes};
use super::trouble::Trouble;
use super::whole::WholeRanges;
use crate::EngineError;
use crate::config::{ObjectStoreConfig, Patience};

/// Whether the environment offers a key or a token. Without them the client would ask the metadata service of a cloud, which an
/// S3 server at an endpoint of its own has nothing to do with.
fn credentials_in_environment() -> bool {
    let names = ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
    names.iter().any(|name| std::env::var_os(name).is_some())
}

/// Whether a create-only put made the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It did not exist before.
    Now,
    /// It existed already and was left as it is; or the store met another put of it at the same time, took neither (409 of S3), and it may
    /// not exist yet.
    Before,
}

/// The object store, rooted at the database's prefix. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ColdStore {
    objects: Arc<dyn ObjectStore>,
    /// The folder, where the store is one: what is put there must be fsynced.
    folder: Option<Arc<FilePath>>,
    /// For people: where it is.
    name: Arc<str>,
    /// Why requests fail; none where the store answered the last one.
    trouble: Arc<ArcSwapOption<Trouble>>,
    /// The tables that lie in other stores.
    routes: Routes,
}

impl ColdStore {
    /// Builds the client. Makes the folder of a local store, and reaches no other.
    pub fn open(config: &ObjectStoreConfig) -> Result<Self, EngineError> {
        match config {
            ObjectStoreConfig::Local { path } => Self::local(path),
            ObjectStoreConfig::S3 { .. } => Self::s3(config),
        }
    }

    fn local(path: &FilePath) -> Result<Self, EngineError> {
        let name = format!("folder {}", path.display());
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| EngineError::Cold {
            action: format!("open the object store in {name}"),
            source,
        };
        crate::folder::make(path).map_err(|error| failed(error.into()))?;
        let folder = path.canonicalize().map_err(|error| failed(error.into()))?;
        let objects = DurableFolder::new(&folder).map_err(|error| failed(error.into()))?;
        Ok(Self { folder: Some(folder.into()), ..Self::over(Arc::new(objects), "", &name) })
    }

    fn s3(config: &ObjectStoreConfig) -> Result<Self, EngineError> {
        let ObjectStoreConfig::S3 { bucket, prefix, endpoint, region, access_key_id, secret_access_key, patience } =
            config
        else {
            unreachable!("called for S3 only");
        };
        let at = endpoint.as_deref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
        let name = format!("bucket {bucket}{at}");
        if endpoint.is_some() && access_key_id.is_none() && !credentials_in_environment() {
            return Err(EngineError::Invalid(format!(
                "{name} needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )));
        }
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_retry(retry(patience))
            .with_client_options(
                ClientOptions::new().with_timeout(patience.request).with_connect_timeout(patience.connect),
            );
        if let Some(endpoint) = endpoint {
            // Credentials over plain HTTP only where the operator of the database has written http:// himself.
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let (Some(id), Some(secret)) = (access_key_id, secret_access_key) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        let store = builder
            .build()
            .map_err(|error| EngineError::Cold { action: format!("set up {name}"), source: error.into() })?;
        Ok(Self::over(Arc::new(store), prefix, &name))
    }

    /// Any other store below a prefix.
    pub fn over(store: Arc<dyn ObjectStore>, prefix: &str, name: &str) -> Self {
        let objects: Arc<dyn ObjectStore> = match prefix.trim_matches('/') {
            "" => store,
            prefix => Arc::new(PrefixStore::new(store, Path::from(prefix))),
        };
        let routes = Routes::default();
        let routed = Routed { own: Arc::new(WholeRanges(objects)), routes: routes.clone() };
        Self { objects: Arc::new(routed), folder: None, name: name.into(), trouble: Arc::default(), routes }
    }

    /// The same store with its requests passing through `wrap`: where tests inject faults. Answers are still whole or none.
    pub fn wrapped(mut self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        self.objects = Arc::new(WholeRanges(wrap(self.objects)));
        self
    }

    /// The objects, relative to the prefix.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// The tables that lie in other stores.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Where it is, for people: `bucket kalam at http://s3:7070`, `folder /data/cold`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An error of the store as the engine reports it: whatever a later try can mend is `Unavailable` and names the store.
    pub fn failed(&self, action: impl Into<String>, error: object_store::Error) -> EngineError {
        let action = action.into();
        match Trouble::of(&self.name, &error) {
            None => EngineError::Cold { action: format!("{action} in {}", self.name), source: error.into() },
            Some(trouble) => {
                let text = format!("failed to {action}: {trouble}");
                self.remember(&trouble, &action, &error);
                EngineError::Unavailable(text)
            }
        }
    }

    /// Told once in the log, with all that the client says; what follows meets the same.
    fn remember(&self, trouble: &Trouble, action: &str, error: &object_store::Error) {
        let before = self.trouble.rcu(|known| {
            Some(Arc::new(known.as_ref().map_or_else(|| trouble.clone(), |known| known.followed_by(trouble))))
        });
        if before.is_none() {
            tracing::warn!(action, "{trouble}");
        }
        tracing::debug!(action, %error, "a request to the object store failed");
    }

    /// The store has answered.
    fn works(&self) {
        if let Some(trouble) = self.trouble.swap(None) {
            tracing::info!(store = self.name(), %trouble, "the object store answers again");
        }
    }

    /// Why the store could not be used when it was last asked; none where it answered.
    pub fn trouble(&self) -> Option<Arc<Trouble>> {
        self.trouble.load_full()
    }

    /// Creates an object, or leaves the one that is there.
    pub async fn put_new(&self, path: &Path, bytes: Bytes) -> Result<Created, EngineError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(path, bytes.into(), options).await {
            Ok(_) => {
                self.works();
                Ok(Created::Now)
            }
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                self.works();
                Ok(Created::Before)
            }
            Err(error) => Err(self.failed(format!("create {path}"), error)),
        }
    }

    /// Writes an object whose name nobody else uses.
    pub async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), EngineError> {
        self.objects.put(path, bytes.into()).await.map_err(|error| self.failed(format!("write {path}"), error))?;
        self.works();
        Ok(())
    }

    /// The object's bytes; none where it does not exist.
    pub async fn get(&self, path: &Path) -> Result<Option<Bytes>, EngineError> {
        let read = async { self.objects.get(path).await?.bytes().await };
        match read.await {
            Ok(bytes) => {
                self.works();
                Ok(Some(bytes))
            }
            // Where the bucket itself is missing, nothing is known of the object.
            Err(error @ object_store::Error::NotFound { .. }) if Trouble::of(&self.name, &error).is_none() => {
                self.works();
                Ok(None)
            }
            Err(error) => Err(self.failed(format!("read {path}"), error)),
        }
    }

    /// Returns once a power cut can't take the object away any more.
    pub async fn make_durable(&self, path: &Path) -> Result<(), EngineError> {
        if let Some(other) = self.routes.of(path) {
            return Box::pin(other.make_durable(path)).await;
        }
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let file: PathBuf = folder.join(path.as_ref());
        on_disk(&format!("sync {path} to disk"), move || folder::sync_up_to(&file, &folder)).await
    }

    /// Deletes objects; what is gone already is as good as deleted.
    pub async fn delete_all(&self, paths: Vec<Path>) -> Result<(), EngineError> {
        let given = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut deleted = self.objects.delete_stream(given);
        while let Some(answer) = deleted.next().await {
            match answer {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {
                    crash_point!("vacuum.one_deleted");
                }
                Err(error) => return Err(self.failed("delete objects that nobody needs any more", error)),
            }
        }
        Ok(())
    }

    /// Deletes everything below a folder; answers with how many objects there were.
    pub async fn delete_folder(&self, folder: &Path) -> Result<usize, EngineError> {
        if let Some(other) = self.routes.of(folder) {
            return Box::pin(other.delete_folder(folder)).await;
        }
        let failed = |error| self.failed(format!("list {folder}"), error);
        let found: Vec<_> = self.objects.list(Some(folder)).try_collect().await.map_err(failed)?;
        let objects = found.len();
        self.delete_all(found.into_iter().map(|object| object.location).collect()).await?;
        if let Some(root) = &self.folder {
            // The folders themselves, and files that were begun in them.
            let path = root.join(folder.as_ref());
            on_disk(&format!("delete {folder}"), move || match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            })
            .await?;
        }
        Ok(objects)
    }

    /// Files of a local folder that were begun and never got their name. An object store has none that could be seen.
    pub async fn staged(&self, folder: &Path) -> Result<Vec<Staged>, EngineError> {
        if let Some(other) = self.routes.of(folder) {
            return Box::pin(other.staged(folder)).await;
        }
        let Some(root) = &self.folder else { return Ok(Vec::new()) };
        let path = root.join(folder.as_ref());
        on_disk(&format!("search {folder} for files of dead jobs"), move || folder::staged(&path)).await
    }

    /// Deletes such files.
    pub async fn delete_staged(&self, staged: Vec<Staged>) -> Result<(), EngineError> {
        on_disk("delete files of dead jobs", move || {
            staged.iter().try_for_each(|staged| match std::fs::remove_file(&staged.file) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            })
        })
        .await
    }

    /// Proves that a create-only put refuses an object that exists: a store that ignores the condition would let two owners
    /// overwrite each other's commits.
    pub async fn prove_conditional_put(&self) -> Result<(), EngineError> {
        let path = Path::from(format!("probe/{}", Uuid::new_v4()));
        let first = self.put_new(&path, Bytes::from_static(b"1")).await?;
        let second = self.put_new(&path, Bytes::from_static(b"2")).await;
        let removed = self.objects.delete(&path).await;
        if let Err(error) = removed {
            tracing::debug!(%path, %error, "a probe object was left behind");
        }
        match (first, second?) {
            (Created::Now, Created::Before) => Ok(()),
            // Nobody else knows the name: the client has repeated a put whose answer was lost.
            (Created::Before, _) => Err(EngineError::Unavailable(format!(
                "the object store ({}) answers unreliably: a put had to be repeated",
                self.name
            ))),
            (Created::Now, Created::Now) => Err(EngineError::Unavailable(format!(
                "the object store ({}) does not honour conditional puts (If-None-Match: *): it must, or two instances could \
                 overwrite each other; use a store that supports them",
                self.name
            ))),
        }
    }
}

/// Work on a local folder, on a thread that may block.
async fn on_disk<T: Send + 'static>(
    action: &str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, EngineError> {
    let done = tokio::task::spawn_blocking(work).await.expect("work on files does not panic");
    done.map_err(|error| EngineError::Cold { action: action.into(), source: error.into() })
}

fn retry(patience: &Patience) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: patience.retries,
        retry_timeout: patience.retry_within,
    }
}
