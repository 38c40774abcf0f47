//! `WHERE _deleted = true`: rows that were deleted, as long as the change log holds them, with their last values. Any condition on
//! `_deleted` reads them, and then judges them as it judges the others.

use std::collections::{HashMap, HashSet};

use arrow::array::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use crate::EngineError;
use crate::hot::HotSnapshot;
use crate::hot::batch::BatchBuilder;
use crate::hot::changes::Operation;
use crate::hot::row::{self, RowHeader};
use crate::schema::{DELETED, Table, UserId};
use crate::seq::{EPOCH_MS, Seq};

/// Changes that are read at once.
const CHANGES: usize = 1024;
/// Rows of one batch.
const BATCH_ROWS: usize = 8192;

/// Which rows have to be read for filters of which all must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Those that live.
    pub live: bool,
    /// Those that were deleted.
    pub deleted: bool,
}

impl Wanted {
    /// Deleted rows are only read for who names `_deleted`, and neither sort where a filter plainly lets none of it pass.
    pub fn by(filters: &[Expr]) -> Self {
        let names_flag = |filter: &Expr| filter.column_refs().iter().any(|column| column.name == DELETED);
        if !filters.iter().any(names_flag) {
            return Self { live: true, deleted: false };
        }
        let may_pass = |deleted| !filters.iter().any(|filter| holds(filter, deleted) == Some(false));
        let deleted = may_pass(true);
        Self { live: may_pass(false) || !deleted, deleted }
    }
}

/// Whether the expression holds for all rows whose flag is this; none where that depends on the row.
fn holds(expr: &Expr, deleted: bool) -> Option<bool> {
    match expr {
        Expr::Column(column) if column.name == DELETED => Some(deleted),
        Expr::Literal(ScalarValue::Boolean(value), _) => *value,
        Expr::IsTrue(inner) | Expr::IsNotFalse(inner) => holds(inner, deleted),
        Expr::Not(inner) | Expr::IsFalse(inner) | Expr::IsNotTrue(inner) => holds(inner, deleted).map(|value| !value),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (left, right) = (holds(left, deleted), holds(right, deleted));
            match op {
                Operator::And if left == Some(false) || right == Some(false) => Some(false),
                Operator::Or if left == Some(true) || right == Some(true) => Some(true),
                Operator::And => Some(left? && right?),
                Operator::Or => Some(left? || right?),
                Operator::Eq => Some(left? == right?),
                Operator::NotEq => Some(left? != right?),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The deleted rows of the table, or of one user's part: `_seq` and `_updated` are those of the deletion. A key that lives again has
/// none, nor has one that does so in the transaction that reads: those are `alive`.
pub fn read(
    snapshot: &HotSnapshot,
    table: &Table,
    user: Option<&UserId>,
    projection: &[usize],
    alive: &HashSet<Vec<u8>>,
) -> Result<Vec<RecordBatch>, EngineError> {
    let mut deleted: HashMap<Vec<u8>, (Seq, Vec<u8>)> = HashMap::new();
    let mut after = Seq::ZERO;
    loop {
        let changes = snapshot.changes(table, user, after, CHANGES)?;
        let Some(last) = changes.last() else { break };
        after = last.seq;
        for change in changes {
            match (change.operation, change.old) {
                (Operation::Delete, Some(old)) => deleted.insert(change.key, (change.seq, old)),
                _ => deleted.remove(&change.key),
            };
        }
    }
    deleted.retain(|key, _| !alive.contains(key));
    let mut rows: Vec<_> = deleted.into_values().collect();
    rows.sort_by_key(|(seq, _)| *seq);
    rows.chunks(BATCH_ROWS).map(|rows| batch(table, projection, rows)).collect()
}

fn batch(table: &Table, projection: &[usize], rows: &[(Seq, Vec<u8>)]) -> Result<RecordBatch, EngineError> {
    let mut builder = BatchBuilder::new(table, Some(projection), false);
    for (seq, bytes) in rows {
        let schema = row::header(bytes)?.schema;
        let updated = (seq.millis() + EPOCH_MS) * 1000;
        builder.append(bytes, &RowHeader { seq: *seq, updated, deleted: true, schema }, None)?;
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, ident, lit, when};

    use super::*;

    fn check(filters: &[Expr], live: bool, deleted: bool) {
        assert_eq!(Wanted::by(filters), Wanted { live, deleted }, "{filters:?}");
    }

    #[test]
    fn deleted_rows_are_read_where_a_condition_on_the_flag_lets_them_pass() {
        let (flag, other) = (ident(DELETED), col("id").eq(lit(1)));
        check(&[], true, false);
        check(std::slice::from_ref(&other), true, false);
        check(std::slice::from_ref(&flag), false, true);
        check(&[flag.clone().eq(lit(true)), other.clone()], false, true);
        check(&[flag.clone().not_eq(lit(true))], true, false);
        check(&[!flag.clone()], true, false);
        check(&[!(flag.clone().or(other.clone()))], true, false);
        check(&[!(flag.clone().and(other.clone()))], true, true);
        check(&[flag.clone().or(other.clone())], true, true);
        check(&[flag.clone().is_not_null()], true, true);
        check(&[flag.clone().or(other.clone()), !flag.clone()], true, false);
        let case = when(flag.clone(), other).otherwise(lit(false)).unwrap();
        check(&[case], true, true);
        check(&[flag.clone(), !flag], true, false);
    }
}
