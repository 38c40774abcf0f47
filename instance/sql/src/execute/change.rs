//! UPDATE and DELETE.
//!
//! With the whole key in literals the row is looked up, and its new values are computed of it alone; otherwise DataFusion selects the rows and
//! computes their new values, on the same snapshot that the keys are then looked up in.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::sql::sqlparser::ast::{
    self, AssignmentTarget, BinaryOperator, Expr, FromTable, Ident, SelectItem, SetExpr, Spanned, TableFactor,
    TableWithJoins, UnaryOperator, Visit, Visitor,
};
use kalamdb_engine::Engine;
use kalamdb_engine::engine::{LookUp, RowWrite};
use kalamdb_engine::hot::Key;
use kalamdb_engine::schema::{DELETED, SEQ, Table};
use kalamdb_engine::seq::Seq;
use kalamdb_engine::value::{Row, Value};

use super::assigned::Assigned;
use super::expression::Expressions;
use super::insert::{KnownStamp, is_default, stamps_of};
use super::returning::Returning;
use super::{Outcome, Scope, Statements, now, write};
use crate::authorize::{self, Access};
use crate::bind::literal::{Literal, literal_of};
use crate::bind::{names, value};
use crate::parse::{Statement, parse_batch};
use crate::relations::Relations;
use crate::route::Target;
use crate::wildcard::{self, Hidden};
use crate::{ErrorCode, SqlError, rows};

/// `SET column = expression`.
pub(super) struct Assignment<'a> {
    pub(super) place: usize,
    pub(super) value: &'a Expr,
}

/// What is set without being computed.
enum Known {
    Literal(Literal),
    Default,
}

fn known(value: &Expr, scope: &Scope<'_>) -> Result<Option<Known>, SqlError> {
    if is_default(value) {
        return Ok(Some(Known::Default));
    }
    Ok(literal_of(value, scope.parameters)?.map(Known::Literal))
}

/// One row that a statement changes: how it was found, and what it becomes.
pub(super) struct Change {
    pub(super) key: Key,
    pub(super) look_up: LookUp,
    pub(super) new: Option<Row>,
}

impl Statements {
    pub(crate) async fn update(
        &self,
        update: &ast::Update,
        relations: &Relations,
        scope: &Scope<'_>,
    ) -> Result<Outcome, SqlError> {
        let target = target(&update.table, relations, scope)?;
        if target.table.primary_key.is_empty() {
            let what = format!("UPDATE of table '{}', whose rows have no PRIMARY KEY,", target.table.name);
            return Err(SqlError::not_available(what));
        }
        let assignments = assignments(&target.table, &update.assignments)?;
        let returning = self.returning(update.returning.as_deref(), &target.table, relations, scope)?;
        let changed = match self.updated_by_key(&target, &assignments, update, relations, scope).await? {
            Some(changed) => changed,
            None => self.updated_by_query(&target, &assignments, update, relations, scope).await?,
        };
        self.commit_changes(("Updated", &target.table), changed, returning, relations, scope).await
    }

    pub(crate) async fn delete(
        &self,
        delete: &ast::Delete,
        relations: &Relations,
        scope: &Scope<'_>,
    ) -> Result<Outcome, SqlError> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let [from] = from.as_slice() else { return Err(SqlError::not_available("DELETE from several tables")) };
        let target = target(from, relations, scope)?;
        let returning = self.returning(delete.returning.as_deref(), &target.table, relations, scope)?;
        let by_key = if self.takes_shortcuts() { key_of(&target, delete.selection.as_ref(), scope)? } else { None };
        let keys = match by_key {
            Some(keys) => keys,
            None => self.keys_by_query(&target, from, delete.selection.as_ref(), relations, scope).await?,
        };
        self.check_row_count(keys.len())?;
        let look_ups = write::look_up(relations, &target.table, &keys).await?;
        let found = keys.into_iter().zip(look_ups).filter(|(_, look_up)| write::is_taken(look_up));
        let changes: Vec<Change> = found.map(|(key, look_up)| Change { key, look_up, new: None }).collect();
        self.commit_changes(("Deleted", &target.table), changes, returning, relations, scope).await
    }

    fn returning<'a>(
        &self,
        items: Option<&[SelectItem]>,
        table: &'a Table,
        relations: &Relations,
        scope: &Scope<'a>,
    ) -> Result<Option<Returning<'a>>, SqlError> {
        let bind = |items| Returning::bind(table, items, Expressions::new(self, relations, scope, table, None)?);
        items.map(bind).transpose()
    }

    /// Commits the changes; answers with how many they are, or with the new rows, those of a DELETE being the deleted ones.
    async fn commit_changes(
        &self,
        (verb, table): (&str, &Arc<Table>),
        changes: Vec<Change>,
        returning: Option<Returning<'_>>,
        relations: &Relations,
        scope: &Scope<'_>,
    ) -> Result<Outcome, SqlError> {
        let Some(returning) = returning else {
            let count = changes.len();
            self.commit(end_state(relations, table, changes).await?, scope).await?;
            return Ok(write::done(verb, count));
        };
        let row = |change: &'_ Change| change.new.clone().or_else(|| row_of(&change.look_up).cloned());
        let rows: Vec<Row> = changes.iter().filter_map(row).collect();
        let computed = returning.compute(&rows.iter().collect::<Vec<_>>())?;
        let known = changes.iter().map(|change| stamp(table, change)).collect::<Result<Vec<_>, _>>()?;
        let writes = end_state(relations, table, changes).await?;
        let keys: Vec<Key> = writes.iter().map(|write| write.key.clone()).collect();
        let stamps = self.commit(writes, scope).await?;
        Ok(Outcome::Rows(returning.finish(computed, &stamps_of(known, &keys, &stamps))?))
    }

    /// The change of the one row whose key stands in the WHERE; none where DataFusion must decide or compute.
    async fn updated_by_key(
        &self,
        target: &Target,
        assignments: &[Assignment<'_>],
        update: &ast::Update,
        relations: &Relations,
        scope: &Scope<'_>,
    ) -> Result<Option<Vec<Change>>, SqlError> {
        if !self.takes_shortcuts() {
            return Ok(None);
        }
        let Some(keys) = key_of(target, update.selection.as_ref(), scope)? else { return Ok(None) };
        let Some(assigned) = Assigned::bind(self, relations, scope, target, assignments)? else {
            return Ok(None);
        };
        let look_ups = write::look_up(relations, &target.table, &keys).await?;
        let mut changes = Vec::new();
        for (key, look_up) in keys.into_iter().zip(look_ups) {
            let Some(old) = row_of(&look_up) else { continue };
            let new = assigned.row(old)?;
            changes.extend(change(&target.table, key, look_up, new)?);
        }
        Ok(Some(changes))
    }

    async fn updated_by_query(
        &self,
        target: &Target,
        assignments: &[Assignment<'_>],
        update: &ast::Update,
        relations: &Relations,
        scope: &Scope<'_>,
    ) -> Result<Vec<Change>, SqlError> {
        let table = &target.table;
        let mut items = own_columns(table, &update.table);
        // Literals are no matter of DataFusion's, in which a number has fewer digits than a DECIMAL; it has no DEFAULT either.
        let given = assignments.iter().map(|assignment| known(assignment.value, scope));
        let given: Vec<Option<Known>> = given.collect::<Result<_, _>>()?;
        let computed = assignments.iter().zip(&given).filter(|(_, known)| known.is_none());
        let computed: Vec<&Assignment<'_>> = computed.map(|(assignment, _)| assignment).collect();
        let begun = now();
        items.extend(computed.iter().enumerate().map(|(at, assignment)| SelectItem::ExprWithAlias {
            expr: assignment.value.clone(),
            alias: Ident::with_quote('"', format!("_set_{at}")),
        }));
        let selection = update.selection.as_ref().map(|selection| of_live_rows(selection, &update.table));
        let query = select(items, update.table.clone(), selection, relations, scope)?;
        let names: Vec<String> = computed.iter().map(|set| table.columns[set.place].name.clone()).collect();
        let found = self.run_planned(query, relations, scope).await.map_err(|error| write::naming(error, &names))?;
        let (mut keys, mut new_rows) = (Vec::new(), Vec::new());
        for batch in &found.batches {
            let (own, set) = batch.columns().split_at(table.columns.len());
            let mut columns = own
                .iter()
                .zip(&table.columns)
                .map(|(array, column)| rows::stored_values_of(array, column))
                .collect::<Result<Vec<_>, _>>()?;
            for at in 0..batch.num_rows() {
                let old: Row = columns.iter().map(|column| column[at].clone()).collect();
                keys.push(Engine::key(table, &old)?);
            }
            let schema = batch.schema();
            for ((array, field), assignment) in set.iter().zip(&schema.fields()[table.columns.len()..]).zip(&computed) {
                let column = &table.columns[assignment.place];
                columns[assignment.place] = rows::computed_values_of(field, array, column)?;
            }
            for (assignment, known) in assignments.iter().zip(&given) {
                let (column, rows) = (&table.columns[assignment.place], batch.num_rows());
                columns[assignment.place] = match known {
                    Some(Known::Literal(literal)) if rows > 0 => vec![value::from_literal(literal, column)?; rows],
                    Some(Known::Default) => (0..rows).map(|_| self.default_of(column, begun)).collect(),
                    _ => continue,
                };
            }
            let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
            new_rows
                .extend((0..batch.num_rows()).map(|_| columns.iter_mut().filter_map(Iterator::next).collect::<Row>()));
        }
        self.check_row_count(keys.len())?;
        let look_ups = write::look_up(relations, table, &keys).await?;
        let mut changes = Vec::with_capacity(keys.len());
        for ((key, look_up), new) in keys.into_iter().zip(look_ups).zip(new_rows) {
            changes.extend(change(table, key, look_up, new)?);
        }
        Ok(changes)
    }

    async fn keys_by_query(
        &self,
        target: &Target,
        from: &TableWithJoins,
        selection: Option<&Expr>,
        relations: &Relations,
        scope: &Scope<'_>,
    ) -> Result<Vec<Key>, SqlError> {
        let table = &target.table;
        let positions = table.key_positions();
        let own = own_columns(table, from);
        let items = match positions.as_slice() {
            [] => vec![column_of(from, SEQ)],
            _ => positions.iter().map(|place| own[*place].clone()).collect(),
        };
        let selection = selection.map(|selection| of_live_rows(selection, from));
        let query = select(items, from.clone(), selection, relations, scope)?;
        let found = self.run_planned(query, relations, scope).await?;
        let mut keys = Vec::new();
        if positions.is_empty() {
            let seqs =
                found.batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().iter());
            return Ok(seqs.map(|seq| Engine::hidden_key(Seq(*seq))).collect());
        }
        for batch in &found.batches {
            let cells = batch.columns().iter().zip(&positions);
            let columns = cells
                .map(|(array, place)| rows::stored_values_of(array, &table.columns[*place]))
                .collect::<Result<Vec<_>, _>>()?;
            for at in 0..batch.num_rows() {
                let values: Vec<Value> = columns.iter().map(|column| column[at].clone()).collect();
                keys.push(Engine::key_of(table, &values)?);
            }
        }
        Ok(keys)
    }
}

/// A deleted row keeps the stamp of its last version, a new one gets that of the commit.
fn stamp(table: &Table, change: &Change) -> Result<KnownStamp, SqlError> {
    Ok(match (&change.new, change.look_up.found()) {
        (Some(row), _) => KnownStamp::Given(Engine::key(table, row)?),
        (None, Some(found)) => KnownStamp::Kept((found.seq.0, found.updated)),
        (None, None) => KnownStamp::Given(change.key.clone()),
    })
}

/// The table that the statement writes, if the user may.
fn target(from: &TableWithJoins, relations: &Relations, scope: &Scope<'_>) -> Result<Target, SqlError> {
    let TableFactor::Table { name: written, .. } = &from.relation else {
        return Err(SqlError::new(ErrorCode::InvalidSql, format!("'{from}' is not a table that can be written")));
    };
    let name = names::table_name(written, scope.namespace)?;
    authorize::check_table(&relations.catalog, &name, scope.identity, Access::Write)?;
    relations.check_impersonated(&name)?;
    names::table(&relations.catalog, &name).map_err(|error| error.at(written.span().start))?;
    Target::of(from, &relations.catalog, scope.namespace)
        .ok_or_else(|| SqlError::not_available(format!("UPDATE or DELETE of '{from}'")))
}

pub(super) fn assignments<'a>(table: &Table, written: &'a [ast::Assignment]) -> Result<Vec<Assignment<'a>>, SqlError> {
    let mut seen = HashSet::new();
    let bind = |assignment: &'a ast::Assignment| {
        let AssignmentTarget::ColumnName(name) = &assignment.target else {
            return Err(SqlError::not_available("SET (a, b) = …"));
        };
        let place = names::column_place(table, name)?;
        if !seen.insert(place) {
            let text = format!("SET names column '{}' twice", table.columns[place].name);
            return Err(SqlError::new(ErrorCode::InvalidSql, text));
        }
        Ok(Assignment { place, value: &assignment.value })
    };
    written.iter().map(bind).collect()
}

/// The one key that the WHERE names, or the none that it can mean.
fn key_of(target: &Target, selection: Option<&Expr>, scope: &Scope<'_>) -> Result<Option<Vec<Key>>, SqlError> {
    let Some(selection) = selection else { return Ok(None) };
    let Some(key) = target.key(selection, scope.parameters)? else { return Ok(None) };
    match key.values() {
        Some(values) => Ok(Some(vec![Engine::key_of(&target.table, &values)?])),
        None => Ok(Some(Vec::new())),
    }
}

fn row_of(look_up: &LookUp) -> Option<&Row> {
    match look_up {
        LookUp::Read { found: Some(found), .. } => Some(&found.row),
        _ => None,
    }
}

/// The change, unless the row stays as it is.
fn change(table: &Table, key: Key, look_up: LookUp, new: Row) -> Result<Option<Change>, SqlError> {
    let Some(old) = row_of(&look_up) else {
        let text = format!("table '{}': a row that a scan found is not found by its key", table.name);
        return Err(SqlError::new(ErrorCode::Internal, text));
    };
    write::check_nulls(table, &new)?;
    let is_unchanged = old.iter().zip(&new).all(|(old, new)| rows::same(old, new));
    Ok((!is_unchanged).then_some(Change { key, look_up, new: Some(new) }))
}

/// The writes that bring the changes about. A row whose key changes leaves its old place and takes a new one; whether that is
/// free is judged on the end state, so that keys may be swapped or shifted.
pub(super) async fn end_state(
    relations: &Relations,
    table: &Arc<Table>,
    changes: Vec<Change>,
) -> Result<Vec<RowWrite>, SqlError> {
    let mut places: BTreeMap<Key, (LookUp, Option<Row>)> = BTreeMap::new();
    let mut moved = Vec::new();
    for Change { key, look_up, new } in changes {
        let stays = match new {
            Some(row) => {
                let new_key = Engine::key(table, &row)?;
                if new_key == key {
                    Some(row)
                } else {
                    moved.push((new_key, row));
                    None
                }
            }
            None => None,
        };
        places.insert(key, (look_up, stays));
    }
    let leaving: HashSet<Key> = places.keys().cloned().collect();
    let unknown: Vec<Key> = moved.iter().map(|(key, _)| key).filter(|key| !places.contains_key(key)).cloned().collect();
    let looked_up = write::look_up(relations, table, &unknown).await?;
    for (key, look_up) in unknown.into_iter().zip(looked_up) {
        places.entry(key).or_insert((look_up, None));
    }
    for (key, row) in moved {
        let (look_up, slot) = places.get_mut(&key).expect("each new key was put there above");
        let is_free = slot.is_none() && (leaving.contains(&key) || !write::is_taken(look_up));
        if !is_free {
            return Err(write::duplicate_key(table, &row));
        }
        *slot = Some(row);
    }
    let user = write::owner(table, relations);
    let write = |(key, (look_up, new))| RowWrite { table: Arc::clone(table), user: user.clone(), key, look_up, new };
    Ok(places.into_iter().map(write).collect())
}

/// A WHERE that names `_deleted` can mean rows that are gone, which nothing can change.
fn of_live_rows(selection: &Expr, from: &TableWithJoins) -> Expr {
    let SelectItem::UnnamedExpr(deleted) = column_of(from, DELETED) else { return selection.clone() };
    if selection.visit(&mut NamesDeleted).is_continue() {
        return selection.clone();
    }
    let nested = |expr: Expr| Box::new(Expr::Nested(Box::new(expr)));
    let is_live = Expr::UnaryOp { op: UnaryOperator::Not, expr: nested(deleted) };
    Expr::BinaryOp { left: nested(selection.clone()), op: BinaryOperator::And, right: Box::new(is_live) }
}

struct NamesDeleted;

impl Visitor for NamesDeleted {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let name = match expr {
            Expr::Identifier(name) => Some(name),
            Expr::CompoundIdentifier(parts) => parts.last(),
            _ => None,
        };
        if name.is_some_and(|name| name.value == DELETED) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// `SELECT items FROM table WHERE selection`, made of parsed pieces.
fn select(
    items: Vec<SelectItem>,
    from: TableWithJoins,
    selection: Option<Expr>,
    relations: &Relations,
    scope: &Scope<'_>,
) -> Result<ast::Statement, SqlError> {
    let template = parse_batch("SELECT 1").expect("the template is SQL").remove(0).statement;
    let Statement::Query(mut query) = template else { unreachable!("the template is a query") };
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = items;
        select.from = vec![from];
        select.selection = selection;
    }
    wildcard::write_out(&mut query, &relations.catalog, scope.namespace, Hidden::Updated)?;
    Ok(ast::Statement::Query(query))
}

/// The table's own columns, qualified as the statement calls the table.
fn own_columns(table: &Table, from: &TableWithJoins) -> Vec<SelectItem> {
    table.columns.iter().map(|column| column_of(from, &column.name)).collect()
}

fn column_of(from: &TableWithJoins, name: &str) -> SelectItem {
    let qualifier: Vec<Ident> = match &from.relation {
        TableFactor::Table { alias: Some(alias), .. } => vec![alias.name.clone()],
        TableFactor::Table { name, .. } => name.0.iter().filter_map(|part| part.as_ident().cloned()).collect(),
        _ => Vec::new(),
    };
    let column = Ident::with_quote('"', name);
    SelectItem::UnnamedExpr(Expr::CompoundIdentifier(qualifier.into_iter().chain([column]).collect()))
}
