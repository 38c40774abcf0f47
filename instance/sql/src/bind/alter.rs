//! `ALTER TABLE` as written, to the change that it makes.

use datafusion::sql::sqlparser::ast::{ColumnDef, ColumnOption};
use kalamdb_engine::evolution::{NewColumn, TableChange};
use kalamdb_engine::schema::{Column, Table};
use kalamdb_engine::value::Value;

use super::names::fold;
use super::table::BoundColumn;
use super::{sql_type, table};
use crate::parse::AlterAction;
use crate::{ErrorCode, SqlError};

/// The change; `initial` gives what a new column's DEFAULT is worth now, which rows that are there already will read.
pub fn bind(
    action: &AlterAction,
    altered: &Table,
    initial: impl FnOnce(&Column) -> Value,
) -> Result<TableChange, SqlError> {
    Ok(match action {
        AlterAction::AddColumn { column, .. } => {
            let column = bind_column(column, altered)?;
            TableChange::AddColumn(NewColumn {
                initial: initial(&column),
                name: column.name,
                sql_type: column.sql_type,
                nullable: column.nullable,
                default: column.default,
            })
        }
        AlterAction::DropColumn { name, .. } => TableChange::DropColumn(fold(name)),
        AlterAction::RenameColumn { from, to } => TableChange::RenameColumn { from: fold(from), to: fold(to) },
        AlterAction::ModifyColumn(definition) => {
            let column = bind_column(definition, altered)?;
            let says = |wanted: &ColumnOption| definition.options.iter().any(|written| written.option == *wanted);
            let nullable = match (says(&ColumnOption::NotNull), says(&ColumnOption::Null)) {
                (false, false) => None,
                _ => Some(column.nullable),
            };
            let (name, default) = (column.name, column.default);
            TableChange::ModifyColumn { name, sql_type: column.sql_type, nullable, default }
        }
        AlterAction::SetType(name, written) => TableChange::ModifyColumn {
            name: fold(name),
            sql_type: sql_type::bind(written)?,
            nullable: None,
            default: None,
        },
        AlterAction::SetNotNull(name) => TableChange::SetNullable { name: fold(name), nullable: false },
        AlterAction::DropNotNull(name) => TableChange::SetNullable { name: fold(name), nullable: true },
        AlterAction::SetDefault(name, written) => {
            let name = fold(name);
            let column = altered
                .column(&name)
                .ok_or_else(|| SqlError::not_found("column", format_args!("{}.{name}", altered.name)))?;
            let default = Some(table::bind_default(written, column)?);
            table::check_default(&Column { default: default.clone(), ..column.clone() })?;
            TableChange::SetDefault { name, default }
        }
        AlterAction::DropDefault(name) => TableChange::SetDefault { name: fold(name), default: None },
        AlterAction::SetAccessLevel(level) => TableChange::SetAccessLevel(table::access_level_of(level)?),
    })
}

fn bind_column(definition: &ColumnDef, altered: &Table) -> Result<Column, SqlError> {
    let BoundColumn { column, is_key, .. } = table::bind_column(definition, altered.next_column_id)?;
    if is_key {
        let text = format!(
            "column '{}': the PRIMARY KEY of table '{}' is fixed; create a table with the key that is wanted, and copy the rows",
            column.name, altered.name
        );
        return Err(SqlError::new(ErrorCode::InvalidValue, text));
    }
    Ok(column)
}
