//! Parts of calls that DataFusion reads of aggregates and window functions alone: of any other function it drops them, so that they are refused.

use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArgumentList, FunctionArguments, Spanned, Visit, Visitor,
};

use crate::SqlError;
use crate::bind::names::fold;

/// Looks at every call of the statement, or of one expression.
pub fn check(node: &impl Visit, session: &SessionState) -> Result<(), SqlError> {
    match node.visit(&mut Calls { session }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Calls<'a> {
    session: &'a SessionState,
}

impl Visitor for Calls<'_> {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<SqlError> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let name = match function.name.0.as_slice() {
            [part] => part.as_ident().map(fold).unwrap_or_default(),
            _ => return ControlFlow::Continue(()),
        };
        let is_plain = self.session.scalar_functions().contains_key(&name) || name.starts_with("unnest");
        match dropped(function).filter(|_| is_plain) {
            Some(part) => {
                let error = SqlError::not_available(format!("{part} of the function '{name}', which is no aggregate,"));
                ControlFlow::Break(error.at(function.name.span().start))
            }
            None => ControlFlow::Continue(()),
        }
    }
}

/// The part of the call that is about more rows than one.
fn dropped(function: &Function) -> Option<&'static str> {
    let Function { name: _, uses_odbc_syntax: _, parameters: _, args, filter, null_treatment, over, within_group } =
        function;
    let (is_distinct, has_clauses) = match args {
        FunctionArguments::List(FunctionArgumentList { duplicate_treatment, args: _, clauses }) => {
            (*duplicate_treatment == Some(DuplicateTreatment::Distinct), !clauses.is_empty())
        }
        FunctionArguments::None | FunctionArguments::Subquery(_) => (false, false),
    };
    let parts = [
        (over.is_some(), "OVER"),
        (filter.is_some(), "FILTER"),
        (is_distinct, "DISTINCT"),
        (!within_group.is_empty(), "WITHIN GROUP"),
        (null_treatment.is_some(), "IGNORE or RESPECT NULLS"),
        (has_clauses, "ORDER BY or another clause among the arguments"),
    ];
    parts.into_iter().find_map(|(found, part)| found.then_some(part))
}
