//! Conditions on `_deleted`. The scan of a table reads deleted rows where a condition on them reaches it; one that is also about another
//! relation never does, and would find nothing without a word.

use std::collections::BTreeSet;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::error::Result as PlanResult;
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

/// Keeps conditions that name `_deleted` from being simplified away, and with them what they say: that all rows are meant. Beside each stands
/// one that is true of every row too, and that no planner sees through.
pub fn keep(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|plan| {
        Ok(match plan {
            LogicalPlan::Filter(mut filter) if !flags(&filter.predicate).is_empty() => {
                filter.predicate = kept(filter.predicate);
                Transformed::yes(LogicalPlan::Filter(filter))
            }
            LogicalPlan::Join(mut join) if join.filter.as_ref().is_some_and(|filter| !flags(filter).is_empty()) => {
                join.filter = join.filter.map(kept);
                Transformed::yes(LogicalPlan::Join(join))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(plan.data)
}

fn kept(condition: Expr) -> Expr {
    let of_all = |flag: Column| Expr::Column(flag.clone()).is_not_null().or(Expr::Column(flag).is_null());
    flags(&condition).into_iter().fold(condition, |condition, flag| condition.and(of_all(flag)))
}

/// The columns of that name in the condition.
fn flags(condition: &Expr) -> BTreeSet<Column> {
    condition.column_refs().into_iter().filter(|column| column.name == DELETED).cloned().collect()
}

fn spans_relations(condition: &Expr) -> bool {
    let columns = condition.column_refs();
    let mut flags = columns.iter().filter(|column| column.name == DELETED);
    flags.any(|flag| columns.iter().any(|column| column.relation != flag.relation))
}
