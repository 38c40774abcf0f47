//! Where a column of a query's result comes from: its SQL type and flags are those of the table's column.

use datafusion::common::TableReference;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan};

/// The table's column that a result column shows unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// As the scan names it.
    pub table: TableReference,
    /// The column.
    pub column: String,
    /// Whether a join may have put NULL or the same row twice in it, so that the table's promises no longer hold.
    pub joined: bool,
}

/// The origin of the output column of that place; none where it is computed.
pub fn origin(plan: &LogicalPlan, place: usize) -> Option<Origin> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(Origin {
            table: scan.table_name.clone(),
            column: scan.projected_schema.fields().get(place)?.name().clone(),
            joined: false,
        }),
        LogicalPlan::Projection(projection) => {
            let input = &projection.input;
            origin(input, column_place(input, projection.expr.get(place)?)?)
        }
        LogicalPlan::SubqueryAlias(alias) => origin(&alias.input, place),
        LogicalPlan::Filter(filter) => origin(&filter.input, place),
        LogicalPlan::Sort(sort) => origin(&sort.input, place),
        LogicalPlan::Limit(limit) => origin(&limit.input, place),
        LogicalPlan::Distinct(distinct) => origin(distinct.input(), place),
        LogicalPlan::Repartition(repartition) => origin(&repartition.input, place),
        LogicalPlan::Window(window) if place < window.input.schema().fields().len() => origin(&window.input, place),
        LogicalPlan::Aggregate(aggregate) => {
            let found = origin(&aggregate.input, column_place(&aggregate.input, aggregate.group_expr.get(place)?)?)?;
            Some(Origin { joined: true, ..found })
        }
        LogicalPlan::Join(join) if matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti) => {
            origin(&join.left, place)
        }
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            let side = if place < left { origin(&join.left, place) } else { origin(&join.right, place - left) };
            side.filter(|_| is_side_by_side(join.join_type)).map(|found| Origin { joined: true, ..found })
        }
        _ => None,
    }
}

fn is_side_by_side(join: JoinType) -> bool {
    matches!(join, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full)
}

fn column_place(input: &LogicalPlan, expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Column(column) => input.schema().maybe_index_of_column(column),
        Expr::Alias(alias) => column_place(input, &alias.expr),
        _ => None,
    }
}
