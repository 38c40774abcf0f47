//! Which statements go straight to the engine: those on one row, named by its whole primary key in literals or parameters.
//!
//! Everything here is a shortcut: what is not recognised is planned by DataFusion and answers the same.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Query, Select, SelectFlavor, SelectItem, SetExpr, TableFactor, TableWithJoins,
    WildcardAdditionalOptions,
};
use kalamdb_engine::catalog::Catalog;
use kalamdb_engine::schema::{DELETED, SEQ, SqlType, Table, TableName, UPDATED};
use kalamdb_engine::value::Value;

use crate::SqlError;
use crate::bind::literal::{Literal, Parameters, literal_of};
use crate::bind::names::{fold, table_name};
use crate::bind::value;

/// A column that a point read shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// One of the table's own, by its place.
    Own(usize),
    /// `_seq`.
    Seq,
    /// `_deleted`.
    Deleted,
    /// `_updated`.
    Updated,
}

/// `SELECT columns FROM t WHERE key = …`.
#[derive(Debug, Clone, PartialEq)]
pub struct PointRead {
    /// The table.
    pub table: Arc<Table>,
    /// The key's values, in key order; none where the key can't exist.
    pub key: Option<Vec<Value>>,
    /// The columns, with the names that the reply gives them.
    pub shown: Vec<(String, Shown)>,
}

/// The query as a point read, if it is one.
pub fn point_read(
    query: &Query,
    catalog: &Catalog,
    namespace: &str,
    parameters: &Parameters,
) -> Result<Option<PointRead>, SqlError> {
    let SetExpr::Select(select) = query.body.as_ref() else { return Ok(None) };
    let [from] = select.from.as_slice() else { return Ok(None) };
    if !has_only_a_body(query) || !has_only_a_where(select) {
        return Ok(None);
    }
    let Some(target) = Target::of(from, catalog, namespace) else { return Ok(None) };
    let Some(selection) = &select.selection else { return Ok(None) };
    let Some(key) = target.key(selection, parameters)? else { return Ok(None) };
    let Some(shown) = target.shown(&select.projection) else { return Ok(None) };
    Ok(Some(PointRead { table: target.table, key: key.values(), shown }))
}

/// Whether there is nothing around the SELECT. All fields are named, so that a new one has to be thought of.
pub fn has_only_a_body(query: &Query) -> bool {
    let Query {
        body: _,
        with,
        order_by,
        limit_clause,
        fetch,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    with.is_none()
        && order_by.is_none()
        && limit_clause.is_none()
        && fetch.is_none()
        && locks.is_empty()
        && for_clause.is_none()
        && settings.is_none()
        && format_clause.is_none()
        && pipe_operators.is_empty()
}

/// Whether the SELECT consists of columns, tables and a WHERE.
fn has_only_a_where(select: &Select) -> bool {
    let Select {
        select_token: _,
        optimizer_hints: _,
        distinct,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection: _,
        exclude,
        into,
        from: _,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having,
        named_window,
        qualify,
        window_before_qualify: _,
        value_table_mode,
        flavor,
    } = select;
    distinct.is_none()
        && select_modifiers.is_none()
        && top.is_none()
        && exclude.is_none()
        && into.is_none()
        && lateral_views.is_empty()
        && prewhere.is_none()
        && connect_by.is_empty()
        && is_empty_group_by(group_by)
        && cluster_by.is_empty()
        && distribute_by.is_empty()
        && sort_by.is_empty()
        && having.is_none()
        && named_window.is_empty()
        && qualify.is_none()
        && value_table_mode.is_none()
        && *flavor == SelectFlavor::Standard
}

fn is_empty_group_by(group_by: &datafusion::sql::sqlparser::ast::GroupByExpr) -> bool {
    use datafusion::sql::sqlparser::ast::GroupByExpr;
    matches!(group_by, GroupByExpr::Expressions(columns, modifiers) if columns.is_empty() && modifiers.is_empty())
}

/// One table, under the name that the statement calls it by.
pub struct Target {
    /// The table.
    pub table: Arc<Table>,
    /// Its qualifiers: the alias alone, or the name's own parts.
    names: Vec<String>,
}

/// What a WHERE says of the key.
pub enum KeyOf {
    /// One row's key.
    Values(Vec<Value>),
    /// A comparison with NULL, or two that contradict each other: no row.
    Nothing,
}

impl KeyOf {
    /// The key, unless no row can have it.
    pub fn values(self) -> Option<Vec<Value>> {
        match self {
            Self::Values(values) => Some(values),
            Self::Nothing => None,
        }
    }
}

impl Target {
    /// The one table of a FROM clause without joins; none for anything else, and for tables that do not exist.
    pub fn of(from: &TableWithJoins, catalog: &Catalog, namespace: &str) -> Option<Self> {
        let TableWithJoins { relation, joins } = from;
        let TableFactor::Table {
            name,
            alias,
            args: None,
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
        } = relation
        else {
            return None;
        };
        let is_bare = with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() && joins.is_empty();
        if !is_bare || alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
            return None;
        }
        let table_name: TableName = table_name(name, namespace).ok()?;
        let table = Arc::clone(catalog.tables.get(&table_name)?);
        let names = match alias {
            Some(alias) => vec![fold(&alias.name)],
            None => vec![table_name.namespace, table_name.name],
        };
        Some(Self { table, names })
    }

    /// The key that the WHERE names by its whole primary key and nothing else.
    pub fn key(&self, selection: &Expr, parameters: &Parameters) -> Result<Option<KeyOf>, SqlError> {
        // Rows without a key are named by none.
        if self.table.primary_key.is_empty() {
            return Ok(None);
        }
        let mut found: Vec<Option<Value>> = vec![None; self.table.primary_key.len()];
        let positions = self.table.key_positions();
        let mut nothing = false;
        let mut pending = vec![selection];
        while let Some(expr) = pending.pop() {
            match expr {
                Expr::Nested(inner) => pending.push(inner),
                Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                    pending.extend([left.as_ref(), right.as_ref()])
                }
                Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                    let (place, literal) = match (self.column(left), self.column(right)) {
                        (Some(place), None) => (place, literal_of(right, parameters)?),
                        (None, Some(place)) => (place, literal_of(left, parameters)?),
                        _ => return Ok(None),
                    };
                    let Some(of_key) = positions.iter().position(|position| *position == place) else {
                        return Ok(None);
                    };
                    let Some(literal) = literal else { return Ok(None) };
                    let Some(wanted) = key_value(&literal, self.table.columns[place].sql_type) else { return Ok(None) };
                    nothing |= wanted.is_null() || found[of_key].as_ref().is_some_and(|other| *other != wanted);
                    found[of_key] = Some(wanted);
                }
                _ => return Ok(None),
            }
        }
        let Some(values) = found.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        Ok(Some(if nothing { KeyOf::Nothing } else { KeyOf::Values(values) }))
    }

    /// Whether the statement calls the table by another name.
    pub fn is_aliased(&self) -> bool {
        self.names.len() == 1
    }

    /// The place of the table's own column that the expression names.
    pub fn column(&self, expr: &Expr) -> Option<usize> {
        let name = self.column_name(expr)?;
        self.table.columns.iter().position(|column| column.name == name)
    }

    fn column_name(&self, expr: &Expr) -> Option<String> {
        match expr {
            Expr::Identifier(name) => Some(fold(name)),
            Expr::CompoundIdentifier(parts) => {
                let (name, qualifier) = parts.split_last()?;
                self.is_called(qualifier).then(|| fold(name))
            }
            Expr::Nested(inner) => self.column_name(inner),
            _ => None,
        }
    }

    fn is_called(&self, qualifier: &[Ident]) -> bool {
        let qualifier: Vec<String> = qualifier.iter().map(fold).collect();
        self.names.ends_with(&qualifier)
    }

    fn shown(&self, items: &[SelectItem]) -> Option<Vec<(String, Shown)>> {
        let mut shown = Vec::new();
        for item in items {
            match item {
                SelectItem::Wildcard(options) if *options == with_token(options) => {
                    let own = self.table.columns.iter().enumerate();
                    shown.extend(own.map(|(place, column)| (column.name.clone(), Shown::Own(place))));
                    shown.extend([(SEQ.to_owned(), Shown::Seq), (DELETED.to_owned(), Shown::Deleted)]);
                }
                SelectItem::UnnamedExpr(expr) => {
                    let name = self.column_name(expr)?;
                    let column = self.shown_column(&name)?;
                    shown.push((name, column));
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    let column = self.shown_column(&self.column_name(expr)?)?;
                    shown.push((fold(alias), column));
                }
                _ => return None,
            }
        }
        Some(shown)
    }

    fn shown_column(&self, name: &str) -> Option<Shown> {
        match name {
            SEQ => Some(Shown::Seq),
            DELETED => Some(Shown::Deleted),
            UPDATED => Some(Shown::Updated),
            _ => self.table.columns.iter().position(|column| column.name == name).map(Shown::Own),
        }
    }
}

fn with_token(options: &WildcardAdditionalOptions) -> WildcardAdditionalOptions {
    WildcardAdditionalOptions { wildcard_token: options.wildcard_token.clone(), ..Default::default() }
}

/// The literal as a key value where comparing is plainly that: same family of types, nothing rounded. All else is left to
/// DataFusion, whose coercions decide what `int_column = '1.0'` means.
fn key_value(literal: &Literal, sql_type: SqlType) -> Option<Value> {
    match (literal, sql_type) {
        (Literal::Null, _) => Some(Value::Null),
        (Literal::Number(text), SqlType::SmallInt | SqlType::Int | SqlType::BigInt) if text.parse::<i64>().is_ok() => {
            value::convert(literal, sql_type).ok()
        }
        (Literal::Text(_), SqlType::Text) | (Literal::Boolean(_), SqlType::Boolean) => {
            value::convert(literal, sql_type).ok()
        }
        (Literal::Text(_), SqlType::Timestamp | SqlType::DateTime) => value::convert(literal, sql_type).ok(),
        // A text that is no UUID equals none.
        (Literal::Text(_), SqlType::Uuid) => value::convert(literal, sql_type).ok(),
        _ => None,
    }
}
