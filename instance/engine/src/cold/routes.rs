//! Which store an object lies in: a table may live in another one than the database's own, under the same path.
//!
//! Whoever reads or writes names paths only. What is not below the folder of such a table is the database's own.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use uuid::Uuid;

use super::ColdStore;
use super::log::table_folder;
use crate::EngineError;
use crate::storage::Placement;

/// Objects of other stores that are deleted at once.
const DELETES: usize = 8;

/// The tables that live elsewhere. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    tables: Arc<ArcSwap<HashMap<String, ColdStore>>>,
    /// One client for each place, however many tables lie there.
    stores: Arc<parking_lot::Mutex<HashMap<Placement, ColdStore>>>,
}

impl Routes {
    /// From now on the table's objects are those of that place.
    pub fn add(&self, table: Uuid, placement: &Placement) -> Result<(), EngineError> {
        let store = self.store(placement)?;
        self.tables.rcu(|tables| {
            let mut tables = HashMap::clone(tables);
            tables.insert(table_folder(table).to_string(), store.clone());
            tables
        });
        Ok(())
    }

    /// The store of a place.
    pub fn store(&self, placement: &Placement) -> Result<ColdStore, EngineError> {
        let mut stores = self.stores.lock();
        if let Some(known) = stores.get(placement) {
            return Ok(known.clone());
        }
        let store = ColdStore::open(&placement.object_store())?;
        stores.insert(placement.clone(), store.clone());
        Ok(store)
    }

    /// The other store that the path lies in; none for the database's own.
    pub fn of(&self, path: &Path) -> Option<ColdStore> {
        let tables = self.tables.load();
        if tables.is_empty() {
            return None;
        }
        let mut parts = path.parts();
        let folder = format!("{}/{}", parts.next()?.as_ref(), parts.next()?.as_ref());
        tables.get(&folder).cloned()
    }
}

/// The database's own store, and those of its tables that live elsewhere.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The database's own.
    pub own: Arc<dyn ObjectStore>,
    /// The others.
    pub routes: Routes,
}

impl Routed {
    fn at(&self, path: &Path) -> Arc<dyn ObjectStore> {
        self.routes.of(path).map_or_else(|| self.own.clone(), |store| store.objects().clone())
    }

    fn below(&self, prefix: Option<&Path>) -> Arc<dyn ObjectStore> {
        prefix.map_or_else(|| self.own.clone(), |prefix| self.at(prefix))
    }
}

impl fmt::Display for Routed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.own.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Routed {
    async fn put_opts(&self, path: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.at(path).put_opts(path, bytes, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.at(path).put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.at(path).get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.at(path).get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.routes.tables.load().is_empty() {
            return self.own.delete_stream(paths);
        }
        let stores = self.clone();
        let delete = move |path: Path| {
            let store = stores.at(&path);
            async move { store.delete(&path).await.map(|()| path) }
        };
        paths.map_ok(delete).try_buffered(DELETES).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.below(prefix).list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.below(prefix).list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.at(from).copy_opts(from, to, options).await
    }
}
