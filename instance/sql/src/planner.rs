//! DataFusion: one bounded runtime for all statements, and a session and a share of the memory for each.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::execution::memory_pool::{MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{FunctionRegistry, SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{AggregateUDF, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as DataFusionStatement;
use datafusion::sql::sqlparser::ast;
use kalamdb_engine::Engine;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::bind::literal::Parameters;
use crate::bind::names::{CATALOG, DEFAULT_NAMESPACE};
use crate::bind::sql_type::ColumnTypes;
use crate::checked::CheckedArithmetic;
use crate::coercion::Coercion;
use crate::diagnosis::{self, place_of_relation};
use crate::documents::Arrow;
use crate::growth::{self, Account};
use crate::memory::{QueryMemory, TotalMemory};
use crate::parse::STACK_BYTES;
use crate::relations::Relations;
use crate::sql_types::Tables;
use crate::sum::CheckedSum;
use crate::turns::Lane;
use crate::zeros::EqualZeros;
use crate::{ErrorCode, SqlError, calls, documents, duplicates, flag, functions, quantified, series, uuids, values};

/// How many of the greediest operators an error names when memory runs out.
const NAMED_CONSUMERS: usize = 3;

/// A sort keeps at most one such part of a query's memory for merging.
const SHARE_OF_MERGING: usize = 8;
/// One call of a function adds at most such a part of a query's memory to what it was given.
const SHARE_OF_CALL: usize = 4;

/// Threads of queries for each processor: a batch that takes long to compute occupies one, and the system shares its time among all.
const THREADS_FOR_A_PROCESSOR: usize = 4;
/// At least so many.
const LEAST_THREADS: usize = 16;
/// Threads that are kept for short statements.
const SHORT_THREADS: usize = 2;

/// Bounds of the query engine.
#[derive(Debug, Clone)]
pub struct PlannerConfig {
    /// Memory of all queries together, in bytes; beyond it they spill.
    pub memory_bytes: usize,
    /// Memory of one query, in bytes; beyond it it spills.
    pub query_memory_bytes: usize,
    /// The folder that they spill into.
    pub spill_dir: PathBuf,
    /// Disk that they may spill onto, in bytes.
    pub spill_bytes: u64,
    /// Partitions that one query runs in.
    pub partitions: usize,
}

/// Plans statements on one shared runtime, and runs them on threads of their own: a query that computes for long keeps nobody
/// from being answered, a probe least of all. Short statements have threads that no other ever occupies.
pub struct Planner {
    context: SessionContext,
    memory: Arc<TotalMemory>,
    query_memory: usize,
    workers: Option<Workers>,
}

/// Threads.
struct Workers {
    ordinary: Runtime,
    short: Runtime,
}

impl Workers {
    fn new() -> std::io::Result<Self> {
        let threads = |name: &str, count: usize| {
            let mut builder = Builder::new_multi_thread();
            builder.thread_name(name).worker_threads(count).thread_stack_size(STACK_BYTES).enable_all().build()
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let ordinary = threads("sql", (processors * THREADS_FOR_A_PROCESSOR).max(LEAST_THREADS))?;
        Ok(Self { ordinary, short: threads("sql-short", SHORT_THREADS)? })
    }

    fn of(&self, lane: Lane) -> &Runtime {
        match lane {
            Lane::Ordinary => &self.ordinary,
            Lane::Short | Lane::Free => &self.short,
        }
    }
}

impl Drop for Planner {
    fn drop(&mut self) {
        // Waiting for threads is not allowed where futures run; what still computes has nobody who waits for it.
        if let Some(workers) = self.workers.take() {
            workers.ordinary.shutdown_background();
            workers.short.shutdown_background();
        }
    }
}

/// A task that ends when nobody waits for it any more.
pub(crate) struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Planner {
    /// Builds the runtime and registers the functions.
    pub fn new(config: &PlannerConfig, engine: &Engine) -> Result<Self, SqlError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_temp_file_path(&config.spill_dir)
            .with_max_temp_directory_size(config.spill_bytes)
            .build_arc()?;
        let mut session = SessionConfig::new()
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(false)
            .with_default_catalog_and_schema(CATALOG, DEFAULT_NAMESPACE)
            .with_target_partitions(config.partitions);
        // Filters on the scan are exact only together with late materialisation; without it they would read every column.
        session.options_mut().execution.parquet.pushdown_filters = true;
        session.options_mut().sql_parser.map_string_types_to_utf8view = false;
        // So that errors say where.
        session.options_mut().sql_parser.collect_spans = true;
        // What a sort keeps aside for merging what it spilled must leave room for what it sorts.
        let merging = &mut session.options_mut().execution.sort_spill_reservation_bytes;
        *merging = (*merging).min(config.query_memory_bytes / SHARE_OF_MERGING);
        let state = SessionStateBuilder::new().with_config(session).with_runtime_env(runtime);
        // Before those of others, which would plan the same operators.
        let state = state.with_expr_planners(vec![Arc::new(Arrow::default()), Arc::new(Coercion)]);
        let state = state.with_default_features().with_analyzer_rule(Arc::new(CheckedArithmetic));
        let state = state.with_analyzer_rule(Arc::new(EqualZeros));
        let mut state = state.with_type_planner(Arc::new(ColumnTypes)).build();
        datafusion_functions_json::register_all(&mut state)?;
        state.register_function_rewrite(Arc::new(Coercion))?;
        series::bind(&mut state);
        growth::bound(&mut state, config.query_memory_bytes / SHARE_OF_CALL)?;
        let context = SessionContext::new_with_state(state);
        context.register_udf(documents::part());
        functions::generators(engine).into_iter().for_each(|function| context.register_udf(function));
        context.register_udaf(AggregateUDF::from(CheckedSum::default()));
        let workers = Workers::new();
        let failed = |error| SqlError::new(ErrorCode::Internal, format!("failed to start the query threads: {error}"));
        let memory = TotalMemory::new(config.memory_bytes);
        Ok(Self { context, memory, query_memory: config.query_memory_bytes, workers: Some(workers.map_err(failed)?) })
    }

    /// Runs it on the threads of the lane; it is given up when the caller is.
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl Future<Output = Result<T, SqlError>> + Send + 'static,
    ) -> Result<T, SqlError> {
        let mut task = self.spawn(lane, work);
        let failed = |error| SqlError::new(ErrorCode::Internal, format!("a query broke off: {error}"));
        (&mut task.0).await.map_err(failed)?
    }

    /// As [`Self::run`], for who takes the result in pieces.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDrop<T> {
        AbortOnDrop(self.workers().of(lane).spawn(work))
    }

    /// Runs it beside all else until it ends, or the planner does.
    pub(crate) fn keep_up(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.workers().short.spawn(work);
    }

    fn workers(&self) -> &Workers {
        self.workers.as_ref().expect("they are taken on drop alone")
    }

    /// What a query of the session runs in: the shared runtime, with a share of the memory.
    pub fn task(&self, session: &SessionState) -> Arc<TaskContext> {
        let account = Account::of(session.config_options());
        let memory_pool = account.map_or_else(|| self.share(), |account| Arc::clone(account.pool()));
        let runtime = RuntimeEnv { memory_pool, ..session.runtime_env().as_ref().clone() };
        Arc::new(TaskContext::from(session).with_runtime(Arc::new(runtime)))
    }

    /// The memory of one query.
    fn share(&self) -> Arc<dyn MemoryPool> {
        let pool = QueryMemory::new(self.query_memory, Arc::clone(&self.memory));
        let consumers = NAMED_CONSUMERS.try_into().expect("it is not zero");
        Arc::new(TrackConsumersPool::new(pool, consumers))
    }

    /// A session in which names mean these relations, read as of one snapshot.
    pub fn session(&self, relations: &Relations, namespace: &str) -> Result<SessionState, SqlError> {
        let mut state = self.context.state();
        state.register_catalog_list(Arc::new(relations.clone()));
        let options = state.config_mut().options_mut();
        options.catalog.default_schema = namespace.to_owned();
        options.extensions.insert(Account::new(self.share()));
        // Functions are called with the settings as they are now.
        state.mark_start_execution();
        for function in functions::of_identity(&relations.identity) {
            state.register_udf(Arc::new(function))?;
        }
        Ok(state)
    }
}

/// Refuses names of relations that do not exist, with the code that every other statement has for them.
fn check_relations(session: &SessionState, statement: &DataFusionStatement) -> Result<(), SqlError> {
    let default = &session.config().options().catalog.default_schema;
    for reference in session.resolve_table_references(statement)? {
        let is_function = reference.schema().is_none() && session.table_functions().contains_key(reference.table());
        let schema = session.schema_for_ref(reference.clone()).ok();
        if !is_function && !schema.is_some_and(|schema| schema.table_exist(reference.table())) {
            let namespace = reference.schema().unwrap_or(default);
            let missing = SqlError::not_found("table", format!("{namespace}.{}", reference.table()));
            return Err(match statement {
                DataFusionStatement::Statement(written) => missing.at(place_of_relation(written, &reference)),
                _ => missing,
            });
        }
    }
    Ok(())
}

/// DataFusion's plan; where it refuses names that stand twice, of the statement in which they do not.
async fn plan_of(session: &SessionState, statement: DataFusionStatement) -> Result<LogicalPlan, SqlError> {
    let error = match session.statement_to_plan(statement.clone()).await {
        Ok(plan) => return Ok(plan),
        Err(error) => SqlError::from(error),
    };
    let DataFusionStatement::Statement(statement) = statement else { return Err(error) };
    if let Some(renamed) = duplicates::told_apart(&statement)
        && let Ok(plan) = session.statement_to_plan(DataFusionStatement::Statement(Box::new(renamed))).await
    {
        return Ok(plan);
    }
    Err(diagnosis::of_statement(error, &statement))
}

/// The plan of a statement that only reads, its parameters bound as typed literals.
pub async fn plan(
    session: &SessionState,
    statement: ast::Statement,
    parameters: &Parameters,
    tables: Tables<'_>,
) -> Result<LogicalPlan, SqlError> {
    let plan = plan_with_placeholders(session, statement, parameters, tables).await?;
    Ok(plan.with_param_values(parameters.scalars())?)
}

/// The same before its parameters are bound; each of its placeholders has one.
pub async fn plan_with_placeholders(
    session: &SessionState,
    mut statement: ast::Statement,
    parameters: &Parameters,
    tables: Tables<'_>,
) -> Result<LogicalPlan, SqlError> {
    calls::check(&statement, session)?;
    Account::begin_planning(session.config_options());
    quantified::qualify(&mut statement);
    values::with_queries_as_selects(&mut statement)?;
    let statement = DataFusionStatement::Statement(Box::new(statement));
    check_relations(session, &statement)?;
    let plan = plan_of(session, statement).await?;
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan)?;
    for placeholder in plan.get_parameter_names()? {
        parameters.get(&placeholder)?;
    }
    flag::check(&plan)?;
    Ok(uuids::normalise(flag::keep(plan)?, tables)?)
}

/// What runs for a plan.
pub async fn physical(
    session: &SessionState,
    plan: &LogicalPlan,
    statement: &ast::Statement,
) -> Result<Arc<dyn ExecutionPlan>, SqlError> {
    let made = async { make_physical(session, &session.optimize(plan)?).await };
    made.await.map_err(|error| diagnosis::of_plan(error, plan, statement))
}

/// The same of a plan that was optimised already.
pub async fn physical_of_optimised(
    session: &SessionState,
    plan: &LogicalPlan,
) -> Result<Arc<dyn ExecutionPlan>, SqlError> {
    Ok(make_physical(session, plan).await?)
}

async fn make_physical(
    session: &SessionState,
    plan: &LogicalPlan,
) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    Account::begin_running(session.config_options());
    session.query_planner().create_physical_plan(plan, session).await
}

#[cfg(test)]
mod tests {
    use std::sync::{RwLock, mpsc};

    use super::*;

    #[test]
    fn short_statements_run_while_all_other_threads_are_occupied() {
        let workers = Workers::new().unwrap();
        let count = workers.ordinary.metrics().num_workers();
        assert!(count >= LEAST_THREADS, "{count}");
        let (gate, (occupied, told)) = (Arc::new(RwLock::new(())), mpsc::channel());
        let closed = gate.write().unwrap();
        for _ in 0..2 * count {
            let (gate, occupied) = (Arc::clone(&gate), occupied.clone());
            workers.of(Lane::Ordinary).spawn(async move {
                let _ = occupied.send(());
                drop(gate.read());
            });
        }
        (0..count).for_each(|_| told.recv().unwrap());
        let (answer, answered) = mpsc::channel();
        workers.of(Lane::Short).spawn(async move { answer.send(7).unwrap() });
        assert_eq!(answered.recv(), Ok(7));
        drop(closed);
    }
}
