//! What INSERT, UPDATE and DELETE share: whose rows they write, what they look up, and what they refuse.

use std::sync::Arc;

use arrow::util::display::array_value_to_string;
use datafusion::sql::sqlparser::ast;
use kalamdb_engine::engine::LookUp;
use kalamdb_engine::hot::Key;
use kalamdb_engine::schema::{Table, UserId};
use kalamdb_engine::value::{Row, Value};

use super::{Outcome, Statements};
use crate::bind::value;
use crate::diagnosis::OUT_OF_RANGE;
use crate::relations::Relations;
use crate::{ErrorCode, SqlError, rows};

/// A statement that writes rows.
#[derive(Clone, Copy)]
pub(crate) enum Write<'a> {
    Insert(&'a ast::Insert),
    Update(&'a ast::Update),
    Delete(&'a ast::Delete),
}

/// What a commit gave its rows.
pub(crate) struct Stamps {
    /// `_seq` of each, in the order of the writes; within a transaction provisional.
    pub(crate) seqs: Vec<i64>,
    /// `_updated` of all.
    pub(crate) updated: i64,
}

/// `Inserted 2 row(s)`.
pub(super) fn done(verb: &str, rows: usize) -> Outcome {
    Outcome::Done { row_count: rows as u64, message: format!("{verb} {rows} row(s)") }
}

impl Statements {
    pub(crate) fn check_row_count(&self, rows: usize) -> Result<(), SqlError> {
        if rows <= self.config.write_rows {
            return Ok(());
        }
        let text = format!("one statement writes at most {} rows, this one {rows}: split it", self.config.write_rows);
        Err(SqlError::new(ErrorCode::TooLarge, text))
    }
}

/// Whose rows a statement on the table writes.
pub(crate) fn owner(table: &Table, relations: &Relations) -> Option<UserId> {
    table.kind.is_per_user().then(|| relations.identity.user.clone())
}

/// The look-ups of these keys, in their order.
pub(crate) async fn look_up(relations: &Relations, table: &Arc<Table>, keys: &[Key]) -> Result<Vec<LookUp>, SqlError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let user = owner(table, relations);
    Ok(relations.snapshot.look_up(table, user.as_ref(), keys).await?)
}

/// Whether a row lives at the key.
pub(super) fn is_taken(look_up: &LookUp) -> bool {
    matches!(look_up, LookUp::Read { found: Some(_), .. })
}

/// The error of values that a statement computes, with the column that they were for, if it is about their range.
pub(super) fn naming(error: SqlError, computed: &[String]) -> SqlError {
    if error.code != ErrorCode::InvalidValue || !error.message.starts_with(OUT_OF_RANGE) {
        return error;
    }
    let message = match computed {
        [] => return error,
        [column] => format!("column '{column}': {}", error.message),
        several => format!("one of the columns '{}': {}", several.join("', '"), error.message),
    };
    SqlError { message, ..error }
}

/// Refuses NULL in columns that take none.
pub(super) fn check_nulls(table: &Table, row: &Row) -> Result<(), SqlError> {
    row.iter().zip(&table.columns).try_for_each(|(value, column)| value::check_null(value, column, &table.name))
}

/// `a row with the key (1, 'x') exists already in table 'a.b'`.
pub(crate) fn duplicate_key(table: &Table, row: &Row) -> SqlError {
    let text = format!("a row with the key ({}) exists already in table '{}'", shown_key(table, row), table.name);
    SqlError::new(ErrorCode::DuplicateKey, text)
}

/// `1, 'x'`.
pub(super) fn shown_key(table: &Table, row: &Row) -> String {
    let as_arrow = |place: usize| {
        let array = rows::array_of(table.columns[place].sql_type, [&row[place]].into_iter()).ok()?;
        array_value_to_string(&array, 0).ok()
    };
    let shown = |place: usize| match &row[place] {
        Value::Text(text) => format!("'{text}'"),
        Value::Uuid(id) => format!("'{id}'"),
        Value::Bytes(bytes) => format!("X'{}'", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Value::Timestamp(_) | Value::Date(_) | Value::Time(_) => format!("'{}'", as_arrow(place).unwrap_or_default()),
        _ => as_arrow(place).unwrap_or_default(),
    };
    let key: Vec<String> = table.key_positions().into_iter().map(shown).collect();
    key.join(", ")
}
