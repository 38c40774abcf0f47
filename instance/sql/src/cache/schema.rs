//! The schema cache: versions of tables as they are stored, in the form that statements plan with.
//!
//! What is under a key never changes but for one case: a table that is dropped, and made again with the same name and version. So a
//! look-up says by the table's number which of the two it means, and can't be answered with the other one, invalidated or not.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use equivalent::Equivalent;
use kalamdb_engine::schema::{SchemaVersion, Table, TableId, TableName};

use super::store::{Clock, Statistics, Store};
use crate::SqlError;
use crate::bind::sql_type::wire_name;
use crate::execute::ResultColumn;

/// A version of a table, ready to plan with.
#[derive(Debug)]
pub struct ResolvedTable {
    /// As it is stored.
    pub table: Arc<Table>,
    /// Its [`Table::sql_schema`].
    pub schema: SchemaRef,
    /// Its own columns as a reply describes them, in their order.
    pub columns: Vec<ResultColumn>,
    /// Places in `columns` of the key, in key order.
    pub key: Vec<usize>,
}

impl ResolvedTable {
    /// Works it out.
    pub fn of(table: Arc<Table>) -> Self {
        let described = |column: &kalamdb_engine::schema::Column| ResultColumn {
            name: column.name.clone(),
            data_type: wire_name(column.sql_type),
            flags: crate::execute::flags(&table, &column.name),
        };
        let columns = table.columns.iter().map(described).collect();
        Self { schema: table.sql_schema(), key: table.key_positions(), columns, table }
    }
}

/// Which version of which table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SchemaKey {
    name: TableName,
    version: SchemaVersion,
}

/// The parts of a [`SchemaKey`], which a look-up does not copy.
#[derive(Hash)]
struct SchemaParts<'a> {
    name: &'a TableName,
    version: SchemaVersion,
}

impl Equivalent<SchemaKey> for SchemaParts<'_> {
    fn equivalent(&self, key: &SchemaKey) -> bool {
        *self.name == key.name && self.version == key.version
    }
}

impl From<&SchemaParts<'_>> for SchemaKey {
    fn from(parts: &SchemaParts<'_>) -> Self {
        Self { name: parts.name.clone(), version: parts.version }
    }
}

/// Versions of tables, each good for a time.
pub struct SchemaCache {
    store: Store<SchemaKey, Arc<ResolvedTable>>,
    good_for: Duration,
}

impl SchemaCache {
    /// Holds that many versions, each for that long.
    pub fn new(most: u64, good_for: Duration, clock: Clock) -> Self {
        Self { store: Store::new(most, |_, _| 1, clock), good_for }
    }

    /// The version of the table of that number, by `load` where it is not here: once, however many ask at the same time.
    pub fn get_or_load(
        &self,
        name: &TableName,
        version: SchemaVersion,
        id: TableId,
        load: impl FnOnce() -> Result<Table, SqlError>,
    ) -> Result<Arc<ResolvedTable>, SqlError> {
        let resolve = || load().map(|table| Arc::new(ResolvedTable::of(Arc::new(table))));
        self.store.get_or_load(&SchemaParts { name, version }, self.good_for, |found| found.table.id == id, resolve)
    }

    /// Drops all versions of all tables of the namespace.
    pub fn invalidate_namespace(&self, namespace: &str) {
        self.store.remove_if(|key, _| key.name.namespace == namespace);
    }

    /// Drops all versions of the table.
    pub fn invalidate_table(&self, name: &TableName) {
        self.store.remove_if(|key, _| key.name == *name);
    }

    /// Drops all.
    pub fn invalidate_all(&self) {
        self.store.remove_if(|_, _| true);
    }

    /// Drops what is too old.
    pub fn sweep(&self) {
        self.store.sweep();
    }

    /// What became of its look-ups.
    pub fn statistics(&self) -> Statistics {
        self.store.statistics()
    }
}
