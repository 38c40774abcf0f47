//! Expressions over rows that a statement holds already: `ON CONFLICT DO UPDATE` and `RETURNING`.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchemaRef, TableReference};
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Expr as Planned, LogicalPlan, LogicalPlanBuilder, LogicalTableSource, expr::Placeholder,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::sql::sqlparser::ast::{Expr, ExprWithAlias, Ident, Query, Visit, VisitMut, Visitor, VisitorMut};
use kalamdb_engine::catalog::Catalog;
use kalamdb_engine::schema::{SqlType, Table};
use kalamdb_engine::value::{Row, Value};

use super::{Scope, Statements, now};
use crate::bind::names::fold;
use crate::growth::Account;
use crate::relations::Relations;
use crate::sql_types::{SqlTypes, Tables};
use crate::{ErrorCode, SqlError, calls, checked, coercion, rows, uuids};

/// Binds and evaluates expressions over rows of one table, each perhaps beside another row of the same table.
pub(super) struct Expressions<'a> {
    session: SessionState,
    catalog: Arc<Catalog>,
    /// What has the columns of the rows.
    rows: LogicalPlan,
    scope: Scope<'a>,
    table: &'a Table,
    /// Its name as a qualifier.
    name: TableReference,
}

/// An expression that can be evaluated.
pub(super) struct Bound {
    pub(super) expr: Arc<dyn PhysicalExpr>,
    /// None where its Arrow type says all that is known.
    pub(super) sql_type: Option<SqlType>,
}

impl<'a> Expressions<'a> {
    /// `beside` is the name under which the other row is known, if there is one.
    pub(super) fn new(
        statements: &Statements,
        relations: &Relations,
        scope: &Scope<'a>,
        table: &'a Table,
        beside: Option<&str>,
    ) -> Result<Self, SqlError> {
        let session = statements.planner.session(relations, scope.namespace)?;
        let name = TableReference::partial(table.name.namespace.as_str(), table.name.name.as_str());
        // What is proposed may well be NULL where it must not.
        let fields = table.columns.iter().map(|column| Field::new(&column.name, column.sql_type.arrow(), true));
        let source = Arc::new(LogicalTableSource::new(Arc::new(Schema::new(fields.collect::<Vec<_>>()))));
        let own = LogicalPlanBuilder::scan(name.clone(), source, None)?;
        let rows = match beside {
            Some(beside) => own.clone().cross_join(own.alias(TableReference::bare(beside))?.build()?)?.build()?,
            None => own.build()?,
        };
        Ok(Self { session, catalog: Arc::clone(&relations.catalog), rows, scope: *scope, table, name })
    }

    fn schema(&self) -> &DFSchemaRef {
        self.rows.schema()
    }

    /// The expression, its parameters bound as typed literals. `what` names the clause for errors.
    pub(super) fn bind(&self, expr: &Expr, what: &str) -> Result<Bound, SqlError> {
        if expr.visit(&mut HasQuery).is_break() {
            return Err(SqlError::not_available(format!("a subquery in {what}")));
        }
        calls::check(expr, &self.session)?;
        let mut expr = expr.clone();
        let _ = VisitMut::visit(&mut expr, &mut Qualify { table: self.table, name: &self.name });
        let planned =
            self.session.create_logical_expr_from_sql_expr(ExprWithAlias { expr, alias: None }, self.schema())?;
        let planned = planned.transform(|expr| self.with_parameter(expr))?.data;
        let spans_rows = |expr: &Planned| {
            Ok(matches!(expr, Planned::AggregateFunction(_) | Planned::WindowFunction(_) | Planned::Unnest(_)))
        };
        if planned.exists(spans_rows)? {
            let text = format!("{what} is computed for one row: aggregates and window functions can't stand there");
            return Err(SqlError::new(ErrorCode::InvalidSql, text));
        }
        let types = SqlTypes::new(&self.rows, Tables::new(&self.catalog, self.scope.namespace))?;
        let sql_type = types.of_expr(&planned, &[&self.rows]);
        let planned = match uuids::has_uuids(self.table) {
            true => uuids::normalise_expr(planned, &types, &self.rows)?,
            false => planned,
        };
        let context = SimplifyContext::builder()
            .with_schema(Arc::clone(self.schema()))
            .with_config_options(Arc::clone(self.session.config_options()))
            .with_query_execution_start_time(Some(now()))
            .build();
        let simplifier = ExprSimplifier::new(context);
        Account::begin_planning(self.session.config_options());
        let planned = coercion::coerce(planned, self.schema())?;
        let coerced = checked::arithmetic(simplifier.coerce(planned, self.schema())?, self.schema())?;
        let planned = simplifier.simplify(coerced)?;
        Account::begin_running(self.session.config_options());
        Ok(Bound { expr: self.session.create_physical_expr(planned, self.schema())?, sql_type })
    }

    fn with_parameter(&self, expr: Planned) -> datafusion::error::Result<Transformed<Planned>> {
        let Planned::Placeholder(Placeholder { id, .. }) = &expr else { return Ok(Transformed::no(expr)) };
        let literal =
            self.scope.parameters.get(id).map_err(|error| datafusion::error::DataFusionError::Plan(error.message))?;
        Ok(Transformed::yes(Planned::Literal(literal.scalar(), None)))
    }

    /// The rows as a batch, `others` beside them where there are any.
    pub(super) fn batch(&self, own: &[&Row], others: &[&Row]) -> Result<RecordBatch, SqlError> {
        let sides = if self.schema().fields().len() > self.table.columns.len() { vec![own, others] } else { vec![own] };
        let mut arrays = Vec::with_capacity(self.schema().fields().len());
        for side in sides {
            for (place, column) in self.table.columns.iter().enumerate() {
                let cells: Vec<&Value> = side.iter().map(|row| &row[place]).collect();
                arrays.push(rows::array_of(column.sql_type, cells.into_iter())?);
            }
        }
        let schema = Arc::new(Schema::new(self.schema().fields().clone()));
        let options = RecordBatchOptions::new().with_row_count(Some(own.len()));
        RecordBatch::try_new_with_options(schema, arrays, &options).map_err(failed)
    }
}

/// The expression's value for each row of the batch.
pub(super) fn evaluate(bound: &Bound, batch: &RecordBatch) -> Result<ArrayRef, SqlError> {
    Ok(bound.expr.evaluate(batch)?.into_array(batch.num_rows())?)
}

fn failed(error: arrow::error::ArrowError) -> SqlError {
    SqlError::new(ErrorCode::Internal, format!("failed to lay out rows of a statement: {error}"))
}

struct HasQuery;

impl Visitor for HasQuery {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

/// A column without a qualifier is the table's own, although the other row has one of the same name.
struct Qualify<'a> {
    table: &'a Table,
    name: &'a TableReference,
}

impl VisitorMut for Qualify<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(column) = expr
            && self.table.column(&fold(column)).is_some()
        {
            let quoted = |part: &str| Ident::with_quote('"', part);
            let qualifier = self.name.schema().into_iter().chain([self.name.table()]).map(quoted);
            *expr = Expr::CompoundIdentifier(qualifier.chain([column.clone()]).collect());
        }
        ControlFlow::Continue(())
    }
}
