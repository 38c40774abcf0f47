//! `information_schema`, as standard SQL describes it: what the user may see.

use std::sync::Arc;

use kalamdb_engine::schema::{Column, SqlType, Table};
use kalamdb_engine::value::{Row, Value};

use super::system::default_text;
use super::view::{optional_text, text};
use super::{Relations, View};
use crate::bind::names::CATALOG;
use crate::bind::sql_type::sql_name;

/// Every table of `information_schema`.
pub(super) const NAMES: [&str; 3] = ["schemata", "tables", "columns"];

const TEXT: SqlType = SqlType::Text;

pub(super) fn view(relations: &Relations, name: &str) -> Option<View> {
    match name {
        "schemata" => Some(schemata(relations)),
        "tables" => Some(tables(relations)),
        "columns" => Some(columns(relations)),
        _ => None,
    }
}

fn schemata(relations: &Relations) -> View {
    View::new(&[("catalog_name", TEXT), ("schema_name", TEXT)])
        .with(relations.namespace_names().into_iter().map(|name| vec![text(CATALOG), text(name)]))
}

fn tables(relations: &Relations) -> View {
    let row = |table: &Arc<Table>| -> Row {
        vec![text(CATALOG), text(&table.name.namespace), text(&table.name.name), text("BASE TABLE")]
    };
    View::new(&[("table_catalog", TEXT), ("table_schema", TEXT), ("table_name", TEXT), ("table_type", TEXT)])
        .with(relations.visible_tables().map(row))
}

fn columns(relations: &Relations) -> View {
    let of_table = |table: &Arc<Table>| -> Vec<Row> {
        let row = |(place, column): (usize, &Column)| -> Row {
            vec![
                text(CATALOG),
                text(&table.name.namespace),
                text(&table.name.name),
                text(&column.name),
                Value::Int(place as i32 + 1),
                optional_text(column.default.as_ref().map(|default| default_text(default, column.sql_type))),
                text(if column.nullable { "YES" } else { "NO" }),
                text(sql_name(column.sql_type)),
            ]
        };
        table.columns.iter().enumerate().map(row).collect()
    };
    View::new(&[
        ("table_catalog", TEXT),
        ("table_schema", TEXT),
        ("table_name", TEXT),
        ("column_name", TEXT),
        ("ordinal_position", SqlType::Int),
        ("column_default", TEXT),
        ("is_nullable", TEXT),
        ("data_type", TEXT),
    ])
    .with(relations.visible_tables().flat_map(of_table))
}
