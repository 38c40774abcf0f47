//! What each statement does.

mod alter;
mod change;
mod define;
mod expression;
mod flush;
mod insert;
mod query;
mod returning;
mod show;
mod upsert;
mod users;
mod write;

use arrow::record_batch::RecordBatch;
use chrono::{DateTime, Utc};
use datafusion::sql::sqlparser::ast::{TableFactor, TableWithJoins, Visit, Visitor};
use kalamdb_engine::schema::TableName;
use kalamdb_engine::{Engine, Transaction};
use serde_json::Value as Json;

use crate::bind::literal::Parameters;
use crate::bind::names;
use crate::database::{SqlConfig, StatementKind};
use crate::parse::{Show, Statement};
use crate::planner::Planner;
use crate::relations::Relations;
use crate::{Identity, SqlError};

/// All that statements need to run.
pub struct Statements {
    pub(crate) engine: Engine,
    pub(crate) planner: Planner,
    pub(crate) config: SqlConfig,
}

/// What a statement runs within.
pub struct Scope<'a> {
    /// The namespace of unqualified names.
    pub namespace: &'a str,
    /// `$1`, `$2`, …
    pub parameters: &'a Parameters,
    /// Who asks.
    pub identity: &'a Identity,
    /// The transaction that it is part of; without one it commits by itself.
    pub transaction: Option<&'a Transaction>,
}

/// What a statement answers.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A row set.
    Rows(RowSet),
    /// Something was done.
    Done {
        /// Rows changed; 0 for DDL.
        row_count: u64,
        /// For people and for clients that parse it.
        message: String,
    },
}

/// Rows with their columns.
#[derive(Debug, Clone)]
pub struct RowSet {
    /// As many as each batch has.
    pub columns: Vec<ResultColumn>,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultColumn {
    /// Its name.
    pub name: String,
    /// The protocol's name of its type.
    pub data_type: Json,
    /// `pk`, `nn`, `uq`.
    pub flags: Vec<&'static str>,
}

impl Outcome {
    /// DDL.
    pub(crate) fn done(message: impl Into<String>) -> Self {
        Self::Done { row_count: 0, message: message.into() }
    }
}

impl Statements {
    /// Runs one statement.
    pub(crate) async fn run(&self, statement: &Statement, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        // What the batch made before this statement could not be judged when the batch began.
        crate::authorize::check(statement, &self.engine.catalog(), scope.namespace, scope.identity)?;
        match statement {
            Statement::Query(query) => self.query(query, scope).await,
            Statement::Explain(explain) => self.explain(explain, scope).await,
            Statement::Insert(insert) => self.write(write::Write::Insert(insert), scope).await,
            Statement::Update(update) => self.write(write::Write::Update(update), scope).await,
            Statement::Delete(delete) => self.write(write::Write::Delete(delete), scope).await,
            Statement::Show(what) => self.show(what, scope),
            Statement::FlushTable(name) => self.flush_table(&names::table_name(name, scope.namespace)?).await,
            Statement::FlushAll(namespace) => self.flush_all(namespace.as_ref(), scope).await,
            Statement::CompactTable(name) => self.compact_table(&names::table_name(name, scope.namespace)?).await,
            Statement::CompactAll(namespace) => self.compact_all(namespace.as_ref(), scope).await,
            Statement::CreateUser { .. } | Statement::AlterUser { .. } | Statement::DropUser { .. } => {
                self.user_statement(statement, scope).await
            }
            definition => self.define(definition, scope).await,
        }
    }

    /// One snapshot and the catalog of the same moment for the whole statement, or for the whole transaction: no row of it was written
    /// with another schema than one that the catalog's can read.
    fn relations(&self, scope: &Scope<'_>) -> Relations {
        let (catalog, snapshot) = match scope.transaction {
            Some(transaction) => (transaction.catalog().clone(), transaction.snapshot().clone()),
            None => self.engine.read(),
        };
        Relations { catalog, snapshot, identity: scope.identity.clone(), engine: self.engine.clone() }
    }
}

/// What latencies are recorded under: the statement's kind, and the table that it is about.
pub fn subject(statement: &Statement, namespace: &str) -> (StatementKind, Option<TableName>) {
    let named = |name| names::table_name(name, namespace).ok();
    match statement {
        Statement::Query(query) => (StatementKind::Select, first_relation(query.as_ref(), namespace)),
        Statement::Explain(explain) => (StatementKind::Select, first_relation(explain.as_ref(), namespace)),
        Statement::Insert(insert) => (StatementKind::Insert, names::insert_target(&insert.table, namespace).ok()),
        Statement::Update(update) => (StatementKind::Update, relation_of(&update.table, namespace)),
        Statement::Delete(delete) => (StatementKind::Delete, first_relation(delete.as_ref(), namespace)),
        Statement::CreateTable(table) => (StatementKind::CreateTable, named(&table.name)),
        Statement::AlterTable(table) => (StatementKind::AlterTable, named(&table.name)),
        Statement::Show(Show::Columns(name) | Show::History(name)) => (StatementKind::DescribeTable, named(name)),
        Statement::DropTable { name, .. } | Statement::FlushTable(name) | Statement::CompactTable(name) => {
            (StatementKind::Other, named(name))
        }
        _ => (StatementKind::Other, None),
    }
}

fn relation_of(table: &TableWithJoins, namespace: &str) -> Option<TableName> {
    match &table.relation {
        TableFactor::Table { name, .. } => names::table_name(name, namespace).ok(),
        _ => None,
    }
}

fn first_relation<T: Visit>(part: &T, namespace: &str) -> Option<TableName> {
    use datafusion::sql::sqlparser::ast::ObjectName;
    use std::ops::ControlFlow;
    struct First;
    impl Visitor for First {
        type Break = ObjectName;
        fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<ObjectName> {
            ControlFlow::Break(relation.clone())
        }
    }
    match part.visit(&mut First) {
        ControlFlow::Break(name) => names::table_name(&name, namespace).ok(),
        ControlFlow::Continue(()) => None,
    }
}

/// When a statement began: CURRENT_TIMESTAMP of its defaults, and the times in the catalog.
fn now() -> DateTime<Utc> {
    Utc::now()
}
