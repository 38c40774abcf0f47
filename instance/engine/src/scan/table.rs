//! The provider: both tiers of a table, as of one RocksDB snapshot, in one plan.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, ident, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::physical_plan::union::UnionExec;
use roaring::RoaringTreemap;

use super::cold::{self, Chosen, VisibleFile, external};
use super::columns::ScanColumns;
use super::deleted::{self, Wanted};
use super::hot::HotRows;
use super::key_bounds::key_bounds;
use crate::EngineError;
use crate::cold::{ColdFile, PinnedCold};
use crate::hot::HotSnapshot;
use crate::schema::{Table, USER_ID, UserId};
use crate::transaction::{Overlay, Written};

/// A table in one snapshot, for one user where its rows belong to users.
pub struct KalamTable {
    hot: HotSnapshot,
    cold: PinnedCold,
    table: Arc<Table>,
    user: Option<UserId>,
    overlay: Option<Arc<Overlay>>,
    /// Whether it has the rows of all users, with their `_user_id`.
    all_users: bool,
    schema: SchemaRef,
}

impl KalamTable {
    /// Reads nothing yet.
    pub fn new(
        hot: HotSnapshot,
        cold: PinnedCold,
        table: Arc<Table>,
        schema: SchemaRef,
        user: Option<UserId>,
        overlay: Option<Arc<Overlay>>,
    ) -> Self {
        let user = user.filter(|_| table.kind.is_per_user());
        Self { hot, cold, table, user, overlay, all_users: false, schema }
    }

    /// With the rows of all users, and `_user_id` as the last column of per-user tables.
    pub fn of_all_users(hot: HotSnapshot, cold: PinnedCold, table: Arc<Table>) -> Self {
        let all_users = table.kind.is_per_user();
        let user = all_users.then(|| Arc::new(Field::new(USER_ID, DataType::Utf8, false)));
        let fields: Vec<FieldRef> = table.sql_schema().fields().iter().cloned().chain(user).collect();
        Self { hot, cold, table, user: None, overlay: None, all_users, schema: Arc::new(Schema::new(fields)) }
    }

    async fn cold_plan(
        &self,
        state: &dyn Session,
        projection: &[usize],
        filters: &[Expr],
        limit: Option<usize>,
        written: &Written,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let tier = self.hot.tier(self.table.id).map_err(external)?;
        let snapshot = self.cold.at(&self.table, tier.cold_version).await.map_err(external)?;
        if snapshot.files.is_empty() {
            return Ok(None);
        }
        let columns = ScanColumns::of(&self.table).map_err(external)?;
        let user_filter = self.user_filter();
        let filters: Vec<Expr> = filters.iter().cloned().chain(user_filter.clone()).collect();
        let considered = snapshot.files.len();
        let files = cold::prune(state, &columns, &filters, snapshot.files.clone())?;
        let files = self.without_hidden_rows(files, written).await.map_err(external)?;
        let chosen = Chosen { files, considered };
        let log = self.cold.tier().log(self.table.uuid);
        let cache = self.cold.tier().cache();
        let Some(filter) = user_filter else {
            return cold::plan(state, cache, &log, &columns, chosen, projection.to_vec(), limit).map(Some);
        };
        // The limit counts this user's rows, so it must not reach the files before the filter does.
        let user_column = self.schema.fields().len();
        let with_user: Vec<usize> = projection.iter().copied().chain([user_column]).collect();
        let scan = cold::plan(state, cache, &log, &columns, chosen, with_user, None)?;
        let filter = state.create_physical_expr(filter, &DFSchema::try_from(scan.schema().as_ref().clone())?)?;
        let own =
            FilterExecBuilder::new(filter, scan).apply_projection(Some((0..projection.len()).collect()))?.build()?;
        Ok(Some(Arc::new(own)))
    }

    /// What the transaction that reads has written of the table so far.
    fn written(&self) -> Result<Written> {
        let Some(overlay) = &self.overlay else { return Ok(Written::default()) };
        Overlay::check(&self.table).map_err(external)?;
        Ok(overlay.written(&self.table, self.user.as_ref()))
    }

    /// What keeps other users' rows out. DataFusion moves it into the files' scan; it can't leave the plan.
    fn user_filter(&self) -> Option<Expr> {
        self.user.as_ref().map(|user| ident(USER_ID).eq(lit(user.as_str())))
    }

    async fn without_hidden_rows(
        &self,
        files: Vec<Arc<ColdFile>>,
        written: &Written,
    ) -> Result<Vec<VisibleFile>, EngineError> {
        let mut masks = self.masks().await?;
        let mut visible = Vec::with_capacity(files.len());
        for file in files {
            let mut hidden = masks.remove(&file.path).unwrap_or_default();
            if let Some(deleted) = self.cold.tier().hidden_rows(self.table.uuid, &file).await? {
                hidden |= deleted;
            }
            if let Some(overwritten) = written.places.get(&file.path) {
                hidden |= overwritten;
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

    fn hot_plan(
        &self,
        projection: Vec<usize>,
        filters: &[Expr],
        limit: Option<usize>,
        written: &Written,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let bounds = key_bounds(&self.table, filters);
        let (hot, table, user) = (self.hot.clone(), self.table.clone(), self.user.clone());
        let rows = HotRows::new(hot, table, user, bounds, projection.clone(), written.keys.clone(), limit)?;
        let schema = Arc::new(self.schema.project(&projection)?);
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(rows)], None, [], false, limit)?))
    }

    /// Rows that were deleted, by the transaction that reads too.
    async fn deleted_plan(&self, projection: &[usize], written: &Written) -> Result<Arc<dyn ExecutionPlan>> {
        let (hot, table, user, wanted) = (self.hot.clone(), self.table.clone(), self.user.clone(), projection.to_vec());
        let alive = written.alive.clone();
        let read = tokio::task::spawn_blocking(move || deleted::read(&hot, &table, user.as_ref(), &wanted, &alive));
        let read = read.await.map_err(|error| datafusion::error::DataFusionError::ExecutionJoin(Box::new(error)))?;
        let mut read = read.map_err(external)?;
        read.extend(written.deleted_batch(&self.table, projection).map_err(external)?);
        let schema = Arc::new(self.schema.project(projection)?);
        Ok(MemorySourceConfig::try_new_exec(&[read], schema, None)?)
    }
}

/// What the transaction itself has written and not deleted again.
fn written_plan(table: &Table, projection: &[usize], written: &Written) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(batch) = written.batch(table, projection).map_err(external)? else { return Ok(None) };
    let schema = batch.schema();
    let plan: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None)?;
    Ok(Some(plan))
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
        if self.table.kind.is_per_user() && self.user.is_none() && !self.all_users {
            return plan_err!("table {} holds rows of single users: it is read for one of them", self.table.name);
        }
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        // Filters are inexact here, so that a limit is only ours to apply where there are none.
        let limit = limit.filter(|_| filters.is_empty());
        let written = self.written()?;
        let wanted = Wanted::by(filters, &self.schema)?;
        let deleted = match wanted.deleted && !self.all_users {
            true => Some(self.deleted_plan(&projection, &written).await?),
            false => None,
        };
        if let (Some(deleted), false) = (&deleted, wanted.live) {
            return Ok(Arc::clone(deleted));
        }
        let cold = self.cold_plan(state, &projection, filters, limit, &written).await?;
        let own = written_plan(&self.table, &projection, &written)?;
        let hot = self.hot_plan(projection, filters, limit, &written)?;
        let mut parts: Vec<_> = cold.into_iter().chain([hot]).chain(own).chain(deleted).collect();
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => UnionExec::try_new(parts),
        }
    }
}
