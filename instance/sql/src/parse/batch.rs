//! Statements separated by `;`, each with its own text.

use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::bounds::{BoundedDialect, check_chains};
use super::grammar::Grammar;
use super::{DIALECT, RECURSION_LIMIT, Statement};
use crate::SqlError;

/// A statement and the part of the request's text that it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedStatement {
    /// The statement.
    pub statement: Statement,
    /// Its text, without the `;`.
    pub text: String,
}

/// Reads all statements. The error says which one can't be read.
pub fn parse_batch(sql: &str) -> Result<Vec<ParsedStatement>, SqlError> {
    let tokens = Tokenizer::new(&DIALECT, sql)
        .tokenize_with_location()
        .map_err(|error| SqlError::from(ParserError::from(error)).in_statement(1, sql.trim()))?;
    let pieces = split(tokens);
    let lines = line_starts(sql);
    let mut statements = Vec::with_capacity(pieces.len());
    for (number, piece) in pieces.into_iter().enumerate() {
        let text = text_of(sql, &lines, &piece).to_owned();
        let statement = parse_one(piece).map_err(|error| error.in_statement(number + 1, &text))?;
        statements.push(ParsedStatement { statement, text });
    }
    Ok(statements)
}

/// The tokens of each statement; empty statements are none.
fn split(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    let pieces = tokens.split(|token| token.token == Token::SemiColon);
    let has_words = |piece: &&[TokenWithSpan]| piece.iter().any(|token| !matches!(token.token, Token::Whitespace(_)));
    pieces.filter(has_words).map(<[_]>::to_vec).collect()
}

/// `CURRENT_USER()` without its parentheses: to `sqlparser` it is no function that takes any.
fn without_call(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_name = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case("current_user"),
        _ => false,
    };
    for at in (0..tokens.len().saturating_sub(2)).rev() {
        if is_name(&tokens[at]) && tokens[at + 1].token == Token::LParen && tokens[at + 2].token == Token::RParen {
            tokens.drain(at + 1..at + 3);
        }
    }
    tokens
}

fn parse_one(tokens: Vec<TokenWithSpan>) -> Result<Statement, SqlError> {
    let tokens = without_call(tokens);
    check_chains(&tokens)?;
    let dialect = BoundedDialect::for_tokens(tokens.len());
    let parser = Parser::new(&dialect).with_recursion_limit(RECURSION_LIMIT).with_tokens_with_locations(tokens);
    let mut grammar = Grammar::new(parser);
    let statement = grammar.statement()?;
    grammar.expect_end()?;
    Ok(statement)
}

/// Byte offsets at which the lines begin.
fn line_starts(sql: &str) -> Vec<usize> {
    std::iter::once(0).chain(sql.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

fn text_of<'a>(sql: &'a str, lines: &[usize], tokens: &[TokenWithSpan]) -> &'a str {
    let mut words = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let first = words.next();
    let last = words.next_back().or(first);
    match (first, last) {
        (Some(first), Some(last)) => {
            let (from, to) = (offset(sql, lines, first.span.start), offset(sql, lines, last.span.end));
            sql.get(from..to).unwrap_or(sql)
        }
        _ => sql,
    }
}

/// A location counts lines and characters from 1.
fn offset(sql: &str, lines: &[usize], at: Location) -> usize {
    let start = lines.get((at.line as usize).saturating_sub(1)).copied().unwrap_or(sql.len());
    let line = &sql[start..];
    let within = line.char_indices().nth((at.column as usize).saturating_sub(1)).map_or(line.len(), |(at, _)| at);
    start + within
}
