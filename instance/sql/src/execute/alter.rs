//! ALTER TABLE.

use chrono::{DateTime, Utc};
use kalamdb_engine::schema::{Table, TableKind, TableName};

use super::{Outcome, Scope, Statements, now};
use crate::bind::names::fold;
use crate::bind::{alter, names};
use crate::parse::{AlterAction, AlterTable};
use crate::{ErrorCode, SqlError};

impl Statements {
    /// Starts over where somebody else altered the table in between.
    pub(super) async fn alter_table(&self, written: &AlterTable, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let name = names::table_name(&written.name, scope.namespace)?;
        let begun = now();
        self.starting_over(&format!("others altered table '{name}'"), || self.alter_once(written, &name, begun, scope))
            .await
    }

    async fn alter_once(
        &self,
        written: &AlterTable,
        name: &TableName,
        begun: DateTime<Utc>,
        scope: &Scope<'_>,
    ) -> Result<Outcome, SqlError> {
        let catalog = self.engine.catalog();
        let Some(table) = catalog.tables.get(name) else {
            return match written.if_exists {
                true => Ok(Outcome::done(format!("Table '{name}' does not exist"))),
                false => Err(SqlError::not_found("table", name)),
            };
        };
        check_kind(table, written.kind)?;
        match &written.action {
            AlterAction::AddColumn { column, if_not_exists: true } if table.column(&fold(&column.name)).is_some() => {
                return Ok(Outcome::done(format!("Column '{}' of table '{name}' exists already", fold(&column.name))));
            }
            AlterAction::DropColumn { name: column, if_exists: true } if table.column(&fold(column)).is_none() => {
                return Ok(Outcome::done(format!("Column '{}' of table '{name}' does not exist", fold(column))));
            }
            _ => {}
        }
        let change = alter::bind(&written.action, table, |column| self.default_of(column, begun))?;
        let commit = |change| self.change_catalog(change, scope);
        self.engine.alter_table_by(table, &change, begun.timestamp_millis(), commit).await?;
        Ok(Outcome::done(format!("Table '{name}' altered")))
    }
}

/// Refuses a statement that says the wrong kind of table.
pub(super) fn check_kind(table: &Table, said: Option<TableKind>) -> Result<(), SqlError> {
    let Some(kind) = said.filter(|kind| *kind != table.kind) else { return Ok(()) };
    let text = format!("table '{}' is a {} table, not a {} table", table.name, table.kind.as_str(), kind.as_str());
    Err(SqlError::new(ErrorCode::InvalidValue, text))
}
