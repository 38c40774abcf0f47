//! INSERT.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::sql::sqlparser::ast::{self, Expr, SelectItem, SetExpr, Spanned, Value as AstValue};
use kalamdb_engine::Engine;
use kalamdb_engine::engine::{LookUp, RowWrite};
use kalamdb_engine::hot::Key;
use kalamdb_engine::schema::{Column, DefaultValue, SqlType, Table};
use kalamdb_engine::value::{Row, Value};
use uuid::Uuid;

use super::change::{self, Change};
use super::expression::Expressions;
use super::returning::{Returning, Stamp};
use super::upsert::{self, OnConflict};
use super::write::{self, Stamps};
use super::{Outcome, Scope, Statements, now};
use crate::authorize::{self, Access};
use crate::bind::literal::literal_of;
use crate::bind::{direct, names, value};
use crate::relations::Relations;
use crate::route;
use crate::wildcard::{self, Hidden};
use crate::{ErrorCode, SqlError, functions, rows};

/// The name under which ON CONFLICT knows the row that was proposed.
const EXCLUDED: &str = "excluded";

/// A row as the statement gives it: a value for each named column; none is DEFAULT.
type GivenRow = Vec<Option<Value>>;

/// A row that the statement proposes, and what lives at its key.
pub(super) struct Proposal {
    pub(super) key: Key,
    pub(super) look_up: LookUp,
    pub(super) row: Row,
}

/// A row that the statement counts: inserted, or updated by ON CONFLICT.
pub(super) struct Affected {
    /// Always to a new row.
    pub(super) change: Change,
    /// Not so where ON CONFLICT sets what is there already.
    pub(super) is_written: bool,
}

impl Affected {
    pub(super) fn inserted(proposal: Proposal) -> Self {
        let Proposal { key, look_up, row } = proposal;
        Self { change: Change { key, look_up, new: Some(row) }, is_written: true }
    }
}

/// A whole row, and whether its key was generated here, so that nothing can live there.
pub(crate) struct NewRow {
    pub(crate) row: Row,
    pub(crate) has_generated_key: bool,
}

impl Statements {
    pub(crate) async fn insert(
        &self,
        insert: &ast::Insert,
        relations: &Relations,
        scope: &Scope<'_>,
    ) -> Result<Outcome, SqlError> {
        let name = names::insert_target(&insert.table, scope.namespace)?;
        let table =
            Arc::clone(names::table(&relations.catalog, &name).map_err(|error| error.at(insert.table.span().start))?);
        authorize::check_table(&relations.catalog, &name, scope.identity, Access::Write)?;
        relations.check_impersonated(&name)?;
        let places = if insert.source.is_some() { places(&table, insert)? } else { Vec::new() };
        let on_conflict = OnConflict::bind(&table, insert)?;
        let expressions = |beside| Expressions::new(self, relations, scope, &table, beside);
        let returning = match &insert.returning {
            Some(items) => Some(Returning::bind(&table, items, expressions(None)?)?),
            None => None,
        };
        let given = match insert.source.as_deref() {
            Some(source) => self.given_rows(&table, &places, source, relations, scope).await?,
            // DEFAULT VALUES.
            None => vec![GivenRow::new()],
        };
        self.check_row_count(given.len())?;
        let begun = now();
        let complete = |given| self.complete(&table, &places, given, begun);
        let new: Vec<NewRow> = given.into_iter().map(complete).collect::<Result<_, _>>()?;
        let proposals = proposals(relations, &table, new).await?;
        let affected = match on_conflict {
            OnConflict::Fail => insertions(&table, proposals)?,
            OnConflict::Nothing => upsert::without_taken(&table, proposals),
            OnConflict::Update(update) => {
                let default_of = |column: &Column| self.default_of(column, begun);
                upsert::updated(&table, proposals, update, (&expressions(Some(EXCLUDED))?, &default_of))?
            }
        };
        let Some(returning) = returning else {
            let count = affected.len();
            self.commit(writes(relations, &table, on_conflict, affected).await?, scope).await?;
            return Ok(write::done("Inserted", count));
        };
        let rows: Vec<&Row> = affected.iter().filter_map(|affected| affected.change.new.as_ref()).collect();
        let computed = returning.compute(&rows)?;
        let known = affected.iter().map(|affected| known_stamp(&table, affected)).collect::<Result<Vec<_>, _>>()?;
        let writes = writes(relations, &table, on_conflict, affected).await?;
        let keys: Vec<Key> = writes.iter().map(|write| write.key.clone()).collect();
        let stamps = self.commit(writes, scope).await?;
        Ok(Outcome::Rows(returning.finish(computed, &stamps_of(known, &keys, &stamps))?))
    }

    async fn given_rows(
        &self,
        table: &Arc<Table>,
        places: &[usize],
        source: &ast::Query,
        relations: &Relations,
        scope: &Scope<'_>,
    ) -> Result<Vec<GivenRow>, SqlError> {
        // What stands around VALUES decides which of them are meant.
        let is_bare = route::has_only_a_body(source);
        if let SetExpr::Values(values) = source.body.as_ref() {
            check_widths(table, places, values)?;
            if is_bare
                && self.takes_shortcuts()
                && let Some(rows) = literal_rows(table, places, values, scope)?
            {
                return Ok(rows);
            }
        }
        let mut source = source.clone();
        let mut known = Vec::new();
        if let SetExpr::Values(values) = source.body.as_mut()
            && is_bare
        {
            known = take_known(table, places, values, scope)?;
        } else {
            wildcard::write_out(&mut source, &relations.catalog, scope.namespace, Hidden::System)?;
        }
        let computed = computed_columns(table, places, &source.body);
        let found = self.run_planned(ast::Statement::Query(Box::new(source)), relations, scope).await;
        let found = found.map_err(|error| write::naming(error, &computed))?;
        if found.columns.len() != places.len() {
            let text = format!("INSERT names {} column(s), its source has {}", places.len(), found.columns.len());
            return Err(SqlError::new(ErrorCode::InvalidSql, text));
        }
        let mut rows = given_of_batches(table, places, &found.batches)?;
        known.into_iter().for_each(|(row, column, value)| rows[row][column] = value);
        Ok(rows)
    }

    /// The whole row: defaults where nothing was given, no NULL where none may be.
    pub(crate) fn complete(
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
        // Rows without a key get their `_seq` for one.
        let mut has_generated_key = table.primary_key.is_empty();
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
            (Some(DefaultValue::CurrentTimestamp), SqlType::Time) => Value::Time(micros_of_day(begun)),
            (Some(DefaultValue::CurrentTimestamp), _) => Value::Timestamp(begun.timestamp_micros()),
            (Some(DefaultValue::SnowflakeId), SqlType::Text) => Value::Text(self.engine.snowflake_id().to_string()),
            (Some(DefaultValue::SnowflakeId), _) => Value::BigInt(self.engine.snowflake_id()),
            (Some(DefaultValue::UuidV7), SqlType::Uuid) => Value::Uuid(Uuid::now_v7()),
            (Some(DefaultValue::UuidV7), _) => Value::Text(functions::uuid_v7()),
            (Some(DefaultValue::Ulid), _) => Value::Text(functions::ulid()),
        }
    }
}

fn micros_of_day(moment: DateTime<Utc>) -> i64 {
    moment.timestamp_micros().rem_euclid(24 * 3600 * 1_000_000)
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
            if let Some(value) = direct::value_of(expr, &table.columns[*place]) {
                row.push(Some(value));
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

/// The columns whose values are computed and not just taken over, as far as the text tells.
fn computed_columns(table: &Table, places: &[usize], source: &SetExpr) -> Vec<String> {
    let is_computed = |at: usize| match source {
        SetExpr::Values(values) => values.rows.iter().any(|row| row.content.get(at).is_some_and(computes)),
        SetExpr::Select(select) if select.projection.len() == places.len() => match &select.projection[at] {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => computes(expr),
            _ => true,
        },
        _ => true,
    };
    let places = places.iter().enumerate().filter(|(at, _)| is_computed(*at));
    places.map(|(_, place)| table.columns[*place].name.clone()).collect()
}

fn computes(expr: &Expr) -> bool {
    names::column_name(expr).is_none() && !matches!(expr, Expr::Value(_))
}

/// DEFAULT is a word that no column can have unquoted.
pub(super) fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("default"))
}

/// Puts NULL in the place of each DEFAULT, which DataFusion does not know, and of each literal, whose digits it would not all keep; tells
/// where they stood and what they are.
fn take_known(
    table: &Table,
    places: &[usize],
    values: &mut ast::Values,
    scope: &Scope<'_>,
) -> Result<Vec<(usize, usize, Option<Value>)>, SqlError> {
    let mut known = Vec::new();
    for (at, row) in values.rows.iter_mut().enumerate() {
        for (column, (expr, place)) in row.content.iter_mut().zip(places).enumerate() {
            let value = match literal_of(expr, scope.parameters)? {
                _ if is_default(expr) => None,
                Some(literal) => Some(value::from_literal(&literal, &table.columns[*place])?),
                None => continue,
            };
            *expr = Expr::Value(AstValue::Null.into());
            known.push((at, column, value));
        }
    }
    Ok(known)
}

fn given_of_batches(
    table: &Table,
    places: &[usize],
    batches: &[arrow::record_batch::RecordBatch],
) -> Result<Vec<GivenRow>, SqlError> {
    let mut rows = Vec::new();
    for batch in batches {
        let schema = batch.schema();
        let cells = batch
            .columns()
            .iter()
            .zip(schema.fields())
            .zip(places)
            .map(|((array, field), place)| rows::computed_values_of(field, array, &table.columns[*place]));
        let mut columns: Vec<_> = cells.map(|cells| cells.map(Vec::into_iter)).collect::<Result<_, _>>()?;
        rows.extend((0..batch.num_rows()).map(|_| columns.iter_mut().map(Iterator::next).collect::<GivenRow>()));
    }
    Ok(rows)
}

/// The rows with what lives at their keys. Where the key was generated here, nothing can.
async fn proposals(relations: &Relations, table: &Arc<Table>, new: Vec<NewRow>) -> Result<Vec<Proposal>, SqlError> {
    let keys = new.iter().map(|new| Engine::key(table, &new.row)).collect::<Result<Vec<_>, _>>()?;
    let mut look_ups = if new.iter().any(|new| new.has_generated_key) {
        let asked = keys.iter().zip(&new).filter(|(_, new)| !new.has_generated_key).map(|(key, _)| key.clone());
        write::look_up(relations, table, &asked.collect::<Vec<_>>()).await?.into_iter()
    } else {
        write::look_up(relations, table, &keys).await?.into_iter()
    };
    let proposal = |(key, new): (Key, NewRow)| {
        let asked = if new.has_generated_key { None } else { look_ups.next() };
        Proposal { key, look_up: asked.unwrap_or(LookUp::Generated), row: new.row }
    };
    Ok(keys.into_iter().zip(new).map(proposal).collect())
}

/// All of them, once no row of the statement or of the table has any of their keys.
fn insertions(table: &Table, proposals: Vec<Proposal>) -> Result<Vec<Affected>, SqlError> {
    // Rows mostly come in the order of their keys: then none comes twice.
    let may_repeat = !table.primary_key.is_empty() && !proposals.is_sorted_by(|one, next| one.key < next.key);
    let mut seen = HashSet::new();
    for proposal in &proposals {
        let is_second = may_repeat && !seen.insert(&proposal.key);
        if is_second || write::is_taken(&proposal.look_up) {
            return Err(write::duplicate_key(table, &proposal.row));
        }
    }
    Ok(proposals.into_iter().map(Affected::inserted).collect())
}

/// The writes of the affected rows. Keys change by ON CONFLICT … UPDATE alone; without it they are known to be free.
async fn writes(
    relations: &Relations,
    table: &Arc<Table>,
    on_conflict: OnConflict<'_>,
    affected: Vec<Affected>,
) -> Result<Vec<RowWrite>, SqlError> {
    let changes = affected.into_iter().filter(|affected| affected.is_written).map(|affected| affected.change);
    if matches!(on_conflict, OnConflict::Update(_)) {
        return change::end_state(relations, table, changes.collect()).await;
    }
    let user = write::owner(table, relations);
    let write =
        |Change { key, look_up, new }| RowWrite { table: Arc::clone(table), user: user.clone(), key, look_up, new };
    Ok(changes.map(write).collect())
}

/// What is known of a row's stamp before the commit.
pub(super) enum KnownStamp {
    /// It stays as it is.
    Kept(Stamp),
    /// The commit gives it to the row of this key.
    Given(Key),
}

fn known_stamp(table: &Table, affected: &Affected) -> Result<KnownStamp, SqlError> {
    let Change { look_up, new, .. } = &affected.change;
    Ok(match (affected.is_written, look_up.found(), new) {
        (false, Some(found), _) => KnownStamp::Kept((found.seq.0, found.updated)),
        (_, _, Some(row)) => KnownStamp::Given(Engine::key(table, row)?),
        (_, _, None) => KnownStamp::Given(affected.change.key.clone()),
    })
}

/// The stamp of each returned row. Rows without a key were written in their own order.
pub(super) fn stamps_of(known: Vec<KnownStamp>, written: &[Key], stamps: &Stamps) -> Vec<Stamp> {
    let by_key: HashMap<&Key, i64> = written.iter().zip(stamps.seqs.iter().copied()).collect();
    let stamp = |(at, known): (usize, KnownStamp)| match known {
        KnownStamp::Kept(stamp) => stamp,
        KnownStamp::Given(key) if key.0.is_empty() => (stamps.seqs[at], stamps.updated),
        KnownStamp::Given(key) => (by_key.get(&key).copied().unwrap_or_default(), stamps.updated),
    };
    known.into_iter().enumerate().map(stamp).collect()
}
