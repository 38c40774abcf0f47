//! INSERT, UPDATE and DELETE as commits: look up, write, and start over from a new snapshot where others were faster.

use std::sync::Arc;
use std::time::Duration;

use datafusion::sql::sqlparser::ast;
use kalamdb_engine::engine::{LookUp, RowWrite};
use kalamdb_engine::hot::Key;
use kalamdb_engine::schema::{Table, UserId};
use kalamdb_engine::value::{Row, Value};
use uuid::Uuid;

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

/// What a commit gave its rows.
pub(super) struct Stamps {
    /// `_seq` of each, in the order of the writes; within a transaction provisional.
    pub(super) seqs: Vec<i64>,
    /// `_updated` of all.
    pub(super) updated: i64,
}

/// `Inserted 2 row(s)`.
pub(super) fn done(verb: &str, rows: usize) -> Outcome {
    Outcome::Done { row_count: rows as u64, message: format!("{verb} {rows} row(s)") }
}

impl Statements {
    pub(super) async fn write(&self, write: Write<'_>, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..self.config.commit_attempts {
            match self.write_once(write, scope).await {
                Err(error) if error.code == ErrorCode::Conflict => {}
                result => return result,
            }
            // Of those that collide one always wins; those that do not must not keep in step.
            tokio::time::sleep(pause.mul_f64(0.5 + chance())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        match self.write_once(write, scope).await {
            Err(error) if error.code == ErrorCode::Conflict => {
                let text =
                    format!("others changed the same rows {} times in a row; try again", self.config.commit_attempts);
                Err(SqlError::new(ErrorCode::Conflict, text))
            }
            result => result,
        }
    }

    async fn write_once(&self, write: Write<'_>, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let relations = self.relations(scope);
        match write {
            Write::Insert(insert) => self.insert(insert, &relations, scope).await,
            Write::Update(update) => Ok(done("Updated", self.update(update, &relations, scope).await?)),
            Write::Delete(delete) => Ok(done("Deleted", self.delete(delete, &relations, scope).await?)),
        }
    }

    /// Commits them, unless there are none or too many; within a transaction they wait for its COMMIT.
    pub(super) async fn commit(&self, writes: Vec<RowWrite>, scope: &Scope<'_>) -> Result<Stamps, SqlError> {
        self.check_row_count(writes.len())?;
        if let Some(transaction) = scope.transaction {
            let seqs = transaction.write(writes)?.into_iter().map(|seq| seq.0).collect();
            return Ok(Stamps { seqs, updated: transaction.snapshot().read_at() });
        }
        if writes.is_empty() {
            return Ok(Stamps { seqs: Vec::new(), updated: 0 });
        }
        let rows = writes.len();
        let committed = self.engine.commit(writes).await?;
        let seqs = committed.seqs(rows).into_iter().map(|seq| seq.0).collect();
        Ok(Stamps { seqs, updated: committed.updated })
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

/// A number from 0 to 1.
fn chance() -> f64 {
    f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}

/// `a row with the key (1, 'x') exists already in table 'a.b'`.
pub(super) fn duplicate_key(table: &Table, row: &Row) -> SqlError {
    let text = format!("a row with the key ({}) exists already in table '{}'", shown_key(table, row), table.name);
    SqlError::new(ErrorCode::DuplicateKey, text)
}

/// `1, 'x'`.
pub(super) fn shown_key(table: &Table, row: &Row) -> String {
    let shown = |place: usize| match &row[place] {
        Value::Text(text) => format!("'{text}'"),
        Value::SmallInt(number) => number.to_string(),
        Value::Int(number) => number.to_string(),
        Value::BigInt(number) => number.to_string(),
        Value::Boolean(value) => value.to_string(),
        other => format!("{other:?}"),
    };
    let key: Vec<String> = table.key_positions().into_iter().map(shown).collect();
    key.join(", ")
}
