//! Refuses what the parser reads and nothing carries out, so that a clause is never dropped: a DELETE that loses one deletes more than was
//! asked for.
//!
//! Each kind of node is taken apart with all its fields named: with a new field of a later `sqlparser` this does not compile until somebody
//! decides about it. Fields that are followed by `_` are read by DataFusion, or by what runs the statement.

mod change;
mod expression;
mod query;
mod select;
mod table;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Expr, Query, Select, Spanned, TableFactor, Visit, Visitor};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::Statement;
use crate::SqlError;

/// A clause that nothing carries out.
#[derive(Debug)]
pub(super) struct Refused {
    /// Its words, as far as they are always the same, and then what tells it from others.
    clause: &'static str,
    /// Where that begins which it belongs to.
    begin: Location,
}

type Verdict = ControlFlow<Refused>;

/// Refuses the clause of that node where it was found.
fn refuse(found: bool, clause: &'static str, node: &impl Spanned) -> Verdict {
    if found { ControlFlow::Break(Refused { clause, begin: node.span().start }) } else { ControlFlow::Continue(()) }
}

/// Looks at all of the statement.
pub(super) fn check(statement: &Statement) -> Result<(), Refused> {
    match walk(statement) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(refused) => Err(refused),
    }
}

fn walk(statement: &Statement) -> Verdict {
    match statement {
        Statement::Query(query) => query.visit(&mut Guard),
        Statement::Insert(insert) => {
            change::insert(insert)?;
            insert.visit(&mut Guard)
        }
        Statement::Update(update) => {
            change::update(update)?;
            update.visit(&mut Guard)
        }
        Statement::Delete(delete) => {
            change::delete(delete)?;
            delete.visit(&mut Guard)
        }
        Statement::Explain(explain) => {
            of_explain(explain)?;
            explain.visit(&mut Guard)
        }
        Statement::ExecuteAs { user: _, statement } => walk(statement),
        Statement::Subscribe(subscribe) => {
            subscribe.projection.iter().try_for_each(select::of_item)?;
            subscribe.projection.visit(&mut Guard)?;
            subscribe.selection.visit(&mut Guard)
        }
        // The grammar reads all others word by word.
        _ => ControlFlow::Continue(()),
    }
}

fn of_explain(statement: &ast::Statement) -> Verdict {
    let ast::Statement::Explain {
        describe_alias: _,
        analyze: _,
        verbose: _,
        query_plan,
        estimate,
        statement: _,
        format: _,
        options,
    } = statement
    else {
        return ControlFlow::Continue(());
    };
    refuse(*query_plan, "QUERY PLAN", statement)?;
    refuse(*estimate, "ESTIMATE", statement)?;
    refuse(options.is_some(), "EXPLAIN with options in parentheses", statement)
}

struct Guard;

impl Visitor for Guard {
    type Break = Refused;

    fn pre_visit_query(&mut self, query: &Query) -> Verdict {
        query::check(query)
    }

    fn pre_visit_select(&mut self, select: &Select) -> Verdict {
        select::check(select)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Verdict {
        table::check(factor)
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Verdict {
        expression::check(expr)
    }
}

impl Refused {
    /// The error, with the place of the clause among the statement's tokens.
    pub(super) fn error(&self, tokens: &[TokenWithSpan]) -> SqlError {
        let SqlError { code, message, details } = SqlError::not_available(self.clause);
        SqlError { code, message: format!("{message}{}", self.place(tokens)), details }
    }

    /// Where its words stand, or else where that begins which it belongs to.
    fn place(&self, tokens: &[TokenWithSpan]) -> Location {
        let is_word = |text: &&str| text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        let wanted: Vec<&str> = self.clause.split(' ').take_while(is_word).collect();
        let is_behind = |token: &&TokenWithSpan| {
            let Location { line, column } = token.span.start;
            (line, column) >= (self.begin.line, self.begin.column) && !matches!(token.token, Token::Whitespace(_))
        };
        let behind: Vec<&TokenWithSpan> = tokens.iter().filter(is_behind).collect();
        let stands_at =
            |tokens: &&[&TokenWithSpan]| tokens.iter().zip(&wanted).all(|(token, word)| is(&token.token, word));
        let found = match wanted.len() {
            0 => None,
            length => behind.windows(length).find(stands_at).and_then(<[_]>::first),
        };
        found.or(behind.first()).map_or(self.begin, |token| token.span.start)
    }
}

fn is(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests;
