//! Statements about storages, and about what is stored: jobs are begun here too.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use datafusion::sql::sqlparser::parser::ParserError;

use super::Statement;
use super::grammar::Grammar;

/// `CREATE STORAGE id …`, as written.
#[derive(Clone, PartialEq)]
pub struct CreateStorage {
    /// Its id.
    pub id: Ident,
    /// An existing one is no error.
    pub if_not_exists: bool,
    /// `filesystem` or `s3`.
    pub kind: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// A folder, or `s3://bucket/prefix`.
    pub path: String,
    /// A JSON object; it may hold a secret.
    pub config: Option<String>,
}

impl std::fmt::Debug for CreateStorage {
    /// Secrets never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CreateStorage({}, {}, {})", self.id, self.kind, self.path)
    }
}

/// What `ALTER STORAGE … SET` sets.
#[derive(Debug, Clone, PartialEq)]
pub enum StorageChange {
    /// Another name.
    Name(String),
    /// Another description.
    Description(String),
}

impl Grammar<'_> {
    /// `CREATE|ALTER|DROP STORAGE`, `STORAGE CHECK|FLUSH|COMPACT`.
    pub(super) fn storage_statement(&mut self) -> Result<Option<Statement>, ParserError> {
        if self.words(&["CREATE", "STORAGE"]) {
            return self.create_storage().map(|storage| Some(Statement::CreateStorage(Box::new(storage))));
        }
        if self.words(&["ALTER", "STORAGE"]) {
            return self.alter_storage().map(Some);
        }
        if self.words(&["DROP", "STORAGE"]) {
            let if_exists = self.words(&["IF", "EXISTS"]);
            return Ok(Some(Statement::DropStorage { id: self.user_name()?, if_exists }));
        }
        if self.words(&["STORAGE", "CHECK"]) {
            let id = self.user_name()?;
            return Ok(Some(Statement::CheckStorage { id, extended: self.words(&["EXTENDED"]) }));
        }
        if self.words(&["STORAGE", "FLUSH"]) {
            let (table, namespace) = self.table_or_all()?;
            return Ok(Some(table.map_or(Statement::FlushAll(namespace), Statement::FlushTable)));
        }
        if self.words(&["STORAGE", "COMPACT"]) {
            let (table, namespace) = self.table_or_all()?;
            return Ok(Some(table.map_or(Statement::CompactAll(namespace), Statement::CompactTable)));
        }
        Ok(None)
    }

    fn create_storage(&mut self) -> Result<CreateStorage, ParserError> {
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let id = self.user_name()?;
        let (mut kind, mut name, mut description, mut path, mut config) = (None, None, None, None, None);
        loop {
            if kind.is_none() && self.words(&["TYPE"]) {
                kind = Some(self.user_name()?.value);
            } else if name.is_none() && self.words(&["NAME"]) {
                name = Some(self.parser.parse_literal_string()?);
            } else if description.is_none() && self.words(&["DESCRIPTION"]) {
                description = Some(self.parser.parse_literal_string()?);
            } else if path.is_none() && (self.words(&["PATH"]) || self.words(&["BASE_DIRECTORY"])) {
                path = Some(self.parser.parse_literal_string()?);
            } else if config.is_none() && self.words(&["CONFIG"]) {
                config = Some(self.parser.parse_literal_string()?);
            } else {
                break;
            }
        }
        let (Some(kind), Some(path)) = (kind, path) else {
            let found = self.parser.peek_token();
            return self.parser.expected("TYPE filesystem|s3, NAME '…' and PATH '…'", found);
        };
        let name = name.unwrap_or_else(|| id.value.clone());
        Ok(CreateStorage { id, if_not_exists, kind, name, description, path, config })
    }

    fn alter_storage(&mut self) -> Result<Statement, ParserError> {
        let id = self.user_name()?;
        self.expect_words(&["SET"])?;
        let change = if self.words(&["NAME"]) {
            StorageChange::Name(self.parser.parse_literal_string()?)
        } else if self.words(&["DESCRIPTION"]) {
            StorageChange::Description(self.parser.parse_literal_string()?)
        } else {
            let found = self.parser.peek_token();
            return self.parser.expected("NAME or DESCRIPTION", found);
        };
        Ok(Statement::AlterStorage { id, change })
    }

    /// `TABLE t`, or `ALL [IN n]`: then no table.
    fn table_or_all(&mut self) -> Result<(Option<ObjectName>, Option<Ident>), ParserError> {
        if self.words(&["ALL"]) {
            let namespace = if self.words(&["IN"]) { Some(self.name()?) } else { None };
            return Ok((None, namespace));
        }
        self.expect_words(&["TABLE"])?;
        Ok((Some(self.parser.parse_object_name(false)?), None))
    }
}
