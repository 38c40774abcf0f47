//! SELECT and EXPLAIN.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use kalamdb_engine::Engine;
use kalamdb_engine::catalog::Role;
use kalamdb_engine::engine::{FoundRow, LookUp};
use kalamdb_engine::schema::{SqlType, Table};
use kalamdb_engine::value::Value;

use super::{Outcome, ResultColumn, RowSet, Scope, Statements};
use crate::authorize::{self, Access};
use crate::bind::literal::Parameters;
use crate::bind::sql_type::wire_name;
use crate::cache::plan::{Kept, PlanKey};
use crate::cache::query::{Kind, QueryKey};
use crate::cache::schema::ResolvedTable;
use crate::lineage::origin;
use crate::prepared::Prepared;
use crate::relations::Relations;
use crate::route::{self, PointRead, Shown};
use crate::sql_types::{SqlTypes, Tables};
use crate::stream::{Opened, Producing, RowStream};
use crate::turns::Lane;
use crate::wildcard::{self, Hidden};
use crate::{ErrorCode, SqlError, duplicates, planner, reply, rows};

/// How a query is answered.
enum Reading {
    /// The rows are here.
    Known(RowSet),
    /// They are to be computed.
    Select(Box<Select>),
}

/// A query that DataFusion runs: all that it needs, to be taken to other threads.
struct Select {
    session: SessionState,
    task: Arc<TaskContext>,
    statement: ast::Statement,
    text: String,
    relations: Relations,
    parameters: Parameters,
    namespace: String,
    /// Where its result may be kept.
    key: Option<QueryKey>,
}

impl Select {
    async fn rows(self, most_bytes: usize) -> Result<RowSet, SqlError> {
        let opened = self.open().await?;
        let schema = opened.rows.schema();
        let mut batches = collect(opened.rows, most_bytes).await?;
        if batches.is_empty() {
            // Who wants them as Arrow wants the types of no rows too.
            batches.push(RecordBatch::new_empty(schema));
        }
        let rows = RowSet { columns: opened.columns, batches };
        if let (Some(key), Some(caches), true) = (self.key, &self.relations.caches, opened.is_deterministic) {
            caches.queries.put(key, &rows)?;
        }
        Ok(rows)
    }

    /// By a plan that was made before, or one that others can use after this, or else one of its own.
    async fn open(&self) -> Result<Opened, SqlError> {
        if let Some((prepared, physical)) = self.prepared().await {
            let (columns, is_deterministic) = (prepared.columns().to_vec(), prepared.is_deterministic());
            return Ok(Opened { columns, rows: execute_stream(physical, Arc::clone(&self.task))?, is_deterministic });
        }
        let tables = Tables::new(&self.relations.catalog, &self.namespace);
        let plan = planner::plan(&self.session, self.statement.clone(), &self.parameters, tables).await?;
        let columns = result_columns(&plan, tables)?;
        let physical = planner::physical(&self.session, &plan, &self.statement).await?;
        Ok(Opened { columns, rows: execute_stream(physical, Arc::clone(&self.task))?, is_deterministic: false })
    }

    /// None where the query can't be prepared, or fails on this way: then the other way tells what is wrong.
    async fn prepared(&self) -> Option<(Arc<Prepared>, Arc<dyn ExecutionPlan>)> {
        let caches = self.relations.caches.as_ref()?;
        let key = PlanKey::of(&self.text, &self.namespace, &self.parameters)?;
        let kept = match caches.plans.get(&key, &self.relations.catalog) {
            Some(kept) => kept,
            None => {
                let kept = self.prepare().await.ok()?;
                caches.plans.put(key, kept.clone());
                kept
            }
        };
        let Kept::Plan(prepared) = kept else { return None };
        let physical = prepared.bind(&self.session, &self.relations, &self.parameters).await.ok()?;
        Some((prepared, physical))
    }

    async fn prepare(&self) -> Result<Kept, SqlError> {
        let names = self.relations.names_alone();
        let mut session = self.session.clone();
        session.register_catalog_list(Arc::new(names));
        let (statement, relations) = (self.statement.clone(), &self.relations);
        let prepared = Prepared::make(&session, statement, &self.parameters, relations, &self.namespace).await?;
        Ok(prepared.map_or(Kept::Never, |prepared| Kept::Plan(Arc::new(prepared))))
    }
}

impl Statements {
    pub(crate) async fn query(&self, query: &ast::Query, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        match self.read(query, scope).await? {
            Reading::Known(rows) => Ok(Outcome::Rows(rows)),
            Reading::Select(select) => {
                let (lane, most_bytes) = (Lane::of_query(query, scope.namespace), self.config.reply_bytes);
                self.planner.run(lane, async move { select.rows(most_bytes).await }).await.map(Outcome::Rows)
            }
        }
    }

    /// As [`Self::query`], in pieces: they are made as they are taken.
    pub(crate) async fn stream(
        &self,
        query: &ast::Query,
        scope: &Scope<'_>,
        producing: Producing,
    ) -> Result<RowStream, SqlError> {
        authorize::check_query(query, &self.engine.catalog(), scope.namespace, scope.identity)?;
        match self.read(query, scope).await? {
            Reading::Known(rows) => Ok(RowStream::of(rows)),
            Reading::Select(select) => {
                let lane = Lane::of_query(query, scope.namespace);
                RowStream::open(&self.planner, lane, async move { select.open().await }, producing).await
            }
        }
    }

    /// The shortest way to the query's rows.
    async fn read(&self, query: &ast::Query, scope: &Scope<'_>) -> Result<Reading, SqlError> {
        // Before anything else is looked at: what is kept under these epochs is no older than they are.
        let epochs = self.caches.as_ref().filter(|_| scope.transaction.is_none()).map(|caches| caches.queries.epochs());
        let key = epochs.and_then(|epochs| {
            let kinds = Kind::all_of(query, scope.namespace)?;
            Some(QueryKey::new(scope.text, scope.parameters, scope.namespace, scope.identity, &kinds, &epochs))
        });
        if let (Some(key), Some(caches)) = (&key, &self.caches)
            && let Some(rows) = caches.queries.get(key)?
        {
            return Ok(Reading::Known(rows));
        }
        let relations = self.relations(scope);
        if self.takes_shortcuts()
            && let Some(read) = route::point_read(query, &relations.catalog, scope.namespace, scope.parameters)?
        {
            return self.read_point(read, &relations).await.map(Reading::Known);
        }
        let mut query = query.clone();
        wildcard::write_out(&mut query, &relations.catalog, scope.namespace, Hidden::Updated)?;
        let session = self.planner.session(&relations, scope.namespace)?;
        Ok(Reading::Select(Box::new(Select {
            task: self.planner.task(&session),
            session,
            statement: ast::Statement::Query(Box::new(query)),
            text: scope.text.to_owned(),
            relations,
            parameters: scope.parameters.clone(),
            namespace: scope.namespace.to_owned(),
            key,
        })))
    }

    pub(crate) async fn explain(&self, explain: &ast::Statement, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let mut relations = self.relations(scope);
        // From DBA on one may act for any user, and see what files hold.
        relations.hides_scans = scope.identity.role < Role::Dba;
        let mut explain = explain.clone();
        if let ast::Statement::Explain { statement, .. } = &mut explain
            && let ast::Statement::Query(query) = statement.as_mut()
        {
            wildcard::write_out(query, &relations.catalog, scope.namespace, Hidden::Updated)?;
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
        let task = self.planner.task(&session);
        let work = async move {
            let tables = Tables::new(&catalog, &namespace);
            let plan = planner::plan(&session, statement.clone(), &parameters, tables).await?;
            let columns = result_columns(&plan, tables)?;
            let rows = execute_stream(planner::physical(&session, &plan, &statement).await?, task)?;
            Ok(RowSet { columns, batches: collect(rows, most_bytes).await? })
        };
        self.planner.run(Lane::Ordinary, work).await
    }

    async fn read_point(&self, read: PointRead, relations: &Relations) -> Result<RowSet, SqlError> {
        let PointRead { table, key, shown } = read;
        authorize::check_table(&relations.catalog, &table.name, &relations.identity, Access::Read)?;
        relations.check_impersonated(&table.name)?;
        let found = match key {
            Some(key) => find(relations, &table, &key).await?,
            None => None,
        };
        let resolved = relations.resolved(&table)?;
        point_rows(&resolved, &shown, found.as_ref())
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

fn point_rows(
    resolved: &ResolvedTable,
    shown: &[(String, Shown)],
    found: Option<&FoundRow>,
) -> Result<RowSet, SqlError> {
    let table = &resolved.table;
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
        columns.push(match column {
            Shown::Own(place) => ResultColumn { name: name.clone(), ..resolved.columns[*place].clone() },
            _ => ResultColumn { name: name.clone(), data_type: wire_name(sql_type), flags: vec!["nn"] },
        });
        fields.push(Field::new(name, sql_type.arrow(), true));
        arrays.push(rows::array_of(sql_type, value.iter())?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(usize::from(found.is_some())));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|error| SqlError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(RowSet { columns, batches: vec![batch] })
}

/// The rows, as long as they are not too many.
async fn collect(mut rows: SendableRecordBatchStream, most_bytes: usize) -> Result<Vec<RecordBatch>, SqlError> {
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        bytes += batch.get_array_memory_size();
        if bytes > most_bytes {
            let text = format!(
                "the rows take more than {most_bytes} bytes: select fewer of them, or have them streamed with 'Accept: \
                 application/x-ndjson', text/csv or application/vnd.apache.arrow.stream"
            );
            return Err(SqlError::new(ErrorCode::TooLarge, text));
        }
        batches.push(batch);
    }
    Ok(batches)
}

/// The plan's columns, with the SQL types of what they show, and the flags of the tables' columns that they are.
pub(crate) fn result_columns(plan: &LogicalPlan, tables: Tables<'_>) -> Result<Vec<ResultColumn>, SqlError> {
    let types = SqlTypes::new(plan, tables)?;
    let column = |(place, field): (usize, &Arc<Field>)| {
        let origin = origin(plan, place).filter(|origin| !origin.joined);
        let table = origin.as_ref().and_then(|origin| tables.get(&origin.table));
        ResultColumn {
            name: duplicates::shown(field.name()).to_owned(),
            data_type: reply::type_name_of(types.of_column(plan, place), field.data_type()),
            flags: origin.zip(table).map_or_else(Vec::new, |(origin, table)| flags(table, &origin.column)),
        }
    };
    Ok(plan.schema().fields().iter().enumerate().map(column).collect())
}

/// `pk`, `nn`, `uq` of a table's column; system columns are never NULL.
pub(crate) fn flags(table: &Table, name: &str) -> Vec<&'static str> {
    let Some(column) = table.column(name) else { return vec!["nn"] };
    let is_key = table.primary_key.contains(&column.id);
    let is_whole_key = is_key && table.primary_key.len() == 1;
    [(is_key, "pk"), (!column.nullable, "nn"), (is_whole_key, "uq")]
        .into_iter()
        .filter_map(|(holds, flag)| holds.then_some(flag))
        .collect()
}
