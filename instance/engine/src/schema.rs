//! What a table is: names, columns, types, options. Nothing here reads or writes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::storage::TableStorage;
use crate::value::Value;

/// Number of a table within a database, never reused: the first four bytes of each of its keys, big endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableId(pub u32);

/// Number of a column within a table, from 1, never reused: rows name their fields by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ColumnId(pub u32);

/// Version of a table's schema, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SchemaVersion(pub u32);

/// Who owns the rows of a user table: the user's id, as it stands in `system.users`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UserId(pub Arc<str>);

impl UserId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for UserId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `namespace.table`, both already folded to lower case unless they were quoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The SQL namespace.
    pub namespace: String,
    /// The table's name within it.
    pub name: String,
}

impl TableName {
    /// Joins a namespace and a name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.name)
    }
}

/// A text that is no `namespace.table`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not of the form namespace.table")]
pub struct NotATableName(pub String);

impl FromStr for TableName {
    type Err = NotATableName;

    fn from_str(text: &str) -> Result<Self, NotATableName> {
        match text.split_once('.') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(Self::new(namespace, name)),
            _ => Err(NotATableName(text.into())),
        }
    }
}

/// Who sees the rows of a table, and how long they live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TableKind {
    /// Rows belong to one user each, and only that user sees them.
    User,
    /// Rows belong to all.
    Shared,
    /// Short-lived rows of one user each, with a TTL, never flushed.
    Stream,
}

impl TableKind {
    /// Whether keys begin with the id of the user who owns the row.
    pub fn is_per_user(self) -> bool {
        matches!(self, Self::User | Self::Stream)
    }

    /// `user`, `shared` or `stream`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Shared => "shared",
            Self::Stream => "stream",
        }
    }
}

/// The SQL types that a column can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SqlType {
    /// True or false.
    Boolean,
    /// 16-bit signed.
    SmallInt,
    /// 32-bit signed.
    Int,
    /// 64-bit signed.
    BigInt,
    /// 32-bit IEEE 754.
    Float,
    /// 64-bit IEEE 754.
    Double,
    /// Exact, at most 38 digits.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits behind the point, at most `precision`.
        scale: u8,
    },
    /// UTF-8.
    Text,
    /// Bytes.
    Bytes,
    /// Microseconds since 1970-01-01 UTC.
    Timestamp,
    /// Days since 1970-01-01.
    Date,
    /// JSON, kept as its text.
    Json,
    /// Microseconds since 1970-01-01 UTC, like TIMESTAMP, under the name that other systems give to a time without a zone.
    DateTime,
    /// Microseconds since midnight. Delta has no such type: files hold it as a number.
    Time,
    /// 128 bits; sixteen bytes in rows and keys, the usual 36 characters in batches and files.
    Uuid,
    /// So many 32-bit numbers, none of them NULL.
    Embedding {
        /// How many, 1 to [`MAX_DIMENSIONS`].
        dimensions: u16,
    },
    /// A reference to a file, kept as JSON text.
    File,
}

/// Numbers of an EMBEDDING, at most.
pub const MAX_DIMENSIONS: u16 = 8192;

impl SqlType {
    /// The Arrow type that carries it in batches and in Parquet.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::SmallInt => DataType::Int16,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale as i8),
            Self::Text | Self::Json | Self::Uuid | Self::File => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Timestamp | Self::DateTime => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Embedding { dimensions } => DataType::FixedSizeList(embedding_item(), i32::from(dimensions)),
        }
    }

    /// The type that files hold it as: its own, unless Delta has none like it.
    pub fn in_files(self) -> Self {
        match self {
            Self::Time => Self::BigInt,
            other => other,
        }
    }

    /// Whether it is SMALLINT, INT or BIGINT, which keys and rows store alike.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::SmallInt | Self::Int | Self::BigInt)
    }

    /// Whether a primary key may hold it: numbers with a floating point and documents have no order and equality that a key needs.
    pub fn can_be_key(self) -> bool {
        !matches!(self, Self::Float | Self::Double | Self::Json | Self::Embedding { .. } | Self::File)
    }
}

/// One number of an EMBEDDING; Parquet's own name for what a list holds. Never NULL in a value, but readers fill up the length of a
/// list that is NULL itself with NULLs.
pub fn embedding_item() -> FieldRef {
    Arc::new(Field::new("element", DataType::Float32, true))
}

impl fmt::Display for SqlType {
    /// As SQL writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal { precision, scale } => write!(f, "DECIMAL({precision},{scale})"),
            Self::Embedding { dimensions } => write!(f, "EMBEDDING({dimensions})"),
            other => f.write_str(&format!("{other:?}").to_uppercase()),
        }
    }
}

/// A column's DEFAULT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum DefaultValue {
    /// The same value for every row.
    Literal(Value),
    /// `CURRENT_TIMESTAMP` or `NOW()`: the statement's start.
    CurrentTimestamp,
    /// `SNOWFLAKE_ID()`: a new id from the `_seq` clock.
    SnowflakeId,
    /// `UUID_V7()`.
    UuidV7,
    /// `ULID()`, as text.
    Ulid,
}

impl DefaultValue {
    /// Whether a column of that type can hold what it gives. A literal was made for its column.
    pub fn fits(&self, sql_type: SqlType) -> bool {
        match self {
            Self::Literal(_) => true,
            Self::SnowflakeId => matches!(sql_type, SqlType::BigInt | SqlType::Text),
            Self::UuidV7 => matches!(sql_type, SqlType::Text | SqlType::Uuid),
            Self::Ulid => sql_type == SqlType::Text,
            Self::CurrentTimestamp => {
                matches!(sql_type, SqlType::Timestamp | SqlType::DateTime | SqlType::Date | SqlType::Time)
            }
        }
    }

    /// Whether no other row can have the value, so that a key made of it needs no look-up. Not so `SNOWFLAKE_ID()`: a row with the
    /// very number may have been inserted by hand before its time came. Its look-ups are cheap, as every file's bounds lie below it.
    pub fn is_generated_key(&self) -> bool {
        matches!(self, Self::UuidV7 | Self::Ulid)
    }
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Never reused within the table.
    pub id: ColumnId,
    /// Its name in SQL.
    pub name: String,
    /// Its name in Parquet: the name at its creation, with a suffix if that was used before.
    pub physical_name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// The type that files written now have: as wide as the column ever was under its physical name, so that a narrowed column
    /// keeps files which every engine reads together.
    pub stored_type: SqlType,
    /// Whether NULL is allowed; never for a key column.
    pub nullable: bool,
    /// Whether files may lack the column or hold NULL in rows that no reader sees any more: outside readers are told so, whatever
    /// `nullable` says.
    pub optional_in_files: bool,
    /// What an INSERT without it stores.
    pub default: Option<DefaultValue>,
    /// What rows older than the column read: its DEFAULT as it was when the column was added. Later DEFAULTs change nothing of it.
    pub initial: Value,
    /// The schema version that brought it.
    pub since: SchemaVersion,
    /// The types that it had before, oldest first.
    pub former: Vec<FormerType>,
}

/// A type that a column had before a MODIFY.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FormerType {
    /// Rows of schema versions below this one have it.
    pub until: SchemaVersion,
    /// The type in SQL.
    pub sql_type: SqlType,
    /// The type in the files of that time.
    pub stored_type: SqlType,
    /// The name in the files of that time.
    pub physical_name: String,
}

impl Column {
    /// A column of a new table, with NULL and without DEFAULT.
    pub fn new(id: ColumnId, name: impl Into<String>, sql_type: SqlType) -> Self {
        let name = name.into();
        Self {
            id,
            physical_name: name.clone(),
            name,
            sql_type,
            stored_type: sql_type.in_files(),
            nullable: true,
            optional_in_files: false,
            default: None,
            initial: Value::Null,
            since: SchemaVersion(1),
            former: Vec::new(),
        }
    }
}

/// A table's own flush thresholds, from `FLUSH_POLICY = 'rows:N,interval:S'`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushPolicy {
    /// Unflushed rows.
    pub rows: Option<u64>,
    /// Age of the oldest unflushed row, in seconds.
    pub interval_seconds: Option<u64>,
}

/// Who may read and write a shared table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessLevel {
    /// Read by all, written by service and above.
    Public,
    /// For service and above.
    #[default]
    Private,
    /// For service and above, onto whom it was granted.
    Restricted,
    /// For dba and above.
    Dba,
}

/// A table as the catalog knows it. Immutable: ALTER makes a new one with the next version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its number.
    pub id: TableId,
    /// Names its folder in the object store.
    pub uuid: Uuid,
    /// Its name.
    pub name: TableName,
    /// Its kind.
    pub kind: TableKind,
    /// The version of this schema.
    pub version: SchemaVersion,
    /// Its columns, in the order of `SELECT *`.
    pub columns: Vec<Column>,
    /// The key, in key order; not empty for user and shared tables.
    pub primary_key: Vec<ColumnId>,
    /// The next column's id.
    pub next_column_id: ColumnId,
    /// Its own flush thresholds.
    pub flush_policy: FlushPolicy,
    /// For shared tables.
    pub access_level: AccessLevel,
    /// How long rows of a stream table live, in seconds; none for other tables.
    pub ttl_seconds: Option<u32>,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
    /// Milliseconds since the Unix epoch.
    pub updated_at: i64,
    /// Where its cold tier lives; none for the database's own object store.
    pub storage: Option<TableStorage>,
    /// How long its change log is kept, and with it what deleted rows were, in hours; none for the instance's own setting.
    pub deleted_retention_hours: Option<u32>,
}

/// `_seq`: BIGINT.
pub const SEQ: &str = "_seq";
/// `_updated`: TIMESTAMP.
pub const UPDATED: &str = "_updated";
/// `_deleted`: BOOLEAN.
pub const DELETED: &str = "_deleted";
/// `_user_id`: TEXT, in the files of user tables only.
pub const USER_ID: &str = "_user_id";

impl Table {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Places in [`Table::columns`] of the key columns, in key order.
    pub fn key_positions(&self) -> Vec<usize> {
        let place = |id: &ColumnId| self.columns.iter().position(|column| column.id == *id);
        self.primary_key.iter().map(|id| place(id).expect("key columns are columns")).collect()
    }

    /// The schema of SQL: the table's own columns, then `_seq`, `_deleted`, `_updated`.
    pub fn sql_schema(&self) -> SchemaRef {
        let own = self.columns.iter().map(|column| Field::new(&column.name, column.sql_type.arrow(), column.nullable));
        Arc::new(Schema::new(own.chain(system_fields()).collect::<Vec<_>>()))
    }
}

/// `_seq`, `_deleted`, `_updated`, as they follow a table's own columns. `_deleted` is never NULL, and yet may be as far as a planner knows:
/// it would take a condition such as `_deleted IN (true, false)` for none, and deleted rows are shown only for who has one.
pub fn system_fields() -> [Field; 3] {
    [
        Field::new(SEQ, SqlType::BigInt.arrow(), false),
        Field::new(DELETED, SqlType::Boolean.arrow(), true),
        Field::new(UPDATED, SqlType::Timestamp.arrow(), false),
    ]
}

#[cfg(test)]
pub(crate) mod testing {
    //! Small tables for tests.

    use super::*;

    /// A table `default.t` with columns `c1`, `c2`, … of these types; `key` are places in `types`.
    pub(crate) fn table(kind: TableKind, types: &[SqlType], key: &[usize]) -> Table {
        let column = |(at, sql_type): (usize, &SqlType)| Column {
            nullable: !key.contains(&at),
            ..Column::new(ColumnId(at as u32 + 1), format!("c{}", at + 1), *sql_type)
        };
        Table {
            id: TableId(1),
            uuid: Uuid::from_u128(1),
            name: TableName::new("default", "t"),
            kind,
            version: SchemaVersion(1),
            columns: types.iter().enumerate().map(column).collect(),
            primary_key: key.iter().map(|at| ColumnId(*at as u32 + 1)).collect(),
            next_column_id: ColumnId(types.len() as u32 + 1),
            flush_policy: FlushPolicy::default(),
            access_level: AccessLevel::default(),
            ttl_seconds: (kind == TableKind::Stream).then_some(60),
            created_at: 0,
            updated_at: 0,
            storage: None,
            deleted_retention_hours: None,
        }
    }
}
