//! Namespaces and tables: CREATE, ALTER, DROP, USE.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use kalamdb_engine::catalog::{CatalogChange, Namespace};
use kalamdb_engine::schema::TableKind;

use super::alter::check_kind;
use super::{Outcome, Scope, Statements, now};
use crate::bind::names::{self, DEFAULT_NAMESPACE, INFORMATION_SCHEMA, SYSTEM};
use crate::bind::table;
use crate::config::DropNamespace;
use crate::parse::{CreateTable, Statement};
use crate::{ErrorCode, SqlError, authorize};

impl Statements {
    pub(crate) async fn define(&self, statement: &Statement, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        match statement {
            Statement::CreateNamespace { name, if_not_exists } => {
                self.create_namespace(name, *if_not_exists, scope).await
            }
            Statement::DropNamespace { name, if_exists, cascade } => {
                self.drop_namespace(name, *if_exists, *cascade, scope).await
            }
            Statement::AlterNamespace { name, options } => self.alter_namespace(name, options, scope).await,
            Statement::Use(name) => self.use_namespace(name),
            Statement::CreateTable(table) => self.create_table(table, scope).await,
            Statement::AlterTable(table) => self.alter_table(table, scope).await,
            Statement::DropTable { name, kind, if_exists } => self.drop_table(name, *kind, *if_exists, scope).await,
            other => Err(SqlError::new(ErrorCode::Internal, format!("{other:?} is no definition"))),
        }
    }

    async fn create_namespace(
        &self,
        name: &Ident,
        if_not_exists: bool,
        scope: &Scope<'_>,
    ) -> Result<Outcome, SqlError> {
        let name = names::fold(name);
        names::check_new_namespace(&name)?;
        let namespace =
            Namespace { name: name.clone(), options: Default::default(), created_at: now().timestamp_millis() };
        match self.change_catalog(CatalogChange::CreateNamespace(namespace), scope).await.map_err(SqlError::from) {
            Err(error) if error.code == ErrorCode::AlreadyExists && if_not_exists => {
                Ok(Outcome::done(format!("Namespace '{name}' exists already")))
            }
            result => result.map(|()| Outcome::done(format!("Namespace '{name}' created"))),
        }
    }

    async fn drop_namespace(
        &self,
        name: &Ident,
        if_exists: bool,
        cascade: bool,
        scope: &Scope<'_>,
    ) -> Result<Outcome, SqlError> {
        let name = names::fold(name);
        if name == DEFAULT_NAMESPACE {
            return Err(SqlError::new(ErrorCode::InvalidValue, "the namespace 'default' can't be dropped"));
        }
        if if_exists && !self.engine.catalog().namespaces.contains_key(&name) {
            return Ok(Outcome::done(format!("Namespace '{name}' does not exist")));
        }
        let cascade = cascade || self.config.drop_namespace == DropNamespace::Cascade;
        let reason = format!("others made or altered tables of namespace '{name}'");
        self.starting_over(&reason, || self.drop_namespace_once(&name, cascade, scope)).await?;
        Ok(Outcome::done(format!("Namespace '{name}' dropped")))
    }

    async fn drop_namespace_once(&self, name: &str, cascade: bool, scope: &Scope<'_>) -> Result<(), SqlError> {
        let catalog = self.engine.catalog();
        names::check_namespace(&catalog, name)?;
        let cascade = match cascade {
            true => Some(authorize::dropped_by_cascade(&catalog, name, scope.identity)?),
            false => None,
        };
        let change = CatalogChange::DropNamespace { name: name.to_owned(), cascade };
        Ok(self.change_catalog(change, scope).await?)
    }

    async fn alter_namespace(
        &self,
        name: &Ident,
        options: &[(Ident, String)],
        scope: &Scope<'_>,
    ) -> Result<Outcome, SqlError> {
        let name = names::fold(name);
        let catalog = self.engine.catalog();
        names::check_namespace(&catalog, &name)?;
        let mut namespace = catalog.namespaces[&name].as_ref().clone();
        namespace.options.extend(options.iter().map(|(option, value)| (names::fold(option), value.clone())));
        self.change_catalog(CatalogChange::AlterNamespace(namespace), scope).await?;
        Ok(Outcome::done(format!("Namespace '{name}' altered")))
    }

    /// The session remembers it; here it is only checked.
    fn use_namespace(&self, name: &Ident) -> Result<Outcome, SqlError> {
        let name = names::fold(name);
        if name != SYSTEM && name != INFORMATION_SCHEMA {
            names::check_namespace(&self.engine.catalog(), &name)?;
        }
        Ok(Outcome::done(format!("Using namespace '{name}'")))
    }

    async fn create_table(&self, written: &CreateTable, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let name = names::table_name(&written.name, scope.namespace)?;
        names::check_namespace(&self.engine.catalog(), &name.namespace)?;
        let table = table::bind(written, name.clone(), &self.engine.catalog().storages, now().timestamp_millis())?;
        match self.change_catalog(CatalogChange::CreateTable(Box::new(table)), scope).await.map_err(SqlError::from) {
            Err(error) if error.code == ErrorCode::AlreadyExists && written.if_not_exists => {
                Ok(Outcome::done(format!("Table '{name}' was created before")))
            }
            result => result.map(|()| Outcome::done(format!("Table '{name}' created"))),
        }
    }

    async fn drop_table(
        &self,
        name: &ObjectName,
        kind: Option<TableKind>,
        if_exists: bool,
        scope: &Scope<'_>,
    ) -> Result<Outcome, SqlError> {
        let name = names::table_name(name, scope.namespace)?;
        let catalog = self.engine.catalog();
        let Some(table) = catalog.tables.get(&name) else {
            return if if_exists {
                Ok(Outcome::done(format!("Table '{name}' does not exist")))
            } else {
                Err(SqlError::not_found("table", name))
            };
        };
        check_kind(table, kind)?;
        self.change_catalog(CatalogChange::DropTable { name: name.clone(), id: table.id }, scope).await?;
        Ok(Outcome::done(format!("Table '{name}' dropped")))
    }
}
