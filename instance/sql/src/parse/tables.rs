//! `CREATE TABLE`.

use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;
use kalamdb_engine::schema::TableKind;

use super::CreateTable;
use super::grammar::Grammar;

impl Grammar<'_> {
    /// What follows `CREATE [kind] TABLE`.
    pub(super) fn create_table(&mut self, kind: Option<TableKind>) -> Result<CreateTable, ParserError> {
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let name = self.parser.parse_object_name(false)?;
        let (mut columns, mut primary_key) = (Vec::new(), None);
        self.parser.expect_token(&Token::LParen)?;
        loop {
            if self.words(&["PRIMARY", "KEY"]) {
                if primary_key.is_some() {
                    return Err(ParserError::ParserError("a table has one PRIMARY KEY".into()));
                }
                self.parser.expect_token(&Token::LParen)?;
                primary_key = Some(self.parser.parse_comma_separated(Parser::parse_identifier)?);
                self.parser.expect_token(&Token::RParen)?;
            } else if self.peeks_constraint() {
                let found = self.parser.peek_token();
                return self.parser.expected("a column or PRIMARY KEY (…), which is a table's only constraint", found);
            } else {
                columns.push(self.parser.parse_column_def()?);
            }
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.parser.expect_token(&Token::RParen)?;
        let options = if self.words(&["WITH"]) { self.options()? } else { Vec::new() };
        Ok(CreateTable { kind, if_not_exists, name, columns, primary_key, options })
    }

    /// Whether a constraint comes next that tables do not have. Its words are names of columns elsewhere.
    fn peeks_constraint(&self) -> bool {
        const UNNAMED: [&[&str]; 4] = [&["PRIMARY", "KEY"], &["FOREIGN", "KEY"], &["UNIQUE"], &["CHECK"]];
        let begins_at = |at: usize| {
            let has_list = |words: &[&str]| self.parser.peek_nth_token_ref(at + words.len()).token == Token::LParen;
            UNNAMED.iter().any(|words| self.peek_words_at(at, words) && has_list(words))
        };
        begins_at(0) || (self.peek_words_at(0, &["CONSTRAINT"]) && begins_at(2))
    }
}
