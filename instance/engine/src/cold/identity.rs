//! Who owns a prefix: the identity object names the database, numbered epoch objects name its owners, one after the other.
//!
//! Both are made by create-only puts and never changed.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::store::{ColdStore, Created};
use crate::EngineError;
use crate::flush::Epoch;

/// The version of everything below the prefix that is not Delta's own.
const FORMAT: u32 = 1;

/// `identity.json`: written once, by the first owner; kept because a prefix must never serve two databases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Of this prefix; a build that knows only lower ones leaves it alone.
    pub format: u32,
    /// The database, as its volume knows it.
    pub database_id: Uuid,
    /// Milliseconds since the Unix epoch, for people.
    pub created: i64,
}

/// `epochs/0000000001.json`: written by each start of an instance; kept because the highest one tells who owns the prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct EpochObject {
    epoch: u64,
    database_id: Uuid,
    claimed: i64,
}

/// What the prefix says about the database that the volume holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// It is this database's own, and this process has the epoch.
    Claimed(Epoch),
    /// It belongs to another database.
    Foreign(Identity),
    /// It holds a database, and the volume is empty: recovery is needed, not a new database.
    VolumeEmpty(Identity),
}

/// Proves the prefix and claims the next epoch of it. `known` says whether the volume has met this prefix before: one that has
/// not may begin a new database here, but must not take over one that exists.
pub async fn claim(store: &ColdStore, database_id: Uuid, known: bool, now_ms: i64) -> Result<Ownership, EngineError> {
    store.prove_conditional_put().await?;
    let identity = match read_identity(store).await? {
        Some(identity) => identity,
        None => begin(store, database_id, now_ms).await?,
    };
    if identity.database_id != database_id {
        return Ok(if known { Ownership::Foreign(identity) } else { Ownership::VolumeEmpty(identity) });
    }
    claim_epoch(store, database_id, now_ms).await.map(Ownership::Claimed)
}

/// The identity object, where there is one.
pub async fn read_identity(store: &ColdStore) -> Result<Option<Identity>, EngineError> {
    let Some(bytes) = store.get(&identity_path()).await? else { return Ok(None) };
    let corrupt = |reason: String| EngineError::Corrupt { what: format!("identity.json in {}", store.name()), reason };
    let identity: Identity = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
    if identity.format == FORMAT {
        return Ok(Some(identity));
    }
    Err(corrupt(format!(
        "format {}, this build reads {FORMAT}: use the version that wrote it, or a newer one",
        identity.format
    )))
}

async fn begin(store: &ColdStore, database_id: Uuid, now_ms: i64) -> Result<Identity, EngineError> {
    let identity = Identity { format: FORMAT, database_id, created: now_ms };
    match store.put_new(&identity_path(), json(&identity)).await? {
        Created::Now => {
            crash_point!("start.identity_put");
            Ok(identity)
        }
        // S3 answers so too where it meets two puts at the same time, and takes neither (409).
        Created::Before => read_identity(store).await?.ok_or_else(|| {
            EngineError::Unavailable(format!(
                "identity.json in {} met another put of it, and neither is there; trying again",
                store.name()
            ))
        }),
    }
}

/// Takes the number after the highest: whoever loses the race for a number tries the next.
pub async fn claim_epoch(store: &ColdStore, database_id: Uuid, now_ms: i64) -> Result<Epoch, EngineError> {
    let mut epoch = highest_epoch(store).await?.map_or(1, |epoch| epoch.0 + 1);
    loop {
        let object = EpochObject { epoch, database_id, claimed: now_ms };
        if store.put_new(&epoch_path(Epoch(epoch)), json(&object)).await? == Created::Now {
            return Ok(Epoch(epoch));
        }
        epoch += 1;
    }
}

/// The highest epoch that anybody has claimed; none before the first.
pub async fn highest_epoch(store: &ColdStore) -> Result<Option<Epoch>, EngineError> {
    let folder = Path::from("epochs");
    let objects: Vec<_> =
        store.objects().list(Some(&folder)).try_collect().await.map_err(|error| store.failed("list epochs", error))?;
    let number = |path: &Path| path.filename()?.strip_suffix(".json")?.parse().ok();
    Ok(objects.iter().filter_map(|object| number(&object.location)).max().map(Epoch))
}

fn identity_path() -> Path {
    Path::from("identity.json")
}

fn epoch_path(epoch: Epoch) -> Path {
    Path::from(format!("epochs/{:010}.json", epoch.0))
}

fn json(object: &impl Serialize) -> Bytes {
    serde_json::to_vec(object).expect("plain data has a JSON form").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ObjectStoreConfig;

    #[tokio::test]
    async fn a_prefix_serves_one_database_and_each_start_gets_a_higher_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let store = ColdStore::open(&ObjectStoreConfig::Local { path: folder.path().into() }).unwrap();
        let (ours, theirs) = (Uuid::new_v4(), Uuid::new_v4());
        assert_eq!(claim(&store, ours, false, 1).await.unwrap(), Ownership::Claimed(Epoch(1)));
        assert_eq!(claim(&store, ours, true, 2).await.unwrap(), Ownership::Claimed(Epoch(2)));
        assert!(
            matches!(claim(&store, theirs, true, 3).await.unwrap(), Ownership::Foreign(found) if found.database_id == ours)
        );
        assert!(matches!(claim(&store, theirs, false, 4).await.unwrap(), Ownership::VolumeEmpty(_)));
        assert_eq!(claim(&store, ours, true, 5).await.unwrap(), Ownership::Claimed(Epoch(3)), "others took no epoch");
    }

    #[tokio::test]
    async fn a_store_that_ignores_conditions_is_refused() {
        let store = ColdStore::over(std::sync::Arc::new(fickle::Store::default()), "", "a careless clone");
        let error = store.prove_conditional_put().await.unwrap_err().to_string();
        assert!(error.contains("a careless clone") && error.contains("conditional puts"), "{error}");
    }

    /// A store that treats every put as an overwrite.
    mod fickle {
        use futures::stream::BoxStream;
        use object_store::memory::InMemory;
        use object_store::path::Path;
        use object_store::*;

        #[derive(Debug, Default)]
        pub struct Store(InMemory);

        impl std::fmt::Display for Store {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("fickle")
            }
        }

        #[async_trait::async_trait]
        impl ObjectStore for Store {
            async fn put_opts(&self, path: &Path, bytes: PutPayload, mut options: PutOptions) -> Result<PutResult> {
                options.mode = PutMode::Overwrite;
                self.0.put_opts(path, bytes, options).await
            }
            async fn put_multipart_opts(
                &self,
                path: &Path,
                options: PutMultipartOptions,
            ) -> Result<Box<dyn MultipartUpload>> {
                self.0.put_multipart_opts(path, options).await
            }
            async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
                self.0.get_opts(path, options).await
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
    }
}
