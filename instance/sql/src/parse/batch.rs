//! Statements separated by `;`, each with its own text.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::bounds::check_chains;
use super::bulk;
use super::clauses;
use super::dialect::KalamDialect;
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
    match bulk::parse(sql) {
        Some(insert) => Ok(vec![insert]),
        None => parse_in_full(sql),
    }
}

/// The same, all of it by the parser.
pub(super) fn parse_in_full(sql: &str) -> Result<Vec<ParsedStatement>, SqlError> {
    let tokens = Tokenizer::new(&DIALECT, sql)
        .tokenize_with_location()
        .map_err(|error| SqlError::from(ParserError::from(error)).in_statement(1, sql.trim()))?;
    let pieces = split(as_meant(tokens));
    let mut cursor = Cursor::at_start(sql);
    let mut statements = Vec::with_capacity(pieces.len());
    for (number, piece) in pieces.into_iter().enumerate() {
        let text = cursor.text_of(&piece).to_owned();
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
    check_chains(&tokens)?;
    let dialect = KalamDialect::for_tokens(tokens.len());
    let parser = Parser::new(&dialect).with_recursion_limit(RECURSION_LIMIT).with_tokens_with_locations(tokens);
    let mut grammar = Grammar::new(parser);
    let parsed = grammar.statement().and_then(|statement| grammar.expect_end().map(|()| statement));
    let mut statement = parsed.map_err(|error| located(error, grammar.place().unwrap_or(end)))?;
    clauses::check(&statement).map_err(|refused| refused.error(&grammar.parser.into_tokens()))?;
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

/// Goes through a text once, from one statement's place to the next: a long line of many statements is not counted anew for each.
struct Cursor<'a> {
    sql: &'a str,
    /// The byte that it stands at, and where that is: lines and characters count from 1.
    offset: usize,
    at: Location,
}

impl<'a> Cursor<'a> {
    fn at_start(sql: &'a str) -> Self {
        Self { sql, offset: 0, at: Location { line: 1, column: 1 } }
    }

    /// The text of tokens that stand behind all those before.
    fn text_of(&mut self, tokens: &[TokenWithSpan]) -> &'a str {
        let mut words = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
        let first = words.next();
        let last = words.next_back().or(first);
        let (Some(first), Some(last)) = (first, last) else { return self.sql };
        let from = self.go_to(first.span.start);
        let to = self.go_to(last.span.end);
        self.sql.get(from..to).unwrap_or(self.sql)
    }

    /// Goes on to a place, and answers the byte that it is.
    fn go_to(&mut self, place: Location) -> usize {
        for character in self.sql[self.offset..].chars() {
            if (self.at.line, self.at.column) >= (place.line, place.column) {
                break;
            }
            self.offset += character.len_utf8();
            match character {
                '\n' => self.at = Location { line: self.at.line + 1, column: 1 },
                _ => self.at.column += 1,
            }
        }
        self.offset
    }
}
