//! Errors of DataFusion for whoever wrote the statement: what is wrong and where it stands, without the names of rules and the trees of
//! planned nodes.

use std::ops::ControlFlow;

use arrow::error::ArrowError;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, SchemaError, Span, TableReference};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr as Planned, ExprSchemable, LogicalPlan};
use datafusion::sql::sqlparser::ast::{self, Expr, ObjectName, Spanned, Value, Visit, Visitor};
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::bind::names::fold;
use crate::error::engine_error;
use crate::{ErrorCode, SqlError};

/// How DataFusion says that the spill folder is full.
const SPILL_FULL: &str = "used disk space during the spilling process";
/// What to do about it: DataFusion names settings of its own, which nobody can set here.
const RESOURCES: &str = "select less at a time, or raise sql.query_memory_bytes, sql.memory_bytes or sql.spill_bytes";
/// How every result beyond its type is told.
pub const OUT_OF_RANGE: &str = "the result is out of range";
/// How arrow begins to tell an overflow; the operands follow.
const OVERFLOW: &str = "Overflow happened on: ";
/// What stands in a text only where a tree was printed.
const MARKS_OF_TREES: [&str; 6] = ["Span(", "Spans(", "span: ", "quote_style: ", "relation: ", "Expr {"];

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        if let Some(engine) = engine_error(&error) {
            return engine;
        }
        let (code, text) = told(error.find_root());
        let found = Self::new(code, text);
        match place(&error) {
            Some(place) => found.at(place),
            None => found,
        }
    }
}

fn told(root: &DataFusionError) -> (ErrorCode, String) {
    let (code, text) = match root {
        DataFusionError::SchemaError(error, _) => (ErrorCode::InvalidSql, of_schema(error)),
        DataFusionError::SQL(error, _) => (ErrorCode::InvalidSql, error.to_string()),
        DataFusionError::Plan(text) => (ErrorCode::InvalidSql, text.clone()),
        DataFusionError::NotImplemented(text) => (ErrorCode::NotAvailable, text.clone()),
        // What it met with is a statement that it was not made for; another one can be written.
        DataFusionError::Internal(text) => (ErrorCode::Execution, format!("the query engine can't run this: {text}")),
        DataFusionError::ArrowError(error, _) => return of_arrow(error),
        DataFusionError::ParquetError(error) => return of_parquet(&error.to_string()),
        DataFusionError::ResourcesExhausted(text) => {
            return (ErrorCode::ResourcesExhausted, format!("{} ({RESOURCES})", first_part(text)));
        }
        DataFusionError::Execution(text) | DataFusionError::Configuration(text) => (ErrorCode::Execution, text.clone()),
        other => (ErrorCode::Execution, other.strip_backtrace()),
    };
    // Where a full spill folder is met by what reads and writes Arrow, nothing but the text tells it.
    if text.contains(SPILL_FULL) {
        return (ErrorCode::ResourcesExhausted, format!("{} ({RESOURCES})", first_part(&text)));
    }
    (code, without_trees(&first_part(&text)))
}

fn of_arrow(error: &ArrowError) -> (ErrorCode, String) {
    match error {
        ArrowError::ArithmeticOverflow(text) => {
            let operands = text.rsplit_once("on: ").map_or(text.as_str(), |(_, operands)| operands);
            (ErrorCode::InvalidValue, format!("{OUT_OF_RANGE}: {operands}"))
        }
        other => {
            let text = other.to_string();
            if text.contains(SPILL_FULL) {
                return (ErrorCode::ResourcesExhausted, format!("{text} ({RESOURCES})"));
            }
            (ErrorCode::Execution, first_part(&text))
        }
    }
}

/// A filter is computed while a file is read, and nothing but the text tells its error.
fn of_parquet(text: &str) -> (ErrorCode, String) {
    match text.split_once(OVERFLOW) {
        Some((_, rest)) => {
            let operands = rest.split('"').next().unwrap_or_default();
            (ErrorCode::InvalidValue, format!("{OUT_OF_RANGE}: {operands}"))
        }
        None => (ErrorCode::Execution, first_part(&format!("Parquet error: {text}"))),
    }
}

fn of_schema(error: &SchemaError) -> String {
    let name = |column: &Column| column.flat_name();
    match error {
        SchemaError::FieldNotFound { field, valid_fields } if valid_fields.is_empty() => {
            format!("column '{}' does not exist: there is no table to take it from", name(field))
        }
        SchemaError::FieldNotFound { field, valid_fields } => {
            let known: Vec<String> = valid_fields.iter().map(name).collect();
            format!("column '{}' does not exist; known here: {}", name(field), known.join(", "))
        }
        SchemaError::AmbiguousReference { field } => {
            format!("column '{}' is ambiguous: say which table it is of", field.name)
        }
        other => other.to_string(),
    }
}

/// Without what DataFusion adds for those who build it.
fn first_part(text: &str) -> String {
    let text = text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default();
    text.split("\nThis issue was likely").next().unwrap_or_default().replace('\n', " ")
}

fn without_trees(text: &str) -> String {
    if MARKS_OF_TREES.iter().any(|mark| text.contains(mark)) {
        return "the query engine does not have this form of the statement".into();
    }
    text.to_owned()
}

/// Where DataFusion says that the mistake is.
fn place(error: &DataFusionError) -> Option<Location> {
    let diagnostic = error.diagnostic()?;
    let notes = diagnostic.notes.iter().filter_map(|note| note.span);
    let helps = diagnostic.helps.iter().filter_map(|help| help.span);
    diagnostic.span.into_iter().chain(notes).chain(helps).next().map(start)
}

fn start(span: Span) -> Location {
    Location { line: span.start.line, column: span.start.column }
}

/// The error of a plan that can't be run, with the place of the innermost expression whose types do not go together.
pub fn of_plan(error: DataFusionError, plan: &LogicalPlan, statement: &ast::Statement) -> SqlError {
    let is_told = place(&error).is_some();
    let found = SqlError::from(error);
    if is_told || found.code == ErrorCode::ResourcesExhausted {
        return found;
    }
    match place_in_plan(plan) {
        Some(place) => found.at(place),
        None => of_statement(found, statement),
    }
}

fn place_in_plan(plan: &LogicalPlan) -> Option<Location> {
    let mut found = None;
    // What can't be walked has no place either.
    let _ = plan.apply_with_subqueries(|plan| {
        let schema = merge_schema(&plan.inputs());
        plan.apply_expressions(|expr| {
            found = found.or(place_in_expr(expr, &schema));
            Ok(TreeNodeRecursion::Continue)
        })
    });
    found
}

fn place_in_expr(expr: &Planned, schema: &DFSchema) -> Option<Location> {
    let mut found = None;
    let _ = expr.apply(|expr| {
        if let Err(error) = expr.to_field(schema) {
            let column = || expr.column_refs().into_iter().find_map(|column| column.spans.first()).map(start);
            found = place(&error).or_else(column).or(found);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// The error with the place of what it names in the statement: a column, a function or a string.
pub fn of_statement(error: SqlError, statement: &ast::Statement) -> SqlError {
    let found = statement.visit(&mut Named { text: &error.message });
    match found {
        ControlFlow::Break(place) => error.at(place),
        ControlFlow::Continue(()) => error,
    }
}

struct Named<'a> {
    text: &'a str,
}

impl Visitor for Named<'_> {
    type Break = Location;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Location> {
        let named = match expr {
            Expr::Identifier(name) => Some((fold(name), name.span)),
            Expr::CompoundIdentifier(parts) => {
                let folded: Vec<String> = parts.iter().map(fold).collect();
                Some((folded.join("."), expr.span()))
            }
            Expr::Function(function) => Some((function.name.to_string().to_lowercase(), function.name.span())),
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => Some((text.clone(), value.span)),
                _ => None,
            },
            _ => None,
        };
        match named {
            Some((name, span)) if self.text.contains(&format!("'{name}'")) && span.start != Location::empty() => {
                ControlFlow::Break(span.start)
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Where the statement names that relation.
pub fn place_of_relation(statement: &ast::Statement, relation: &TableReference) -> Location {
    match statement.visit(&mut Relation { relation }) {
        ControlFlow::Break(place) => place,
        ControlFlow::Continue(()) => Location::empty(),
    }
}

struct Relation<'a> {
    relation: &'a TableReference,
}

impl Visitor for Relation<'_> {
    type Break = Location;

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<Location> {
        let mut parts = name.0.iter().rev().map(|part| part.as_ident().map(fold));
        let is_table = parts.next().flatten().as_deref() == Some(self.relation.table());
        let schema = parts.next().flatten();
        if is_table && schema.as_deref() == self.relation.schema() {
            return ControlFlow::Break(name.span().start);
        }
        ControlFlow::Continue(())
    }
}
