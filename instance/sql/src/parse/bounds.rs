//! Bounds on what a text may cost before it is a statement.
//!
//! `sqlparser` bounds how deep it descends, but not how often: where it tries one reading after another, a text that nests a few dozen times
//! and can't be read takes longer than anybody lives, and a chain of operators makes a tree as deep as it is long, which whoever walks it
//! needs a stack for. Both would let one client stop the process. How often is counted by the dialect.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// Stack of threads that read statements and walk them, in bytes: enough for the depths that are allowed here.
pub const STACK_BYTES: usize = 16 << 20;
/// Operators, joins and set operations that may follow one another without a comma.
const LONGEST_CHAIN: usize = 2000;
/// Refuses a chain that makes too deep a tree.
pub(super) fn check_chains(tokens: &[TokenWithSpan]) -> Result<(), ParserError> {
    let mut links = 0;
    for token in tokens {
        match &token.token {
            Token::Comma => links = 0,
            token if is_link(token) => links += 1,
            _ => {}
        }
        if links > LONGEST_CHAIN {
            let at = token.span.start;
            let text =
                format!("more than {LONGEST_CHAIN} operators follow one another; use IN (…) or several statements{at}");
            return Err(ParserError::ParserError(text));
        }
    }
    Ok(())
}

/// Whether the token makes the tree one deeper, wherever it stands.
fn is_link(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::XOR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::IN
                | Keyword::LIKE
                | Keyword::BETWEEN
                | Keyword::COLLATE
                | Keyword::JOIN
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
                | Keyword::MINUS
        ),
        Token::Whitespace(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::Placeholder(_)
        | Token::RParen
        | Token::RBracket
        | Token::RBrace => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crate::parse::parse_batch;

    #[test]
    fn texts_that_nest_and_can_not_be_read_are_given_up_soon() {
        let nests = [
            "CASE WHEN TRUE THEN ",
            "CASE WHEN ",
            "CAST(",
            "TRY_CAST(",
            "ARRAY[",
            "INTERVAL ",
            "POSITION(",
            "SUBSTRING(",
            "TRIM(",
            "(",
            "{'a': ",
            "EXISTS (SELECT ",
            "1 IN (",
            "f(",
            "EXTRACT(YEAR FROM ",
            "(SELECT * FROM ",
            "sum(1) OVER (ORDER BY ",
            "NOT ",
            "- ",
            "STRUCT(",
            "MAP {",
        ];
        let read = move || {
            for nest in nests {
                for depth in [10, 30, 60, 120] {
                    let begun = Instant::now();
                    for (open, close) in
                        [("SELECT ", ""), ("SELECT ", "1 1"), ("SELECT * FROM ", ""), ("SELECT * FROM ", "a a a")]
                    {
                        // Whether it can be read after all, such as a column named `NOT`, is no matter here.
                        let _ = parse_batch(&format!("{open}{}{close}", nest.repeat(depth)));
                    }
                    assert!(begun.elapsed().as_secs() < 60, "{depth} times {nest}");
                }
            }
        };
        std::thread::Builder::new().stack_size(super::STACK_BYTES).spawn(read).unwrap().join().unwrap();
    }

    #[test]
    fn long_lists_are_read_and_long_chains_are_not() {
        let rows = vec!["(1 + 2, 'a' || 'b', -3)"; 3000].join(", ");
        assert!(parse_batch(&format!("INSERT INTO t VALUES {rows}")).is_ok());
        let error = parse_batch(&format!("SELECT 1{}", " + 1".repeat(3000))).unwrap_err();
        assert!(error.message.contains("more than 2000 operators"), "{error}");
    }
}
