//! One ALTER TABLE: from a table to its next version, and what its rows must hold to. Pure.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::{differs_in_case_alone, free_physical_name, same_but_case};
use super::types::{TypeChange, common_type, convert, convert_exactly, type_change};
use crate::EngineError;
use crate::schema::{
    AccessLevel, Column, ColumnId, DefaultValue, FormerType, SchemaVersion, SqlType, Table, TableKind,
};
use crate::value::Value;

/// Most columns of a table.
pub const MAX_COLUMNS: usize = 1000;

/// What an ALTER TABLE changes. Columns go by their names in the table that it is applied to.
#[derive(Debug, Clone, PartialEq)]
pub enum TableChange {
    /// `ADD COLUMN`.
    AddColumn(NewColumn),
    /// `DROP COLUMN`.
    DropColumn(String),
    /// `RENAME COLUMN from TO to`.
    RenameColumn {
        /// Its name.
        from: String,
        /// Its new name.
        to: String,
    },
    /// `MODIFY COLUMN`: what is none stays.
    ModifyColumn {
        /// Its name.
        name: String,
        /// Its new type.
        sql_type: SqlType,
        /// Whether NULL is allowed from now on.
        nullable: Option<bool>,
        /// Its new DEFAULT.
        default: Option<DefaultValue>,
    },
    /// `ALTER COLUMN … SET NOT NULL`, `DROP NOT NULL`.
    SetNullable {
        /// Its name.
        name: String,
        /// Whether NULL is allowed from now on.
        nullable: bool,
    },
    /// `ALTER COLUMN … SET DEFAULT`, `DROP DEFAULT`.
    SetDefault {
        /// Its name.
        name: String,
        /// What an INSERT without it stores from now on; none is NULL.
        default: Option<DefaultValue>,
    },
    /// `SET ACCESS LEVEL`.
    SetAccessLevel(AccessLevel),
}

/// A column to be added.
#[derive(Debug, Clone, PartialEq)]
pub struct NewColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// What an INSERT without it stores.
    pub default: Option<DefaultValue>,
    /// What rows that are there already read: the DEFAULT, evaluated once, or NULL.
    pub initial: Value,
}

/// What every live row must hold to before the change can be made. Columns are those of the table before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// There is no row, for it would have NULL in this new column.
    NoRows(String),
    /// The column is nowhere NULL.
    NotNull(String),
    /// Each of its values is the same in the new type.
    Fits {
        /// The column.
        column: String,
        /// Its present type.
        from: SqlType,
        /// Its new type.
        to: SqlType,
    },
}

/// A change that fits the table, as far as its schema tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Altered {
    /// The table's next version.
    pub table: Table,
    /// What its rows must hold to.
    pub rules: Vec<Rule>,
}

/// Applies a change. `versions` are all that the table ever had, which tell the physical names that are taken.
pub fn alter(
    table: &Table,
    versions: &[Arc<Table>],
    change: &TableChange,
    now_ms: i64,
) -> Result<Altered, EngineError> {
    let version = SchemaVersion(table.version.0.checked_add(1).ok_or_else(|| used_up(table, "schema versions"))?);
    let next = Table { version, updated_at: now_ms, ..table.clone() };
    let mut altered = Altered { table: next, rules: Vec::new() };
    match change {
        TableChange::AddColumn(column) => altered.add(versions, column)?,
        TableChange::DropColumn(name) => altered.drop(name)?,
        TableChange::RenameColumn { from, to } => altered.rename(from, to)?,
        TableChange::ModifyColumn { name, sql_type, nullable, default } => {
            altered.modify(versions, name, *sql_type, default)?;
            if let Some(nullable) = nullable {
                altered.set_nullable(name, *nullable)?;
            }
        }
        TableChange::SetNullable { name, nullable } => altered.set_nullable(name, *nullable)?,
        TableChange::SetDefault { name, default } => altered.column(name)?.default.clone_from(default),
        TableChange::SetAccessLevel(level) => altered.set_access_level(*level)?,
    }
    Ok(altered)
}

impl Altered {
    fn add(&mut self, versions: &[Arc<Table>], new: &NewColumn) -> Result<(), EngineError> {
        self.check_free(&new.name, &self.table.columns)?;
        if self.table.columns.len() >= MAX_COLUMNS {
            return Err(used_up(&self.table, "columns"));
        }
        if !new.nullable && new.initial.is_null() {
            self.rules.push(Rule::NoRows(new.name.clone()));
        }
        let id = self.table.next_column_id;
        self.table.next_column_id = ColumnId(id.0 + 1);
        self.table.columns.push(Column {
            physical_name: free_physical_name(&self.table, versions, &new.name),
            nullable: new.nullable,
            optional_in_files: true,
            default: new.default.clone(),
            initial: new.initial.clone(),
            since: self.table.version,
            ..Column::new(id, &new.name, new.sql_type)
        });
        Ok(())
    }

    fn drop(&mut self, name: &str) -> Result<(), EngineError> {
        let id = self.column(name)?.id;
        if self.table.primary_key.contains(&id) {
            return Err(refused(
                &self.table,
                format!(
                    "column '{name}' is part of the PRIMARY KEY and can't be dropped; copy the rows into a table \
                         with another key: INSERT INTO … SELECT …"
                ),
            ));
        }
        self.table.columns.retain(|column| column.id != id);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), EngineError> {
        let id = self.column(from)?.id;
        // Its own name may come back in another case.
        let others: Vec<_> =
            self.table.columns.iter().filter(|column| column.id != id || from == to).cloned().collect();
        self.check_free(to, &others)?;
        self.column(from)?.name = to.to_owned();
        Ok(())
    }

    fn modify(
        &mut self,
        versions: &[Arc<Table>],
        name: &str,
        to: SqlType,
        default: &Option<DefaultValue>,
    ) -> Result<(), EngineError> {
        let from = self.column(name)?.sql_type;
        self.check_type_change(name, from, to)?;
        let change = type_change(from, to);
        if change == TypeChange::Narrows {
            self.rules.push(Rule::Fits { column: name.to_owned(), from, to });
        }
        let default = match default {
            Some(default) => Some(default.clone()),
            None => self.default_as(name, from, to)?,
        };
        let version = self.table.version;
        let free_name = free_physical_name(&self.table, versions, name);
        let column = self.column(name)?;
        column.default = default;
        if from == to {
            return Ok(());
        }
        // What no row reads any more may not fit; what a row reads is looked through with the rows.
        column.initial = match change {
            TypeChange::Narrows => convert_exactly(column.initial.clone(), from, to).unwrap_or(Value::Null),
            _ => convert(column.initial.clone(), from, to)?,
        };
        column.former.push(FormerType {
            until: version,
            sql_type: from,
            stored_type: column.stored_type,
            physical_name: column.physical_name.clone(),
        });
        column.sql_type = to;
        match common_type(column.stored_type, to.in_files()) {
            Some(stored_type) => column.stored_type = stored_type,
            None => {
                column.stored_type = to.in_files();
                column.physical_name = free_name;
                column.optional_in_files = true;
            }
        }
        Ok(())
    }

    fn check_type_change(&mut self, name: &str, from: SqlType, to: SqlType) -> Result<(), EngineError> {
        let id = self.column(name)?.id;
        let is_key = self.table.primary_key.contains(&id);
        if is_key && from != to && !(from.is_integer() && to.is_integer()) {
            return Err(refused(
                &self.table,
                format!(
                    "column '{name}' is part of the PRIMARY KEY, whose type changes among SMALLINT, INT and BIGINT \
                         only; copy the rows into a table with a key of type {to}: INSERT INTO … SELECT …"
                ),
            ));
        }
        if type_change(from, to) == TypeChange::Refused {
            let table = &self.table.name;
            return Err(refused(
                &self.table,
                format!(
                    "column '{name}' of type {from} can't become {to}, for some values would be lost or guessed; say \
                         how each is to be converted: ALTER TABLE {table} ADD COLUMN new_{name} {to}, then UPDATE {table} \
                         SET new_{name} = CAST({name} AS {to}), DROP COLUMN {name}, RENAME COLUMN new_{name} TO {name}"
                ),
            ));
        }
        Ok(())
    }

    /// The column's DEFAULT in its new type.
    fn default_as(&mut self, name: &str, from: SqlType, to: SqlType) -> Result<Option<DefaultValue>, EngineError> {
        let default = match self.column(name)?.default.clone() {
            Some(DefaultValue::Literal(value)) => convert_exactly(value, from, to).map(DefaultValue::Literal),
            Some(generated) => Some(generated).filter(|default| default.fits(to)),
            None => return Ok(None),
        };
        let misfit = || {
            let text = format!(
                "the DEFAULT of column '{name}' does not fit the type {to}; drop it first: ALTER COLUMN \
                                {name} DROP DEFAULT"
            );
            refused(&self.table, text)
        };
        default.map(Some).ok_or_else(misfit)
    }

    fn set_nullable(&mut self, name: &str, nullable: bool) -> Result<(), EngineError> {
        let id = self.column(name)?.id;
        if nullable && self.table.primary_key.contains(&id) {
            let text = format!("column '{name}' is part of the PRIMARY KEY, which is never NULL");
            return Err(refused(&self.table, text));
        }
        let column = self.column(name)?;
        if column.nullable && !nullable {
            // Rows that were deleted since may still lie in files, with NULL.
            column.optional_in_files = true;
            self.rules.push(Rule::NotNull(name.to_owned()));
        }
        self.column(name)?.nullable = nullable;
        Ok(())
    }

    fn set_access_level(&mut self, level: AccessLevel) -> Result<(), EngineError> {
        if self.table.kind != TableKind::Shared {
            let text = "an access level is for SHARED tables; rows of other tables belong to one user each";
            return Err(refused(&self.table, text.into()));
        }
        self.table.access_level = level;
        Ok(())
    }

    fn column(&mut self, name: &str) -> Result<&mut Column, EngineError> {
        let missing = format!("{}.{name}", self.table.name);
        let found = self.table.columns.iter_mut().find(|column| column.name == name);
        found.ok_or(EngineError::NotFound { what: "column", name: missing })
    }

    fn check_free(&self, name: &str, others: &[Column]) -> Result<(), EngineError> {
        if name.is_empty() || name.starts_with('_') {
            let text =
                format!("column '{name}': names are not empty, and those that begin with '_' are kept by the database");
            return Err(refused(&self.table, text));
        }
        match same_but_case(others, name) {
            Some(found) if found.name == name => {
                Err(EngineError::AlreadyExists { what: "column", name: format!("{}.{name}", self.table.name) })
            }
            Some(found) => Err(refused(&self.table, differs_in_case_alone(name, &found.name))),
            None => Ok(()),
        }
    }
}

fn refused(table: &Table, reason: String) -> EngineError {
    EngineError::Invalid(format!("table {}: {reason}", table.name))
}

fn used_up(table: &Table, what: &str) -> EngineError {
    refused(table, format!("it has as many {what} as a table can have"))
}
