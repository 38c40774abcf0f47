//! INSERT.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::sql::sqlparser::ast::{self, Expr, SetExpr, Value as AstValue};
use kalamdb_engine::Engine;
use kalamdb_engine::engine::{LookUp, RowWrite};
use kalamdb_engine::schema::{Column, DefaultValue, SqlType, Table};
use kalamdb_engine::value::{Row, Value};

use super::{Scope, Statements, now, write};
use crate::authorize::{self, Access};
use crate::bind::literal::literal_of;
use crate::bind::{names, value};
use crate::relations::Relations;
use crate::wildcard::{self, Hidden};
use crate::{ErrorCode, SqlError, functions, rows};

/// A row as the statement gives it: a value for each named column; none is DEFAULT.
type GivenRow = Vec<Option<Value>>;

/// A whole row, and whether its key was generated here, so that nothing can live there.
struct NewRow {
    row: Row,
    has_generated_key: bool,
}

impl Statements {
    pub(super) async fn insert(
        &self,
        insert: &ast::Insert,
        relations: &Relations,
        scope: &Scope<'_>,
    ) -> Result<u64, SqlError> {
        refuse_extensions(insert)?;
        let name = names::insert_target(&insert.table, scope.namespace)?;
        let table = Arc::clone(names::table(&relations.catalog, &name)?);
        authorize::check_table(&relations.catalog, &name, scope.identity, Access::Write)?;
        let places = places(&table, insert)?;
        let source =
            insert.source.as_deref().ok_or_else(|| SqlError::not_available("INSERT without VALUES or SELECT"))?;
        let given = self.given_rows(&table, &places, source, relations, scope).await?;
        self.check_row_count(given.len())?;
        let begun = now();
        let complete = |given| self.complete(&table, &places, given, begun);
        let new: Vec<NewRow> = given.into_iter().map(complete).collect::<Result<_, _>>()?;
        let count = new.len() as u64;
        self.commit(insertions(relations, &table, new).await?).await?;
        Ok(count)
    }

    async fn given_rows(
        &self,
        table: &Arc<Table>,
        places: &[usize],
        source: &ast::Query,
        relations: &Relations,
        scope: &Scope<'_>,
    ) -> Result<Vec<GivenRow>, SqlError> {
        let mut source = source.clone();
        let mut defaults = Vec::new();
        if let SetExpr::Values(values) = source.body.as_mut() {
            check_widths(table, places, values)?;
            if let Some(rows) = literal_rows(table, places, values, scope)? {
                return Ok(rows);
            }
            defaults = take_defaults(values);
        } else {
            wildcard::write_out(&mut source, &relations.catalog, scope.namespace, Hidden::System);
        }
        let found = self.run_planned(ast::Statement::Query(Box::new(source)), relations, scope).await?;
        if found.columns.len() != places.len() {
            let text = format!("INSERT names {} column(s), its source has {}", places.len(), found.columns.len());
            return Err(SqlError::new(ErrorCode::InvalidSql, text));
        }
        let mut rows = given_of_batches(table, places, &found.batches)?;
        defaults.into_iter().for_each(|(row, column)| rows[row][column] = None);
        Ok(rows)
    }

    /// The whole row: defaults where nothing was given, no NULL where none may be.
    fn complete(
        &self,
        table: &Table,
        places: &[usize],
        given: GivenRow,
        begun: DateTime<Utc>,
    ) -> Result<NewRow, SqlError> {
        let mut values: Vec<Option<Value>> = vec![None; table.columns.len()];
        for (place, value) in places.iter().zip(given) {
            values[*place] = value;
        }
        let mut has_generated_key = false;
        let mut row = Row::with_capacity(values.len());
        for (column, value) in table.columns.iter().zip(values) {
            let generated = value.is_none() && column.default.as_ref().is_some_and(DefaultValue::is_generated_key);
            has_generated_key |= generated && table.primary_key.contains(&column.id);
            row.push(value.unwrap_or_else(|| self.default_of(column, begun)));
        }
        write::check_nulls(table, &row)?;
        Ok(NewRow { row, has_generated_key })
    }

    /// What the column's DEFAULT is worth in a statement that began then.
    pub(super) fn default_of(&self, column: &Column, begun: DateTime<Utc>) -> Value {
        match (&column.default, column.sql_type) {
            (None, _) => Value::Null,
            (Some(DefaultValue::Literal(value)), _) => value.clone(),
            (Some(DefaultValue::CurrentTimestamp), SqlType::Date) => {
                Value::Date(begun.timestamp().div_euclid(24 * 3600) as i32)
            }
            (Some(DefaultValue::CurrentTimestamp), _) => Value::Timestamp(begun.timestamp_micros()),
            (Some(DefaultValue::SnowflakeId), SqlType::Text) => Value::Text(self.engine.snowflake_id().to_string()),
            (Some(DefaultValue::SnowflakeId), _) => Value::BigInt(self.engine.snowflake_id()),
            (Some(DefaultValue::UuidV7), _) => Value::Text(functions::uuid_v7()),
            (Some(DefaultValue::Ulid), _) => Value::Text(functions::ulid()),
        }
    }
}

fn refuse_extensions(insert: &ast::Insert) -> Result<(), SqlError> {
    let extensions = [
        (insert.on.is_some(), "INSERT … ON CONFLICT"),
        (insert.returning.is_some() || insert.output.is_some(), "INSERT … RETURNING"),
        (insert.overwrite, "INSERT OVERWRITE"),
        (insert.replace_into || insert.or.is_some() || insert.ignore, "REPLACE INTO, INSERT OR … and INSERT IGNORE"),
        (!insert.assignments.is_empty(), "INSERT … SET"),
        (insert.partitioned.is_some() || !insert.after_columns.is_empty(), "INSERT … PARTITION"),
        (insert.format_clause.is_some() || insert.settings.is_some(), "INSERT … FORMAT"),
    ];
    match extensions.iter().find(|(found, _)| *found) {
        Some((_, what)) => Err(SqlError::not_available(what)),
        None => Ok(()),
    }
}

/// Places of the named columns; all of the table's own where none is named.
fn places(table: &Table, insert: &ast::Insert) -> Result<Vec<usize>, SqlError> {
    if insert.columns.is_empty() {
        return Ok((0..table.columns.len()).collect());
    }
    let places: Vec<usize> =
        insert.columns.iter().map(|name| names::column_place(table, name)).collect::<Result<_, _>>()?;
    let mut seen = HashSet::new();
    match places.iter().find(|place| !seen.insert(**place)) {
        Some(place) => {
            let text = format!("INSERT names column '{}' twice", table.columns[*place].name);
            Err(SqlError::new(ErrorCode::InvalidSql, text))
        }
        None => Ok(places),
    }
}

fn check_widths(table: &Table, places: &[usize], values: &ast::Values) -> Result<(), SqlError> {
    match values.rows.iter().position(|row| row.content.len() != places.len()) {
        Some(at) => {
            let (number, width) = (at + 1, values.rows[at].content.len());
            let text =
                format!("row {number} has {width} value(s) for {} column(s) of table '{}'", places.len(), table.name);
            Err(SqlError::new(ErrorCode::InvalidSql, text))
        }
        None => Ok(()),
    }
}

/// The rows, if all their values are literals, parameters or DEFAULT.
fn literal_rows(
    table: &Table,
    places: &[usize],
    values: &ast::Values,
    scope: &Scope<'_>,
) -> Result<Option<Vec<GivenRow>>, SqlError> {
    let mut rows = Vec::with_capacity(values.rows.len());
    for given in &values.rows {
        let mut row = GivenRow::with_capacity(places.len());
        for (expr, place) in given.content.iter().zip(places) {
            if is_default(expr) {
                row.push(None);
                continue;
            }
            match literal_of(expr, scope.parameters)? {
                Some(literal) => row.push(Some(value::from_literal(&literal, &table.columns[*place])?)),
                None => return Ok(None),
            }
        }
        rows.push(row);
    }
    Ok(Some(rows))
}

/// DEFAULT is a word that no column can have unquoted.
fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("default"))
}

/// Puts NULL in the place of each DEFAULT, which DataFusion does not know, and tells where they stood.
fn take_defaults(values: &mut ast::Values) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    for (at, row) in values.rows.iter_mut().enumerate() {
        for (column, expr) in row.content.iter_mut().enumerate() {
            if is_default(expr) {
                *expr = Expr::Value(AstValue::Null.into());
                places.push((at, column));
            }
        }
    }
    places
}

fn given_of_batches(
    table: &Table,
    places: &[usize],
    batches: &[arrow::record_batch::RecordBatch],
) -> Result<Vec<GivenRow>, SqlError> {
    let mut rows = Vec::new();
    for batch in batches {
        let cells =
            batch.columns().iter().zip(places).map(|(array, place)| rows::values_of(array, &table.columns[*place]));
        let mut columns: Vec<_> = cells.map(|cells| cells.map(Vec::into_iter)).collect::<Result<_, _>>()?;
        rows.extend((0..batch.num_rows()).map(|_| columns.iter_mut().map(Iterator::next).collect::<GivenRow>()));
    }
    Ok(rows)
}

/// The writes, once no row of the statement or of the table has any of their keys.
async fn insertions(relations: &Relations, table: &Arc<Table>, new: Vec<NewRow>) -> Result<Vec<RowWrite>, SqlError> {
    let keys = new.iter().map(|new| Engine::key(table, &new.row)).collect::<Result<Vec<_>, _>>()?;
    let mut seen = HashSet::with_capacity(keys.len());
    if let Some(at) = keys.iter().position(|key| !seen.insert(key)) {
        return Err(write::duplicate_key(table, &new[at].row));
    }
    let asked: Vec<_> =
        keys.iter().zip(&new).filter(|(_, new)| !new.has_generated_key).map(|(key, _)| key.clone()).collect();
    let mut look_ups = write::look_up(relations, table, &asked).await?.into_iter();
    let user = write::owner(table, relations);
    let mut writes = Vec::with_capacity(new.len());
    for (key, new) in keys.into_iter().zip(new) {
        let look_up =
            if new.has_generated_key { LookUp::Generated } else { look_ups.next().unwrap_or(LookUp::Generated) };
        if write::is_taken(&look_up) {
            return Err(write::duplicate_key(table, &new.row));
        }
        writes.push(RowWrite { table: Arc::clone(table), user: user.clone(), key, look_up, new: Some(new.row) });
    }
    Ok(writes)
}
