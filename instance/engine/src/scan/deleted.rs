//! `WHERE _deleted = true`: rows that were deleted, as long as the change log holds them, with their last values.

use std::collections::HashMap;

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

/// Whether only deleted rows can pass the filters, of which all must hold.
pub fn asks_for_deleted(filters: &[Expr]) -> bool {
    let is_flag = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == DELETED);
    let is_true = |expr: &Expr| matches!(expr, Expr::Literal(ScalarValue::Boolean(Some(true)), _));
    filters.iter().any(|filter| match filter {
        Expr::IsTrue(inner) => is_flag(inner),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            (is_flag(left) && is_true(right)) || (is_true(left) && is_flag(right))
        }
        flag => is_flag(flag),
    })
}

/// The deleted rows of the table, or of one user's part: `_seq` and `_updated` are those of the deletion. A key that lives again has
/// none.
pub fn read(
    snapshot: &HotSnapshot,
    table: &Table,
    user: Option<&UserId>,
    projection: &[usize],
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
