//! INSERT, UPDATE and DELETE as commits: look up, write, and start over from a new snapshot where others were faster.

use std::sync::Arc;
use std::time::Duration;

use datafusion::sql::sqlparser::ast;
use kalamdb_engine::engine::{LookUp, RowWrite};
use kalamdb_engine::hot::Key;
use kalamdb_engine::schema::{Table, UserId};
use kalamdb_engine::value::{Row, Value};

use super::{Outcome, Scope, Statements};
use crate::bind::value;
use crate::relations::Relations;
use crate::{ErrorCode, SqlError};

/// The first pause before a statement starts over; it doubles each time.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A statement that writes rows.
#[derive(Clone, Copy)]
pub(super) enum Write<'a> {
    Insert(&'a ast::Insert),
    Update(&'a ast::Update),
    Delete(&'a ast::Delete),
}

impl Write<'_> {
    fn done(self, rows: u64) -> Outcome {
        let verb = match self {
            Self::Insert(_) => "Inserted",
            Self::Update(_) => "Updated",
            Self::Delete(_) => "Deleted",
        };
        Outcome::Done { row_count: rows, message: format!("{verb} {rows} row(s)") }
    }
}

impl Statements {
    pub(super) async fn write(&self, write: Write<'_>, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..self.config.commit_attempts {
            match self.write_once(write, scope).await {
                Err(error) if error.code == ErrorCode::Conflict => {}
                result => return result.map(|rows| write.done(rows)),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        match self.write_once(write, scope).await {
            Err(error) if error.code == ErrorCode::Conflict => {
                let text =
                    format!("others changed the same rows {} times in a row; try again", self.config.commit_attempts);
                Err(SqlError::new(ErrorCode::Conflict, text))
            }
            result => result.map(|rows| write.done(rows)),
        }
    }

    async fn write_once(&self, write: Write<'_>, scope: &Scope<'_>) -> Result<u64, SqlError> {
        let relations = self.relations(scope);
        match write {
            Write::Insert(insert) => self.insert(insert, &relations, scope).await,
            Write::Update(update) => self.update(update, &relations, scope).await,
            Write::Delete(delete) => self.delete(delete, &relations, scope).await,
        }
    }

    /// Commits them, unless there are none or too many.
    pub(super) async fn commit(&self, writes: Vec<RowWrite>) -> Result<(), SqlError> {
        self.check_row_count(writes.len())?;
        if !writes.is_empty() {
            self.engine.commit(writes).await?;
        }
        Ok(())
    }

    pub(super) fn check_row_count(&self, rows: usize) -> Result<(), SqlError> {
        if rows <= self.config.write_rows {
            return Ok(());
        }
        let text = format!("one statement writes at most {} rows, this one {rows}: split it", self.config.write_rows);
        Err(SqlError::new(ErrorCode::TooLarge, text))
    }
}

/// Whose rows a statement on the table writes.
pub(super) fn owner(table: &Table, relations: &Relations) -> Option<UserId> {
    table.kind.is_per_user().then(|| relations.identity.user.clone())
}

/// The look-ups of these keys, in their order.
pub(super) async fn look_up(relations: &Relations, table: &Arc<Table>, keys: &[Key]) -> Result<Vec<LookUp>, SqlError> {
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

/// Refuses NULL in columns that take none.
pub(super) fn check_nulls(table: &Table, row: &Row) -> Result<(), SqlError> {
    row.iter().zip(&table.columns).try_for_each(|(value, column)| value::check_null(value, column, &table.name))
}

/// `a row with the key (1, 'x') exists already in table 'a.b'`.
pub(super) fn duplicate_key(table: &Table, row: &Row) -> SqlError {
    let shown = |place: usize| match &row[place] {
        Value::Text(text) => format!("'{text}'"),
        Value::SmallInt(number) => number.to_string(),
        Value::Int(number) => number.to_string(),
        Value::BigInt(number) => number.to_string(),
        Value::Boolean(value) => value.to_string(),
        other => format!("{other:?}"),
    };
    let key: Vec<String> = table.key_positions().into_iter().map(shown).collect();
    let text = format!("a row with the key ({}) exists already in table '{}'", key.join(", "), table.name);
    SqlError::new(ErrorCode::DuplicateKey, text)
}
