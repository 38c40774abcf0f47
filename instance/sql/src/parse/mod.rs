//! Text to statements. Standard statements are read by `sqlparser`; KalamDB's own by a grammar on the same tokens.

mod alter;
mod batch;
mod bounds;
mod bulk;
mod clauses;
mod dialect;
#[cfg(test)]
mod fuzz;
mod grammar;
mod json;
mod live;
mod storages;
mod tables;
mod users;

use datafusion::sql::sqlparser::ast::{self, Ident, ObjectName};
use kalamdb_engine::schema::TableKind;

use dialect::KalamDialect;

pub use alter::{AlterAction, AlterTable};
pub use batch::{ParsedStatement, parse_batch};
pub use bounds::STACK_BYTES;
pub use live::Subscribe;
pub use storages::{CreateStorage, StorageChange};

/// The dialect that tokens and expressions are read in.
static DIALECT: KalamDialect = KalamDialect::unbounded();
/// How deep expressions may nest.
const RECURSION_LIMIT: usize = 128;

/// One statement, as written: names are not resolved yet.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// `CREATE NAMESPACE [IF NOT EXISTS] n`.
    CreateNamespace {
        /// Its name.
        name: Ident,
        /// An existing one is no error.
        if_not_exists: bool,
    },
    /// `DROP NAMESPACE [IF EXISTS] n [CASCADE]`.
    DropNamespace {
        /// Its name.
        name: Ident,
        /// A missing one is no error.
        if_exists: bool,
        /// Drop its tables too.
        cascade: bool,
    },
    /// `ALTER NAMESPACE n SET OPTIONS (k = 'v', …)`.
    AlterNamespace {
        /// Its name.
        name: Ident,
        /// What to set.
        options: Vec<(Ident, String)>,
    },
    /// `USE [NAMESPACE] n`.
    Use(Ident),
    /// `CREATE TABLE`.
    CreateTable(CreateTable),
    /// `ALTER TABLE`.
    AlterTable(Box<AlterTable>),
    /// `DROP [kind] TABLE [IF EXISTS] t`.
    DropTable {
        /// Its name.
        name: ObjectName,
        /// The kind that it must be of.
        kind: Option<TableKind>,
        /// A missing one is no error.
        if_exists: bool,
    },
    /// `SHOW …`, `DESCRIBE …`.
    Show(Show),
    /// `INSERT`.
    Insert(Box<ast::Insert>),
    /// `UPDATE`.
    Update(Box<ast::Update>),
    /// `DELETE`.
    Delete(Box<ast::Delete>),
    /// `SELECT` and all that has its shape.
    Query(Box<ast::Query>),
    /// `EXPLAIN [ANALYZE]` of a query.
    Explain(Box<ast::Statement>),
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `KILL QUERY 'id'`.
    KillQuery(String),
    /// `STORAGE FLUSH TABLE t`.
    FlushTable(ObjectName),
    /// `STORAGE FLUSH ALL [IN n]`.
    FlushAll(Option<Ident>),
    /// `STORAGE COMPACT TABLE t`.
    CompactTable(ObjectName),
    /// `STORAGE COMPACT ALL [IN n]`.
    CompactAll(Option<Ident>),
    /// `CREATE USER`.
    CreateUser {
        /// Its name.
        name: Ident,
        /// An existing one is no error.
        if_not_exists: bool,
        /// How it will log in.
        log_in: LogIn,
        /// Its role, as written.
        role: Option<Ident>,
        /// Its address.
        email: Option<String>,
    },
    /// `ALTER USER u SET …`.
    AlterUser {
        /// Its name.
        name: Ident,
        /// What to set.
        change: UserChange,
    },
    /// `DROP USER [IF EXISTS] u [CASCADE]`.
    DropUser {
        /// Its name.
        name: Ident,
        /// A missing one is no error.
        if_exists: bool,
    },
    /// `EXECUTE AS USER 'u' ( statement )`.
    ExecuteAs {
        /// As whom.
        user: Ident,
        /// A query, INSERT, UPDATE or DELETE.
        statement: Box<Statement>,
    },
    /// `SUBSCRIBE TO …`.
    Subscribe(Box<Subscribe>),
    /// `KILL JOB 'id'`.
    KillJob(String),
    /// `CREATE STORAGE`.
    CreateStorage(Box<CreateStorage>),
    /// `ALTER STORAGE id SET …`.
    AlterStorage {
        /// Its id.
        id: Ident,
        /// What to set.
        change: StorageChange,
    },
    /// `DROP STORAGE [IF EXISTS] id`.
    DropStorage {
        /// Its id.
        id: Ident,
        /// A missing one is no error.
        if_exists: bool,
    },
    /// `STORAGE CHECK id [EXTENDED]`.
    CheckStorage {
        /// Its id.
        id: Ident,
        /// Add up what is stored there.
        extended: bool,
    },
}

/// How a user logs in.
#[derive(Clone, PartialEq)]
pub enum LogIn {
    /// By this password.
    Password(String),
    /// By a token of a trusted issuer.
    OAuth,
    /// Not at all.
    Internal,
}

impl std::fmt::Debug for LogIn {
    /// Passwords never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::OAuth => "OAuth",
            Self::Internal => "Internal",
        })
    }
}

/// What `SHOW` and `DESCRIBE` show.
#[derive(Debug, Clone, PartialEq)]
pub enum Show {
    /// `SHOW NAMESPACES`.
    Namespaces,
    /// `SHOW TABLES [IN n]`.
    Tables(Option<Ident>),
    /// `DESCRIBE [TABLE] t`, `SHOW COLUMNS FROM t`.
    Columns(ObjectName),
    /// `DESCRIBE TABLE t HISTORY`.
    History(ObjectName),
    /// `SHOW STATS FOR TABLE t`.
    Stats(ObjectName),
    /// `SHOW STORAGES`.
    Storages,
    /// `SHOW MANIFEST`.
    Manifest,
}

/// What `ALTER USER … SET` sets.
#[derive(Clone, PartialEq)]
pub enum UserChange {
    /// A new password.
    Password(String),
    /// A new role, as written.
    Role(Ident),
    /// A new address.
    Email(String),
}

impl std::fmt::Debug for UserChange {
    /// Passwords never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password(..)"),
            Self::Role(role) => write!(f, "Role({role})"),
            Self::Email(email) => write!(f, "Email({email})"),
        }
    }
}

/// `CREATE [USER|SHARED|STREAM] TABLE`, as written.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTable {
    /// Before `TABLE`; the option `TYPE` says the same.
    pub kind: Option<TableKind>,
    /// An existing table is no error.
    pub if_not_exists: bool,
    /// Its name.
    pub name: ObjectName,
    /// Its columns.
    pub columns: Vec<ast::ColumnDef>,
    /// `PRIMARY KEY (c, …)` behind the columns.
    pub primary_key: Option<Vec<Ident>>,
    /// `WITH (k = v, …)`.
    pub options: Vec<(Ident, String)>,
}
