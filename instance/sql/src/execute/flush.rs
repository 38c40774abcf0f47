//! STORAGE FLUSH and STORAGE COMPACT: begin jobs and name them; `system.jobs` tells how they end.

use datafusion::sql::sqlparser::ast::Ident;
use kalamdb_api::flush::FlushReason;
use kalamdb_engine::schema::{Table, TableKind, TableName};
use uuid::Uuid;

use super::{Outcome, Scope, Statements};
use crate::authorize;
use crate::bind::names;
use crate::{ErrorCode, SqlError};

impl Statements {
    pub(crate) async fn flush_table(&self, name: &TableName) -> Result<Outcome, SqlError> {
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

    pub(crate) async fn flush_all(&self, namespace: Option<&Ident>, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let is_meant = self.tables_meant(namespace, scope)?;
        let mut ids = Vec::new();
        for unflushed in self.engine.unflushed() {
            if is_meant(&unflushed.table) {
                ids.push(self.start_flush(&unflushed.table.name).await?);
            }
        }
        if ids.is_empty() {
            return Ok(Outcome::done("Nothing to flush"));
        }
        Ok(Outcome::done(format!("Flush of {} table(s) started. Job IDs: [{}]", ids.len(), ids.join(", "))))
    }

    pub(crate) async fn compact_table(&self, name: &TableName) -> Result<Outcome, SqlError> {
        let kind = names::table(&self.engine.catalog(), name)?.kind;
        if kind != TableKind::Stream && !self.engine.is_compactable(name).await? {
            return Ok(Outcome::done(format!("Nothing to compact in table '{name}'")));
        }
        let id = self.start_compaction(name).await?;
        Ok(Outcome::done(format!("Compaction of table '{name}' started. Job ID: {id}")))
    }

    pub(crate) async fn compact_all(&self, namespace: Option<&Ident>, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let is_meant = self.tables_meant(namespace, scope)?;
        let mut ids = Vec::new();
        for table in self.engine.catalog().tables.values() {
            if table.kind != TableKind::Stream && is_meant(table) && self.engine.is_compactable(&table.name).await? {
                ids.push(self.start_compaction(&table.name).await?);
            }
        }
        if ids.is_empty() {
            return Ok(Outcome::done("Nothing to compact"));
        }
        Ok(Outcome::done(format!("Compaction of {} table(s) started. Job IDs: [{}]", ids.len(), ids.join(", "))))
    }

    /// Calls a job off that waits. Jobs of tables that the caller may not write look as if they were not there.
    pub(crate) fn kill_job(&self, id: &str, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let catalog = self.engine.catalog();
        let may_write = |table: &str| {
            let known = table.parse().ok().and_then(|name: TableName| catalog.tables.get(&name).cloned());
            known.is_none_or(|table| authorize::may_write(scope.identity.role, &table))
        };
        if !self.engine.jobs().iter().any(|job| job.job.id == id && may_write(&job.job.table)) {
            return Err(SqlError::not_found("job", id));
        }
        self.engine.cancel_job(id)?;
        Ok(Outcome::done(format!("Job '{id}' cancelled")))
    }

    /// The tables of the namespace, or all, that the caller may write.
    fn tables_meant(
        &self,
        namespace: Option<&Ident>,
        scope: &Scope<'_>,
    ) -> Result<impl Fn(&Table) -> bool + use<>, SqlError> {
        let namespace = namespace.map(names::fold);
        if let Some(namespace) = &namespace {
            names::check_namespace(&self.engine.catalog(), namespace)?;
        }
        let role = scope.identity.role;
        Ok(move |table: &Table| {
            namespace.as_ref().is_none_or(|namespace| table.name.namespace == *namespace)
                && authorize::may_write(role, table)
        })
    }

    async fn start_flush(&self, name: &TableName) -> Result<String, SqlError> {
        let id = Uuid::now_v7().to_string();
        self.engine.start_flush(&id, name, FlushReason::Statement).await?;
        Ok(id)
    }

    async fn start_compaction(&self, name: &TableName) -> Result<String, SqlError> {
        let id = Uuid::now_v7().to_string();
        self.engine.start_compaction(&id, name, FlushReason::Statement).await?;
        Ok(id)
    }
}
