//! Bounds on what a text may cost before it is a statement.
//!
//! `sqlparser` bounds how deep it descends, but not how often: where it tries one reading after another, a text that nests a few dozen times
//! and can't be read takes longer than anybody lives, and a chain of operators makes a tree as deep as it is long, which whoever walks it
//! needs a stack for. Both would let one client stop the process.

use std::any::TypeId;
use std::cell::Cell;

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// Stack of threads that read statements and walk them, in bytes: enough for the depths that are allowed here.
pub const STACK_BYTES: usize = 16 << 20;
/// Operators, joins and set operations that may follow one another without a comma.
const LONGEST_CHAIN: usize = 2000;
/// Expressions that are begun at most, tries included: so many, and so many more for each token.
const TRIES: u64 = 20_000;
const TRIES_PER_TOKEN: u64 = 10;

/// The generic dialect, for the reading of one statement: it gives up after so many tries.
#[derive(Debug)]
pub(super) struct BoundedDialect {
    left: Cell<u64>,
}

impl BoundedDialect {
    pub(super) fn for_tokens(tokens: usize) -> Self {
        Self { left: Cell::new(TRIES + TRIES_PER_TOKEN * tokens as u64) }
    }
}

/// What the generic dialect changes of the defaults; all of it answers yes or no.
macro_rules! as_the_generic_dialect {
    ($($method:ident)*) => {
        $(fn $method(&self) -> bool {
            GenericDialect.$method()
        })*
    };
}

impl Dialect for BoundedDialect {
    /// To the parser it is the generic one.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn parse_prefix(&self, _: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                None
            }
            None => Some(Err(ParserError::ParserError("the statement nests too deeply to be read".into()))),
        }
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GenericDialect.is_identifier_part(ch)
    }

    as_the_generic_dialect! {
        supports_unicode_string_literal supports_partition_by_after_order_by supports_array_join_syntax
        supports_group_by_expr supports_group_by_with_modifier supports_left_associative_joins_without_parens
        supports_connect_by supports_match_recognize supports_pipe_operator supports_start_transaction_modifier
        supports_window_function_null_treatment_arg supports_dictionary_syntax
        supports_window_clause_named_window_reference supports_parenthesized_set_variables
        supports_select_wildcard_except support_map_literal_syntax allow_extract_custom allow_extract_single_quotes
        supports_extract_comma_syntax supports_create_view_comment_syntax supports_parens_around_table_factor
        supports_values_as_table_factor supports_create_index_with_clause supports_explain_with_utility_options
        supports_limit_comma supports_update_order_by supports_from_first_select supports_projection_trailing_commas
        supports_asc_desc_in_column_definition supports_try_convert supports_bitwise_shift_operators
        supports_comment_on supports_load_extension supports_named_fn_args_with_assignment_operator
        supports_struct_literal supports_empty_projections supports_nested_comments supports_multiline_comment_hints
        supports_user_host_grantee supports_string_escape_constant supports_array_typedef_with_brackets
        supports_match_against supports_set_names supports_comma_separated_set_assignments
        supports_filter_during_aggregation supports_select_wildcard_exclude supports_data_type_signed_suffix
        supports_interval_options supports_quote_delimited_string supports_select_wildcard_replace
        supports_select_wildcard_ilike supports_select_wildcard_rename supports_optimize_table supports_install
        supports_detach supports_prewhere supports_with_fill supports_limit_by supports_interpolate supports_settings
        supports_select_format supports_comment_optimizer_hint supports_constraint_keyword_without_name
        supports_key_column_option supports_comma_separated_trim supports_cte_without_as
        supports_select_item_multi_column_alias supports_xml_expressions
    }
}

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
                        parse_batch(&format!("{open}{}{close}", nest.repeat(depth))).unwrap_err();
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
