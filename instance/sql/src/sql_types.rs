//! SQL types that Arrow has no type of its own for: DATETIME, UUID, JSON and FILE travel as timestamps and texts. What a column of a query is,
//! is found by the way that its values took: it keeps its type through whatever hands values on unchanged.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, TableReference};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
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
    /// What recursive queries begin with, under their names.
    beginnings: Arc<[(String, Arc<LogicalPlan>)]>,
    /// Where the columns of outer queries come from, those of the nearest first.
    outer: Vec<&'a LogicalPlan>,
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
    /// Of that plan and its parts; none is known yet.
    pub fn new(plan: &LogicalPlan, tables: Tables<'a>) -> Result<Self> {
        let mut beginnings = Vec::new();
        plan.apply_with_subqueries(|plan| {
            if let LogicalPlan::RecursiveQuery(query) = plan {
                beginnings.push((query.name.clone(), Arc::clone(&query.static_term)));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(Self { tables, beginnings: beginnings.into(), outer: Vec::new(), found: RefCell::default() })
    }

    /// Of the same plan's parts, in a subquery whose outer columns are those of the plans; none is known yet.
    pub fn within<'b>(&'b self, plans: &[&'b LogicalPlan]) -> SqlTypes<'b> {
        SqlTypes {
            tables: self.tables,
            beginnings: Arc::clone(&self.beginnings),
            outer: plans.iter().chain(&self.outer).copied().collect(),
            found: RefCell::default(),
        }
    }

    /// Whether it is known where the outer column comes from.
    pub fn knows_outer(&self, column: &Column) -> bool {
        self.outer.iter().any(|plan| plan.schema().maybe_index_of_column(column).is_some())
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
            LogicalPlan::RecursiveQuery(query) => {
                self.column(&query.static_term, place).or(self.column(&query.recursive_term, place))
            }
            LogicalPlan::Union(union) => {
                union.inputs.iter().map(|input| self.column(input, place)).reduce(Type::or).unwrap_or(Type::Unknown)
            }
            _ => Type::Unknown,
        }
    }

    fn scanned(&self, scan: &TableScan, place: usize) -> Type {
        let work_table = source_as_provider(&scan.source).ok();
        if let Some(work_table) = work_table.as_ref().and_then(|provider| provider.downcast_ref::<CteWorkTable>()) {
            return self.recursive(work_table.name(), scan, place);
        }
        let found = self.tables.get(&scan.table_name).zip(scan.projected_schema.fields().get(place));
        let Some((table, field)) = found else { return Type::Unknown };
        match field.name().as_str() {
            SEQ => Type::Known(SqlType::BigInt),
            DELETED => Type::Known(SqlType::Boolean),
            UPDATED => Type::Known(SqlType::Timestamp),
            name => table.column(name).map_or(Type::Unknown, |column| Type::Known(column.sql_type)),
        }
    }

    /// Where a recursive query reads its own rows: those that it begins with tell.
    fn recursive(&self, name: &str, scan: &TableScan, place: usize) -> Type {
        let place = scan.projection.as_ref().map_or(Some(place), |projection| projection.get(place).copied());
        let called = self.beginnings.iter().filter(|(called, _)| called == name);
        let types = called.filter_map(|(_, beginning)| Some(self.column(beginning, place?)));
        types.reduce(Type::or).unwrap_or(Type::Unknown)
    }

    fn expr(&self, expr: &Expr, inputs: &[&LogicalPlan]) -> Type {
        let first = |args: &[Expr]| args.first().map_or(Type::Unknown, |arg| self.expr(arg, inputs));
        let of_column = |column: &Column, plans: &[&LogicalPlan]| {
            let mut found = plans.iter().filter_map(|plan| Some((plan, plan.schema().maybe_index_of_column(column)?)));
            found.next().map_or(Type::Unknown, |(plan, place)| self.column(plan, place))
        };
        match expr {
            Expr::Column(column) => of_column(column, inputs),
            Expr::OuterReferenceColumn(_, column) => of_column(column, &self.outer),
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
