//! Which version of a table its flushed rows hold to. Pure.
//!
//! An ALTER TABLE whose rule was looked up in the rows holds for the rows that lived then. Those that were flushed before may break it:
//! what hides or replaces them is still in the hot tier alone, and is gone with a lost volume. A flush writes the schema of its rows to the
//! log, so that the schema which a log describes always holds for what lies in it.

use std::sync::Arc;

use super::types::{TypeChange, convert_exactly, type_change};
use crate::schema::{Column, DefaultValue, SchemaVersion, Table};

/// The newest version to which all rows hold that hold to version `held`, whatever they are. `versions` are all of the table.
pub fn proven(versions: &[Arc<Table>], held: SchemaVersion) -> Option<&Arc<Table>> {
    let since = since(versions, held);
    let asks = since.windows(2).position(|step| asks_rows(&step[0], &step[1]));
    asks.map_or(since.last(), |at| since.get(at))
}

/// The next version of a table of which only rows are left that hold to version `held`: the newest one, but for what nobody knows of these
/// rows. None where the newest one can stay.
pub fn recovered(versions: &[Arc<Table>], held: SchemaVersion, now_ms: i64) -> Option<Table> {
    let since = since(versions, held);
    let newest = since.last()?;
    let columns: Vec<_> = newest.columns.iter().map(|column| holding(since, column)).collect();
    let next =
        Table { version: SchemaVersion(newest.version.0 + 1), updated_at: now_ms, columns, ..Table::clone(newest) };
    (next.columns != newest.columns).then_some(next)
}

fn since(versions: &[Arc<Table>], held: SchemaVersion) -> &[Arc<Table>] {
    &versions[versions.partition_point(|table| table.version < held)..]
}

/// Whether the change from one version to the next was made only after the rows were looked through.
fn asks_rows(before: &Table, after: &Table) -> bool {
    after.columns.iter().any(|column| match same(before, column) {
        Some(before) => {
            let narrows = type_change(before.sql_type, column.sql_type) == TypeChange::Narrows;
            narrows || (before.nullable && !column.nullable)
        }
        None => !column.nullable && column.initial.is_null(),
    })
}

fn same<'a>(table: &'a Table, column: &Column) -> Option<&'a Column> {
    table.columns.iter().find(|other| other.id == column.id)
}

/// The column as any row can be read that holds to the first of these versions.
fn holding(since: &[Arc<Table>], newest: &Column) -> Column {
    let mut forms = since.iter().filter_map(|table| same(table, newest));
    let first = forms.next().unwrap_or(newest);
    let came_later = since.first().is_some_and(|held| same(held, newest).is_none());
    let may_be_null = if came_later { first.initial.is_null() } else { first.nullable };
    let (mut form, mut narrowed) = (first, false);
    for next in forms {
        match type_change(form.sql_type, next.sql_type) {
            TypeChange::Widens => form = next,
            // A text is read through the type before it, which must not be one that was passed over.
            TypeChange::IntoText if !narrowed => form = next,
            _ => narrowed = true,
        }
    }
    Column {
        name: newest.name.clone(),
        nullable: newest.nullable || may_be_null,
        optional_in_files: newest.optional_in_files || form.optional_in_files,
        default: default_in(newest, form),
        ..form.clone()
    }
}

/// The newest DEFAULT, in the type of an older form of the column.
fn default_in(newest: &Column, form: &Column) -> Option<DefaultValue> {
    match newest.default.clone()? {
        DefaultValue::Literal(value) => {
            convert_exactly(value, newest.sql_type, form.sql_type).map(DefaultValue::Literal).or(form.default.clone())
        }
        generated if generated.fits(form.sql_type) => Some(generated),
        _ => form.default.clone(),
    }
}
