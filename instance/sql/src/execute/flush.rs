//! STORAGE FLUSH: begins jobs and names them; `system.jobs` tells how they end.

use datafusion::sql::sqlparser::ast::Ident;
use kalamdb_api::flush::FlushReason;
use kalamdb_engine::schema::{TableKind, TableName};
use uuid::Uuid;

use super::{Outcome, Scope, Statements};
use crate::authorize;
use crate::bind::names;
use crate::{ErrorCode, SqlError};

impl Statements {
    pub(super) async fn flush_table(&self, name: &TableName) -> Result<Outcome, SqlError> {
        if names::table(&self.engine.catalog(), name)?.kind == TableKind::Stream {
            let text = format!("table '{name}' is a STREAM table: its rows expire and are never flushed");
            return Err(SqlError::new(ErrorCode::InvalidValue, text));
        }
        if !self.engine.unflushed().iter().any(|unflushed| unflushed.table.name == *name) {
            return Ok(Outcome::done(format!("Nothing to flush in table '{name}'")));
        }
        let id = self.start_flush(name).await?;
        Ok(Outcome::done(format!("Flush of table '{name}' started. Job ID: {id}")))
    }

    pub(super) async fn flush_all(&self, namespace: Option<&Ident>, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let namespace = namespace.map(names::fold);
        if let Some(namespace) = &namespace {
            names::check_namespace(&self.engine.catalog(), namespace)?;
        }
        let is_meant = |name: &TableName| namespace.as_ref().is_none_or(|namespace| name.namespace == *namespace);
        let mut ids = Vec::new();
        for unflushed in self.engine.unflushed() {
            let name = &unflushed.table.name;
            if is_meant(name) && authorize::may_write(scope.identity.role, &unflushed.table) {
                ids.push(self.start_flush(name).await?);
            }
        }
        if ids.is_empty() {
            return Ok(Outcome::done("Nothing to flush"));
        }
        Ok(Outcome::done(format!("Flush of {} table(s) started. Job IDs: [{}]", ids.len(), ids.join(", "))))
    }

    async fn start_flush(&self, name: &TableName) -> Result<String, SqlError> {
        let id = Uuid::now_v7().to_string();
        self.engine.start_flush(&id, name, FlushReason::Statement).await?;
        Ok(id)
    }
}
