//! `WHERE _deleted = true`: rows that were deleted, as long as the change log holds them, with their last values. Any condition on
//! `_deleted` reads them, and then judges them as it judges the others.

use std::collections::{HashMap, HashSet};

use arrow::array::RecordBatch;
use arrow_schema::Schema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, lit};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use crate::EngineError;
use crate::hot::HotSnapshot;
use crate::hot::batch::RowDecoder;
use crate::hot::changes::Operation;
use crate::hot::row;
use crate::hot::stored::StoredRows;
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
    /// Deleted rows are only read for who names `_deleted`, and neither sort where the filters can't hold for any row of it.
    pub fn by(filters: &[Expr], schema: &Schema) -> Result<Self> {
        let names_flag = |filter: &Expr| filter.column_refs().iter().any(|column| column.name == DELETED);
        if !filters.iter().any(names_flag) {
            return Ok(Self { live: true, deleted: false });
        }
        let deleted = may_hold(filters, true, schema)?;
        Ok(Self { live: !deleted || may_hold(filters, false, schema)?, deleted })
    }
}

/// Whether the filters can hold for a row whose flag is this, whatever its other columns are.
fn may_hold(filters: &[Expr], deleted: bool, schema: &Schema) -> Result<bool> {
    let Some(all) = conjunction(filters.iter().cloned()) else { return Ok(true) };
    let all = all.transform(|expr| {
        let is_flag = matches!(&expr, Expr::Column(column) if column.name == DELETED);
        Ok(if is_flag { Transformed::yes(lit(deleted)) } else { Transformed::no(expr) })
    })?;
    let schema = DFSchema::try_from(schema.clone())?.into();
    let simplified = ExprSimplifier::new(SimplifyContext::builder().with_schema(schema).build()).simplify(all.data)?;
    Ok(!matches!(simplified, Expr::Literal(ScalarValue::Boolean(None | Some(false)) | ScalarValue::Null, _)))
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
    let mut stored = StoredRows::default();
    for (seq, image) in rows {
        let mut image = image.clone();
        row::stamp(&mut image, *seq, (seq.millis() + EPOCH_MS) * 1000);
        row::mark_deleted(&mut image);
        stored.push(&image);
    }
    RowDecoder::new(table, Some(projection), false).decode(stored)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_schema::{DataType, Field};
    use datafusion::functions::expr_fn::coalesce;
    use datafusion::logical_expr::{Operator, binary_expr, cast};
    use datafusion::prelude::{col, ident, when};

    use super::*;
    use crate::schema::system_fields;

    fn check(filters: &[Expr], live: bool, deleted: bool) {
        let id = Field::new("id", DataType::Int64, false);
        let fields: Vec<_> = [id].into_iter().chain(system_fields()).map(Arc::new).collect();
        let wanted = Wanted::by(filters, &Schema::new(fields)).unwrap();
        assert_eq!(wanted, Wanted { live, deleted }, "{filters:?}");
    }

    #[test]
    fn deleted_rows_are_read_where_a_condition_on_the_flag_lets_them_pass() {
        let (flag, other) = (ident(DELETED), col("id").eq(lit(1i64)));
        check(&[], true, false);
        check(std::slice::from_ref(&other), true, false);
        check(std::slice::from_ref(&flag), false, true);
        check(&[flag.clone().eq(lit(true)), other.clone()], false, true);
        check(&[flag.clone().not_eq(lit(true))], true, false);
        check(&[!flag.clone()], true, false);
        check(&[!(flag.clone().or(other.clone()))], true, false);
        check(&[!(flag.clone().and(other.clone()))], true, true);
        check(&[flag.clone().or(other.clone())], true, true);
        check(&[flag.clone().or(other.clone()), !flag.clone()], true, false);
        check(&[flag.clone(), !flag], true, false);
    }

    #[test]
    fn what_a_condition_lets_pass_does_not_hang_on_how_it_is_written() {
        let (flag, other) = (ident(DELETED), col("id").eq(lit(1i64)));
        check(&[flag.clone().is_not_null()], true, true);
        check(&[flag.clone().is_null()], true, false);
        check(&[flag.clone().in_list(vec![lit(true), lit(false)], false)], true, true);
        check(&[flag.clone().in_list(vec![lit(true)], false)], false, true);
        check(&[flag.clone().in_list(vec![lit(true)], true)], true, false);
        check(&[flag.clone().eq(flag.clone())], true, true);
        check(&[flag.clone().or(!flag.clone())], true, true);
        check(&[flag.clone().gt(lit(false))], false, true);
        check(&[binary_expr(flag.clone(), Operator::IsDistinctFrom, lit(true))], true, false);
        check(&[coalesce(vec![flag.clone(), lit(false)])], false, true);
        check(&[cast(flag.clone(), DataType::Int64).eq(lit(1i64))], false, true);
        check(&[when(flag.clone(), other.clone()).otherwise(lit(false)).unwrap()], false, true);
        check(&[when(flag.clone(), lit(false)).otherwise(other).unwrap()], true, false);
    }
}
