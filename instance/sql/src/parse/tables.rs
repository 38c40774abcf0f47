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
}
