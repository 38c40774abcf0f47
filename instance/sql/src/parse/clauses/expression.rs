//! Expressions that DataFusion does not plan, and parts of functions that it does not read.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
};

use super::{Verdict, refuse, select};

pub(super) fn check(expr: &Expr) -> Verdict {
    match expr {
        Expr::Function(function) => of_function(function, expr),
        Expr::IsNormalized { .. } => refuse(true, "IS NORMALIZED", expr),
        Expr::InUnnest { .. } => refuse(true, "IN UNNEST", expr),
        Expr::RLike { regexp: true, .. } => refuse(true, "REGEXP", expr),
        Expr::RLike { regexp: false, .. } => refuse(true, "RLIKE", expr),
        Expr::Convert { .. } => refuse(true, "CONVERT", expr),
        Expr::Collate { .. } => refuse(true, "COLLATE", expr),
        Expr::Prefixed { .. } => refuse(true, "a word before a string", expr),
        Expr::MatchAgainst { .. } => refuse(true, "MATCH", expr),
        Expr::OuterJoin(_) => refuse(true, "(+) behind a column", expr),
        Expr::Prior(_) => refuse(true, "PRIOR", expr),
        Expr::MemberOf(_) => refuse(true, "MEMBER OF", expr),
        Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::CompoundFieldAccess { .. }
        | Expr::JsonAccess { .. }
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::InList { .. }
        | Expr::InSubquery { .. }
        | Expr::Between { .. }
        | Expr::BinaryOp { .. }
        | Expr::Like { .. }
        | Expr::ILike { .. }
        | Expr::SimilarTo { .. }
        | Expr::AnyOp { .. }
        | Expr::AllOp { .. }
        | Expr::UnaryOp { .. }
        | Expr::Cast { .. }
        | Expr::AtTimeZone { .. }
        | Expr::Extract { .. }
        | Expr::Ceil { .. }
        | Expr::Floor { .. }
        | Expr::Position { .. }
        | Expr::Substring { .. }
        | Expr::Trim { .. }
        | Expr::Overlay { .. }
        | Expr::Nested(_)
        | Expr::Value(_)
        | Expr::TypedString(_)
        | Expr::Case { .. }
        | Expr::Exists { .. }
        | Expr::Subquery(_)
        | Expr::GroupingSets(_)
        | Expr::Cube(_)
        | Expr::Rollup(_)
        | Expr::Tuple(_)
        | Expr::Struct { .. }
        | Expr::Named { .. }
        | Expr::Dictionary(_)
        | Expr::Map(_)
        | Expr::Array(_)
        | Expr::Interval(_)
        | Expr::Wildcard(_)
        | Expr::QualifiedWildcard(..)
        | Expr::Lambda(_) => ControlFlow::Continue(()),
    }
}

fn of_function(function: &Function, expr: &Expr) -> Verdict {
    let Function {
        name: _,
        uses_odbc_syntax: _,
        parameters,
        args,
        filter: _,
        null_treatment: _,
        over: _,
        within_group: _,
    } = function;
    refuse(*parameters != FunctionArguments::None, "parameters of a function before its arguments", expr)?;
    match args {
        FunctionArguments::None => ControlFlow::Continue(()),
        FunctionArguments::Subquery(_) => refuse(true, "a query as the arguments of a function", expr),
        FunctionArguments::List(FunctionArgumentList { duplicate_treatment: _, args, clauses: _ }) => {
            args.iter().try_for_each(|arg| of_argument(arg, expr))
        }
    }
}

fn of_argument(arg: &FunctionArg, expr: &Expr) -> Verdict {
    let (FunctionArg::Named { arg, .. } | FunctionArg::ExprNamed { arg, .. } | FunctionArg::Unnamed(arg)) = arg;
    match arg {
        FunctionArgExpr::Expr(_) | FunctionArgExpr::QualifiedWildcard(_) | FunctionArgExpr::Wildcard => {
            ControlFlow::Continue(())
        }
        FunctionArgExpr::WildcardWithOptions(options) => {
            select::of_wildcard(options, expr)?;
            refuse(true, "EXCLUDE, EXCEPT or REPLACE behind the * of a function", expr)
        }
    }
}
