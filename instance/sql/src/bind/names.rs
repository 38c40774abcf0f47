//! Names: folding, qualification, and what a new name may look like.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, Spanned, TableObject};
use kalamdb_engine::catalog::Catalog;
use kalamdb_engine::schema::{Column, Table, TableName};

use crate::{ErrorCode, SqlError};

/// The namespace of unqualified names where nothing else is said.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The namespace of the system tables.
pub const SYSTEM: &str = "system";
/// The namespace that standard SQL describes tables in.
pub const INFORMATION_SCHEMA: &str = "information_schema";
/// The one catalog: `kalam.namespace.table` is a full name.
pub const CATALOG: &str = "kalam";

const RESERVED: [&str; 8] = [SYSTEM, "sys", "root", "kalamdb", INFORMATION_SCHEMA, "pg_catalog", "datafusion", "admin"];
const LONGEST_NAME: usize = 63;

/// An identifier's meaning: lower case unless it was quoted.
pub fn fold(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// The name of an expression that is a column and nothing else.
pub fn column_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(fold(name)),
        Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        Expr::Nested(inner) => column_name(inner),
        _ => None,
    }
}

/// The table that a name of one, two or three parts means.
pub fn table_name(name: &ObjectName, namespace: &str) -> Result<TableName, SqlError> {
    let parts: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(fold)).collect();
    match parts.as_deref() {
        Some([table]) => Ok(TableName::new(namespace, table)),
        Some([namespace, table]) => Ok(TableName::new(namespace, table)),
        Some([catalog, namespace, table]) if catalog == CATALOG => Ok(TableName::new(namespace, table)),
        _ => Err(SqlError::new(ErrorCode::InvalidSql, format!("'{name}' is not of the form namespace.table"))),
    }
}

/// The table of that name.
pub fn table<'a>(catalog: &'a Catalog, name: &TableName) -> Result<&'a Arc<Table>, SqlError> {
    catalog.tables.get(name).ok_or_else(|| SqlError::not_found("table", name))
}

/// The table that an INSERT writes.
pub fn insert_target(target: &TableObject, namespace: &str) -> Result<TableName, SqlError> {
    match target {
        TableObject::TableName(name) => table_name(name, namespace),
        other => Err(SqlError::not_available(format!("INSERT INTO {other}"))),
    }
}

/// The place of a column within its table, by the last part of its name. System columns can't be written.
pub fn column_place(table: &Table, name: &ObjectName) -> Result<usize, SqlError> {
    let last = name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
    let place = table.columns.iter().position(|column| column.name == last);
    place.ok_or_else(|| unknown_column(table, &last).at(name.span().start))
}

fn unknown_column(table: &Table, name: &str) -> SqlError {
    if name.starts_with('_') {
        let text = format!("column '{name}' of table '{}' is kept by the database and can't be written", table.name);
        return SqlError::new(ErrorCode::InvalidValue, text);
    }
    SqlError::not_found("column", format_args!("{}.{name}", table.name))
}

/// The column of that place.
pub fn column(table: &Table, place: usize) -> &Column {
    &table.columns[place]
}

/// Refuses reserved namespaces and names that could not be told apart in `namespace.table`.
pub fn check_new_namespace(name: &str) -> Result<(), SqlError> {
    if RESERVED.contains(&name) {
        return Err(SqlError::new(ErrorCode::InvalidValue, format!("the namespace name '{name}' is reserved")));
    }
    check_new_name("namespace", name)
}

/// Refuses names with other characters than letters, digits, `_` and `-`.
pub fn check_new_name(what: &str, name: &str) -> Result<(), SqlError> {
    let good = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let begins_well = name.chars().next().is_some_and(|first| first.is_alphabetic());
    if begins_well && name.chars().all(good) && name.len() <= LONGEST_NAME {
        return Ok(());
    }
    let rule = format!("names begin with a letter and have at most {LONGEST_NAME} letters, digits, '_' and '-'");
    Err(SqlError::new(ErrorCode::InvalidValue, format!("'{name}' can't name a {what}: {rule}")))
}

/// The namespace, if it exists.
pub fn check_namespace(catalog: &Catalog, name: &str) -> Result<(), SqlError> {
    if catalog.namespaces.contains_key(name) {
        return Ok(());
    }
    Err(SqlError::not_found("namespace", name))
}
