//! The provider: both tiers of a table, as of one RocksDB snapshot, in one plan.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, ident, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::physical_plan::union::UnionExec;
use roaring::RoaringTreemap;

use super::cold::{self, VisibleFile, external};
use super::columns::ScanColumns;
use super::hot::HotRows;
use crate::EngineError;
use crate::cold::{ColdFile, PinnedCold};
use crate::hot::HotSnapshot;
use crate::schema::{Table, USER_ID, UserId};

/// A table in one snapshot, for one user where its rows belong to users.
pub struct KalamTable {
    hot: HotSnapshot,
    cold: PinnedCold,
    table: Arc<Table>,
    user: Option<UserId>,
    schema: SchemaRef,
}

impl KalamTable {
    /// Reads nothing yet.
    pub fn new(hot: HotSnapshot, cold: PinnedCold, table: Arc<Table>, user: Option<UserId>) -> Self {
        let schema = table.sql_schema();
        let user = user.filter(|_| table.kind.is_per_user());
        Self { hot, cold, table, user, schema }
    }

    async fn cold_plan(
        &self,
        state: &dyn Session,
        projection: &[usize],
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let tier = self.hot.tier(self.table.id).map_err(external)?;
        let snapshot = self.cold.at(&self.table, tier.cold_version).await.map_err(external)?;
        if snapshot.files.is_empty() {
            return Ok(None);
        }
        let columns = ScanColumns::of(&self.table).map_err(external)?;
        let user_filter = self.user_filter();
        let filters: Vec<Expr> = filters.iter().cloned().chain(user_filter.clone()).collect();
        let files = cold::prune(state, &columns, &filters, snapshot.files.clone())?;
        let files = self.without_hidden_rows(files).await.map_err(external)?;
        let log = self.cold.tier().log(self.table.uuid);
        let cache = self.cold.tier().cache();
        let Some(filter) = user_filter else {
            return cold::plan(state, cache, &log, &columns, files, projection.to_vec(), limit);
        };
        // The limit counts this user's rows, so it must not reach the files before the filter does.
        let user_column = self.schema.fields().len();
        let with_user: Vec<usize> = projection.iter().copied().chain([user_column]).collect();
        let Some(scan) = cold::plan(state, cache, &log, &columns, files, with_user, None)? else { return Ok(None) };
        let filter = state.create_physical_expr(filter, &DFSchema::try_from(scan.schema().as_ref().clone())?)?;
        let own =
            FilterExecBuilder::new(filter, scan).apply_projection(Some((0..projection.len()).collect()))?.build()?;
        Ok(Some(Arc::new(own)))
    }

    /// What keeps other users' rows out. DataFusion moves it into the files' scan; it can't leave the plan.
    fn user_filter(&self) -> Option<Expr> {
        self.user.as_ref().map(|user| ident(USER_ID).eq(lit(user.as_str())))
    }

    async fn without_hidden_rows(&self, files: Vec<Arc<ColdFile>>) -> Result<Vec<VisibleFile>, EngineError> {
        let mut masks = self.masks().await?;
        let mut visible = Vec::with_capacity(files.len());
        for file in files {
            let mut hidden = masks.remove(&file.path).unwrap_or_default();
            if let Some(deleted) = self.cold.tier().hidden_rows(self.table.uuid, &file).await? {
                hidden |= deleted;
            }
            visible.push(VisibleFile { file, hidden });
        }
        Ok(visible)
    }

    async fn masks(&self) -> Result<BTreeMap<Arc<str>, RoaringTreemap>, EngineError> {
        let (hot, table) = (self.hot.clone(), self.table.id);
        let read = tokio::task::spawn_blocking(move || hot.masked_rows(table));
        read.await.map_err(|error| EngineError::Cold { action: "read masks".into(), source: error.into() })?
    }

    fn hot_plan(&self, projection: Vec<usize>, limit: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = HotRows::new(self.hot.clone(), self.table.clone(), self.user.clone(), projection.clone())?;
        let schema = Arc::new(self.schema.project(&projection)?);
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(rows)], None, [], false, limit)?))
    }
}

impl fmt::Debug for KalamTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}", self.table.name)
    }
}

#[async_trait]
impl TableProvider for KalamTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Inexact: DataFusion keeps the filters in the plan and then moves them into the files' scan, where they prune and skip.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.table.kind.is_per_user() && self.user.is_none() {
            return plan_err!("table {} holds rows of single users: it is read for one of them", self.table.name);
        }
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        // Filters are inexact here, so that a limit is only ours to apply where there are none.
        let limit = limit.filter(|_| filters.is_empty());
        let hot = self.hot_plan(projection.clone(), limit)?;
        match self.cold_plan(state, &projection, filters, limit).await? {
            Some(cold) => UnionExec::try_new(vec![cold, hot]),
            None => Ok(hot),
        }
    }
}
