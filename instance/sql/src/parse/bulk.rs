//! Long INSERTs of literal rows: the rows are read straight from the text, and only what stands around them by `sqlparser`.
//!
//! Of a thousand rows the parser would make tens of thousands of tokens first. What comes out is the same statement, and whatever is not
//! plainly a row of literals is left to the parser, with its errors.

use datafusion::sql::sqlparser::ast::{Expr, Ident, SetExpr, UnaryOperator, Value};

use super::Statement;
use super::batch::{ParsedStatement, parse_in_full};

/// Shorter texts are not worth a look.
const LONG: usize = 1024;
/// What stands for the rows while the rest is parsed.
const PLACE: &str = "VALUES (NULL)";

/// The one statement of the text, if it is an INSERT of many literal rows.
pub fn parse(sql: &str) -> Option<ParsedStatement> {
    if sql.len() < LONG {
        return None;
    }
    let text = sql.trim();
    let text = text.strip_suffix(';').unwrap_or(text).trim_end();
    if text.ends_with(';') {
        return None;
    }
    let head = head(text)?;
    let mut scanner = Scanner { rest: &text[head.len() + "VALUES".len()..] };
    let rows = scanner.rows()?;
    // A comment is no part of a statement's text.
    if scanner.rest.contains("--") || scanner.rest.contains("/*") {
        return None;
    }
    let around = format!("{head}{PLACE}{}", scanner.rest);
    let mut parsed = parse_in_full(&around).ok()?;
    let (Some(ParsedStatement { statement: Statement::Insert(mut insert), .. }), None) = (parsed.pop(), parsed.pop())
    else {
        return None;
    };
    let SetExpr::Values(values) = insert.source.as_mut()?.body.as_mut() else { return None };
    let [place] = values.rows.as_slice() else { return None };
    let place = place.clone();
    values.rows = rows
        .into_iter()
        .map(|content| {
            let mut row = place.clone();
            row.content = content;
            row
        })
        .collect();
    Some(ParsedStatement { statement: Statement::Insert(insert), text: text.to_owned() })
}

/// What stands before the word VALUES of an INSERT. Quotes, comments and parameters before it are left to the parser.
fn head(text: &str) -> Option<&str> {
    let starts = text.get(.."INSERT".len())?.eq_ignore_ascii_case("INSERT");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.,() \t\r\n".contains(&byte);
    let end = text.bytes().position(|byte| !is_plain(byte)).unwrap_or(text.len());
    let plain = &text.as_bytes()[..end];
    let word = plain.windows("VALUES".len()).position(|word| word.eq_ignore_ascii_case(b"VALUES"))?;
    let is_apart = |byte: Option<&u8>| byte.is_some_and(|byte| !(byte.is_ascii_alphanumeric() || b"_.".contains(byte)));
    let before = word.checked_sub(1).and_then(|at| plain.get(at));
    (starts && is_apart(before) && is_apart(text.as_bytes().get(word + "VALUES".len()))).then(|| &text[..word])
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    /// All rows; none where one of them is no row of literals.
    fn rows(&mut self) -> Option<Vec<Vec<Expr>>> {
        let mut rows: Vec<Vec<Expr>> = Vec::new();
        loop {
            rows.push(self.row(rows.last().map_or(0, Vec::len))?);
            self.space();
            if !self.takes(',') {
                return Some(rows);
            }
        }
    }

    fn row(&mut self, width: usize) -> Option<Vec<Expr>> {
        self.space();
        self.takes('(').then_some(())?;
        let mut row = Vec::with_capacity(width);
        loop {
            self.space();
            row.push(self.literal()?);
            self.space();
            if !self.takes(',') {
                return self.takes(')').then_some(row);
            }
        }
    }

    fn literal(&mut self) -> Option<Expr> {
        match self.rest.as_bytes().first()? {
            b'\'' => self.text().map(value),
            b'-' => {
                self.rest = &self.rest[1..];
                let expr = Box::new(self.number().map(value)?);
                Some(Expr::UnaryOp { op: UnaryOperator::Minus, expr })
            }
            b'0'..=b'9' => self.number().map(value),
            b'$' => {
                let digits = digits(&self.rest[1..]);
                (digits > 0).then(|| value(Value::Placeholder(self.take(1 + digits).to_owned())))
            }
            _ => self.word(),
        }
    }

    fn text(&mut self) -> Option<Value> {
        let mut text = String::new();
        let mut rest = &self.rest[1..];
        loop {
            let end = rest.find('\'')?;
            text.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('\'') {
                Some(after) => {
                    text.push('\'');
                    rest = after;
                }
                None => break,
            }
        }
        self.rest = rest;
        Some(Value::SingleQuotedString(text))
    }

    /// Digits, and a fraction; whatever else a number can be is left to the parser.
    fn number(&mut self) -> Option<Value> {
        let whole = digits(self.rest);
        let fraction = self.rest[whole..].strip_prefix('.').map(digits);
        if whole == 0 || fraction == Some(0) {
            return None;
        }
        let number = self.take(whole + fraction.map_or(0, |digits| 1 + digits));
        Some(Value::Number(number.to_owned(), false))
    }

    fn word(&mut self) -> Option<Expr> {
        let length = self.rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let word = self.take(length);
        Some(match word.to_ascii_uppercase().as_str() {
            "NULL" => value(Value::Null),
            "TRUE" => value(Value::Boolean(true)),
            "FALSE" => value(Value::Boolean(false)),
            "DEFAULT" => Expr::Identifier(Ident::new(word)),
            _ => return None,
        })
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn takes(&mut self, mark: char) -> bool {
        let after = self.rest.strip_prefix(mark);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }
}

fn value(value: Value) -> Expr {
    Expr::Value(value.with_empty_span())
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(parsed: &[ParsedStatement]) -> Vec<(String, String)> {
        let statement = |parsed: &ParsedStatement| match &parsed.statement {
            Statement::Insert(insert) => insert.to_string(),
            other => format!("{other:?}"),
        };
        parsed.iter().map(|parsed| (statement(parsed), parsed.text.clone())).collect()
    }

    /// What is read here is what the parser reads; answers whether it was read here.
    fn check(sql: &str) -> bool {
        let Some(bulk) = parse(sql) else { return false };
        let full = parse_in_full(sql).unwrap_or_else(|error| panic!("{error:?}"));
        // Of the long text its end says which case it is.
        assert!(shown(&[bulk]) == shown(&full), "…{}", sql.chars().skip(LONG).collect::<String>());
        true
    }

    fn long(row: &str) -> String {
        vec![row; LONG / row.len() + 1].join(", ")
    }

    #[test]
    fn rows_of_literals_are_read_as_the_parser_reads_them() {
        for row in ["(1, -2, 3.5, 'it''s', NULL, true, $1, default)", "( 'a\n,)(' ,\t'' )", "('é''', '--', '/*', ';')"]
        {
            assert!(check(&format!("INSERT INTO a.t (b, c) VALUES {}", long(row))), "{row}");
            assert!(check(&format!("  insert into t values{} ON CONFLICT (b) DO NOTHING ; ", long(row))), "{row}");
            assert!(check(&format!("INSERT INTO t VALUES {} RETURNING b, 'x;y'", long(row))), "{row}");
        }
    }

    #[test]
    fn all_else_is_left_to_the_parser() {
        let rows = long("(1, 'a')");
        for sql in [
            format!("INSERT INTO t VALUES {rows}, (1 + 1, 'a')"),
            format!("INSERT INTO t VALUES {rows}, (now(), 'a')"),
            format!("INSERT INTO t VALUES {rows}, (1e5, 'a')"),
            format!("INSERT INTO t VALUES {rows}, (1, 'a'::TEXT)"),
            format!("INSERT INTO t VALUES {rows}, (1, 'a' 'b')"),
            format!("INSERT INTO t VALUES {rows}, (1, x'00')"),
            format!("INSERT INTO t VALUES {rows}, (1, 'a"),
            format!("INSERT INTO t VALUES {rows}, (1, 'a',)"),
            format!("INSERT INTO t VALUES {rows}; INSERT INTO t VALUES (1, 'a')"),
            format!("INSERT INTO t VALUES {rows};;"),
            format!("INSERT INTO t VALUES {rows} -- no more"),
            format!("INSERT INTO \"values (\" VALUES {rows}"),
            format!("INSERT INTO t (values) VALUES {rows}"),
            format!("SELECT * FROM (VALUES {rows}) AS t"),
        ] {
            assert!(!check(&sql), "read here: …{}", sql.chars().skip(LONG).collect::<String>());
        }
    }

    proptest! {
        #[test]
        fn no_text_is_read_otherwise_than_by_the_parser(tail in "[-+(),.;:'\"$ a-zA-Z0-9_/*é\n]{0,40}") {
            let sql = format!("INSERT INTO t (a, b) VALUES {}, (1, '{tail}", long("(1, 'a')"));
            if parse(&sql).is_some() {
                check(&sql);
            }
        }
    }
}
