//! Conditions on `_deleted`. The scan of a table reads deleted rows where a condition on them reaches it; one that is also about another
//! relation never does, and would find nothing without a word.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan};
use kalamdb_engine::schema::DELETED;

use crate::{ErrorCode, SqlError};

/// Refuses conditions that name one relation's `_deleted` beside columns of another.
pub fn check(plan: &LogicalPlan) -> Result<(), SqlError> {
    let mut spans = false;
    plan.apply_with_subqueries(|plan| {
        let condition = match plan {
            LogicalPlan::Filter(filter) => Some(&filter.predicate),
            LogicalPlan::Join(join) => join.filter.as_ref(),
            _ => None,
        };
        spans |= condition.is_some_and(|condition| split_conjunction(condition).into_iter().any(spans_relations));
        Ok(if spans { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if spans {
        let text =
            "a condition on _deleted is about one table: say it apart from columns of others, with AND between them";
        return Err(SqlError::new(ErrorCode::NotAvailable, text));
    }
    Ok(())
}

fn spans_relations(condition: &Expr) -> bool {
    let columns = condition.column_refs();
    let mut flags = columns.iter().filter(|column| column.name == DELETED);
    flags.any(|flag| columns.iter().any(|column| column.relation != flag.relation))
}
