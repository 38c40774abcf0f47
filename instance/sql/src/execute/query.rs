//! SELECT and EXPLAIN.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use kalamdb_engine::Engine;
use kalamdb_engine::catalog::Catalog;
use kalamdb_engine::engine::{FoundRow, LookUp};
use kalamdb_engine::schema::{SqlType, Table, TableName};
use kalamdb_engine::value::Value;

use super::{Outcome, ResultColumn, RowSet, Scope, Statements};
use crate::authorize::{self, Access};
use crate::bind::sql_type::wire_name;
use crate::lineage::origin;
use crate::relations::Relations;
use crate::route::{self, PointRead, Shown};
use crate::wildcard::{self, Hidden};
use crate::{ErrorCode, SqlError, planner, reply, rows};

impl Statements {
    pub(crate) async fn query(&self, query: &ast::Query, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let relations = self.relations(scope);
        if let Some(read) = route::point_read(query, &relations.catalog, scope.namespace, scope.parameters)? {
            return self.read_point(read, &relations).await.map(Outcome::Rows);
        }
        let mut query = query.clone();
        wildcard::write_out(&mut query, &relations.catalog, scope.namespace, Hidden::Updated);
        self.run_planned(ast::Statement::Query(Box::new(query)), &relations, scope).await.map(Outcome::Rows)
    }

    pub(crate) async fn explain(&self, explain: &ast::Statement, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let relations = self.relations(scope);
        let mut explain = explain.clone();
        if let ast::Statement::Explain { statement, .. } = &mut explain
            && let ast::Statement::Query(query) = statement.as_mut()
        {
            wildcard::write_out(query, &relations.catalog, scope.namespace, Hidden::Updated);
        }
        self.run_planned(explain, &relations, scope).await.map(Outcome::Rows)
    }

    /// Plans the statement with DataFusion and collects its rows, within the bounds of a reply.
    pub(super) async fn run_planned(
        &self,
        statement: ast::Statement,
        relations: &Relations,
        scope: &Scope<'_>,
    ) -> Result<RowSet, SqlError> {
        let session = self.planner.session(relations, scope.namespace)?;
        let (catalog, namespace) = (Arc::clone(&relations.catalog), scope.namespace.to_owned());
        let (parameters, most_bytes) = (scope.parameters.clone(), self.config.reply_bytes);
        let work = async move {
            let plan = planner::plan(&session, statement, &parameters).await?;
            let columns = result_columns(&plan, &catalog, &namespace);
            let batches = collect(&session, &plan, most_bytes).await?;
            Ok(RowSet { columns, batches })
        };
        self.planner.run(work).await
    }

    async fn read_point(&self, read: PointRead, relations: &Relations) -> Result<RowSet, SqlError> {
        let PointRead { table, key, shown } = read;
        authorize::check_table(&relations.catalog, &table.name, &relations.identity, Access::Read)?;
        relations.check_impersonated(&table.name)?;
        let found = match key {
            Some(key) => find(relations, &table, &key).await?,
            None => None,
        };
        point_rows(&table, &shown, found.as_ref())
    }
}

/// The live row of that key.
async fn find(relations: &Relations, table: &Arc<Table>, key: &[Value]) -> Result<Option<FoundRow>, SqlError> {
    let user = table.kind.is_per_user().then_some(&relations.identity.user);
    let key = Engine::key_of(table, key)?;
    match relations.snapshot.look_up(table, user, &[key]).await?.pop() {
        Some(LookUp::Read { found, .. }) => Ok(found),
        _ => Ok(None),
    }
}

fn point_rows(table: &Table, shown: &[(String, Shown)], found: Option<&FoundRow>) -> Result<RowSet, SqlError> {
    let (mut columns, mut fields, mut arrays) = (Vec::new(), Vec::new(), Vec::new());
    for (name, column) in shown {
        let sql_type = match column {
            Shown::Own(place) => table.columns[*place].sql_type,
            Shown::Seq => SqlType::BigInt,
            Shown::Deleted => SqlType::Boolean,
            Shown::Updated => SqlType::Timestamp,
        };
        let value = found.map(|found| match column {
            Shown::Own(place) => found.row[*place].clone(),
            Shown::Seq => Value::BigInt(found.seq.0),
            Shown::Deleted => Value::Boolean(false),
            Shown::Updated => Value::Timestamp(found.updated),
        });
        let flags = match column {
            Shown::Own(place) => flags(table, &table.columns[*place].name),
            _ => vec!["nn"],
        };
        columns.push(ResultColumn { name: name.clone(), data_type: wire_name(sql_type), flags });
        fields.push(Field::new(name, sql_type.arrow(), true));
        arrays.push(rows::array_of(sql_type, value.iter())?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(usize::from(found.is_some())));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|error| SqlError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(RowSet { columns, batches: vec![batch] })
}

/// Runs the plan and keeps its rows, as long as they are not too many.
pub(super) async fn collect(
    session: &SessionState,
    plan: &LogicalPlan,
    most_bytes: usize,
) -> Result<Vec<RecordBatch>, SqlError> {
    let physical = session.create_physical_plan(plan).await?;
    let mut stream = execute_stream(physical, session.task_ctx())?;
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        bytes += batch.get_array_memory_size();
        if bytes > most_bytes {
            let text =
                format!("the rows take more than {most_bytes} bytes: select fewer rows or columns, or add a LIMIT");
            return Err(SqlError::new(ErrorCode::TooLarge, text));
        }
        batches.push(batch);
    }
    Ok(batches)
}

/// The plan's columns, with the SQL types and flags of the tables' columns that they show.
fn result_columns(plan: &LogicalPlan, catalog: &Catalog, namespace: &str) -> Vec<ResultColumn> {
    let fields = plan.schema().fields().iter().enumerate();
    let column = |(place, field): (usize, &Arc<Field>)| {
        let mut result = ResultColumn {
            name: field.name().clone(),
            data_type: reply::type_name(field.data_type()),
            flags: Vec::new(),
        };
        let Some(origin) = origin(plan, place) else { return result };
        let name = TableName::new(origin.table.schema().unwrap_or(namespace), origin.table.table());
        let Some(table) = catalog.tables.get(&name) else { return result };
        if let Some(own) = table.column(&origin.column) {
            result.data_type = wire_name(own.sql_type);
        }
        if !origin.joined {
            result.flags = flags(table, &origin.column);
        }
        result
    };
    fields.map(column).collect()
}

/// `pk`, `nn`, `uq` of a table's column; system columns are never NULL.
pub(super) fn flags(table: &Table, name: &str) -> Vec<&'static str> {
    let Some(column) = table.column(name) else { return vec!["nn"] };
    let is_key = table.primary_key.contains(&column.id);
    let is_whole_key = is_key && table.primary_key.len() == 1;
    [(is_key, "pk"), (!column.nullable, "nn"), (is_whole_key, "uq")]
        .into_iter()
        .filter_map(|(holds, flag)| holds.then_some(flag))
        .collect()
}
