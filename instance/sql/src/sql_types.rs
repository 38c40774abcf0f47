//! SQL types that Arrow has no type of its own for: DATETIME, UUID, JSON and FILE travel as timestamps and texts. What a column of a query is,
//! is found by the way that its values took: it keeps its type through whatever hands values on unchanged.

use std::cell::RefCell;
use std::collections::HashMap;

use datafusion::common::TableReference;
use datafusion::logical_expr::expr::{AggregateFunction, Case, Cast, ScalarFunction, TryCast, WindowFunction};
use datafusion::logical_expr::{Aggregate, Distinct, Expr, JoinType, LogicalPlan, TableScan};
use kalamdb_engine::catalog::Catalog;
use kalamdb_engine::schema::{DELETED, SEQ, SqlType, Table, TableName, UPDATED};

use crate::{conversions, documents};

/// Scalar functions whose result is one of their arguments.
const CHOOSING: [&str; 4] = ["coalesce", "nvl", "greatest", "least"];
/// Aggregate and window functions whose result is a value of their first argument.
const PICKING: [&str; 7] = ["min", "max", "first_value", "last_value", "nth_value", "lag", "lead"];

/// What names of tables mean.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    catalog: &'a Catalog,
    namespace: &'a str,
}

impl<'a> Tables<'a> {
    /// Unqualified names are those of the namespace.
    pub fn new(catalog: &'a Catalog, namespace: &'a str) -> Self {
        Self { catalog, namespace }
    }

    /// The table of the catalog that a scan calls so.
    pub fn get(&self, name: &TableReference) -> Option<&'a Table> {
        let name = TableName::new(name.schema().unwrap_or(self.namespace), name.table());
        self.catalog.tables.get(&name).map(AsRef::as_ref)
    }
}

/// Finds the SQL types of one plan's columns, as long as its nodes stay where they are.
pub struct SqlTypes<'a> {
    tables: Tables<'a>,
    /// By node and place: a column that many expressions use is looked for once.
    found: RefCell<HashMap<(*const LogicalPlan, usize), Type>>,
}

/// What is known of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Known(SqlType),
    /// NULL, which takes any type.
    Null,
    /// Computed, or of a relation that is no table.
    Unknown,
}

impl Type {
    /// The type of what is one of the two.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Null, one) | (one, Self::Null) => one,
            (one, other) if one == other => one,
            _ => Self::Unknown,
        }
    }
}

impl<'a> SqlTypes<'a> {
    /// None is known yet.
    pub fn new(tables: Tables<'a>) -> Self {
        Self { tables, found: RefCell::default() }
    }

    /// The type of the plan's column of that place; none where its Arrow type says all that is known.
    pub fn of_column(&self, plan: &LogicalPlan, place: usize) -> Option<SqlType> {
        known(self.column(plan, place))
    }

    /// The same of an expression over the columns of those plans.
    pub fn of_expr(&self, expr: &Expr, inputs: &[&LogicalPlan]) -> Option<SqlType> {
        known(self.expr(expr, inputs))
    }

    fn column(&self, plan: &LogicalPlan, place: usize) -> Type {
        let key = (std::ptr::from_ref(plan), place);
        if let Some(found) = self.found.borrow().get(&key) {
            return *found;
        }
        let found = self.look(plan, place);
        self.found.borrow_mut().insert(key, found);
        found
    }

    fn look(&self, plan: &LogicalPlan, place: usize) -> Type {
        let of =
            |expr: Option<&Expr>, input: &LogicalPlan| expr.map_or(Type::Unknown, |expr| self.expr(expr, &[input]));
        match plan {
            LogicalPlan::TableScan(scan) => self.scanned(scan, place),
            LogicalPlan::Projection(projection) => of(projection.expr.get(place), &projection.input),
            LogicalPlan::SubqueryAlias(alias) => self.column(&alias.input, place),
            LogicalPlan::Subquery(subquery) => self.column(&subquery.subquery, place),
            LogicalPlan::Filter(filter) => self.column(&filter.input, place),
            LogicalPlan::Sort(sort) => self.column(&sort.input, place),
            LogicalPlan::Limit(limit) => self.column(&limit.input, place),
            LogicalPlan::Distinct(Distinct::All(input)) => self.column(input, place),
            LogicalPlan::Distinct(Distinct::On(on)) => of(on.select_expr.get(place), &on.input),
            LogicalPlan::Repartition(repartition) => self.column(&repartition.input, place),
            LogicalPlan::Window(window) => match place.checked_sub(window.input.schema().fields().len()) {
                Some(computed) => of(window.window_expr.get(computed), &window.input),
                None => self.column(&window.input, place),
            },
            LogicalPlan::Aggregate(aggregate) => of(aggregated(aggregate, place), &aggregate.input),
            LogicalPlan::Join(join) => match join.join_type {
                JoinType::LeftSemi | JoinType::LeftAnti => self.column(&join.left, place),
                JoinType::RightSemi | JoinType::RightAnti => self.column(&join.right, place),
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                    match place.checked_sub(join.left.schema().fields().len()) {
                        Some(right) => self.column(&join.right, right),
                        None => self.column(&join.left, place),
                    }
                }
                _ => Type::Unknown,
            },
            LogicalPlan::Union(union) => {
                union.inputs.iter().map(|input| self.column(input, place)).reduce(Type::or).unwrap_or(Type::Unknown)
            }
            _ => Type::Unknown,
        }
    }

    fn scanned(&self, scan: &TableScan, place: usize) -> Type {
        let found = self.tables.get(&scan.table_name).zip(scan.projected_schema.fields().get(place));
        let Some((table, field)) = found else { return Type::Unknown };
        match field.name().as_str() {
            SEQ => Type::Known(SqlType::BigInt),
            DELETED => Type::Known(SqlType::Boolean),
            UPDATED => Type::Known(SqlType::Timestamp),
            name => table.column(name).map_or(Type::Unknown, |column| Type::Known(column.sql_type)),
        }
    }

    fn expr(&self, expr: &Expr, inputs: &[&LogicalPlan]) -> Type {
        let first = |args: &[Expr]| args.first().map_or(Type::Unknown, |arg| self.expr(arg, inputs));
        match expr {
            Expr::Column(column) => inputs
                .iter()
                .find_map(|input| Some(self.column(input, input.schema().maybe_index_of_column(column)?)))
                .unwrap_or(Type::Unknown),
            Expr::Alias(alias) => self.expr(&alias.expr, inputs),
            Expr::Literal(value, _) if value.is_null() => Type::Null,
            Expr::Case(Case { when_then_expr, else_expr, .. }) => {
                let results = when_then_expr.iter().map(|(_, then)| then).chain(else_expr);
                self.one_of(results.map(AsRef::as_ref), inputs)
            }
            Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => {
                conversions::wanted(field).map_or(Type::Unknown, Type::Known)
            }
            Expr::ScalarFunction(ScalarFunction { func, args }) => match func.name() {
                documents::PART => Type::Known(SqlType::Json),
                _ if conversions::made_by(func).is_some() => {
                    conversions::made_by(func).map_or(Type::Unknown, Type::Known)
                }
                name if CHOOSING.contains(&name) => self.one_of(args.iter(), inputs),
                "nullif" => first(args),
                _ => Type::Unknown,
            },
            Expr::AggregateFunction(AggregateFunction { func, params }) if PICKING.contains(&func.name()) => {
                first(&params.args)
            }
            Expr::WindowFunction(window) if PICKING.contains(&window.fun.name()) => self.of_window(window, inputs),
            Expr::ScalarSubquery(subquery) => self.column(&subquery.subquery, 0),
            _ => Type::Unknown,
        }
    }

    fn one_of<'e>(&self, exprs: impl Iterator<Item = &'e Expr>, inputs: &[&LogicalPlan]) -> Type {
        exprs.map(|expr| self.expr(expr, inputs)).reduce(Type::or).unwrap_or(Type::Unknown)
    }

    /// LAG and LEAD may give their third argument.
    fn of_window(&self, window: &WindowFunction, inputs: &[&LogicalPlan]) -> Type {
        let args = &window.params.args;
        self.one_of(args.iter().take(1).chain(args.get(2)), inputs)
    }
}

fn known(found: Type) -> Option<SqlType> {
    match found {
        Type::Known(sql_type) => Some(sql_type),
        Type::Null | Type::Unknown => None,
    }
}

/// What an aggregate's column is computed by; none with grouping sets, which have columns of their own.
fn aggregated(aggregate: &Aggregate, place: usize) -> Option<&Expr> {
    if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
        return None;
    }
    aggregate.group_expr.iter().chain(&aggregate.aggr_expr).nth(place)
}
