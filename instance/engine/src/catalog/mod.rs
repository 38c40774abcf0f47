//! Namespaces, tables and users: an immutable value in memory, records in the `system_*` column families on disk.
//!
//! A change is validated against the newest catalog by the committer, stored in its batch, and then becomes the catalog.

mod apply;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use apply::{Applied, Effect, apply};
pub(crate) use store::{
    first_catalog, load_or_begin, namespace_bytes, namespace_of, stage, stored_table, table_at, table_bytes, table_of,
};

use crate::schema::{SchemaVersion, Table, TableId, TableName, UserId};
use crate::seq::Seq;
use crate::storage::Storage;

/// The namespace that exists from the start.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The user who exists from the start.
pub const ROOT: &str = "root";

/// Everything that the database knows about itself. Immutable; a change makes a new one.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// By name. `default` exists from the start.
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    /// By name, newest version.
    pub tables: BTreeMap<TableName, Arc<Table>>,
    /// Every version of each table, oldest first; the last is the one in `tables`.
    pub versions: BTreeMap<TableId, Arc<Vec<Arc<Table>>>>,
    /// By id. `root` exists from the start.
    pub users: BTreeMap<UserId, Arc<User>>,
    /// By id; not the one that every database has.
    pub storages: BTreeMap<String, Arc<Storage>>,
    /// The next table's number.
    pub next_table_id: u32,
}

impl Catalog {
    /// A catalog of these parts. `tables` are all versions of each table, oldest first.
    pub(crate) fn of(namespaces: Vec<Namespace>, tables: Vec<Table>, users: Vec<User>, next_table_id: u32) -> Self {
        let mut catalog = Self {
            namespaces: namespaces.into_iter().map(|one| (one.name.clone(), Arc::new(one))).collect(),
            users: users.into_iter().map(|one| (one.id.clone(), Arc::new(one))).collect(),
            next_table_id,
            ..Self::default()
        };
        tables.into_iter().for_each(|table| catalog.put_table(Arc::new(table)));
        catalog
    }

    /// All versions of a table, oldest first.
    pub fn versions_of(&self, table: TableId) -> &[Arc<Table>] {
        self.versions.get(&table).map_or(&[], |versions| versions)
    }

    fn put_table(&mut self, table: Arc<Table>) {
        Arc::make_mut(self.versions.entry(table.id).or_default()).push(table.clone());
        // A catalog that was recovered knows its storages by the tables that live there.
        if let Some(storage) = table.storage.as_ref().filter(|storage| !self.storages.contains_key(&storage.id)) {
            let storage = Arc::new(Storage::of_table(storage, table.created_at));
            self.storages.insert(storage.id.clone(), storage);
        }
        self.tables.insert(table.name.clone(), table);
    }
}

/// A SQL namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// `ALTER NAMESPACE … SET OPTIONS`.
    pub options: BTreeMap<String, String>,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// What a user may do. Ordered: `User < Service < Dba < System`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// An end user of an application.
    User,
    /// An application's backend.
    Service,
    /// Administers the database.
    Dba,
    /// The database itself, and root.
    System,
}

/// How a user proves who they are.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum Credentials {
    /// No way in yet.
    None,
    /// The PHC string of an Argon2id hash.
    Password(String),
    /// A token of a trusted issuer.
    OAuth,
}

impl std::fmt::Debug for Credentials {
    /// Hashes never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password(_) => "Password(..)",
            Self::OAuth => "OAuth",
        })
    }
}

/// A user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Its id, which is its name in SQL.
    pub id: UserId,
    /// What it may do.
    pub role: Role,
    /// Its address, if any.
    pub email: Option<String>,
    /// How it proves who it is.
    pub credentials: Credentials,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
    /// Milliseconds since the Unix epoch.
    pub updated_at: i64,
}

/// One change of the catalog: a serialisable record that the committer applies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CatalogChange {
    /// Fails where the name exists.
    CreateNamespace(Namespace),
    /// Sets the namespace's options.
    AlterNamespace(Namespace),
    /// Fails where tables are in it that do not go with it.
    DropNamespace {
        /// Its name.
        name: String,
        /// The tables that go with it, none without CASCADE. [`EngineError::Stale`](crate::EngineError::Stale) where others are in it,
        /// or another version of one of these: whoever let them go judged what it saw.
        cascade: Option<Vec<(TableId, SchemaVersion)>>,
    },
    /// Fails where the name exists or the namespace does not. The committer gives the table its id; `table.id` is ignored.
    CreateTable(Box<Table>),
    /// The next version of a table. [`EngineError::Stale`](crate::EngineError::Stale) where it is not the one after the present version,
    /// or where rows of the table were written since they were looked through.
    AlterTable {
        /// The next version.
        table: Box<Table>,
        /// Rows up to this sequence hold to what the change asks for; none where it asks for nothing.
        validated: Option<Seq>,
    },
    /// Fails where it does not exist. Its hot rows go; its cold files stay for outside readers until vacuum.
    DropTable {
        /// Its name.
        name: TableName,
        /// Guards against a table of the same name made in between.
        id: TableId,
    },
    /// Creates or replaces a user.
    PutUser(User),
    /// Fails where it does not exist.
    DropUser(UserId),
    /// Creates or replaces a storage.
    PutStorage(Box<Storage>),
    /// Fails where it does not exist, or a table lives there.
    DropStorage(String),
}
