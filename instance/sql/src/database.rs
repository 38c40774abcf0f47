//! The entry: a request's statements, one after the other, as one user; for those that write, from the snapshot that they read to the
//! commit, and over again where others were faster.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use chrono::Utc;
use datafusion::sql::sqlparser::ast::{Ident, Query};
use kalamdb_engine::Engine;
use kalamdb_engine::catalog::Role;
use kalamdb_engine::engine::RowWrite;
use kalamdb_engine::schema::UserId;
use serde_json::value::RawValue;

use crate::bind::literal::Parameters;
use crate::bind::names::{self, DEFAULT_NAMESPACE};
use crate::cache::statement::Batch;
use crate::cache::{self, Caches, Statistics};
use crate::config::SqlConfig;
use crate::execute::write::{Stamps, Write};
use crate::execute::{Outcome, Scope};
use crate::observe::{self, StatementObserver};
use crate::parse::{ParsedStatement, Statement, parse_batch};
use crate::planner::Planner;
use crate::relations::{Host, Inspection, Relations};
use crate::running::{Running, Ticket};
use crate::stream::{Producing, RowStream, Streamed};
use crate::transaction::{Open, OpenTransactions};
use crate::turns::{Lane, Turns};
use crate::{ErrorCode, SqlError, audit, authorize, contention, transaction};

/// Who asks: the user, with the role that it has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// Its role, as the catalog has it.
    pub role: Role,
    /// Where the request came from, for the audit log.
    pub address: Option<IpAddr>,
}

/// One request.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// One statement, or several separated by `;`.
    pub sql: String,
    /// Values of `$1`, `$2`, …, as JSON.
    pub parameters: Vec<Box<RawValue>>,
    /// The namespace of unqualified names.
    pub namespace: Option<String>,
    /// Where the client can subscribe to live queries, as a URL.
    pub ws_url: String,
}

/// SQL over one engine. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    statements: Arc<Statements>,
    observer: Arc<dyn StatementObserver>,
}

impl Database {
    /// Over an open engine, within that process.
    pub fn new(
        engine: Engine,
        config: SqlConfig,
        observer: Arc<dyn StatementObserver>,
        host: Arc<dyn Host>,
    ) -> Result<Self, SqlError> {
        let planner = Planner::new(&config.planner, &engine)?;
        let caches = config.cache.shortcuts.then(|| caches(&config, &engine, &planner));
        let running = Running::default();
        let inspection = Arc::new(Inspection { host, transactions: OpenTransactions::default() });
        let turns = Turns::new(config.turns);
        let statements = Statements { engine, planner, config, caches, running, turns, inspection };
        Ok(Self { statements: Arc::new(statements), observer })
    }

    /// Runs the request's statements in order; each commits by itself unless it stands between BEGIN and COMMIT. The first failure ends
    /// the request, and rolls back the transaction that it stands in.
    pub async fn execute(&self, request: Request, identity: &Identity) -> Result<Vec<Outcome>, SqlError> {
        let Reading { batch, parameters, namespace, ws_url } = self.read(request, identity)?;
        let mut turn = self.statements.turns.of(Lane::of(&batch, &namespace), &identity.user);
        turn.resume().await;
        self.run_all(&batch, (&parameters, &ws_url), namespace, identity).await
    }

    /// Runs the request's one statement; of a query the rows come in pieces, as they are asked for, and may be of any size.
    pub async fn stream(&self, request: Request, identity: &Identity) -> Result<Streamed, SqlError> {
        let Reading { batch, parameters, namespace, ws_url } = self.read(request, identity)?;
        let [parsed] = batch.as_slice() else {
            let text =
                "rows are streamed of one statement: send the others for themselves, or ask for application/json";
            return Err(SqlError::new(ErrorCode::InvalidSql, text));
        };
        let lane = Lane::of(&batch, &namespace);
        let mut turn = self.statements.turns.of(lane, &identity.user);
        let Some((query, other)) = streamed_query(&parsed.statement) else {
            turn.resume().await;
            let outcome = self.run_all(&batch, (&parameters, &ws_url), namespace, identity).await?.pop();
            return match outcome {
                Some(Outcome::Rows(rows)) => Ok(Streamed::Rows(RowStream::of(rows))),
                Some(done) => Ok(Streamed::Done(done)),
                None => Err(SqlError::new(ErrorCode::Internal, "the statement answered nothing")),
            };
        };
        let _open = self.statements.turns.open(lane, &identity.user).await;
        turn.resume().await;
        let catalog = self.statements.engine.catalog();
        let other = other.map(|user| authorize::impersonated(user, &catalog, identity)).transpose();
        let other = other.map_err(|error| error.in_statement(1, &parsed.text))?;
        // Before anybody sees a row.
        if let Some(entry) = audit::change(parsed, &namespace, identity, Utc::now().timestamp_millis()) {
            self.statements.engine.record_access(vec![entry]).await.map_err(audit::unrecorded)?;
        }
        let (about, observer) = (observe::subject(&parsed.statement, &namespace), Arc::clone(&self.observer));
        let begun = Instant::now();
        let ended = move || observer.statement_ended(about.0, about.1.as_ref(), begun.elapsed());
        let scope = Scope {
            text: &parsed.text,
            namespace: &namespace,
            parameters: &parameters,
            identity: other.as_ref().unwrap_or(identity),
            transaction: None,
            impersonated: other.is_some(),
            ws_url: &ws_url,
            ticket: None,
            audited: None,
        };
        let producing = Producing {
            ticket: self.statements.running.begin(&parsed.text, &namespace, identity),
            ended: Some(Box::new(ended)),
            patience: self.statements.config.statement_timeout,
            turn,
            _open,
        };
        let streamed = self.statements.stream(query, &scope, producing).await;
        streamed.map(Streamed::Rows).map_err(|error| error.in_statement(1, &parsed.text))
    }

    /// Parses and judges the request, and runs nothing yet.
    fn read(&self, request: Request, identity: &Identity) -> Result<Reading, SqlError> {
        let batch = match &self.statements.caches {
            Some(caches) => caches.statements.get_or_parse(&request.sql)?,
            None => Arc::new(parse_batch(&request.sql)?),
        };
        if batch.is_empty() {
            return Err(SqlError::new(ErrorCode::InvalidSql, "the request holds no statement"));
        }
        if batch.len() > 1 && !request.parameters.is_empty() {
            let text = "parameters can't be given to several statements at once: send them one by one";
            return Err(SqlError::new(ErrorCode::ParamsWithBatch, text));
        }
        let parameters = Parameters::new(&request.parameters)?;
        let namespace = request.namespace.map_or_else(|| DEFAULT_NAMESPACE.to_owned(), |name| name.to_lowercase());
        self.authorize_all(&batch, &namespace, identity)?;
        transaction::check(&batch)?;
        Ok(Reading { batch, parameters, namespace, ws_url: request.ws_url })
    }

    fn authorize_all(&self, batch: &[ParsedStatement], namespace: &str, identity: &Identity) -> Result<(), SqlError> {
        let catalog = self.statements.engine.catalog();
        let mut namespace = namespace.to_owned();
        for (at, parsed) in batch.iter().enumerate() {
            if let Statement::Use(name) = &parsed.statement {
                namespace = names::fold(name);
            }
            authorize::check(&parsed.statement, &catalog, &namespace, identity)
                .map_err(|error| error.in_statement(at + 1, &parsed.text))?;
        }
        Ok(())
    }

    async fn run_all(
        &self,
        batch: &[ParsedStatement],
        (parameters, ws_url): (&Parameters, &str),
        mut namespace: String,
        identity: &Identity,
    ) -> Result<Vec<Outcome>, SqlError> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut open: Option<Open> = None;
        for (at, parsed) in batch.iter().enumerate() {
            let begun = Instant::now();
            let about = observe::subject(&parsed.statement, &namespace);
            let result = match &parsed.statement {
                // Not stopped half-way: nobody would know how a commit that is under way has ended.
                statement @ (Statement::Begin | Statement::Commit | Statement::Rollback) => {
                    transaction::run(statement, &mut open, || self.statements.begin(identity)).await
                }
                statement => {
                    let transaction = open.as_ref().map(|open| &open.transaction);
                    let ticket = self.statements.running.begin(shown_text(parsed), &namespace, identity);
                    let audited = audit::change(parsed, &namespace, identity, Utc::now().timestamp_millis());
                    let scope = Scope {
                        text: &parsed.text,
                        namespace: &namespace,
                        parameters,
                        identity,
                        transaction,
                        impersonated: false,
                        ws_url,
                        ticket: Some(&ticket),
                        audited: audited.as_ref(),
                    };
                    self.run_in_time(statement, &scope, &ticket).await
                }
            };
            self.observer.statement_ended(about.0, about.1.as_ref(), begun.elapsed());
            let outcome = result.map_err(|error| error.in_statement(at + 1, &parsed.text))?;
            if let Statement::Use(name) = &parsed.statement {
                namespace = names::fold(name);
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    async fn run_in_time(
        &self,
        statement: &Statement,
        scope: &Scope<'_>,
        ticket: &Ticket,
    ) -> Result<Outcome, SqlError> {
        tokio::select! {
            outcome = self.statements.run(statement, scope) => outcome,
            error = self.stopped(ticket) => Err(error),
        }
    }

    /// Waits until the statement is to end, and may: what is being committed tells itself how it has ended.
    async fn stopped(&self, ticket: &Ticket) -> SqlError {
        let error = tokio::select! {
            error = ticket.killed() => error,
            error = ran_too_long(self.statements.config.statement_timeout) => error,
        };
        ticket.stoppable().await;
        error
    }

    /// What became of the look-ups in the caches, by their names in metrics; nothing where there are none.
    pub fn cache_statistics(&self) -> Vec<(&'static str, Statistics)> {
        self.statements.caches.as_ref().map(|caches| caches.statistics().to_vec()).unwrap_or_default()
    }

    pub(crate) fn statements(&self) -> &Arc<Statements> {
        &self.statements
    }

    /// The engine below.
    pub fn engine(&self) -> &Engine {
        &self.statements.engine
    }
}

/// A request that was understood.
struct Reading {
    batch: Batch,
    parameters: Parameters,
    namespace: String,
    ws_url: String,
}

/// The query whose rows the statement answers, and whom it runs as where that is not who sent it.
fn streamed_query(statement: &Statement) -> Option<(&Query, Option<&Ident>)> {
    match statement {
        Statement::Query(query) => Some((query.as_ref(), None)),
        Statement::ExecuteAs { user, statement } => match statement.as_ref() {
            Statement::Query(query) => Some((query.as_ref(), Some(user))),
            _ => None,
        },
        _ => None,
    }
}

/// How often what is too old in the caches is cleared away.
const SWEEP_PERIOD: Duration = Duration::from_secs(5);

/// The caches, told by the engine of each change, and swept as long as there is somebody who uses them.
fn caches(config: &SqlConfig, engine: &Engine, planner: &Planner) -> Arc<Caches> {
    let caches = Arc::new(Caches::new(&config.cache, &cache::system_clock()));
    let told = Arc::downgrade(&caches);
    engine.observe_changes(Arc::new(move |changed| {
        if let Some(caches) = told.upgrade() {
            caches.changed(changed);
        }
    }));
    planner.keep_up(sweep(Arc::downgrade(&caches)));
    caches
}

async fn sweep(caches: Weak<Caches>) {
    loop {
        tokio::time::sleep(SWEEP_PERIOD).await;
        let Some(caches) = caches.upgrade() else { return };
        caches.sweep();
    }
}

/// The text that others may see of a statement: none of those that can hold a password.
fn shown_text(parsed: &ParsedStatement) -> &str {
    match &parsed.statement {
        Statement::CreateUser { .. } => "CREATE USER …",
        Statement::AlterUser { .. } => "ALTER USER …",
        Statement::CreateStorage(_) => "CREATE STORAGE …",
        _ => &parsed.text,
    }
}

/// Waits as long as a statement may run; answers why it ends then.
async fn ran_too_long(limit: Duration) -> SqlError {
    tokio::time::sleep(limit).await;
    let text = format!("the statement was stopped after {} s, which is as long as one may run", limit.as_secs());
    SqlError::new(ErrorCode::StatementTimeout, text)
}

/// All that statements need to run.
pub struct Statements {
    pub(crate) engine: Engine,
    pub(crate) planner: Planner,
    pub(crate) config: SqlConfig,
    /// None where no shortcut may be taken.
    pub(crate) caches: Option<Arc<Caches>>,
    pub(crate) running: Running,
    pub(crate) turns: Turns,
    pub(crate) inspection: Arc<Inspection>,
}

impl Statements {
    /// Runs one statement.
    pub(crate) async fn run(&self, statement: &Statement, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        // What the batch made before this statement could not be judged when the batch began.
        authorize::check(statement, &self.engine.catalog(), scope.namespace, scope.identity)?;
        match statement {
            Statement::Query(query) => self.query(query, scope).await,
            Statement::Explain(explain) => self.explain(explain, scope).await,
            Statement::Insert(insert) => self.write(Write::Insert(insert), scope).await,
            Statement::Update(update) => self.write(Write::Update(update), scope).await,
            Statement::Delete(delete) => self.write(Write::Delete(delete), scope).await,
            Statement::Show(what) => self.show(what, scope).await,
            Statement::KillQuery(id) => {
                self.running.kill(id, scope.identity)?;
                Ok(Outcome::done(format!("Query {id} is being stopped")))
            }
            Statement::FlushTable(name) => self.flush_table(&names::table_name(name, scope.namespace)?).await,
            Statement::FlushAll(namespace) => self.flush_all(namespace.as_ref(), scope).await,
            Statement::CompactTable(name) => self.compact_table(&names::table_name(name, scope.namespace)?).await,
            Statement::CompactAll(namespace) => self.compact_all(namespace.as_ref(), scope).await,
            Statement::CreateUser { .. } | Statement::AlterUser { .. } | Statement::DropUser { .. } => {
                self.user_statement(statement, scope).await
            }
            Statement::ExecuteAs { user, statement } => self.execute_as(user, statement, scope).await,
            Statement::Subscribe(subscribe) => self.subscribe(subscribe, scope).await,
            Statement::KillJob(id) => self.kill_job(id, scope),
            Statement::CreateStorage(_)
            | Statement::AlterStorage { .. }
            | Statement::DropStorage { .. }
            | Statement::CheckStorage { .. } => self.storage_statement(statement, scope).await,
            definition => self.define(definition, scope).await,
        }
    }

    fn begin(&self, identity: &Identity) -> Open {
        let transaction = self.engine.begin(self.config.transaction);
        self.inspection.transactions.open(transaction, &identity.user, Utc::now().timestamp_millis())
    }

    /// Each attempt looks up what it changes in a snapshot of its own.
    async fn write(&self, write: Write<'_>, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let once = || async move {
            let relations = self.relations(scope);
            match write {
                Write::Insert(insert) => self.insert(insert, &relations, scope).await,
                Write::Update(update) => self.update(update, &relations, scope).await,
                Write::Delete(delete) => self.delete(delete, &relations, scope).await,
            }
        };
        self.starting_over("others changed the same rows", once).await
    }

    /// Whether what needs no planning goes past the planner.
    pub(crate) fn takes_shortcuts(&self) -> bool {
        self.caches.is_some()
    }

    /// Starts over as long as others were faster, and no longer than a statement may run; `reason` says how they were.
    pub(crate) async fn starting_over<T, F>(&self, reason: &str, attempt: impl Fn() -> F) -> Result<T, SqlError>
    where
        F: Future<Output = Result<T, SqlError>>,
    {
        contention::starting_over(self.config.statement_timeout, reason, attempt).await
    }

    /// Commits them, unless there are none or too many; within a transaction they wait for its COMMIT.
    pub(crate) async fn commit(&self, writes: Vec<RowWrite>, scope: &Scope<'_>) -> Result<Stamps, SqlError> {
        self.check_row_count(writes.len())?;
        if let Some(transaction) = scope.transaction {
            let seqs = transaction.write(writes)?.into_iter().map(|seq| seq.0).collect();
            return Ok(Stamps { seqs, updated: transaction.snapshot().read_at() });
        }
        if writes.is_empty() {
            return Ok(Stamps { seqs: Vec::new(), updated: 0 });
        }
        let rows = writes.len();
        let committed = self.engine.commit(writes).await?;
        let seqs = committed.seqs(rows).into_iter().map(|seq| seq.0).collect();
        Ok(Stamps { seqs, updated: committed.updated })
    }

    /// One snapshot and the catalog of the same moment for the whole statement, or for the whole transaction: no row of it was written
    /// with another schema than one that the catalog's can read.
    pub(crate) fn relations(&self, scope: &Scope<'_>) -> Relations {
        let (catalog, snapshot) = match scope.transaction {
            Some(transaction) => (transaction.catalog().clone(), transaction.snapshot().clone()),
            None => self.engine.read(),
        };
        Relations {
            catalog,
            snapshot,
            identity: scope.identity.clone(),
            impersonated: scope.impersonated,
            engine: self.engine.clone(),
            caches: self.caches.clone(),
            running: self.running.clone(),
            inspection: self.inspection.clone(),
            has_rows: true,
            hides_scans: false,
        }
    }
}
