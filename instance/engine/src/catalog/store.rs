//! The catalog's records: namespaces and users under their names, tables under id and version.

use std::collections::BTreeMap;
use std::sync::Arc;

use rocksdb::WriteBatch;
use serde::de::DeserializeOwned;

use crate::EngineError;
use crate::catalog::{Catalog, Credentials, DEFAULT_NAMESPACE, Effect, Namespace, ROOT, Role, User};
use crate::codec;
use crate::hot::store::{Family, Hot, failed, synced};
use crate::hot::{HotSnapshot, key, volume};
use crate::schema::{SchemaVersion, Table, TableId};
use crate::storage::{Storage, TableStorage};

const CATALOG_FORMAT: u8 = 1;
/// Tables have a format of their own; 2 brought the history of columns, 3 the storage and the retention of deleted rows.
const TABLE_FORMAT: u8 = 3;
const OWN_STORE_TABLE_FORMAT: u8 = 2;
/// What the keys of storages begin with, in the family `meta`.
const STORAGE_KEY: &str = "storage/";

/// The stored catalog; in a volume that has none, the first one, which is stored. `now_ms`: milliseconds since the Unix epoch.
pub(crate) fn load_or_begin(hot: &Hot, now_ms: i64) -> Result<Catalog, EngineError> {
    let stored = load(hot)?;
    if !stored.namespaces.is_empty() {
        return Ok(stored);
    }
    let first = first_catalog(now_ms);
    let mut batch = WriteBatch::default();
    let namespaces = first.namespaces.values().cloned().map(Effect::PutNamespace);
    let effects: Vec<_> = namespaces.chain(first.users.values().cloned().map(Effect::PutUser)).collect();
    stage(hot, &mut batch, &first, &effects);
    hot.db().write_opt(batch, &synced()).map_err(failed("store the first catalog"))?;
    Ok(first)
}

/// The catalog of a new database.
pub(crate) fn first_catalog(now_ms: i64) -> Catalog {
    let namespace = Namespace { name: DEFAULT_NAMESPACE.into(), options: BTreeMap::new(), created_at: now_ms };
    let root = User {
        id: ROOT.into(),
        role: Role::System,
        email: None,
        credentials: Credentials::None,
        created_at: now_ms,
        updated_at: now_ms,
    };
    Catalog {
        namespaces: [(DEFAULT_NAMESPACE.to_owned(), Arc::new(namespace))].into(),
        tables: BTreeMap::new(),
        versions: BTreeMap::new(),
        users: [(root.id.clone(), Arc::new(root))].into(),
        storages: BTreeMap::new(),
        next_table_id: 1,
    }
}

fn load(hot: &Hot) -> Result<Catalog, EngineError> {
    let snapshot = hot.snapshot();
    let mut catalog = Catalog::default();
    snapshot.each(Family::SystemNamespaces, &[], |_, bytes| {
        let namespace = namespace_of(bytes)?;
        catalog.namespaces.insert(namespace.name.clone(), Arc::new(namespace));
        Ok(())
    })?;
    snapshot.each(Family::SystemUsers, &[], |id, bytes| {
        let user: User = record(bytes, "user", id)?;
        catalog.users.insert(user.id.clone(), Arc::new(user));
        Ok(())
    })?;
    snapshot.each(Family::Meta, STORAGE_KEY.as_bytes(), |id, bytes| {
        let storage: Storage = record(bytes, "storage", id)?;
        catalog.storages.insert(storage.id.clone(), Arc::new(storage));
        Ok(())
    })?;
    // Versions of a table follow one another, so that the newest is the last to be put.
    snapshot.each(Family::SystemTables, &[], |id, bytes| {
        catalog.put_table(Arc::new(table_of(bytes, id)?));
        Ok(())
    })?;
    let next = snapshot.get(Family::Meta, volume::NEXT_TABLE_KEY)?;
    catalog.next_table_id = next.map_or(Ok(1), |bytes| volume::decode(&bytes, "next table id"))?;
    Ok(catalog)
}

/// The table as of that snapshot: its newest version there; none where it does not exist.
pub(crate) fn table_at(snapshot: &HotSnapshot, id: TableId) -> Result<Option<Table>, EngineError> {
    let mut newest = None;
    snapshot.each(Family::SystemTables, &key::table_prefix(id), |version, bytes| {
        newest = Some(table_of(bytes, version)?);
        Ok(())
    })?;
    Ok(newest)
}

/// A table's record, in the volume and in the mirror alike.
pub(crate) fn table_bytes(table: &Table) -> Vec<u8> {
    codec::encode(TABLE_FORMAT, table)
}

/// Reads a table's record; `key` names it in the error.
pub(crate) fn table_of(bytes: &[u8], key: &[u8]) -> Result<Table, EngineError> {
    let what = format!("table record '{}'", key.escape_ascii());
    codec::decode_grown(OWN_STORE_TABLE_FORMAT, TABLE_FORMAT, bytes, &(None::<TableStorage>, None::<u32>), &what)
}

/// A namespace's record, in the volume and in the mirror alike.
pub(crate) fn namespace_bytes(namespace: &Namespace) -> Vec<u8> {
    codec::encode(CATALOG_FORMAT, namespace)
}

/// Reads a namespace's record.
pub(crate) fn namespace_of(bytes: &[u8]) -> Result<Namespace, EngineError> {
    codec::decode(CATALOG_FORMAT, bytes, "namespace record")
}

fn record<T: DeserializeOwned>(bytes: &[u8], what: &str, key: &[u8]) -> Result<T, EngineError> {
    codec::decode(CATALOG_FORMAT, bytes, &format!("{what} record '{}'", key.escape_ascii()))
}

/// Puts the effects of a change into a batch; `after` is the catalog after it.
pub(crate) fn stage(hot: &Hot, batch: &mut WriteBatch, after: &Catalog, effects: &[Effect]) {
    for effect in effects {
        match effect {
            Effect::PutNamespace(namespace) => {
                let family = hot.family(Family::SystemNamespaces);
                batch.put_cf(family, &namespace.name, namespace_bytes(namespace));
            }
            Effect::DropNamespace(name) => batch.delete_cf(hot.family(Family::SystemNamespaces), name),
            Effect::PutTable(table) => {
                let family = hot.family(Family::SystemTables);
                batch.put_cf(family, table_key(table.id, table.version), table_bytes(table));
            }
            Effect::DropTable(table) => stage_drop(hot, batch, table),
            Effect::PutUser(user) => {
                let bytes = codec::encode(CATALOG_FORMAT, &**user);
                batch.put_cf(hot.family(Family::SystemUsers), user.id.as_str(), bytes);
            }
            Effect::DropUser(id) => batch.delete_cf(hot.family(Family::SystemUsers), id.as_str()),
            Effect::PutStorage(storage) => {
                let bytes = codec::encode(CATALOG_FORMAT, &**storage);
                batch.put_cf(hot.family(Family::Meta), storage_key(&storage.id), bytes);
            }
            Effect::DropStorage(id) => batch.delete_cf(hot.family(Family::Meta), storage_key(id)),
        }
    }
    batch.put_cf(hot.family(Family::Meta), volume::NEXT_TABLE_KEY, volume::encode(&after.next_table_id));
}

/// Everything whose key begins with the table's id goes, in ranges.
fn stage_drop(hot: &Hot, batch: &mut WriteBatch, table: &Table) {
    let from = key::table_prefix(table.id);
    let to = key::prefix_end(&from);
    let rows = Family::of_rows(table.kind);
    for family in [rows, Family::Changes, Family::Masks, Family::Dirty, Family::Tiers, Family::SystemTables] {
        batch.delete_range_cf(hot.family(family), &from, &to);
    }
}

fn storage_key(id: &str) -> String {
    format!("{STORAGE_KEY}{id}")
}

fn table_key(id: TableId, version: SchemaVersion) -> Vec<u8> {
    let mut bytes = key::table_prefix(id);
    bytes.extend_from_slice(&version.0.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::DroppedTable;
    use crate::schema::testing::table;
    use crate::schema::{SqlType, TableKind};
    use crate::storage::Location;

    #[test]
    fn records_from_before_storages_are_those_of_tables_in_the_databases_own_store() {
        let own = table(TableKind::Shared, &[SqlType::Int], &[0]);
        let mut bytes = table_bytes(&own);
        // Two fields that say none, which the older format did not have.
        bytes.truncate(bytes.len() - 2);
        bytes[0] = OWN_STORE_TABLE_FORMAT;
        assert_eq!(table_of(&bytes, b"1").unwrap(), own);
        let location = Location::Filesystem { path: "/x".into() };
        let elsewhere = Table { storage: Some(TableStorage { id: "s".into(), location }), ..own.clone() };
        assert_eq!(table_of(&table_bytes(&elsewhere), b"1").unwrap(), elsewhere);

        let dropped = DroppedTable::new(&own, 7);
        let mut bytes = dropped.encode();
        bytes.truncate(bytes.len() - 1);
        bytes[0] = 1;
        assert_eq!(DroppedTable::decode(&bytes).unwrap(), dropped);
        let dropped = DroppedTable::new(&elsewhere, 7);
        assert_eq!(DroppedTable::decode(&dropped.encode()).unwrap(), dropped);
    }
}
