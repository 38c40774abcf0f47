//! What a FROM clause names, and how it is joined.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    FunctionArg, Join, JoinConstraint, JoinOperator, Spanned, TableAlias, TableAliasColumnDef, TableFactor,
    TableFunctionArgs, TableSampleKind, TableSampleModifier, TableWithJoins,
};

use super::{Verdict, refuse};

pub(super) fn check(factor: &TableFactor) -> Verdict {
    match factor {
        TableFactor::Table {
            name: _,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            alias.iter().try_for_each(|alias| of_alias(alias, factor))?;
            if let Some(TableFunctionArgs { args: _, settings }) = args {
                refuse(settings.is_some(), "SETTINGS", factor)?;
            }
            refuse(!with_hints.is_empty(), "WITH (…) behind a table", factor)?;
            refuse(version.is_some(), "a version of a table", factor)?;
            refuse(*with_ordinality, "WITH ORDINALITY", factor)?;
            refuse(!partitions.is_empty(), "PARTITION (…) behind a table", factor)?;
            refuse(json_path.is_some(), "a path behind a table", factor)?;
            refuse(!index_hints.is_empty(), "a hint of an index behind a table", factor)?;
            sample.iter().try_for_each(|sample| of_sample(sample, factor))
        }
        TableFactor::Derived { lateral: _, subquery: _, alias, sample } => {
            alias.iter().try_for_each(|alias| of_alias(alias, factor))?;
            sample.iter().try_for_each(|sample| of_sample(sample, factor))
        }
        TableFactor::Function { lateral: _, name: _, args, with_ordinality, alias } => {
            alias.iter().try_for_each(|alias| of_alias(alias, factor))?;
            let is_named = |arg: &FunctionArg| !matches!(arg, FunctionArg::Unnamed(_));
            refuse(args.iter().any(is_named), "a named argument of a table function", factor)?;
            refuse(*with_ordinality, "WITH ORDINALITY", factor)
        }
        TableFactor::UNNEST { alias, array_exprs: _, with_offset, with_offset_alias, with_ordinality } => {
            alias.iter().try_for_each(|alias| of_alias(alias, factor))?;
            refuse(*with_offset || with_offset_alias.is_some(), "WITH OFFSET", factor)?;
            refuse(*with_ordinality, "WITH ORDINALITY", factor)
        }
        TableFactor::NestedJoin { table_with_joins, alias } => {
            alias.iter().try_for_each(|alias| of_alias(alias, factor))?;
            of_joins(table_with_joins)
        }
        TableFactor::TableFunction { expr: _, alias: _ } => refuse(true, "TABLE (…)", factor),
        TableFactor::JsonTable { .. } => refuse(true, "JSON_TABLE", factor),
        TableFactor::OpenJsonTable { .. } => refuse(true, "OPENJSON", factor),
        TableFactor::Pivot { .. } => refuse(true, "PIVOT", factor),
        TableFactor::Unpivot { .. } => refuse(true, "UNPIVOT", factor),
        TableFactor::MatchRecognize { .. } => refuse(true, "MATCH_RECOGNIZE", factor),
        TableFactor::XmlTable { .. } => refuse(true, "XMLTABLE", factor),
        TableFactor::SemanticView { .. } => refuse(true, "SEMANTIC_VIEW", factor),
    }
}

/// The names that a table is given.
pub(super) fn of_alias(alias: &TableAlias, node: &impl Spanned) -> Verdict {
    let TableAlias { explicit: _, name: _, columns, at } = alias;
    refuse(at.is_some(), "AT behind the name of a table", node)?;
    columns.iter().try_for_each(|TableAliasColumnDef { name: _, data_type }| {
        refuse(data_type.is_some(), "types of the columns that AS names", node)
    })
}

fn of_sample(sample: &TableSampleKind, factor: &TableFactor) -> Verdict {
    let (TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) = sample;
    match sample.modifier {
        TableSampleModifier::Sample => refuse(true, "SAMPLE", factor),
        TableSampleModifier::TableSample => refuse(true, "TABLESAMPLE", factor),
    }
}

/// The joins of a relation.
pub(super) fn of_joins(from: &TableWithJoins) -> Verdict {
    let TableWithJoins { relation: _, joins } = from;
    joins.iter().try_for_each(|join| of_join(join, from))
}

/// A join within that node: its words stand before what it joins.
pub(super) fn of_join(join: &Join, node: &impl Spanned) -> Verdict {
    let Join { relation: _, global, join_operator } = join;
    refuse(*global, "GLOBAL JOIN", node)?;
    match join_operator {
        JoinOperator::Join(_)
        | JoinOperator::Inner(_)
        | JoinOperator::Left(_)
        | JoinOperator::LeftOuter(_)
        | JoinOperator::Right(_)
        | JoinOperator::RightOuter(_)
        | JoinOperator::FullOuter(_)
        | JoinOperator::LeftSemi(_)
        | JoinOperator::RightSemi(_)
        | JoinOperator::LeftAnti(_)
        | JoinOperator::RightAnti(_)
        | JoinOperator::CrossJoin(JoinConstraint::None) => ControlFlow::Continue(()),
        JoinOperator::CrossJoin(_) => refuse(true, "CROSS JOIN with ON or USING", node),
        JoinOperator::Semi(_) => refuse(true, "SEMI JOIN without LEFT or RIGHT", node),
        JoinOperator::Anti(_) => refuse(true, "ANTI JOIN without LEFT or RIGHT", node),
        JoinOperator::CrossApply => refuse(true, "CROSS APPLY", node),
        JoinOperator::OuterApply => refuse(true, "OUTER APPLY", node),
        JoinOperator::AsOf { match_condition: _, constraint: _ } => refuse(true, "ASOF JOIN", node),
        JoinOperator::StraightJoin(_) => refuse(true, "STRAIGHT_JOIN", node),
        JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
            refuse(true, "ARRAY JOIN", node)
        }
    }
}
