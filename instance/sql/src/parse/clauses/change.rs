//! INSERT, UPDATE and DELETE.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Delete, FromTable, Insert, OnInsert, SelectItem, SelectItemQualifiedWildcardKind, Spanned, TableWithJoins, Update,
    WildcardAdditionalOptions,
};

use super::{Verdict, refuse, select};

pub(super) fn insert(insert: &Insert) -> Verdict {
    let Insert {
        insert_token: _,
        optimizer_hints: _,
        or,
        ignore,
        into: _,
        table: _,
        table_alias,
        columns: _,
        overwrite,
        source: _,
        assignments,
        partitioned,
        after_columns,
        has_table_keyword: _,
        on,
        returning: items,
        output,
        replace_into,
        priority,
        insert_alias,
        settings,
        format_clause,
        multi_table_insert_type,
        multi_table_into_clauses,
        multi_table_when_clauses,
        multi_table_else_clause,
    } = insert;
    let is_replacing = *replace_into || or.is_some() || *ignore;
    refuse(is_replacing, "REPLACE INTO, INSERT OR … and INSERT IGNORE", insert)?;
    refuse(table_alias.is_some() || insert_alias.is_some(), "INSERT INTO … AS", insert)?;
    refuse(*overwrite, "INSERT OVERWRITE", insert)?;
    refuse(!assignments.is_empty(), "INSERT … SET", insert)?;
    refuse(partitioned.is_some() || !after_columns.is_empty(), "INSERT … PARTITION", insert)?;
    refuse(priority.is_some(), "INSERT with a priority", insert)?;
    refuse(settings.is_some() || format_clause.is_some(), "INSERT … FORMAT", insert)?;
    let into_several = multi_table_insert_type.is_some()
        || !multi_table_into_clauses.is_empty()
        || !multi_table_when_clauses.is_empty()
        || multi_table_else_clause.is_some();
    refuse(into_several, "INSERT into several tables", insert)?;
    refuse(output.is_some(), "OUTPUT", insert)?;
    match on {
        None | Some(OnInsert::OnConflict(_)) => {}
        Some(_) => refuse(true, "ON DUPLICATE KEY UPDATE", insert)?,
    }
    items.iter().try_for_each(|items| returning(items))
}

pub(super) fn update(update: &Update) -> Verdict {
    let Update {
        update_token: _,
        optimizer_hints: _,
        table,
        assignments: _,
        from,
        selection: _,
        returning: items,
        output,
        or,
        order_by,
        limit,
    } = update;
    refuse(has_joins(table), "UPDATE of joined tables", update)?;
    refuse(from.is_some(), "UPDATE … FROM", update)?;
    refuse(output.is_some(), "OUTPUT", update)?;
    refuse(or.is_some(), "UPDATE OR", update)?;
    refuse(!order_by.is_empty(), "UPDATE with ORDER BY", update)?;
    refuse(limit.is_some(), "LIMIT of an UPDATE", update)?;
    items.iter().try_for_each(|items| returning(items))
}

pub(super) fn delete(delete: &Delete) -> Verdict {
    let Delete {
        delete_token: _,
        optimizer_hints: _,
        tables,
        from,
        using,
        selection: _,
        returning: items,
        output,
        order_by,
        limit,
    } = delete;
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = from;
    let is_several = using.is_some() || !tables.is_empty() || from.len() != 1 || from.iter().any(has_joins);
    refuse(is_several, "DELETE from several tables", delete)?;
    refuse(output.is_some(), "OUTPUT", delete)?;
    refuse(!order_by.is_empty(), "DELETE with ORDER BY", delete)?;
    refuse(limit.is_some(), "LIMIT of a DELETE", delete)?;
    items.iter().try_for_each(|items| returning(items))
}

fn has_joins(from: &TableWithJoins) -> bool {
    let TableWithJoins { relation: _, joins } = from;
    !joins.is_empty()
}

/// What a statement returns of the rows that it wrote: of a `*` all columns.
pub(super) fn returning(items: &[SelectItem]) -> Verdict {
    items.iter().try_for_each(|item| {
        select::of_item(item)?;
        match item {
            SelectItem::Wildcard(options)
            | SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(_), options) => {
                of_whole_row(options, item)
            }
            _ => ControlFlow::Continue(()),
        }
    })
}

fn of_whole_row(options: &WildcardAdditionalOptions, node: &impl Spanned) -> Verdict {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike: _,
        opt_exclude,
        opt_except,
        opt_replace,
        opt_rename: _,
        opt_alias: _,
    } = options;
    refuse(opt_exclude.is_some(), "EXCLUDE behind this *", node)?;
    refuse(opt_except.is_some(), "EXCEPT behind this *", node)?;
    refuse(opt_replace.is_some(), "REPLACE behind this *", node)
}
