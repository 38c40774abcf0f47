//! What DataFusion finds under a name: tables of one snapshot for one user, `system` and `information_schema`.
//!
//! Isolation is enforced here, below SQL: a per-user table is only ever handed out with the rows of the user who asks.

mod host;
mod information;
mod manifest;
mod opaque;
mod people;
mod process;
mod queries;
mod system;
mod view;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, MemTable, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::TableProviderFilterPushDown;
use kalamdb_engine::catalog::{Catalog, Role};
use kalamdb_engine::schema::{Table, TableName};
use kalamdb_engine::{Engine, ReadSnapshot};

pub use host::{Host, LogLine, Session, Setting};
pub(crate) use manifest::manifest;
pub(crate) use system::{DBA_ONLY, default_text, storages};
pub use view::{View, ViewColumn};

use opaque::Opaque;

use crate::authorize::{self, Access};
use crate::bind::names::{CATALOG, INFORMATION_SCHEMA, SYSTEM};
use crate::cache::Caches;
use crate::cache::schema::ResolvedTable;
use crate::prepared::Unbound;
use crate::running::Running;
use crate::transaction::OpenTransactions;
use crate::{Identity, SqlError};

/// Everything that one statement can read.
#[derive(Clone)]
pub struct Relations {
    /// The catalog that names are looked up in.
    pub catalog: Arc<Catalog>,
    /// The one snapshot that all tables of the statement are read from.
    pub snapshot: ReadSnapshot,
    /// Who asks.
    pub identity: Identity,
    /// Whether somebody else asks for that user: then what belongs to others too is out of reach.
    pub impersonated: bool,
    /// For system tables.
    pub engine: Engine,
    /// For schemas; none where no shortcut may be taken.
    pub caches: Option<Arc<Caches>>,
    /// For the system table of the statements that run.
    pub running: Running,
    /// For system tables.
    pub inspection: Arc<Inspection>,
    /// Whether names mean rows, or only columns, in plans that are bound to rows later.
    pub has_rows: bool,
    /// Whether plans show nothing of how they read per-user tables.
    pub hides_scans: bool,
}

/// What system tables tell beside the engine.
pub struct Inspection {
    /// The process.
    pub host: Arc<dyn Host>,
    /// Transactions between BEGIN and COMMIT.
    pub transactions: OpenTransactions,
}

impl fmt::Debug for Relations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relations of user {}", self.identity.user)
    }
}

impl Relations {
    /// The table, as a provider that holds nobody else's rows.
    pub fn provider(&self, table: &Arc<Table>) -> Result<Arc<dyn TableProvider>, SqlError> {
        authorize::check_table(&self.catalog, &table.name, &self.identity, Access::Read)?;
        self.check_impersonated(&table.name)?;
        let schema = Arc::clone(&self.resolved(table)?.schema);
        if !self.has_rows {
            return Ok(Arc::new(Unbound::new(table.name.clone(), schema, TableProviderFilterPushDown::Inexact)));
        }
        let user = table.kind.is_per_user().then_some(&self.identity.user);
        let provider = self.snapshot.provider_with(table, schema, user);
        Ok(if self.hides_scans && user.is_some() { Arc::new(Opaque(provider)) } else { provider })
    }

    /// The same relations, whose names mean columns and no rows.
    pub fn names_alone(&self) -> Self {
        Self { has_rows: false, ..self.clone() }
    }

    /// The table, ready to plan with.
    pub fn resolved(&self, table: &Arc<Table>) -> Result<Arc<ResolvedTable>, SqlError> {
        let Some(caches) = &self.caches else { return Ok(Arc::new(ResolvedTable::of(Arc::clone(table)))) };
        // A table that was dropped since this snapshot is stored no more, and is as the snapshot knows it.
        let load = || Ok(self.engine.stored_table(table.id, table.version)?.unwrap_or_else(|| table.as_ref().clone()));
        caches.schemas.get_or_load(&table.name, table.version, table.id, load)
    }

    /// The table or view of that name.
    pub async fn relation(&self, name: &TableName) -> Result<Option<Arc<dyn TableProvider>>, SqlError> {
        if let Some(table) = self.catalog.tables.get(name) {
            return self.provider(table).map(Some);
        }
        let Some(view) = self.view(name).await? else { return Ok(None) };
        let batch = view.batch()?;
        if !self.has_rows {
            let filters = TableProviderFilterPushDown::Unsupported;
            return Ok(Some(Arc::new(Unbound::new(name.clone(), batch.schema(), filters))));
        }
        Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
    }

    /// The system or information table of that name.
    pub async fn view(&self, name: &TableName) -> Result<Option<View>, SqlError> {
        authorize::check_table(&self.catalog, name, &self.identity, Access::Read)?;
        self.check_impersonated(name)?;
        match name.namespace.as_str() {
            SYSTEM => system::view(self, &name.name).await,
            INFORMATION_SCHEMA => Ok(information::view(self, &name.name)),
            _ => Ok(None),
        }
    }

    /// Refuses what is not the user's own where somebody else runs the statement.
    pub fn check_impersonated(&self, name: &TableName) -> Result<(), SqlError> {
        if self.impersonated { authorize::check_own(&self.catalog, name) } else { Ok(()) }
    }

    /// Whether there is such a relation, of either sort.
    pub fn exists(&self, name: &TableName) -> bool {
        is_view(name) || self.catalog.tables.contains_key(name)
    }

    /// Tables whose names the user may see. From DBA on that is all of them.
    pub fn visible_tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        let role = self.identity.role;
        self.catalog.tables.values().filter(move |table| role >= Role::Dba || authorize::may_read(role, table))
    }

    fn namespace_names(&self) -> Vec<String> {
        let own = [SYSTEM, INFORMATION_SCHEMA].map(str::to_owned);
        self.catalog.namespaces.keys().cloned().chain(own).collect()
    }
}

/// Whether it is the name of a system or information table.
pub fn is_view(name: &TableName) -> bool {
    match name.namespace.as_str() {
        SYSTEM => system::NAMES.contains(&name.name.as_str()),
        INFORMATION_SCHEMA => information::NAMES.contains(&name.name.as_str()),
        _ => false,
    }
}

impl CatalogProviderList for Relations {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for Relations {
    fn schema_names(&self) -> Vec<String> {
        self.namespace_names()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let known = name == SYSTEM || name == INFORMATION_SCHEMA || self.catalog.namespaces.contains_key(name);
        known.then(|| {
            Arc::new(NamespaceRelations { relations: self.clone(), namespace: name.to_owned() })
                as Arc<dyn SchemaProvider>
        })
    }
}

#[derive(Debug)]
struct NamespaceRelations {
    relations: Relations,
    namespace: String,
}

#[async_trait]
impl SchemaProvider for NamespaceRelations {
    fn table_names(&self) -> Vec<String> {
        let visible = self.relations.visible_tables().filter(|table| table.name.namespace == self.namespace);
        visible.map(|table| table.name.name.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let name = TableName::new(&self.namespace, name);
        let external = |error: SqlError| DataFusionError::External(Box::new(error));
        self.relations.relation(&name).await.map_err(external)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.relations.exists(&TableName::new(&self.namespace, name))
    }
}
