//! SHOW and DESCRIBE.

use kalamdb_engine::schema::{Column, SqlType, Table, TableName};
use kalamdb_engine::value::{Row, Value};

use super::{Outcome, ResultColumn, RowSet, Scope, Statements};
use crate::bind::names::{self, INFORMATION_SCHEMA, SYSTEM};
use crate::bind::sql_type::{sql_name, wire_name};
use crate::parse::Show;
use crate::relations::{Relations, View};
use crate::{SqlError, relations};

const TEXT: SqlType = SqlType::Text;

impl Statements {
    pub(crate) async fn show(&self, what: &Show, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let relations = self.relations(scope);
        let view = match what {
            Show::Namespaces => namespaces(&relations),
            Show::Tables(namespace) => {
                let namespace = namespace.as_ref().map_or_else(|| scope.namespace.to_owned(), names::fold);
                tables(&relations, &namespace)?
            }
            Show::Columns(name) => columns(&relations, &names::table_name(name, scope.namespace)?).await?,
            Show::History(name) => history(&relations, &names::table_name(name, scope.namespace)?).await?,
            Show::Stats(name) => self.table_stats(&relations, &names::table_name(name, scope.namespace)?)?,
            Show::Storages => relations::storages(&relations),
            Show::Manifest => relations::manifest(&relations).await?,
        };
        rows_of(&view).map(Outcome::Rows)
    }

    fn table_stats(&self, relations: &Relations, name: &TableName) -> Result<View, SqlError> {
        let table = names::table(&relations.catalog, name)?;
        let unflushed = self.engine.unflushed().into_iter().find(|unflushed| unflushed.table.id == table.id);
        let figures = unflushed.map_or((0, 0, Value::Null), |found| {
            (found.rows as i64, found.bytes as i64, Value::Timestamp(found.oldest))
        });
        Ok(View::new(&[
            ("table_name", TEXT),
            ("unflushed_rows", SqlType::BigInt),
            ("unflushed_bytes", SqlType::BigInt),
            ("oldest_unflushed", SqlType::Timestamp),
        ])
        .with([vec![
            Value::Text(name.to_string()),
            Value::BigInt(figures.0),
            Value::BigInt(figures.1),
            figures.2,
        ]]))
    }
}

/// A view as a result.
pub(super) fn rows_of(view: &View) -> Result<RowSet, SqlError> {
    let column = |(name, of): &(&'static str, SqlType)| ResultColumn {
        name: (*name).to_owned(),
        data_type: wire_name(*of),
        flags: Vec::new(),
    };
    Ok(RowSet { columns: view.columns.iter().map(column).collect(), batches: vec![view.batch()?] })
}

fn namespaces(relations: &Relations) -> View {
    View::new(&[("name", TEXT)]).with(relations.catalog.namespaces.keys().map(|name| vec![Value::Text(name.clone())]))
}

fn tables(relations: &Relations, namespace: &str) -> Result<View, SqlError> {
    if namespace != SYSTEM && namespace != INFORMATION_SCHEMA {
        names::check_namespace(&relations.catalog, namespace)?;
    }
    let visible = relations.visible_tables().filter(|table| table.name.namespace == namespace);
    let row = |table: &std::sync::Arc<Table>| -> Row {
        vec![
            Value::Text(table.name.namespace.clone()),
            Value::Text(table.name.name.clone()),
            Value::Text(table.kind.as_str().into()),
        ]
    };
    Ok(View::new(&[("namespace_id", TEXT), ("table_name", TEXT), ("table_type", TEXT)]).with(visible.map(row)))
}

/// What DESCRIBE shows of a column.
const COLUMNS: [(&str, SqlType); 9] = [
    ("column_name", TEXT),
    ("ordinal_position", SqlType::Int),
    ("column_id", SqlType::Int),
    ("data_type", TEXT),
    ("is_nullable", SqlType::Boolean),
    ("is_primary_key", SqlType::Boolean),
    ("column_default", TEXT),
    ("column_comment", TEXT),
    ("schema_version", SqlType::Int),
];

/// DESCRIBE.
async fn columns(relations: &Relations, name: &TableName) -> Result<View, SqlError> {
    if let Some(view) = relations.view(name).await? {
        let row = |(place, (name, of)): (usize, &(&str, SqlType))| described(place, name, *of, None);
        return Ok(View::new(&COLUMNS).with(view.columns.iter().enumerate().map(row)));
    }
    Ok(View::new(&COLUMNS).with(described_table(names::table(&relations.catalog, name)?)))
}

/// DESCRIBE … HISTORY: the columns of every version, oldest first.
async fn history(relations: &Relations, name: &TableName) -> Result<View, SqlError> {
    if relations.view(name).await?.is_some() {
        return columns(relations, name).await;
    }
    let table = names::table(&relations.catalog, name)?;
    Ok(View::new(&COLUMNS)
        .with(relations.catalog.versions_of(table.id).iter().flat_map(|version| described_table(version))))
}

fn described_table(table: &Table) -> Vec<Row> {
    let row =
        |(place, column): (usize, &Column)| described(place, &column.name, column.sql_type, Some((table, column)));
    table.columns.iter().enumerate().map(row).collect()
}

fn described(place: usize, name: &str, of: SqlType, stored: Option<(&Table, &Column)>) -> Row {
    let default =
        stored.and_then(|(_, column)| column.default.as_ref()).map(|default| relations::default_text(default, of));
    vec![
        Value::Text(name.to_owned()),
        Value::Int(place as i32 + 1),
        stored.map_or(Value::Int(place as i32 + 1), |(_, column)| Value::Int(column.id.0 as i32)),
        Value::Text(sql_name(of)),
        Value::Boolean(stored.is_none_or(|(_, column)| column.nullable)),
        Value::Boolean(stored.is_some_and(|(table, column)| table.primary_key.contains(&column.id))),
        default.map_or(Value::Null, Value::Text),
        Value::Null,
        Value::Int(stored.map_or(1, |(table, _)| table.version.0 as i32)),
    ]
}
