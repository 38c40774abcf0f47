//! Statements separated by `;`, each with its own text.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::grammar::Grammar;
use super::json;
use super::{DIALECT, RECURSION_LIMIT, Statement};
use crate::{ErrorCode, SqlError};

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
    let pieces = split(as_meant(tokens));
    let lines = line_starts(sql);
    let mut statements = Vec::with_capacity(pieces.len());
    for (number, piece) in pieces.into_iter().enumerate() {
        let text = text_of(sql, &lines, &piece).to_owned();
        let statement = parse_one(piece).map_err(|error| error.in_statement(number + 1, &text))?;
        statements.push(ParsedStatement { statement, text });
    }
    Ok(statements)
}

/// `?` asks whether a JSON document has a key, for parameters are `$1`, `$2`, …; and `CURRENT_USER` before a parenthesis is a function
/// like any other, not the keyword that takes none.
fn as_meant(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut is_called = false;
    for token in tokens.iter_mut().rev() {
        match &mut token.token {
            Token::Whitespace(_) => continue,
            Token::Placeholder(text) if text == "?" => token.token = Token::Question,
            Token::Word(word) if is_called && word.keyword == Keyword::CURRENT_USER => {
                word.keyword = Keyword::NoKeyword
            }
            _ => {}
        }
        is_called = token.token == Token::LParen;
    }
    tokens
}

/// The tokens of each statement; empty statements are none.
fn split(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    let pieces = tokens.split(|token| token.token == Token::SemiColon);
    let has_words = |piece: &&[TokenWithSpan]| piece.iter().any(|token| !matches!(token.token, Token::Whitespace(_)));
    pieces.filter(has_words).map(<[_]>::to_vec).collect()
}

fn parse_one(tokens: Vec<TokenWithSpan>) -> Result<Statement, SqlError> {
    let end = end_of(&tokens);
    let parser = Parser::new(&DIALECT).with_recursion_limit(RECURSION_LIMIT).with_tokens_with_locations(tokens);
    let mut grammar = Grammar::new(parser);
    let parsed = grammar.statement().and_then(|statement| grammar.expect_end().map(|()| statement));
    let mut statement = parsed.map_err(|error| located(error, grammar.place().unwrap_or(end)))?;
    json::type_keys(&mut statement);
    Ok(statement)
}

/// Where the last word ends.
fn end_of(tokens: &[TokenWithSpan]) -> Location {
    let last = tokens.iter().rfind(|token| !matches!(token.token, Token::Whitespace(_)));
    last.map_or(Location::empty(), |token| token.span.end)
}

/// Every error of the grammar says where: those about the end of the text have no token to tell by.
fn located(error: SqlError, place: Location) -> SqlError {
    if error.code != ErrorCode::InvalidSql || error.message.contains(" at Line: ") {
        return error;
    }
    SqlError { message: format!("{}{place}", error.message), ..error }
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
