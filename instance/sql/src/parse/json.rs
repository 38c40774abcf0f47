//! Keys of JSON documents that are parameters: they are texts. The functions behind `->` and its kin must know a type before any value comes.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value,
    VisitMut, VisitorMut,
};

use super::Statement;

/// What the names of the functions on documents begin with.
const FUNCTIONS: &str = "json_";

/// Writes `$1` as `CAST($1 AS TEXT)` where it is a key.
pub(super) fn type_keys(statement: &mut Statement) {
    let _ = match statement {
        Statement::Query(query) => query.visit(&mut Keys),
        Statement::Explain(statement) => statement.visit(&mut Keys),
        Statement::Insert(insert) => insert.visit(&mut Keys),
        Statement::Update(update) => update.visit(&mut Keys),
        Statement::Delete(delete) => delete.visit(&mut Keys),
        Statement::ExecuteAs { statement, .. } => {
            type_keys(statement);
            ControlFlow::Continue(())
        }
        _ => ControlFlow::Continue(()),
    };
}

struct Keys;

impl VisitorMut for Keys {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::BinaryOp {
                op: BinaryOperator::Arrow | BinaryOperator::LongArrow | BinaryOperator::Question,
                right,
                ..
            } => type_key(right),
            Expr::Function(function) if is_of_documents(function) => {
                if let FunctionArguments::List(list) = &mut function.args {
                    list.args.iter_mut().skip(1).filter_map(argument).for_each(type_key);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn is_of_documents(function: &Function) -> bool {
    let last = function.name.0.last().and_then(|part| part.as_ident());
    last.is_some_and(|name| name.value.to_ascii_lowercase().starts_with(FUNCTIONS))
}

fn argument(argument: &mut FunctionArg) -> Option<&mut Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn type_key(key: &mut Expr) {
    if matches!(key, Expr::Value(value) if matches!(value.value, Value::Placeholder(_))) {
        *key = Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(key.clone()),
            data_type: DataType::Text,
            array: false,
            format: None,
        };
    }
}
