//! The Delta log of one table: conditional puts of commits, reading them back, loading a version, checkpoints.
//!
//! Nothing here retries or rebases a commit: a version is taken by exactly the bytes that were prepared for it, or not at all.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use delta_kernel::snapshot::Snapshot as KernelSnapshot;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::TransactionError;
use deltalake_core::kernel::{Action, CommitInfo, DeletionVectorDescriptor, EagerSnapshot, Transaction};
use deltalake_core::logstore::{CommitOrBytes, LogStoreRef, StorageConfig, default_logstore, get_actions};
use deltalake_core::protocol::checkpoints::cleanup_expired_logs_for;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use roaring::RoaringTreemap;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::name;
use super::schema;
use super::snapshot::{ColdFile, ColdSnapshot, schema_version};
use super::store::ColdStore;
use crate::EngineError;
use crate::flush::Intent;
use crate::schema::Table;

/// Where a commit names its intent.
const INTENT_KEY: &str = "kalamdb";
/// Application ids of the `txn` actions, which survive in checkpoints: the flushed `_seq` and the epoch.
pub(super) const TXN_FLUSHED: &str = "kalamdb.flushed_through";
pub(super) const TXN_EPOCH: &str = "kalamdb.epoch";

/// How a conditional put ended, as far as its answer tells. A lost answer is an error: what occupies the version decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The commit has the version.
    Landed,
    /// Something else has it, or an earlier try of the same put; or else the store met another put at the same time, as the answer 409 of
    /// S3 says, and nothing may have it.
    Taken,
}

/// A commit as it lies in the log.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its intent; none where it is not one of KalamDB's.
    pub intent: Option<Intent>,
    /// Its actions.
    pub actions: Vec<Action>,
}

impl Commit {
    /// Whether that job made it.
    pub fn is_of(&self, job: Uuid) -> bool {
        self.intent.as_ref().is_some_and(|intent| intent.job == job)
    }
}

/// The log of one table. Cheap to make.
#[derive(Debug, Clone)]
pub struct DeltaLog {
    store: ColdStore,
    folder: Path,
    log: LogStoreRef,
}

impl DeltaLog {
    /// The log in the folder that the table's UUID names. Reads nothing.
    pub fn of(store: &ColdStore, table: Uuid) -> Self {
        let folder = table_folder(table);
        // Paths are those of our own store, whatever it is. By the host's suffix, which is that of S3 directory buckets, the kernel
        // knows that listings may come unordered, as those of a local folder do.
        let url = Url::parse(&format!("kalamdb://cold--x-s3/{folder}/")).expect("a UUID makes a URL");
        let own = Arc::new(PrefixStore::new(store.objects().clone(), folder.clone()));
        let log = default_logstore(own, store.objects().clone(), &url, &StorageConfig::default());
        Self { store: store.clone(), folder, log }
    }

    /// The path of a file of the table, as the object store knows it.
    pub fn path_of(&self, file: &str) -> Path {
        Path::from(format!("{}/{file}", self.folder))
    }

    /// The table's folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The store that the folder lies in.
    pub(super) fn store(&self) -> &ColdStore {
        &self.store
    }

    /// What delta-rs reads and writes through.
    pub(super) fn log(&self) -> &LogStoreRef {
        &self.log
    }

    /// What the kernel reads and writes through.
    pub(super) fn kernel(&self) -> Arc<dyn delta_kernel::Engine> {
        self.log.engine(None)
    }

    /// The folder as the kernel knows it.
    pub(super) fn root(&self) -> &Url {
        self.log.root_url()
    }

    /// The bytes of a commit: its intent first, then its actions.
    pub fn encode(intent: &Intent, actions: &[Action], now_ms: i64) -> Bytes {
        let mut lines = vec![Action::CommitInfo(commit_info(intent, now_ms))];
        lines.extend_from_slice(actions);
        let epoch = i64::try_from(intent.epoch.0).expect("nobody starts an instance that often");
        lines.push(Action::Txn(Transaction::new_with_last_update(TXN_EPOCH, epoch, Some(now_ms))));
        lines.push(Action::Txn(Transaction::new_with_last_update(TXN_FLUSHED, intent.w.0, Some(now_ms))));
        let line = |action| serde_json::to_string(action).expect("plain data has a JSON form");
        lines.iter().map(line).collect::<Vec<_>>().join("\n").into()
    }

    /// Puts the commit at the version that its intent names.
    pub async fn put(&self, intent: &Intent, commit: Bytes) -> Result<Put, EngineError> {
        let version = version_of(intent.version);
        match self.log.write_commit_entry(version, CommitOrBytes::LogBytes(commit), intent.job).await {
            Ok(()) => Ok(Put::Landed),
            Err(TransactionError::VersionAlreadyExists(_)) => Ok(Put::Taken),
            Err(TransactionError::ObjectStore { source }) => {
                Err(self.store.failed(format!("commit {intent} to {}", self.folder), source))
            }
            Err(error) => {
                Err(EngineError::Cold { action: format!("commit {intent} to {}", self.folder), source: error.into() })
            }
        }
    }

    /// The commit that occupies the version, durable by the time it is returned; none where nothing does.
    pub async fn read(&self, version: i64) -> Result<Option<Commit>, EngineError> {
        let entry = self.path_of(&format!("_delta_log/{version:020}.json"));
        let Some(bytes) = self.store.get(&entry).await? else { return Ok(None) };
        self.store.make_durable(&entry).await?;
        let actions =
            get_actions(version_of(version), &bytes).map_err(|error| self.damaged(version, error.to_string()))?;
        let intent = actions.iter().find_map(|action| match action {
            Action::CommitInfo(info) => serde_json::from_value(info.info.get(INTENT_KEY)?.clone()).ok(),
            _ => None,
        });
        Ok(Some(Commit { intent, actions }))
    }

    /// Loads a version from the log.
    pub async fn load(&self, table: &Table, version: i64) -> Result<ColdSnapshot, EngineError> {
        let load = async {
            let snapshot = EagerSnapshot::try_new(self.log.as_ref(), Some(version_of(version))).await?;
            let views: Vec<_> = snapshot.file_views(self.log.as_ref(), None).try_collect().await?;
            Ok((snapshot, views))
        };
        let (snapshot, views) = match load.await {
            Ok(loaded) => loaded,
            Err(error) => return Err(self.blame(version, error).await),
        };
        let schema = schema::file_schema(table);
        #[expect(deprecated, reason = "the only public way from a view to all fields of its add action")]
        let adds = views.iter().map(|view| view.add_action());
        let files = adds.map(|add| ColdFile::from_add(&add, &schema).map(Arc::new)).collect::<Result<_, _>>()?;
        Ok(ColdSnapshot::new(version, schema_version(snapshot.metadata()), files))
    }

    /// Writes a checkpoint of the version, so that later loads need not read every commit.
    pub async fn checkpoint(&self, version: i64) -> Result<(), EngineError> {
        let (engine, url) = (self.log.engine(None), self.log.root_url().clone());
        let written = tokio::task::spawn_blocking(move || {
            let snapshot = KernelSnapshot::builder_for(url).at_version(version_of(version)).build(engine.as_ref())?;
            snapshot.checkpoint(engine.as_ref(), None).map(|_| ())
        });
        let action = format!("write a checkpoint of version {version} of {}", self.folder);
        match written.await {
            Ok(written) => written.map_err(|error| self.store.kernel_failed(action, error)),
            Err(error) => Err(EngineError::Cold { action, source: error.into() }),
        }
    }

    /// Removes entries of the log that are older than `before_ms` and that a checkpoint has replaced.
    pub async fn clean_up(&self, version: i64, before_ms: i64) -> Result<(), EngineError> {
        let cleaned = cleanup_expired_logs_for(version_of(version), self.log.as_ref(), before_ms, None).await;
        cleaned.map(drop).map_err(|error| self.failed(format!("clean up the log of {}", self.folder), error))
    }

    /// The rows that a deletion vector hides. The error for one that is damaged or missing names its file.
    pub async fn read_vector(&self, descriptor: &DeletionVectorDescriptor) -> Result<RoaringTreemap, EngineError> {
        let rows = self.decode_vector(descriptor).await;
        let Some(path) = name::vector_file(descriptor).map(|file| self.path_of(&file)) else { return rows };
        match rows {
            Ok(rows) if rows.len() == descriptor.cardinality.unsigned_abs() => Ok(rows),
            Ok(rows) => Err(self.store.damaged(
                &path,
                &format!("it hides {} rows, and the Delta log says {}", rows.len(), descriptor.cardinality),
            )),
            Err(error) => Err(self.store.blame(&path, None, error).await),
        }
    }

    async fn decode_vector(&self, descriptor: &DeletionVectorDescriptor) -> Result<RoaringTreemap, EngineError> {
        let failed =
            |source| EngineError::Cold { action: format!("read a deletion vector of {}", self.folder), source };
        let kernel: delta_kernel::actions::deletion_vector::DeletionVectorDescriptor =
            descriptor.clone().try_into().map_err(|error: delta_kernel::Error| failed(error.into()))?;
        let (engine, url) = (self.log.engine(None), self.log.root_url().clone());
        let read = tokio::task::spawn_blocking(move || kernel.read(engine.storage_handler(), &url));
        let read = read.await.map_err(|error| failed(error.into()))?;
        read.map_err(|error| self.store.kernel_failed(format!("read a deletion vector of {}", self.folder), error))
    }

    pub(super) fn failed(&self, action: String, error: DeltaTableError) -> EngineError {
        match error {
            DeltaTableError::ObjectStore { source } => self.store.failed(action, source),
            DeltaTableError::KernelError(error) => self.store.kernel_failed(action, error),
            error => self.store.read_failed(action, error.into()),
        }
    }
}

/// The folder of a table below the prefix.
pub fn table_folder(table: Uuid) -> Path {
    Path::from(format!("tables/{table}"))
}

/// The actions that begin a log, or bring its metadata to the table's present schema.
pub fn schema_actions(table: &Table, before: &ColdSnapshot) -> Vec<Action> {
    let from = |json| serde_json::from_value(json).expect("our own metadata is well formed");
    let mut actions = Vec::new();
    if before.version < 0 {
        actions.push(Action::Protocol(
            serde_json::from_value(schema::protocol()).expect("our own protocol is well formed"),
        ));
    }
    // Only ever forward: whoever commits may have taken the table from the catalog before an ALTER.
    if before.schema_version.is_none_or(|known| known < table.version) {
        actions.push(Action::Metadata(from(schema::metadata(table))));
    }
    actions
}

/// The answer to a put that was refused, at a version that nothing has taken.
pub fn met_another(intent: &Intent) -> EngineError {
    EngineError::Unavailable(format!("{intent} met another put of its version, and neither has it; try again"))
}

fn commit_info(intent: &Intent, now_ms: i64) -> CommitInfo {
    let intent_json = serde_json::to_value(intent).expect("plain data has a JSON form");
    CommitInfo {
        timestamp: Some(now_ms),
        operation: Some(format!("KALAMDB {}", intent.kind.as_str().to_uppercase())),
        operation_parameters: Some(HashMap::from([("job".to_owned(), json!(intent.job))])),
        engine_info: Some(concat!("KalamDB/", env!("CARGO_PKG_VERSION")).into()),
        info: HashMap::from([(INTENT_KEY.to_owned(), intent_json)]),
        ..CommitInfo::default()
    }
}

fn version_of(version: i64) -> u64 {
    u64::try_from(version).expect("only versions from 0 on are put or read")
}
