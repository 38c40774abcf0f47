//! `CREATE TABLE` as written, to the table that it makes.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{ColumnDef, ColumnOption, Expr, FunctionArguments, Ident};
use datafusion::sql::sqlparser::tokenizer::Token;
use kalamdb_engine::evolution::alter::MAX_COLUMNS;
use kalamdb_engine::schema::{
    AccessLevel, Column, ColumnId, DefaultValue, FlushPolicy, SchemaVersion, Table, TableId, TableKind, TableName,
};
use kalamdb_engine::storage::{LOCAL_STORAGE, Storage, TableStorage};
use uuid::Uuid;

use super::literal::{Parameters, literal_of};
use super::names::{check_new_name, fold};
use super::{sql_type, value};
use crate::parse::CreateTable;
use crate::{ErrorCode, SqlError};

/// The storages that a table can live in, by id.
pub type Storages = BTreeMap<String, Arc<Storage>>;

/// The table that the statement makes; the engine gives it its id.
pub fn bind(written: &CreateTable, name: TableName, storages: &Storages, now_ms: i64) -> Result<Table, SqlError> {
    check_new_name("table", &name.name)?;
    let options = Options::bind(written, storages)?;
    let mut columns = Vec::with_capacity(written.columns.len());
    let (mut inline_key, mut nulls) = (Vec::new(), Vec::new());
    for (place, definition) in written.columns.iter().enumerate() {
        let BoundColumn { column, is_key, is_null } = bind_column(definition, ColumnId(place as u32 + 1))?;
        if columns.iter().any(|other: &Column| other.name == column.name) {
            return Err(invalid(format!("column '{}' is defined twice", column.name)));
        }
        if is_key {
            inline_key.push(column.id);
        }
        if is_null {
            nulls.push(column.id);
        }
        columns.push(column);
    }
    if columns.is_empty() || columns.len() > MAX_COLUMNS {
        return Err(invalid(format!("a table has 1 to {MAX_COLUMNS} columns, '{name}' has {}", columns.len())));
    }
    let key = written.primary_key.as_deref();
    let primary_key = bind_key((&name, options.kind), &mut columns, inline_key, key)?;
    if let Some(column) = columns.iter().find(|column| primary_key.contains(&column.id) && nulls.contains(&column.id)) {
        return Err(invalid(format!("column '{}' is in the PRIMARY KEY and can't be NULL", column.name)));
    }
    Ok(Table {
        id: TableId(0),
        uuid: Uuid::new_v4(),
        name,
        kind: options.kind,
        version: SchemaVersion(1),
        next_column_id: ColumnId(columns.len() as u32 + 1),
        columns,
        primary_key,
        flush_policy: options.flush_policy,
        access_level: options.access_level,
        ttl_seconds: options.ttl_seconds,
        created_at: now_ms,
        updated_at: now_ms,
        storage: options.storage,
        deleted_retention_hours: options.deleted_retention_hours,
    })
}

fn invalid(text: impl Into<String>) -> SqlError {
    SqlError::new(ErrorCode::InvalidValue, text)
}

fn bind_key(
    (table, kind): (&TableName, TableKind),
    columns: &mut [Column],
    inline: Vec<ColumnId>,
    listed: Option<&[Ident]>,
) -> Result<Vec<ColumnId>, SqlError> {
    let key = match (inline.len(), listed) {
        (0, Some(names)) => {
            let id_of = |name: &Ident| {
                let name = fold(name);
                let found = columns.iter().find(|column| column.name == name);
                found
                    .map(|column| column.id)
                    .ok_or_else(|| SqlError::not_found("column", format_args!("{table}.{name}")))
            };
            names.iter().map(id_of).collect::<Result<Vec<_>, _>>()?
        }
        (1, None) => inline,
        (0, None) if kind == TableKind::Stream => Vec::new(),
        (0, None) => return Err(invalid(format!("table '{table}' needs a PRIMARY KEY"))),
        _ => return Err(invalid(format!("table '{table}' has more than one PRIMARY KEY; write PRIMARY KEY (a, b)"))),
    };
    for (at, id) in key.iter().enumerate() {
        let column = columns.iter_mut().find(|column| column.id == *id).expect("the key's columns were just found");
        if key[..at].contains(id) {
            return Err(invalid(format!("column '{}' stands twice in the PRIMARY KEY", column.name)));
        }
        if !column.sql_type.can_be_key() {
            let type_name = sql_type::sql_name(column.sql_type);
            return Err(invalid(format!("column '{}' of type {type_name} can't be in a PRIMARY KEY", column.name)));
        }
        column.nullable = false;
    }
    Ok(key)
}

/// A column as it was written.
pub(super) struct BoundColumn {
    pub(super) column: Column,
    /// Whether it is the key.
    pub(super) is_key: bool,
    /// Whether it says NULL.
    is_null: bool,
}

/// Each of its modifiers may be said once, for of two that differ nobody knows which is meant.
pub(super) fn bind_column(definition: &ColumnDef, id: ColumnId) -> Result<BoundColumn, SqlError> {
    let name = fold(&definition.name);
    if name.starts_with('_') {
        return Err(invalid(format!("column '{name}': names that begin with '_' are kept by the database")));
    }
    let mut column = Column::new(id, name, sql_type::bind(&definition.data_type)?);
    let (mut nullable, mut is_key) = (None, false);
    for option in &definition.options {
        let (what, is_said_before) = match &option.option {
            ColumnOption::Null => ("NULL or NOT NULL", nullable.replace(true).is_some()),
            ColumnOption::NotNull => ("NULL or NOT NULL", nullable.replace(false).is_some()),
            ColumnOption::PrimaryKey(_) => ("PRIMARY KEY", std::mem::replace(&mut is_key, true)),
            ColumnOption::Default(expr) => {
                let default = bind_default(expr, &column)?;
                ("a DEFAULT", column.default.replace(default).is_some())
            }
            ColumnOption::DialectSpecific(tokens) if is_auto_increment(tokens) => {
                ("a DEFAULT", column.default.replace(DefaultValue::SnowflakeId).is_some())
            }
            other => return Err(SqlError::not_available(format!("'{other}' of column '{}'", column.name))),
        };
        if is_said_before {
            return Err(invalid(format!("column '{}' says {what} twice", column.name)));
        }
    }
    column.nullable = nullable.unwrap_or(column.nullable);
    check_default(&column)?;
    Ok(BoundColumn { column, is_key, is_null: nullable == Some(true) })
}

fn is_auto_increment(tokens: &[Token]) -> bool {
    let is_word = |token: &Token| match token {
        Token::Word(word) => {
            ["AUTO_INCREMENT", "AUTOINCREMENT"].iter().any(|known| word.value.eq_ignore_ascii_case(known))
        }
        _ => false,
    };
    tokens.len() == 1 && tokens.iter().all(is_word)
}

pub(super) fn bind_default(expr: &Expr, column: &Column) -> Result<DefaultValue, SqlError> {
    if let Some(literal) = literal_of(expr, &Parameters::default())? {
        return value::from_literal(&literal, column).map(DefaultValue::Literal);
    }
    let unknown = || {
        let known = "a literal, NOW(), CURRENT_TIMESTAMP, SNOWFLAKE_ID(), UUID_V7() or ULID()";
        invalid(format!("the DEFAULT of column '{}' is {expr}; it can be {known}", column.name))
    };
    let Expr::Function(function) = expr else { return Err(unknown()) };
    let takes_nothing = match &function.args {
        FunctionArguments::None => true,
        FunctionArguments::List(list) => list.args.is_empty(),
        FunctionArguments::Subquery(_) => false,
    };
    match function.name.to_string().to_ascii_uppercase().as_str() {
        "NOW" | "CURRENT_TIMESTAMP" if takes_nothing => Ok(DefaultValue::CurrentTimestamp),
        "SNOWFLAKE_ID" if takes_nothing => Ok(DefaultValue::SnowflakeId),
        "UUID_V7" if takes_nothing => Ok(DefaultValue::UuidV7),
        "ULID" if takes_nothing => Ok(DefaultValue::Ulid),
        _ => Err(unknown()),
    }
}

/// A generated default must fit the column's type.
pub(super) fn check_default(column: &Column) -> Result<(), SqlError> {
    if column.default.as_ref().is_none_or(|default| default.fits(column.sql_type)) {
        return Ok(());
    }
    let type_name = sql_type::sql_name(column.sql_type);
    Err(invalid(format!("the DEFAULT of column '{}' does not fit its type {type_name}", column.name)))
}

/// `WITH (…)`, and the kind that stood before `TABLE`.
struct Options {
    kind: TableKind,
    flush_policy: FlushPolicy,
    access_level: AccessLevel,
    ttl_seconds: Option<u32>,
    storage: Option<TableStorage>,
    deleted_retention_hours: Option<u32>,
}

impl Options {
    fn bind(written: &CreateTable, storages: &Storages) -> Result<Self, SqlError> {
        let (mut kind, mut flush_policy) = (written.kind, FlushPolicy::default());
        let (mut access_level, mut ttl_seconds) = (None, None);
        let (mut storage, mut deleted_retention_hours) = (None, None);
        for (name, text) in &written.options {
            match name.value.to_ascii_uppercase().as_str() {
                "TYPE" => kind = Some(agreed_kind(kind, text)?),
                "FLUSH_POLICY" => flush_policy = flush_policy_of(text)?,
                "ACCESS_LEVEL" => access_level = Some(access_level_of(text)?),
                "STORAGE_ID" => storage = storage_of(text, storages)?,
                "TTL_SECONDS" => ttl_seconds = Some(ttl_of(text)?),
                "DELETED_RETENTION_HOURS" => deleted_retention_hours = Some(retention_of(text)?),
                other => return Err(invalid(format!("unknown table option '{other}'"))),
            }
        }
        let kind = kind.unwrap_or(TableKind::Shared);
        match (kind, ttl_seconds) {
            (TableKind::Stream, None) => {
                return Err(invalid("a STREAM table needs WITH (TTL_SECONDS = n): how long its rows live"));
            }
            (TableKind::User | TableKind::Shared, Some(_)) => {
                return Err(invalid("TTL_SECONDS is for STREAM tables; rows of other tables do not expire"));
            }
            _ => {}
        }
        if kind == TableKind::Stream && (storage.is_some() || deleted_retention_hours.is_some()) {
            return Err(invalid("STORAGE_ID and DELETED_RETENTION_HOURS are not for STREAM tables, whose rows expire"));
        }
        if kind == TableKind::Stream && flush_policy != FlushPolicy::default() {
            return Err(invalid("FLUSH_POLICY is not for STREAM tables, which are never flushed"));
        }
        if access_level.is_some() && kind != TableKind::Shared {
            return Err(invalid("ACCESS_LEVEL is for SHARED tables; rows of other tables belong to one user each"));
        }
        let access_level = access_level.unwrap_or_default();
        Ok(Self { kind, flush_policy, access_level, ttl_seconds, storage, deleted_retention_hours })
    }
}

/// None is the database's own object store.
fn storage_of(text: &str, storages: &Storages) -> Result<Option<TableStorage>, SqlError> {
    if text == LOCAL_STORAGE {
        return Ok(None);
    }
    let known = storages.get(text).ok_or_else(|| SqlError::not_found("storage", text))?;
    Ok(Some(TableStorage { id: known.id.clone(), location: known.location.clone() }))
}

/// Hours, from one to ten years of them.
fn retention_of(text: &str) -> Result<u32, SqlError> {
    const LONGEST: u32 = 10 * 365 * 24;
    let hours = text.trim().parse::<u32>().ok().filter(|hours| (1..=LONGEST).contains(hours));
    hours.ok_or_else(|| {
        invalid(format!("DELETED_RETENTION_HOURS = '{text}': it is a number of hours from 1 to {LONGEST}"))
    })
}

fn agreed_kind(before_table: Option<TableKind>, text: &str) -> Result<TableKind, SqlError> {
    let kind = match text.to_ascii_lowercase().as_str() {
        "user" => TableKind::User,
        "shared" => TableKind::Shared,
        "stream" => TableKind::Stream,
        _ => return Err(invalid(format!("TYPE = '{text}': it is USER, SHARED or STREAM"))),
    };
    match before_table {
        Some(other) if other != kind => {
            Err(invalid(format!("CREATE {} TABLE with TYPE = '{text}'", other.as_str().to_uppercase())))
        }
        _ => Ok(kind),
    }
}

pub(super) fn access_level_of(text: &str) -> Result<AccessLevel, SqlError> {
    match text.to_ascii_lowercase().as_str() {
        "public" => Ok(AccessLevel::Public),
        "private" => Ok(AccessLevel::Private),
        "restricted" => Ok(AccessLevel::Restricted),
        "dba" => Ok(AccessLevel::Dba),
        _ => Err(invalid(format!("ACCESS_LEVEL = '{text}': it is PUBLIC, PRIVATE, RESTRICTED or DBA"))),
    }
}

/// Seconds, from one to ten years of them.
fn ttl_of(text: &str) -> Result<u32, SqlError> {
    const LONGEST: u32 = 10 * 365 * 24 * 3600;
    let seconds = text.trim().parse::<u32>().ok().filter(|seconds| (1..=LONGEST).contains(seconds));
    seconds.ok_or_else(|| invalid(format!("TTL_SECONDS = '{text}': it is a number of seconds from 1 to {LONGEST}")))
}

/// `rows:N,interval:S`, in any order, at least one of them.
fn flush_policy_of(text: &str) -> Result<FlushPolicy, SqlError> {
    let bad =
        || invalid(format!("FLUSH_POLICY = '{text}': it is 'rows:N', 'interval:SECONDS' or 'rows:N,interval:SECONDS'"));
    let mut policy = FlushPolicy::default();
    for part in text.split(',') {
        let (name, number) = part.split_once(':').ok_or_else(bad)?;
        let number = number.trim().parse::<u64>().ok().filter(|number| *number > 0).ok_or_else(bad)?;
        let place = match name.trim().to_ascii_lowercase().as_str() {
            "rows" => &mut policy.rows,
            "interval" => &mut policy.interval_seconds,
            _ => return Err(bad()),
        };
        if place.replace(number).is_some() {
            return Err(bad());
        }
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Statement, parse_batch};

    fn created(sql: &str) -> Result<Table, SqlError> {
        let statement = parse_batch(sql)?.remove(0).statement;
        let Statement::CreateTable(written) = statement else { panic!("{sql} is CREATE TABLE") };
        bind(&written, TableName::new("a", "b"), &Storages::new(), 0)
    }

    #[test]
    fn modifiers_come_in_any_order_and_options_in_any_case() {
        let table = created(
            "CREATE TABLE a.b (id BIGINT AUTO_INCREMENT PRIMARY KEY, timestamp TIMESTAMP DEFAULT NOW() NOT NULL,
             key TEXT NOT NULL DEFAULT 'x', price DECIMAL(10, 2) DEFAULT 1.5)
             WITH (type = 'USER', flush_policy = 'rows:10,interval:60')",
        )
        .unwrap();
        assert_eq!((table.kind, table.primary_key.len()), (TableKind::User, 1));
        assert_eq!(table.flush_policy, FlushPolicy { rows: Some(10), interval_seconds: Some(60) });
        assert_eq!(table.columns[0].default, Some(DefaultValue::SnowflakeId));
        assert_eq!(table.columns.iter().map(|column| column.nullable).collect::<Vec<_>>(), [false, false, false, true]);
    }

    #[test]
    fn what_a_table_cannot_be_is_refused_by_name() {
        for (sql, message) in [
            ("CREATE TABLE a.b (id INT)", "needs a PRIMARY KEY"),
            ("CREATE TABLE a.b (id DOUBLE PRIMARY KEY)", "'id' of type DOUBLE can't be in a PRIMARY KEY"),
            ("CREATE TABLE a.b (_id INT PRIMARY KEY)", "'_id'"),
            ("CREATE TABLE a.b (id INT PRIMARY KEY, ID TEXT)", "'id' is defined twice"),
            ("CREATE TABLE a.b (id INT PRIMARY KEY) WITH (colour = 'red')", "unknown table option 'COLOUR'"),
            ("CREATE TABLE a.b (id INT PRIMARY KEY) WITH (FLUSH_POLICY = 'rows:0')", "FLUSH_POLICY"),
            ("CREATE STREAM TABLE a.b (id INT PRIMARY KEY)", "needs WITH (TTL_SECONDS = n)"),
            ("CREATE STREAM TABLE a.b (id INT) WITH (TTL_SECONDS = 0)", "TTL_SECONDS = '0'"),
            ("CREATE TABLE a.b (id INT PRIMARY KEY) WITH (TTL_SECONDS = 5)", "TTL_SECONDS is for STREAM tables"),
            ("CREATE STREAM TABLE a.b (id INT) WITH (TTL_SECONDS = 5, FLUSH_POLICY = 'rows:1')", "never flushed"),
            ("CREATE TABLE a.b (id INT PRIMARY KEY, v EMBEDDING(0))", "EMBEDDING"),
            ("CREATE TABLE a.b (id INT PRIMARY KEY, v POINT)", "POINT"),
            ("CREATE TABLE a.b (id INT PRIMARY KEY) WITH (storage_id = far)", "storage 'far' does not exist"),
            (
                "CREATE TABLE a.b (id INT PRIMARY KEY) WITH (deleted_retention_hours = 0)",
                "DELETED_RETENTION_HOURS = '0'",
            ),
            ("CREATE STREAM TABLE a.b (id INT) WITH (TTL_SECONDS = 5, DELETED_RETENTION_HOURS = 2)", "not for STREAM"),
            ("CREATE TABLE a.b (id INT DEFAULT 'x' PRIMARY KEY)", "'x' is not a number"),
            ("CREATE TABLE a.b (id INT PRIMARY KEY, v INT DEFAULT 1 DEFAULT 2)", "'v' says a DEFAULT twice"),
            ("CREATE TABLE a.b (id BIGINT AUTO_INCREMENT DEFAULT 1 PRIMARY KEY)", "'id' says a DEFAULT twice"),
            ("CREATE TABLE a.b (id INT PRIMARY KEY, v INT NOT NULL NULL)", "'v' says NULL or NOT NULL twice"),
            ("CREATE TABLE a.b (id INT NULL PRIMARY KEY)", "'id' is in the PRIMARY KEY and can't be NULL"),
            ("CREATE TABLE a.b (id INT NULL, PRIMARY KEY (id))", "'id' is in the PRIMARY KEY and can't be NULL"),
            (
                "CREATE TABLE a.b (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = PUBLIC, access_level = DBA)",
                "the option 'access_level' is given twice at Line: 1, Column: 68",
            ),
            ("CREATE USER TABLE a.b (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = PUBLIC)", "ACCESS_LEVEL"),
        ] {
            let error = created(sql).expect_err(sql);
            assert!(error.message.contains(message), "{sql}: {error}");
        }
    }
}
