//! The entry: a request's statements, one after the other, as one user.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kalamdb_engine::catalog::Role;
use kalamdb_engine::schema::{TableName, UserId};
use kalamdb_engine::{Engine, Transaction, TransactionLimits};
use serde_json::Value as Json;

use crate::bind::literal::Parameters;
use crate::bind::names::{self, DEFAULT_NAMESPACE};
use crate::execute::{self, Outcome, Statements};
use crate::parse::{ParsedStatement, Statement, parse_batch};
use crate::password::HashCost;
use crate::planner::{Planner, PlannerConfig};
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
}

/// Bounds of the SQL layer.
#[derive(Debug, Clone)]
pub struct SqlConfig {
    /// Bounds of the query engine.
    pub planner: PlannerConfig,
    /// How long one statement may run.
    pub statement_timeout: Duration,
    /// How large the rows of one reply may be in memory, in bytes.
    pub reply_bytes: usize,
    /// How many rows one statement may write.
    pub write_rows: usize,
    /// How often a statement starts over because others wrote what it had read.
    pub commit_attempts: u32,
    /// How large a transaction may become.
    pub transaction: TransactionLimits,
    /// What hashing a password costs.
    pub hash_cost: HashCost,
    /// Whether a namespace with tables is dropped without CASCADE.
    pub drop_namespace: DropNamespace,
}

/// What `DROP NAMESPACE` without CASCADE does to a namespace that holds tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropNamespace {
    /// It is an error.
    Restrict,
    /// The tables are dropped too.
    Cascade,
}

/// The kinds of statements that latencies are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// SELECT, and EXPLAIN of it.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// CREATE TABLE.
    CreateTable,
    /// ALTER TABLE.
    AlterTable,
    /// DESCRIBE, SHOW COLUMNS.
    DescribeTable,
    /// All else.
    Other,
}

/// Is told of each statement that ended, well or not.
pub trait StatementObserver: Send + Sync {
    /// `table` is the one that the statement is about; a query over several names the first.
    fn statement_ended(&self, kind: StatementKind, table: Option<&TableName>, took: Duration);
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
        self.run_all(batch, &parameters, namespace, identity).await
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
        parameters: &Parameters,
        mut namespace: String,
        identity: &Identity,
    ) -> Result<Vec<Outcome>, SqlError> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut open: Option<Transaction> = None;
        for (at, parsed) in batch.into_iter().enumerate() {
            let begun = Instant::now();
            let about = execute::subject(&parsed.statement, &namespace);
            let result = match &parsed.statement {
                // Not stopped half-way: nobody would know how a commit that is under way has ended.
                statement @ (Statement::Begin | Statement::Commit | Statement::Rollback) => {
                    let limits = self.statements.config.transaction;
                    transaction::run(statement, &mut open, &self.statements.engine, limits).await
                }
                statement => {
                    let transaction = open.as_ref();
                    let scope = execute::Scope { namespace: &namespace, parameters, identity, transaction };
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

    async fn run_in_time(&self, statement: &Statement, scope: &execute::Scope<'_>) -> Result<Outcome, SqlError> {
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
