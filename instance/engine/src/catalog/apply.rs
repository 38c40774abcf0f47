//! Whether a change fits the catalog, and what the catalog is after it. Pure: the committer stores the effects.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::EngineError;
use crate::catalog::{Catalog, CatalogChange, DEFAULT_NAMESPACE, Namespace, ROOT, User};
use crate::evolution::names::{differs_in_case_alone, same_but_case};
use crate::schema::{Column, SchemaVersion, SqlType, Table, TableId, TableKind, TableName, UserId};
use crate::storage::Storage;

/// One record that a change writes or removes.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// The namespace's record.
    PutNamespace(Arc<Namespace>),
    /// The namespace is gone.
    DropNamespace(String),
    /// The table's record of that version; the next table id moves beyond it.
    PutTable(Arc<Table>),
    /// The table is gone, with all that the hot tier holds of it.
    DropTable(Arc<Table>),
    /// The user's record.
    PutUser(Arc<User>),
    /// The user is gone.
    DropUser(UserId),
    /// The storage's record.
    PutStorage(Arc<Storage>),
    /// The storage is gone.
    DropStorage(String),
}

/// A change that fits.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The catalog after it.
    pub catalog: Catalog,
    /// What to store.
    pub effects: Vec<Effect>,
}

/// Applies a change to the newest catalog, or says why it does not fit.
pub fn apply(catalog: &Catalog, change: &CatalogChange) -> Result<Applied, EngineError> {
    let mut after = catalog.clone();
    let effects = match change {
        CatalogChange::CreateNamespace(namespace) => create_namespace(&mut after, namespace)?,
        CatalogChange::AlterNamespace(namespace) => alter_namespace(&mut after, namespace)?,
        CatalogChange::DropNamespace { name, cascade } => drop_namespace(&mut after, name, cascade.as_deref())?,
        CatalogChange::CreateTable(table) => create_table(&mut after, table)?,
        CatalogChange::AlterTable { table, .. } => alter_table(&mut after, table)?,
        CatalogChange::DropTable { name, id } => vec![drop_table(&mut after, name, *id)?],
        CatalogChange::PutUser(user) => put_user(&mut after, user),
        CatalogChange::DropUser(id) => drop_user(&mut after, id)?,
        CatalogChange::PutStorage(storage) => put_storage(&mut after, storage),
        CatalogChange::DropStorage(id) => drop_storage(&mut after, id)?,
    };
    Ok(Applied { catalog: after, effects })
}

fn create_namespace(after: &mut Catalog, namespace: &Namespace) -> Result<Vec<Effect>, EngineError> {
    if after.namespaces.contains_key(&namespace.name) {
        return Err(EngineError::AlreadyExists { what: "namespace", name: namespace.name.clone() });
    }
    Ok(put_namespace(after, namespace))
}

fn alter_namespace(after: &mut Catalog, namespace: &Namespace) -> Result<Vec<Effect>, EngineError> {
    check_namespace(after, &namespace.name)?;
    Ok(put_namespace(after, namespace))
}

fn put_namespace(after: &mut Catalog, namespace: &Namespace) -> Vec<Effect> {
    let namespace = Arc::new(namespace.clone());
    after.namespaces.insert(namespace.name.clone(), namespace.clone());
    vec![Effect::PutNamespace(namespace)]
}

fn check_namespace(catalog: &Catalog, name: &str) -> Result<(), EngineError> {
    match catalog.namespaces.contains_key(name) {
        true => Ok(()),
        false => Err(EngineError::NotFound { what: "namespace", name: name.into() }),
    }
}

fn drop_namespace(
    after: &mut Catalog,
    name: &str,
    cascade: Option<&[(TableId, SchemaVersion)]>,
) -> Result<Vec<Effect>, EngineError> {
    check_namespace(after, name)?;
    if name == DEFAULT_NAMESPACE {
        return Err(EngineError::Invalid(format!("namespace '{name}' always exists and can't be dropped")));
    }
    let tables: Vec<_> = after.tables.values().filter(|table| table.name.namespace == name).cloned().collect();
    match cascade {
        None if !tables.is_empty() => {
            return Err(EngineError::Invalid(format!(
                "namespace '{name}' holds {} table(s); drop them first, or use CASCADE",
                tables.len()
            )));
        }
        Some(judged) if tables.iter().any(|table| !judged.contains(&(table.id, table.version))) => {
            return Err(EngineError::Stale);
        }
        _ => {}
    }
    let dropped = tables.iter().map(|table| drop_table(after, &table.name, table.id));
    let mut effects = dropped.collect::<Result<Vec<_>, _>>()?;
    after.namespaces.remove(name);
    effects.push(Effect::DropNamespace(name.into()));
    Ok(effects)
}

fn create_table(after: &mut Catalog, table: &Table) -> Result<Vec<Effect>, EngineError> {
    check_namespace(after, &table.name.namespace)?;
    if after.tables.contains_key(&table.name) {
        return Err(EngineError::AlreadyExists { what: "table", name: table.name.to_string() });
    }
    check_storage(after, table)?;
    let checked = check_table(table).and_then(|()| check_names(table));
    checked.map_err(|reason| EngineError::Invalid(format!("table {}: {reason}", table.name)))?;
    let id = TableId(after.next_table_id);
    // The largest id has no key range above it.
    if id.0 == u32::MAX {
        return Err(EngineError::Invalid("this database has used up its table ids; begin a new one".into()));
    }
    after.next_table_id += 1;
    let table = Arc::new(Table { id, ..table.clone() });
    after.put_table(table.clone());
    Ok(vec![Effect::PutTable(table)])
}

/// Whether rows hold to it is the committer's to check.
fn alter_table(after: &mut Catalog, table: &Table) -> Result<Vec<Effect>, EngineError> {
    let present = after.tables.get(&table.name).filter(|present| present.id == table.id);
    let missing = || EngineError::NotFound { what: "table", name: table.name.to_string() };
    if present.ok_or_else(missing)?.version.0 + 1 != table.version.0 {
        return Err(EngineError::Stale);
    }
    check_table(table).map_err(|reason| EngineError::Invalid(format!("table {}: {reason}", table.name)))?;
    let table = Arc::new(table.clone());
    after.put_table(table.clone());
    Ok(vec![Effect::PutTable(table)])
}

/// What must hold of every table, whoever made it.
fn check_table(table: &Table) -> Result<(), String> {
    check_ttl(table)?;
    let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for column in &table.columns {
        check_column(column)?;
        if !names.insert(&column.name) {
            return Err(format!("column '{}' stands twice", column.name));
        }
        if !ids.insert(column.id) || column.id >= table.next_column_id {
            return Err(format!("column '{}' has an id that is not its own", column.name));
        }
    }
    if table.primary_key.is_empty() && table.kind != TableKind::Stream {
        return Err(format!("{} tables need a PRIMARY KEY", table.kind.as_str()));
    }
    let mut key = BTreeSet::new();
    for id in &table.primary_key {
        let column = table.columns.iter().find(|column| column.id == *id);
        check_key_column(column.ok_or("a key column is no column")?)?;
        if !key.insert(id) {
            return Err("a column stands twice in the PRIMARY KEY".into());
        }
    }
    Ok(())
}

/// No two columns have names that differ in case alone. A later version is not asked: whoever renames one of two such columns must be able to.
fn check_names(table: &Table) -> Result<(), String> {
    for (at, column) in table.columns.iter().enumerate() {
        if let Some(before) = same_but_case(&table.columns[..at], &column.name) {
            return Err(differs_in_case_alone(&column.name, &before.name));
        }
    }
    Ok(())
}

/// Rows of stream tables expire, those of others never do.
fn check_ttl(table: &Table) -> Result<(), String> {
    match (table.kind, table.ttl_seconds) {
        (TableKind::Stream, None | Some(0)) => Err("a stream table needs a TTL of at least one second".into()),
        (TableKind::Stream, Some(_)) | (_, None) => Ok(()),
        (kind, Some(_)) => Err(format!("rows of {} tables have no TTL", kind.as_str())),
    }
}

fn check_column(column: &Column) -> Result<(), String> {
    if column.name.is_empty() || column.name.starts_with('_') {
        return Err(format!("column '{}': names are not empty and do not begin with '_'", column.name));
    }
    match column.sql_type {
        SqlType::Decimal { precision, scale } if !(1..=38).contains(&precision) || scale > precision => Err(format!(
            "column '{}': DECIMAL({precision},{scale}) needs 1 to 38 digits, and no more behind the point",
            column.name
        )),
        _ => Ok(()),
    }
}

fn check_key_column(column: &Column) -> Result<(), String> {
    if !column.sql_type.can_be_key() {
        return Err(format!("column '{}': FLOAT, DOUBLE and JSON can't be part of a PRIMARY KEY", column.name));
    }
    if column.nullable {
        return Err(format!("column '{}' is part of the PRIMARY KEY and must be NOT NULL", column.name));
    }
    Ok(())
}

fn drop_table(after: &mut Catalog, name: &TableName, id: TableId) -> Result<Effect, EngineError> {
    match after.tables.get(name).filter(|table| table.id == id).cloned() {
        Some(table) => {
            after.tables.remove(name);
            after.versions.remove(&id);
            Ok(Effect::DropTable(table))
        }
        None => Err(EngineError::NotFound { what: "table", name: name.to_string() }),
    }
}

fn put_storage(after: &mut Catalog, storage: &Storage) -> Vec<Effect> {
    let storage = Arc::new(storage.clone());
    after.storages.insert(storage.id.clone(), storage.clone());
    vec![Effect::PutStorage(storage)]
}

fn drop_storage(after: &mut Catalog, id: &str) -> Result<Vec<Effect>, EngineError> {
    let lives_there = |table: &&Arc<Table>| table.storage.as_ref().is_some_and(|storage| storage.id == id);
    let tables = after.tables.values().filter(lives_there).count();
    if tables > 0 {
        return Err(EngineError::Invalid(format!("Cannot drop storage '{id}': {tables} table(s) still using it")));
    }
    match after.storages.remove(id) {
        Some(_) => Ok(vec![Effect::DropStorage(id.into())]),
        None => Err(EngineError::NotFound { what: "storage", name: id.into() }),
    }
}

/// A table can only be made where a storage says that there is a place.
fn check_storage(catalog: &Catalog, table: &Table) -> Result<(), EngineError> {
    let Some(storage) = &table.storage else { return Ok(()) };
    match catalog.storages.get(&storage.id) {
        Some(known) if known.location == storage.location => Ok(()),
        _ => Err(EngineError::NotFound { what: "storage", name: storage.id.clone() }),
    }
}

fn put_user(after: &mut Catalog, user: &User) -> Vec<Effect> {
    let user = Arc::new(user.clone());
    after.users.insert(user.id.clone(), user.clone());
    vec![Effect::PutUser(user)]
}

fn drop_user(after: &mut Catalog, id: &UserId) -> Result<Vec<Effect>, EngineError> {
    if id.as_str() == ROOT {
        return Err(EngineError::Invalid(format!("user '{ROOT}' always exists and can't be dropped")));
    }
    match after.users.remove(id) {
        Some(_) => Ok(vec![Effect::DropUser(id.clone())]),
        None => Err(EngineError::NotFound { what: "user", name: id.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::store::first_catalog;
    use crate::schema::testing::table;

    fn check(catalog: &Catalog, change: CatalogChange, expected: Result<&str, &str>) -> Catalog {
        let applied = apply(catalog, &change);
        match expected {
            Ok(effect) => {
                let applied = applied.expect("the change fits");
                assert!(format!("{:?}", applied.effects).contains(effect), "{:?}", applied.effects);
                applied.catalog
            }
            Err(message) => {
                assert_eq!(applied.expect_err("the change does not fit").to_string(), message);
                catalog.clone()
            }
        }
    }

    #[test]
    fn table_ids_are_never_reused_and_drops_name_what_is_missing() {
        let create = || CatalogChange::CreateTable(Box::new(table(TableKind::Shared, &[SqlType::Int], &[0])));
        let name = TableName::new("default", "t");
        let drop = |id| CatalogChange::DropTable { name: name.clone(), id: TableId(id) };
        let catalog = check(&first_catalog(0), create(), Ok("PutTable"));
        check(&catalog, create(), Err("table 'default.t' already exists"));
        check(&catalog, drop(2), Err("table 'default.t' does not exist"));
        let catalog = check(&catalog, drop(1), Ok("DropTable"));
        let catalog = check(&catalog, create(), Ok("PutTable"));
        assert_eq!(catalog.tables[&name].id, TableId(2));
    }

    #[test]
    fn a_namespace_with_tables_needs_cascade() {
        let namespace = Namespace { name: "shop".into(), options: Default::default(), created_at: 0 };
        let catalog = check(&first_catalog(0), CatalogChange::CreateNamespace(namespace), Ok("PutNamespace"));
        let mut inside = table(TableKind::User, &[SqlType::Text], &[0]);
        inside.name.namespace = "shop".into();
        let catalog = check(&catalog, CatalogChange::CreateTable(Box::new(inside)), Ok("PutTable"));
        let drop = |name: &str, tables: Option<&[(u32, u32)]>| {
            let judged = |&(id, version): &(u32, u32)| (TableId(id), SchemaVersion(version));
            let cascade = tables.map(|tables| tables.iter().map(judged).collect());
            CatalogChange::DropNamespace { name: name.into(), cascade }
        };
        let refusal = "namespace 'shop' holds 1 table(s); drop them first, or use CASCADE";
        check(&catalog, drop("shop", None), Err(refusal));
        let stale = EngineError::Stale.to_string();
        for judged in [&[] as &[_], &[(1, 2)], &[(2, 1)]] {
            check(&catalog, drop("shop", Some(judged)), Err(&stale));
        }
        check(&catalog, drop("none", None), Err("namespace 'none' does not exist"));
        check(&catalog, drop("default", Some(&[])), Err("namespace 'default' always exists and can't be dropped"));
        let catalog = check(&catalog, drop("shop", Some(&[(1, 1)])), Ok("DropTable"));
        assert!(catalog.tables.is_empty() && !catalog.namespaces.contains_key("shop"));
    }

    #[test]
    fn tables_that_can_not_work_are_refused() {
        let catalog = first_catalog(0);
        let refused = |table: Table, reason: &str| {
            let message = format!("table default.t: {reason}");
            check(&catalog, CatalogChange::CreateTable(Box::new(table)), Err(&message));
        };
        let sound = || table(TableKind::Shared, &[SqlType::Int, SqlType::Double], &[0]);
        refused(Table { primary_key: vec![], ..sound() }, "shared tables need a PRIMARY KEY");
        refused(
            table(TableKind::Shared, &[SqlType::Double], &[0]),
            "column 'c1': FLOAT, DOUBLE and JSON can't be part of a PRIMARY KEY",
        );
        refused(Table { kind: TableKind::Stream, ..sound() }, "a stream table needs a TTL of at least one second");
        refused(Table { ttl_seconds: Some(5), ..sound() }, "rows of shared tables have no TTL");
        let mut twice = sound();
        twice.columns[1].name = "c1".into();
        refused(twice, "column 'c1' stands twice");
        let mut alike = sound();
        (alike.columns[0].name, alike.columns[1].name) = ("Ä".into(), "ä".into());
        refused(
            alike,
            "column 'ä' differs from column 'Ä' in case alone, which other engines that read the table's files do not tell apart; choose \
             another name",
        );
        let mut reserved = sound();
        reserved.columns[1].name = "_seq".into();
        refused(reserved, "column '_seq': names are not empty and do not begin with '_'");
    }
}
