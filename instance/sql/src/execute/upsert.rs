//! `INSERT … ON CONFLICT`: rows whose key is taken are left out, or update the row that has it.

use std::collections::HashSet;

use arrow::array::{Array, AsArray};
use datafusion::sql::sqlparser::ast::{self, ConflictTarget, OnConflictAction, OnInsert};
use kalamdb_engine::hot::Key;
use kalamdb_engine::schema::{Column, Table};
use kalamdb_engine::value::{Row, Value};

use super::change::{self, Change};
use super::expression::{Expressions, evaluate};
use super::insert::{Affected, Proposal, is_default};
use super::write;
use crate::bind::names::fold;
use crate::{ErrorCode, SqlError, rows};

/// What becomes of a row whose key is taken.
#[derive(Clone, Copy)]
pub(super) enum OnConflict<'a> {
    /// The statement fails.
    Fail,
    /// It is left out.
    Nothing,
    /// It updates the row that is there.
    Update(&'a ast::DoUpdate),
}

impl<'a> OnConflict<'a> {
    pub(super) fn bind(table: &Table, insert: &'a ast::Insert) -> Result<Self, SqlError> {
        let clause = match &insert.on {
            None => return Ok(Self::Fail),
            Some(OnInsert::OnConflict(clause)) => clause,
            Some(_) => return Err(SqlError::not_available("INSERT … ON DUPLICATE KEY UPDATE")),
        };
        match &clause.conflict_target {
            None => {}
            Some(ConflictTarget::Columns(columns)) => check_target(table, columns)?,
            Some(ConflictTarget::OnConstraint(_)) => return Err(SqlError::not_available("ON CONFLICT ON CONSTRAINT")),
        }
        match &clause.action {
            OnConflictAction::DoNothing => Ok(Self::Nothing),
            OnConflictAction::DoUpdate(_) if table.primary_key.is_empty() => Err(no_such_key(table)),
            OnConflictAction::DoUpdate(update) => Ok(Self::Update(update)),
        }
    }
}

/// The columns must be the primary key, in any order: nothing else is unique.
fn check_target(table: &Table, columns: &[ast::Ident]) -> Result<(), SqlError> {
    let named: HashSet<String> = columns.iter().map(fold).collect();
    if let Some(unknown) = named.iter().find(|name| table.column(name).is_none()) {
        return Err(SqlError::not_found("column", format_args!("{}.{unknown}", table.name)));
    }
    let key: HashSet<String> =
        table.key_positions().into_iter().map(|place| table.columns[place].name.clone()).collect();
    if named == key && !key.is_empty() { Ok(()) } else { Err(no_such_key(table)) }
}

fn no_such_key(table: &Table) -> SqlError {
    let text = format!("ON CONFLICT names columns that are not the PRIMARY KEY of table '{}'", table.name);
    SqlError::new(ErrorCode::InvalidSql, text)
}

/// DO NOTHING: the rows whose key is free; of several with one key the first.
pub(super) fn without_taken(table: &Table, proposals: Vec<Proposal>) -> Vec<Affected> {
    let mut seen: HashSet<Key> = HashSet::new();
    let is_free = |proposal: &Proposal| {
        !write::is_taken(&proposal.look_up) && (table.primary_key.is_empty() || seen.insert(proposal.key.clone()))
    };
    proposals.into_iter().filter(is_free).map(Affected::inserted).collect()
}

/// What values are computed by: expressions, and DEFAULT.
pub(super) type Computing<'a> = (&'a Expressions<'a>, &'a dyn Fn(&Column) -> Value);

/// DO UPDATE: rows whose key is free are inserted, the others update what is there, where the WHERE holds.
pub(super) fn updated(
    table: &Table,
    proposals: Vec<Proposal>,
    update: &ast::DoUpdate,
    values: Computing<'_>,
) -> Result<Vec<Affected>, SqlError> {
    let mut updates = new_rows(table, &proposals, update, values)?.into_iter();
    let (mut affected, mut seen) = (Vec::with_capacity(proposals.len()), HashSet::new());
    for proposal in proposals {
        let is_taken = write::is_taken(&proposal.look_up);
        let becomes = if is_taken { updates.next().flatten() } else { None };
        if is_taken && becomes.is_none() {
            continue;
        }
        if !seen.insert(proposal.key.clone()) {
            return Err(second_time(table, &proposal.row));
        }
        affected.push(match becomes {
            None => Affected::inserted(proposal),
            Some(row) => Affected::updated(table, proposal, row)?,
        });
    }
    Ok(affected)
}

/// For each row whose key is taken, in their order, what the row there becomes; none where the WHERE does not hold.
fn new_rows(
    table: &Table,
    proposals: &[Proposal],
    update: &ast::DoUpdate,
    (expressions, default_of): Computing<'_>,
) -> Result<Vec<Option<Row>>, SqlError> {
    let assignments = change::assignments(table, &update.assignments)?;
    let taken = || proposals.iter().filter_map(|proposal| Some((proposal.look_up.found()?, &proposal.row)));
    let (own, excluded): (Vec<&Row>, Vec<&Row>) = taken().map(|(found, row)| (&found.row, row)).unzip();
    let mut batch = expressions.batch(&own, &excluded)?;
    let holds = match &update.selection {
        Some(selection) => {
            let holds = evaluate(&expressions.bind(selection, "ON CONFLICT … WHERE")?, &batch)?;
            let holds = holds.as_boolean_opt().ok_or_else(|| {
                SqlError::new(
                    ErrorCode::InvalidSql,
                    format!("ON CONFLICT … WHERE {selection} is neither true nor false"),
                )
            })?;
            (0..holds.len()).map(|at| holds.is_valid(at) && holds.value(at)).collect()
        }
        None => vec![true; own.len()],
    };
    // What does not hold is not computed either: it may well fail.
    batch = arrow::compute::filter_record_batch(&batch, &holds.clone().into())
        .map_err(|error| SqlError::new(ErrorCode::Internal, error.to_string()))?;
    let mut columns = Vec::with_capacity(assignments.len());
    for assignment in &assignments {
        let column = &table.columns[assignment.place];
        let values = if is_default(assignment.value) {
            (0..batch.num_rows()).map(|_| default_of(column)).collect()
        } else {
            let named = |error| write::naming(error, std::slice::from_ref(&column.name));
            let bound = expressions.bind(assignment.value, "ON CONFLICT … SET").map_err(named)?;
            let field = bound.expr.return_field(batch.schema_ref())?;
            rows::computed_values_of(&field, &evaluate(&bound, &batch).map_err(named)?, column)?
        };
        columns.push(values.into_iter());
    }
    let new = |(old, holds): (&&Row, bool)| {
        holds.then(|| {
            let mut row = (*old).clone();
            for (assignment, values) in assignments.iter().zip(&mut columns) {
                row[assignment.place] = values.next().expect("one value for each row that holds");
            }
            row
        })
    };
    Ok(own.iter().zip(holds).map(new).collect())
}

fn second_time(table: &Table, row: &Row) -> SqlError {
    let text = format!(
        "ON CONFLICT DO UPDATE can't affect a row a second time: the statement proposes the key ({}) of table '{}' twice",
        write::shown_key(table, row),
        table.name
    );
    SqlError::new(ErrorCode::DuplicateKey, text)
}

impl Affected {
    /// A row that stays as it is counts, and is not written.
    fn updated(table: &Table, proposal: Proposal, row: Row) -> Result<Self, SqlError> {
        write::check_nulls(table, &row)?;
        let old = proposal.look_up.found().map(|found| &found.row);
        let is_written = !old.is_some_and(|old| old.iter().zip(&row).all(|(old, new)| rows::same(old, new)));
        let Proposal { key, look_up, .. } = proposal;
        Ok(Self { change: Change { key, look_up, new: Some(row) }, is_written })
    }
}
