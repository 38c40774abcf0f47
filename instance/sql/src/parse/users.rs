//! Statements about users, and `EXECUTE AS USER`.

use datafusion::sql::sqlparser::ast::Ident;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::grammar::Grammar;
use super::{LogIn, Statement, UserChange};
use crate::SqlError;

impl Grammar<'_> {
    /// `CREATE|ALTER|DROP USER`.
    pub(super) fn user_statement(&mut self) -> Result<Option<Statement>, ParserError> {
        if self.words(&["CREATE", "USER"]) {
            return self.create_user().map(Some);
        }
        if self.words(&["ALTER", "USER"]) {
            return self.alter_user().map(Some);
        }
        if self.words(&["DROP", "USER"]) {
            let if_exists = self.words(&["IF", "EXISTS"]);
            let name = self.user_name()?;
            self.words(&["CASCADE"]);
            return Ok(Some(Statement::DropUser { name, if_exists }));
        }
        Ok(None)
    }

    fn create_user(&mut self) -> Result<Statement, ParserError> {
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let name = self.user_name()?;
        self.expect_words(&["WITH"])?;
        let log_in = self.log_in()?;
        let (mut role, mut email) = (None, None);
        loop {
            if role.is_none() && self.words(&["ROLE"]) {
                role = Some(self.user_name()?);
            } else if email.is_none() && self.words(&["EMAIL"]) {
                email = Some(self.parser.parse_literal_string()?);
            } else {
                return Ok(Statement::CreateUser { name, if_not_exists, log_in, role, email });
            }
        }
    }

    fn log_in(&mut self) -> Result<LogIn, ParserError> {
        if self.words(&["PASSWORD"]) {
            return self.parser.parse_literal_string().map(LogIn::Password);
        }
        if self.words(&["OAUTH"]) {
            return Ok(LogIn::OAuth);
        }
        if self.words(&["INTERNAL"]) {
            return Ok(LogIn::Internal);
        }
        let found = self.parser.peek_token();
        self.parser.expected("PASSWORD, OAUTH or INTERNAL", found)
    }

    fn alter_user(&mut self) -> Result<Statement, ParserError> {
        let name = self.user_name()?;
        self.expect_words(&["SET"])?;
        let change = if self.words(&["PASSWORD"]) {
            UserChange::Password(self.parser.parse_literal_string()?)
        } else if self.words(&["ROLE"]) {
            UserChange::Role(self.user_name()?)
        } else if self.words(&["EMAIL"]) {
            UserChange::Email(self.parser.parse_literal_string()?)
        } else {
            let found = self.parser.peek_token();
            return self.parser.expected("PASSWORD, ROLE or EMAIL", found);
        };
        Ok(Statement::AlterUser { name, change })
    }

    /// `EXECUTE AS USER 'u' ( statement )`: a statement on rows.
    pub(super) fn execute_as(&mut self) -> Result<Option<Statement>, SqlError> {
        if !self.words(&["EXECUTE", "AS"]) {
            return Ok(None);
        }
        self.words(&["USER"]);
        let user = self.user_name()?;
        self.parser.expect_token(&Token::LParen)?;
        let begins = self.parser.peek_token();
        let statement = self.statement()?;
        self.parser.expect_token(&Token::RParen)?;
        match statement {
            Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                Ok(Some(Statement::ExecuteAs { user, statement: Box::new(statement) }))
            }
            _ => Ok(self.parser.expected("SELECT, INSERT, UPDATE or DELETE", begins)?),
        }
    }

    /// Users are named bare or in quotes of either kind.
    pub(super) fn user_name(&mut self) -> Result<Ident, ParserError> {
        if let Token::SingleQuotedString(text) = self.parser.peek_token().token {
            self.parser.next_token();
            return Ok(Ident::with_quote('\'', text));
        }
        self.parser.parse_identifier()
    }
}
