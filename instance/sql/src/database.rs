//! The entry: a request's statements, one after the other, as one user; for those that write, from the snapshot that they read to the
//! commit, and over again where others were faster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kalamdb_engine::catalog::Role;
use kalamdb_engine::engine::RowWrite;
use kalamdb_engine::schema::UserId;
use kalamdb_engine::{Engine, Transaction};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::bind::literal::Parameters;
use crate::bind::names::{self, DEFAULT_NAMESPACE};
use crate::config::SqlConfig;
use crate::execute::write::{Stamps, Write};
use crate::execute::{Outcome, Scope};
use crate::observe::{self, StatementObserver};
use crate::parse::{ParsedStatement, Statement, parse_batch};
use crate::planner::Planner;
use crate::relations::Relations;
use crate::{ErrorCode, SqlError, authorize, transaction};

/// Who asks: the user, with the role that it has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// Its role, as the catalog has it.
    pub role: Role,
}

/// One request.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// One statement, or several separated by `;`.
    pub sql: String,
    /// Values of `$1`, `$2`, …
    pub parameters: Vec<Json>,
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
    /// Over an open engine.
    pub fn new(engine: Engine, config: SqlConfig, observer: Arc<dyn StatementObserver>) -> Result<Self, SqlError> {
        let planner = Planner::new(&config.planner, &engine)?;
        Ok(Self { statements: Arc::new(Statements { engine, planner, config }), observer })
    }

    /// Runs the request's statements in order; each commits by itself unless it stands between BEGIN and COMMIT. The first failure ends
    /// the request, and rolls back the transaction that it stands in.
    pub async fn execute(&self, request: Request, identity: &Identity) -> Result<Vec<Outcome>, SqlError> {
        let batch = parse_batch(&request.sql)?;
        if batch.is_empty() {
            return Err(SqlError::new(ErrorCode::InvalidSql, "the request holds no statement"));
        }
        if batch.len() > 1 && !request.parameters.is_empty() {
            let text = "parameters can't be given to several statements at once: send them one by one";
            return Err(SqlError::new(ErrorCode::ParamsWithBatch, text));
        }
        let parameters = Parameters::new(request.parameters)?;
        let namespace = request.namespace.map_or_else(|| DEFAULT_NAMESPACE.to_owned(), |name| name.to_lowercase());
        self.authorize_all(&batch, &namespace, identity)?;
        transaction::check(&batch)?;
        self.run_all(batch, (&parameters, &request.ws_url), namespace, identity).await
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
        batch: Vec<ParsedStatement>,
        (parameters, ws_url): (&Parameters, &str),
        mut namespace: String,
        identity: &Identity,
    ) -> Result<Vec<Outcome>, SqlError> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut open: Option<Transaction> = None;
        for (at, parsed) in batch.into_iter().enumerate() {
            let begun = Instant::now();
            let about = observe::subject(&parsed.statement, &namespace);
            let result = match &parsed.statement {
                // Not stopped half-way: nobody would know how a commit that is under way has ended.
                statement @ (Statement::Begin | Statement::Commit | Statement::Rollback) => {
                    let limits = self.statements.config.transaction;
                    transaction::run(statement, &mut open, &self.statements.engine, limits).await
                }
                statement => {
                    let transaction = open.as_ref();
                    let namespace = &namespace;
                    let scope = Scope { namespace, parameters, identity, transaction, impersonated: false, ws_url };
                    self.run_in_time(statement, &scope).await
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

    async fn run_in_time(&self, statement: &Statement, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let limit = self.statements.config.statement_timeout;
        tokio::time::timeout(limit, self.statements.run(statement, scope)).await.unwrap_or_else(|_| {
            let text =
                format!("the statement was stopped after {} s, which is as long as one may run", limit.as_secs());
            Err(SqlError::new(ErrorCode::StatementTimeout, text))
        })
    }

    /// The engine below.
    pub fn engine(&self) -> &Engine {
        &self.statements.engine
    }
}

/// The first pause before a statement starts over; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// All that statements need to run.
pub struct Statements {
    pub(crate) engine: Engine,
    pub(crate) planner: Planner,
    pub(crate) config: SqlConfig,
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
            Statement::Show(what) => self.show(what, scope),
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
            | Statement::CheckStorage { .. } => self.storage_statement(statement).await,
            definition => self.define(definition, scope).await,
        }
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

    /// Starts over as long as others were faster; `reason` says how, for whoever reads the error after the last attempt.
    pub(crate) async fn starting_over<T, F>(&self, reason: &str, attempt: impl Fn() -> F) -> Result<T, SqlError>
    where
        F: Future<Output = Result<T, SqlError>>,
    {
        let (attempts, mut pause) = (self.config.commit_attempts.max(1), FIRST_PAUSE);
        for left in (0..attempts).rev() {
            match attempt().await {
                Err(error) if error.code == ErrorCode::Conflict && left > 0 => {}
                Err(error) if error.code == ErrorCode::Conflict => break,
                result => return result,
            }
            // Of those that collide one always wins; those that do not must not keep in step.
            tokio::time::sleep(pause.mul_f64(0.5 + chance())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(SqlError::new(ErrorCode::Conflict, format!("{reason} {attempts} times in a row; try again")))
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
        let (identity, engine) = (scope.identity.clone(), self.engine.clone());
        Relations { catalog, snapshot, identity, impersonated: scope.impersonated, engine }
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}
