//! What an UPDATE sets in the row whose key it names, computed beside that row alone: nothing is planned for it.

use chrono::{DateTime, Utc};
use kalamdb_engine::schema::Table;
use kalamdb_engine::value::{Row, Value};

use super::change::Assignment;
use super::expression::{Bound, Expressions, evaluate};
use super::insert::is_default;
use super::{Scope, Statements, now, write};
use crate::bind::literal::{Literal, literal_of};
use crate::bind::value;
use crate::relations::Relations;
use crate::route::Target;
use crate::{ErrorCode, SqlError, rows};

/// The new values of an UPDATE's columns.
pub(super) struct Assigned<'a> {
    statements: &'a Statements,
    begun: DateTime<Utc>,
    table: &'a Table,
    expressions: Option<Expressions<'a>>,
    values: Vec<(usize, Assignable)>,
}

enum Assignable {
    /// No matter of DataFusion's, in which a number has fewer digits than a DECIMAL.
    Literal(Literal),
    Default,
    Computed(Bound),
}

impl<'a> Assigned<'a> {
    /// None where one of them needs more than the row, or is wrong: a query then tells.
    pub(super) fn bind(
        statements: &'a Statements,
        relations: &Relations,
        scope: &Scope<'a>,
        target: &'a Target,
        assignments: &[Assignment<'_>],
    ) -> Result<Option<Self>, SqlError> {
        let table = target.table.as_ref();
        let mut expressions = None;
        let mut values = Vec::with_capacity(assignments.len());
        for Assignment { place, value } in assignments {
            let value = match literal_of(value, scope.parameters)? {
                Some(literal) => Assignable::Literal(literal),
                None if is_default(value) => Assignable::Default,
                // Expressions know the table by its own name.
                None if target.is_aliased() => return Ok(None),
                None => {
                    let expressions = match &mut expressions {
                        Some(expressions) => expressions,
                        none => none.insert(Expressions::new(statements, relations, scope, table, None)?),
                    };
                    let Ok(bound) = expressions.bind(value, "SET") else { return Ok(None) };
                    Assignable::Computed(bound)
                }
            };
            values.push((*place, value));
        }
        Ok(Some(Self { statements, begun: now(), table, expressions, values }))
    }

    /// The row with its new values.
    pub(super) fn row(&self, old: &Row) -> Result<Row, SqlError> {
        let batch = self.expressions.as_ref().map(|expressions| expressions.batch(&[old], &[])).transpose()?;
        let mut new = old.clone();
        for (place, assignable) in &self.values {
            let column = &self.table.columns[*place];
            new[*place] = match (assignable, &batch) {
                (Assignable::Literal(literal), _) => value::from_literal(literal, column)?,
                (Assignable::Default, _) => self.statements.default_of(column, self.begun),
                (Assignable::Computed(bound), Some(batch)) => {
                    let named = |error| write::naming(error, std::slice::from_ref(&column.name));
                    let field = bound.expr.return_field(batch.schema_ref())?;
                    only(rows::computed_values_of(&field, &evaluate(bound, batch).map_err(named)?, column)?)?
                }
                (Assignable::Computed(_), None) => only(Vec::new())?,
            };
        }
        Ok(new)
    }
}

fn only(mut values: Vec<Value>) -> Result<Value, SqlError> {
    values.pop().ok_or_else(|| SqlError::new(ErrorCode::Internal, "an expression had no value for the one row"))
}
