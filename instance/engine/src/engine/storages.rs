//! Storages of the engine: where tables live beside the database's own object store.

use crate::EngineError;
use crate::catalog::{Catalog, CatalogChange};
use crate::cold::probe::Probe;
use crate::cold::{ColdStore, ColdTier};
use crate::engine::Engine;
use crate::hot::DroppedTable;
use crate::schema::Table;
use crate::storage::{LOCAL_STORAGE, Placement, Storage, TableStorage};

impl Engine {
    /// The change that creates a storage, once that has proven that two owners can't overwrite each other there.
    pub async fn creation_of_storage(&self, storage: Storage) -> Result<CatalogChange, EngineError> {
        if self.catalog().storages.contains_key(&storage.id) || storage.id == LOCAL_STORAGE {
            return Err(EngineError::AlreadyExists { what: "storage", name: storage.id });
        }
        self.inner.cold.routes().store(&storage.placement())?.prove_conditional_put().await?;
        Ok(CatalogChange::PutStorage(Box::new(storage)))
    }

    /// Whether a storage can be used.
    pub async fn check_storage(&self, id: &str, extended: bool) -> Result<Probe, EngineError> {
        let store = self.storage(id)?;
        Ok(store.probe(extended).await)
    }

    fn storage(&self, id: &str) -> Result<ColdStore, EngineError> {
        if id == LOCAL_STORAGE {
            return Ok(self.inner.cold.store().clone());
        }
        let catalog = self.catalog();
        let missing = || EngineError::NotFound { what: "storage", name: id.into() };
        let storage = catalog.storages.get(id).ok_or_else(missing)?;
        self.inner.cold.routes().store(&storage.placement())
    }
}

impl ColdTier {
    /// From now on the objects of every table are looked for where the table lives.
    pub(crate) fn place_all(&self, catalog: &Catalog, dropped: &[DroppedTable]) -> Result<(), EngineError> {
        catalog.tables.values().try_for_each(|table| self.place(catalog, table))?;
        let elsewhere = dropped.iter().filter_map(|table| Some((table.uuid, table.storage.as_ref()?)));
        elsewhere.into_iter().try_for_each(|(uuid, storage)| self.routes().add(uuid, &placement(catalog, storage)))
    }

    /// The same for one table.
    pub(crate) fn place(&self, catalog: &Catalog, table: &Table) -> Result<(), EngineError> {
        match &table.storage {
            Some(storage) => self.routes().add(table.uuid, &placement(catalog, storage)),
            None => Ok(()),
        }
    }
}

fn placement(catalog: &Catalog, storage: &TableStorage) -> Placement {
    let key = catalog.storages.get(&storage.id).and_then(|storage| storage.access_key.clone());
    Placement { location: storage.location.clone(), access_key: key }
}
