//! Queries: what stands around a SELECT, and how several are combined.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Cte, ExprWithAliasAndOrderBy, ForClause, LimitClause, LockClause, LockType, Offset, OrderBy, OrderByExpr,
    OrderByKind, OrderByOptions, PipeOperator, Query, SetExpr, SetOperator, Values, With,
};

use super::{Verdict, refuse, select, table};

pub(super) fn check(query: &Query) -> Verdict {
    let Query { with, body, order_by, limit_clause, fetch, locks, for_clause, settings, format_clause, pipe_operators } =
        query;
    with.iter().try_for_each(of_with)?;
    of_body(body)?;
    order_by.iter().try_for_each(|order_by| of_order_by(order_by, body))?;
    limit_clause.iter().try_for_each(|limit| of_limit(limit, query))?;
    refuse(fetch.is_some(), "FETCH", query)?;
    locks.iter().try_for_each(|lock| of_lock(lock, query))?;
    for_clause.iter().try_for_each(|clause| of_for(clause, query))?;
    refuse(settings.is_some(), "SETTINGS", query)?;
    refuse(format_clause.is_some(), "FORMAT", query)?;
    pipe_operators.iter().try_for_each(|operator| of_pipe(operator, query))
}

fn of_with(with: &With) -> Verdict {
    let With { with_token: _, recursive, cte_tables } = with;
    for cte in cte_tables {
        // Whether it is kept or computed anew changes no result.
        let Cte { alias, query, from, materialized: _, closing_paren_token: _ } = cte;
        table::of_alias(alias, query.as_ref())?;
        refuse(from.is_some(), "FROM behind a WITH query", cte)?;
        // Of the UNION that may name itself DataFusion reads the two sides alone.
        let is_union = matches!(query.body.as_ref(), SetExpr::SetOperation { op: SetOperator::Union, .. });
        let Query { with, body: _, order_by, limit_clause, pipe_operators, .. } = query.as_ref();
        let union = *recursive && is_union;
        refuse(union && order_by.is_some(), "ORDER BY of a UNION in WITH RECURSIVE", query.as_ref())?;
        refuse(union && limit_clause.is_some(), "LIMIT of a UNION in WITH RECURSIVE", query.as_ref())?;
        let is_wrapped = with.is_some() || !pipe_operators.is_empty();
        refuse(union && is_wrapped, "WITH or |> of a UNION in WITH RECURSIVE", query.as_ref())?;
    }
    ControlFlow::Continue(())
}

fn of_body(body: &SetExpr) -> Verdict {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) => ControlFlow::Continue(()),
        SetExpr::SetOperation { left, op: _, set_quantifier: _, right } => {
            of_body(left)?;
            of_body(right)
        }
        SetExpr::Values(values) => {
            let Values { explicit_row: _, value_keyword, rows: _ } = values;
            refuse(*value_keyword, "VALUE instead of VALUES", values)
        }
        SetExpr::Insert(_) => refuse(true, "INSERT within a query", body),
        SetExpr::Update(_) => refuse(true, "UPDATE within a query", body),
        SetExpr::Delete(_) => refuse(true, "DELETE within a query", body),
        SetExpr::Merge(_) => refuse(true, "MERGE", body),
        SetExpr::Table(_) => refuse(true, "TABLE t instead of SELECT * FROM t", body),
    }
}

fn of_order_by(order_by: &OrderBy, body: &SetExpr) -> Verdict {
    let OrderBy { kind, interpolate } = order_by;
    refuse(interpolate.is_some(), "INTERPOLATE", order_by)?;
    match kind {
        // Behind anything else DataFusion orders by nothing then.
        OrderByKind::All(_) => refuse(!matches!(body, SetExpr::Select(_)), "ORDER BY ALL of several SELECTs", body),
        OrderByKind::Expressions(expressions) => expressions.iter().try_for_each(of_order_by_expr),
    }
}

fn of_order_by_expr(order_by: &OrderByExpr) -> Verdict {
    let OrderByExpr { expr: _, options: _, with_fill } = order_by;
    refuse(with_fill.is_some(), "WITH FILL", order_by)
}

fn of_limit(limit: &LimitClause, query: &Query) -> Verdict {
    match limit {
        LimitClause::LimitOffset { limit: _, offset: None | Some(Offset { value: _, rows: _ }), limit_by } => {
            refuse(!limit_by.is_empty(), "LIMIT n BY", query)
        }
        LimitClause::OffsetCommaLimit { offset: _, limit: _ } => ControlFlow::Continue(()),
    }
}

fn of_lock(lock: &LockClause, query: &Query) -> Verdict {
    let LockClause { lock_type, of: _, nonblock: _ } = lock;
    match lock_type {
        LockType::Update => refuse(true, "FOR UPDATE", query),
        LockType::Share => refuse(true, "FOR SHARE", query),
    }
}

fn of_for(clause: &ForClause, query: &Query) -> Verdict {
    match clause {
        ForClause::Browse => refuse(true, "FOR BROWSE", query),
        ForClause::Json { .. } => refuse(true, "FOR JSON", query),
        ForClause::Xml { .. } => refuse(true, "FOR XML", query),
    }
}

fn of_pipe(operator: &PipeOperator, query: &Query) -> Verdict {
    match operator {
        PipeOperator::Limit { expr: _, offset: _ }
        | PipeOperator::Where { expr: _ }
        | PipeOperator::As { alias: _ }
        | PipeOperator::Union { set_quantifier: _, queries: _ }
        | PipeOperator::Intersect { set_quantifier: _, queries: _ }
        | PipeOperator::Except { set_quantifier: _, queries: _ } => ControlFlow::Continue(()),
        PipeOperator::OrderBy { exprs } => exprs.iter().try_for_each(of_order_by_expr),
        PipeOperator::Select { exprs } | PipeOperator::Extend { exprs } => exprs.iter().try_for_each(select::of_item),
        PipeOperator::Aggregate { full_table_exprs, group_by_expr } => {
            full_table_exprs.iter().chain(group_by_expr).try_for_each(|expr| of_grouped(expr, query))
        }
        PipeOperator::Join(join) => table::of_join(join, query),
        PipeOperator::Set { .. } => refuse(true, "SET behind |>", query),
        PipeOperator::Drop { .. } => refuse(true, "DROP behind |>", query),
        PipeOperator::TableSample { .. } => refuse(true, "TABLESAMPLE", query),
        PipeOperator::Rename { .. } => refuse(true, "RENAME behind |>", query),
        PipeOperator::Call { .. } => refuse(true, "CALL behind |>", query),
        PipeOperator::Pivot { .. } => refuse(true, "PIVOT", query),
        PipeOperator::Unpivot { .. } => refuse(true, "UNPIVOT", query),
    }
}

fn of_grouped(grouped: &ExprWithAliasAndOrderBy, query: &Query) -> Verdict {
    let ExprWithAliasAndOrderBy { expr: _, order_by: OrderByOptions { asc, nulls_first } } = grouped;
    refuse(asc.is_some() || nulls_first.is_some(), "AGGREGATE with ASC, DESC or NULLS", query)
}
