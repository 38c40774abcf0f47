//! What a statement is about, for whoever records how long statements take.

use std::ops::ControlFlow;
use std::time::Duration;

use datafusion::sql::sqlparser::ast::{ObjectName, TableFactor, TableWithJoins, Visit, Visitor};
use kalamdb_engine::schema::TableName;

use crate::bind::names;
use crate::parse::{Show, Statement};

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

/// What latencies are recorded under: the statement's kind, and the table that it is about.
pub fn subject(statement: &Statement, namespace: &str) -> (StatementKind, Option<TableName>) {
    let named = |name| names::table_name(name, namespace).ok();
    match statement {
        Statement::Query(query) => (StatementKind::Select, first_relation(query.as_ref(), namespace)),
        Statement::Explain(explain) => (StatementKind::Select, first_relation(explain.as_ref(), namespace)),
        Statement::ExecuteAs { statement, .. } => subject(statement, namespace),
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
