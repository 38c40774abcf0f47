//! A query's plan that serves every statement of the same text: optimised once, with names for tables and placeholders for parameters.
//!
//! Binding puts in what belongs to one statement: the tables as of its snapshot and for its user, and its parameters as typed literals.
//! Then only comparisons with those literals are simplified; parsing, planning and optimising are not done again. Whatever
//! can't be prepared, or fails on this way, is planned anew by [`planner::plan`], whose answer counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableType, Volatility};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::sqlparser::ast;
use kalamdb_engine::catalog::Catalog;
use kalamdb_engine::schema::{SchemaVersion, TableId, TableName};

use crate::bind::literal::Parameters;
use crate::execute::{ResultColumn, result_columns};
use crate::relations::Relations;
use crate::sql_types::Tables;
use crate::{SqlError, planner};

/// The plan, and what it was made with.
pub struct Prepared {
    plan: LogicalPlan,
    columns: Vec<ResultColumn>,
    tables: Vec<(TableName, TableId, SchemaVersion)>,
    is_deterministic: bool,
    bytes: usize,
}

impl Prepared {
    /// Plans the statement in a session of [`Relations::names_alone`]; none where the plan would depend on the moment or on the user.
    pub async fn make(
        session: &SessionState,
        statement: ast::Statement,
        parameters: &Parameters,
        relations: &Relations,
        namespace: &str,
    ) -> Result<Option<Self>, SqlError> {
        let tables = Tables::new(&relations.catalog, namespace);
        let plan = planner::plan_with_placeholders(session, statement, parameters, tables).await?;
        let plan = with_types(plan, parameters)?;
        let volatility = volatility(&plan)?;
        if volatility == Volatility::Stable || !has_only_names(&plan, !parameters.is_empty())? {
            return Ok(None);
        }
        let columns = result_columns(&plan, tables)?;
        // Before it is optimised: a table that no row is read of still decides what `*` means.
        let tables = named(&plan)?.into_iter().filter_map(|name| {
            let table = relations.catalog.tables.get(&name)?;
            Some((name, table.id, table.version))
        });
        let tables = tables.collect();
        let plan = session.optimize(&plan)?;
        let is_deterministic = volatility == Volatility::Immutable;
        Ok(Some(Self { bytes: bytes_of(&plan)?, plan, columns, tables, is_deterministic }))
    }

    /// What it takes in memory, by an estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether each of its tables is in the catalog as it was when the plan was made.
    pub fn is_current(&self, catalog: &Catalog) -> bool {
        let is_same = |(name, id, version): &(TableName, TableId, SchemaVersion)| {
            catalog.tables.get(name).is_some_and(|table| table.id == *id && table.version == *version)
        };
        self.tables.iter().all(is_same)
    }

    /// Whether it reads the table.
    pub fn names(&self, table: &TableName) -> bool {
        self.tables.iter().any(|(name, ..)| name == table)
    }

    /// The columns of its result.
    pub fn columns(&self) -> &[ResultColumn] {
        &self.columns
    }

    /// Whether the same rows give the same result each time.
    pub fn is_deterministic(&self) -> bool {
        self.is_deterministic
    }

    /// What runs for one statement.
    pub async fn bind(
        &self,
        session: &SessionState,
        relations: &Relations,
        parameters: &Parameters,
    ) -> Result<Arc<dyn ExecutionPlan>, SqlError> {
        let mut plan = with_tables(self.plan.clone(), relations).await?;
        if !parameters.is_empty() {
            plan = plan.with_param_values(parameters.scalars())?;
            let rules = Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]);
            plan = rules.optimize(plan, session, |_, _| {})?;
        }
        planner::physical_of_optimised(session, &plan).await
    }
}

/// About so many bytes take a node of a plan, a column of one, and an expression, besides its literals.
const BYTES_OF_NODE: usize = 1024;
const BYTES_OF_COLUMN: usize = 256;
const BYTES_OF_EXPRESSION: usize = 256;

fn bytes_of(plan: &LogicalPlan) -> PlanResult<usize> {
    let mut bytes = 0;
    plan.apply_with_subqueries(|plan| {
        bytes += BYTES_OF_NODE + BYTES_OF_COLUMN * plan.schema().fields().len();
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                bytes += BYTES_OF_EXPRESSION + expr.as_literal().map_or(0, ScalarValue::size);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(bytes)
}

/// Stands in a plan for the table or view of that name.
#[derive(Debug)]
pub struct Unbound {
    name: TableName,
    schema: SchemaRef,
    filters: TableProviderFilterPushDown,
}

impl Unbound {
    /// For a relation that answers so when it is asked what it does with filters.
    pub fn new(name: TableName, schema: SchemaRef, filters: TableProviderFilterPushDown) -> Self {
        Self { name, schema, filters }
    }
}

#[async_trait]
impl TableProvider for Unbound {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> PlanResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![self.filters.clone(); filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        Err(DataFusionError::Internal(format!("table {} was not bound before its plan was run", self.name)))
    }
}

/// The name that a scan stands for; none where it is of something else, such as a table function.
fn name_of(plan: &LogicalPlan) -> Option<TableName> {
    let LogicalPlan::TableScan(scan) = plan else { return None };
    let provider = source_as_provider(&scan.source).ok()?;
    provider.downcast_ref::<Unbound>().map(|unbound| unbound.name.clone())
}

fn named(plan: &LogicalPlan) -> PlanResult<Vec<TableName>> {
    let mut names = Vec::new();
    plan.apply_with_subqueries(|plan| {
        names.extend(name_of(plan));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}

/// Whether all its sources are names. VALUES take their types from their parameters in ways of their own.
fn has_only_names(plan: &LogicalPlan, has_parameters: bool) -> PlanResult<bool> {
    let mut only_names = true;
    plan.apply_with_subqueries(|plan| {
        only_names &= match plan {
            LogicalPlan::TableScan(_) => name_of(plan).is_some(),
            LogicalPlan::Values(_) => !has_parameters,
            LogicalPlan::RecursiveQuery(_) => false,
            _ => true,
        };
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(only_names)
}

/// The most that one of its functions varies: `Stable` ones, such as `NOW()` and `CURRENT_USER()`, become constants in a plan.
fn volatility(plan: &LogicalPlan) -> PlanResult<Volatility> {
    let (mut is_stable, mut is_volatile) = (false, false);
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(function) = expr {
                    let volatility = function.func.signature().volatility;
                    is_stable |= volatility == Volatility::Stable;
                    is_volatile |= volatility == Volatility::Volatile;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(match (is_stable, is_volatile) {
        (true, _) => Volatility::Stable,
        (false, true) => Volatility::Volatile,
        (false, false) => Volatility::Immutable,
    })
}

/// Each placeholder with the type of the literal that will stand there, so that the same coercions are made as for the literal.
fn with_types(plan: LogicalPlan, parameters: &Parameters) -> Result<LogicalPlan, SqlError> {
    let typed = |expr: Expr| match expr {
        Expr::Placeholder(Placeholder { id, .. }) => {
            let literal = parameters.get(&id).map_err(|error| DataFusionError::Plan(error.message))?;
            let field = Arc::new(Field::new("", literal.scalar().data_type(), true));
            Ok(Transformed::yes(Expr::Placeholder(Placeholder::new_with_field(id, Some(field)))))
        }
        other => Ok(Transformed::no(other)),
    };
    if parameters.is_empty() {
        return Ok(plan);
    }
    let plan = plan.transform_up_with_subqueries(|plan| {
        plan.map_expressions(|expr| expr.transform_up(typed))?.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(plan.data)
}

/// The plan over those relations: each is looked up once, however often it stands in the plan.
async fn with_tables(plan: LogicalPlan, relations: &Relations) -> Result<LogicalPlan, SqlError> {
    let mut sources = BTreeMap::new();
    plan.apply_with_subqueries(|plan| {
        sources.extend(name_of(plan).map(|name| (name, None)));
        Ok(TreeNodeRecursion::Continue)
    })?;
    for (name, source) in &mut sources {
        let provider = relations.relation(name).await?.ok_or_else(|| SqlError::not_found("table", name))?;
        *source = Some(provider_as_source(provider));
    }
    let bound = plan.transform_up_with_subqueries(|plan| {
        let Some(source) = name_of(&plan).and_then(|name| sources.get(&name)?.clone()) else {
            return Ok(Transformed::no(plan));
        };
        let LogicalPlan::TableScan(mut scan) = plan else { return Ok(Transformed::no(plan)) };
        scan.source = source;
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    })?;
    Ok(bound.data)
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{LogicalPlanBuilder, lit};

    use super::*;

    #[test]
    fn a_plan_takes_what_its_constants_take() {
        let with = |text: String| {
            let plan = LogicalPlanBuilder::empty(true).project([lit(text)]).unwrap().build().unwrap();
            bytes_of(&plan).unwrap()
        };
        let (short, long) = (with("x".into()), with("x".repeat(1 << 20)));
        assert!(short < 10_000 && long > 1 << 20, "{short} {long}");
    }
}
