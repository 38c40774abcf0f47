//! One SELECT, and what it shows.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ConnectByKind, GroupByExpr, GroupByWithModifier, Select, SelectItem, SelectItemQualifiedWildcardKind, Spanned,
    WildcardAdditionalOptions,
};

use super::{Verdict, refuse, table};

pub(super) fn check(select: &Select) -> Verdict {
    let Select {
        select_token: _,
        // Comments that may be ignored.
        optimizer_hints: _,
        distinct: _,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection,
        exclude,
        into,
        from,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by,
        cluster_by,
        distribute_by: _,
        sort_by,
        having: _,
        named_window: _,
        qualify: _,
        window_before_qualify: _,
        value_table_mode,
        flavor: _,
    } = select;
    refuse(select_modifiers.is_some(), "SELECT with words such as HIGH_PRIORITY", select)?;
    refuse(top.is_some(), "TOP", select)?;
    projection.iter().try_for_each(of_item)?;
    refuse(exclude.is_some(), "EXCLUDE behind the columns", select)?;
    refuse(into.is_some(), "INTO", select)?;
    from.iter().try_for_each(table::of_joins)?;
    refuse(!lateral_views.is_empty(), "LATERAL VIEW", select)?;
    refuse(prewhere.is_some(), "PREWHERE", select)?;
    connect_by.iter().try_for_each(|kind| of_connect_by(kind, select))?;
    of_group_by(group_by, select)?;
    refuse(!cluster_by.is_empty(), "CLUSTER BY", select)?;
    refuse(!sort_by.is_empty(), "SORT BY", select)?;
    refuse(value_table_mode.is_some(), "SELECT AS STRUCT or AS VALUE", select)
}

/// What a query shows.
pub(super) fn of_item(item: &SelectItem) -> Verdict {
    match item {
        SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { expr: _, alias: _ } => ControlFlow::Continue(()),
        SelectItem::ExprWithAliases { expr: _, aliases: _ } => refuse(true, "several names of one column", item),
        SelectItem::Wildcard(options) => of_wildcard(options, item),
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(_), options) => {
            of_wildcard(options, item)
        }
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(_), _) => {
            refuse(true, ".* of an expression", item)
        }
    }
}

/// What stands behind a `*`.
pub(super) fn of_wildcard(options: &WildcardAdditionalOptions, node: &impl Spanned) -> Verdict {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude: _,
        opt_except: _,
        opt_replace: _,
        opt_rename,
        opt_alias,
    } = options;
    refuse(opt_ilike.is_some(), "ILIKE behind *", node)?;
    refuse(opt_rename.is_some(), "RENAME behind *", node)?;
    refuse(opt_alias.is_some(), "AS behind *", node)
}

fn of_connect_by(kind: &ConnectByKind, select: &Select) -> Verdict {
    match kind {
        ConnectByKind::ConnectBy { connect_token: _, nocycle: _, relationships: _ } => {
            refuse(true, "CONNECT BY", select)
        }
        ConnectByKind::StartWith { start_token: _, condition: _ } => refuse(true, "START WITH", select),
    }
}

fn of_group_by(group_by: &GroupByExpr, select: &Select) -> Verdict {
    let (GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)) = group_by;
    modifiers.iter().try_for_each(|modifier| match modifier {
        GroupByWithModifier::Rollup => refuse(true, "WITH ROLLUP", select),
        GroupByWithModifier::Cube => refuse(true, "WITH CUBE", select),
        GroupByWithModifier::Totals => refuse(true, "WITH TOTALS", select),
        GroupByWithModifier::GroupingSets(_) => refuse(true, "GROUPING SETS behind other columns", select),
    })
}
