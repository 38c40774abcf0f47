//! `ALTER TABLE`.

use datafusion::sql::sqlparser::ast::{ColumnDef, DataType, Expr, Ident, ObjectName};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::Token;
use kalamdb_engine::schema::TableKind;

use super::grammar::Grammar;

/// `ALTER [USER|SHARED|STREAM] TABLE [IF EXISTS] t …`, as written.
#[derive(Debug, Clone, PartialEq)]
pub struct AlterTable {
    /// The kind that it must be of.
    pub kind: Option<TableKind>,
    /// A missing table is no error.
    pub if_exists: bool,
    /// Its name.
    pub name: ObjectName,
    /// What to change.
    pub action: AlterAction,
}

/// What an `ALTER TABLE` changes.
#[derive(Debug, Clone, PartialEq)]
pub enum AlterAction {
    /// `ADD [COLUMN] [IF NOT EXISTS] c type …`.
    AddColumn {
        /// The column.
        column: ColumnDef,
        /// An existing one of that name is no error.
        if_not_exists: bool,
    },
    /// `DROP [COLUMN] [IF EXISTS] c`.
    DropColumn {
        /// Its name.
        name: Ident,
        /// A missing one is no error.
        if_exists: bool,
    },
    /// `RENAME [COLUMN] a TO b`.
    RenameColumn {
        /// Its name.
        from: Ident,
        /// Its new name.
        to: Ident,
    },
    /// `MODIFY [COLUMN] c type [NOT NULL|NULL] [DEFAULT d]`.
    ModifyColumn(ColumnDef),
    /// `ALTER [COLUMN] c [SET DATA] TYPE type`.
    SetType(Ident, DataType),
    /// `ALTER [COLUMN] c SET NOT NULL`.
    SetNotNull(Ident),
    /// `ALTER [COLUMN] c DROP NOT NULL`.
    DropNotNull(Ident),
    /// `ALTER [COLUMN] c SET DEFAULT d`.
    SetDefault(Ident, Box<Expr>),
    /// `ALTER [COLUMN] c DROP DEFAULT`.
    DropDefault(Ident),
    /// `SET ACCESS LEVEL x`.
    SetAccessLevel(String),
}

impl Grammar<'_> {
    /// What follows `ALTER [kind] TABLE`.
    pub(super) fn alter_table(&mut self, kind: Option<TableKind>) -> Result<AlterTable, ParserError> {
        let if_exists = self.words(&["IF", "EXISTS"]);
        let name = self.parser.parse_object_name(false)?;
        Ok(AlterTable { kind, if_exists, name, action: self.alter_action()? })
    }

    fn alter_action(&mut self) -> Result<AlterAction, ParserError> {
        if self.words(&["ADD"]) {
            self.words(&["COLUMN"]);
            let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
            return Ok(AlterAction::AddColumn { column: self.parser.parse_column_def()?, if_not_exists });
        }
        if self.words(&["DROP"]) {
            self.words(&["COLUMN"]);
            let if_exists = self.words(&["IF", "EXISTS"]);
            return Ok(AlterAction::DropColumn { name: self.name()?, if_exists });
        }
        if self.words(&["RENAME"]) {
            self.words(&["COLUMN"]);
            let from = self.name()?;
            self.expect_words(&["TO"])?;
            return Ok(AlterAction::RenameColumn { from, to: self.name()? });
        }
        if self.words(&["MODIFY"]) {
            self.words(&["COLUMN"]);
            return Ok(AlterAction::ModifyColumn(self.parser.parse_column_def()?));
        }
        if self.words(&["ALTER"]) {
            self.words(&["COLUMN"]);
            let name = self.name()?;
            return self.alter_column(name);
        }
        if self.words(&["SET", "ACCESS", "LEVEL"]) {
            return Ok(AlterAction::SetAccessLevel(self.access_level()?));
        }
        let found = self.parser.peek_token();
        self.parser.expected("ADD, DROP, RENAME, MODIFY or ALTER COLUMN, or SET ACCESS LEVEL", found)
    }

    fn alter_column(&mut self, name: Ident) -> Result<AlterAction, ParserError> {
        if self.words(&["SET", "NOT", "NULL"]) {
            return Ok(AlterAction::SetNotNull(name));
        }
        if self.words(&["DROP", "NOT", "NULL"]) {
            return Ok(AlterAction::DropNotNull(name));
        }
        if self.words(&["SET", "DEFAULT"]) {
            return Ok(AlterAction::SetDefault(name, Box::new(self.parser.parse_expr()?)));
        }
        if self.words(&["DROP", "DEFAULT"]) {
            return Ok(AlterAction::DropDefault(name));
        }
        if self.words(&["SET", "DATA", "TYPE"]) || self.words(&["TYPE"]) {
            return Ok(AlterAction::SetType(name, self.parser.parse_data_type()?));
        }
        let found = self.parser.peek_token();
        self.parser.expected("SET or DROP with NOT NULL or DEFAULT, or TYPE", found)
    }

    /// Bare or quoted.
    fn access_level(&mut self) -> Result<String, ParserError> {
        let found = self.parser.next_token();
        match found.token {
            Token::Word(word) => Ok(word.value),
            Token::SingleQuotedString(text) => Ok(text),
            _ => self.parser.expected("an access level", found),
        }
    }
}
