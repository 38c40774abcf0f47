//! CREATE, ALTER and DROP STORAGE, and STORAGE CHECK.

use datafusion::sql::sqlparser::ast::Ident;
use kalamdb_engine::EngineError;
use kalamdb_engine::catalog::CatalogChange;
use kalamdb_engine::schema::SqlType;
use kalamdb_engine::storage::{LOCAL_STORAGE, Storage};
use kalamdb_engine::value::Value;

use super::show::rows_of;
use super::{Outcome, Scope, Statements, now};
use crate::bind::{names, storage};
use crate::parse::{Statement, StorageChange};
use crate::relations::View;
use crate::{ErrorCode, SqlError};

impl Statements {
    pub(crate) async fn storage_statement(
        &self,
        statement: &Statement,
        scope: &Scope<'_>,
    ) -> Result<Outcome, SqlError> {
        match statement {
            Statement::CreateStorage(written) => {
                let made = storage::bind(written, now().timestamp_millis())?;
                let id = made.id.clone();
                if written.if_not_exists && self.engine.catalog().storages.contains_key(&id) {
                    return Ok(Outcome::done(format!("Storage '{id}' exists already")));
                }
                let creation = self.engine.creation_of_storage(made).await.map_err(|error| unusable(&id, error))?;
                self.change_catalog(creation, scope).await?;
                Ok(Outcome::done(format!("Storage '{id}' created")))
            }
            Statement::AlterStorage { id, change } => self.alter_storage(&names::fold(id), change, scope).await,
            Statement::DropStorage { id, if_exists } => self.drop_storage(&names::fold(id), *if_exists, scope).await,
            Statement::CheckStorage { id, extended } => self.check_storage(id, *extended).await,
            other => Err(SqlError::new(ErrorCode::Internal, format!("{other:?} is not about storages"))),
        }
    }

    async fn alter_storage(&self, id: &str, change: &StorageChange, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let catalog = self.engine.catalog();
        let known = catalog.storages.get(id).ok_or_else(|| unknown(id))?;
        let mut altered = Storage { updated_at: now().timestamp_millis(), ..Storage::clone(known) };
        match change {
            StorageChange::Name(name) => altered.name.clone_from(name),
            StorageChange::Description(text) => altered.description = Some(text.clone()),
        }
        self.change_catalog(CatalogChange::PutStorage(Box::new(altered)), scope).await?;
        Ok(Outcome::done(format!("Storage '{id}' altered")))
    }

    async fn drop_storage(&self, id: &str, if_exists: bool, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        if !self.engine.catalog().storages.contains_key(id) {
            return if if_exists {
                Ok(Outcome::done(format!("Storage '{id}' does not exist")))
            } else {
                Err(unknown(id))
            };
        }
        self.change_catalog(CatalogChange::DropStorage(id.to_owned()), scope).await?;
        Ok(Outcome::done(format!("Storage '{id}' dropped")))
    }

    async fn check_storage(&self, id: &Ident, extended: bool) -> Result<Outcome, SqlError> {
        let id = names::fold(id);
        let probe = self.engine.check_storage(&id, extended).await?;
        let status = match (probe.writable, probe.readable && probe.listable && probe.deletable) {
            (true, true) => "healthy",
            (true, false) => "degraded",
            (false, _) => "unreachable",
        };
        let (text, flag, big) = (SqlType::Text, SqlType::Boolean, SqlType::BigInt);
        let columns = [
            ("storage_id", text),
            ("status", text),
            ("readable", flag),
            ("writable", flag),
            ("listable", flag),
            ("deletable", flag),
            ("latency_ms", big),
            ("total_bytes", big),
            ("used_bytes", big),
            ("error", text),
            ("tested_at", SqlType::Timestamp),
        ];
        let row = vec![
            Value::Text(id),
            Value::Text(status.into()),
            Value::Boolean(probe.readable),
            Value::Boolean(probe.writable),
            Value::Boolean(probe.listable),
            Value::Boolean(probe.deletable),
            Value::BigInt(probe.latency_ms as i64),
            // Object stores have no size of their own.
            Value::Null,
            probe.used_bytes.map_or(Value::Null, |bytes| Value::BigInt(bytes as i64)),
            probe.error.map_or(Value::Null, Value::Text),
            Value::Timestamp(now().timestamp_micros()),
        ];
        rows_of(&View::new(&columns).with([row])).map(Outcome::Rows)
    }
}

/// Where the place itself does not do, another one must be named.
fn unusable(id: &str, error: EngineError) -> SqlError {
    let is_place = matches!(error, EngineError::Cold { .. });
    let error = SqlError::from(error);
    if is_place {
        let text = format!("storage '{id}' can't be used, name another place: {}", error.message);
        return SqlError::new(ErrorCode::InvalidValue, text);
    }
    error
}

fn unknown(id: &str) -> SqlError {
    if id == LOCAL_STORAGE {
        let text =
            "the storage 'local' is the object store that the instance was started with: its configuration says where";
        return SqlError::new(ErrorCode::InvalidValue, text);
    }
    SqlError::not_found("storage", id)
}
