//! Files whose errors name them: those of the Parquet decoder name none.
//!
//! Everything but errors is that of the source below, which is told an order of its rows by the names of its files.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::ArrowError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::sort_pushdown::SortOrderPushdownResult;
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::errors::ParquetError;

use super::cold::external;
use crate::EngineError;
use crate::cold::ColdStore;

/// A source whose errors name the file.
#[derive(Clone)]
pub struct NamingSource {
    inner: Arc<dyn FileSource>,
    store: ColdStore,
}

impl NamingSource {
    /// Over a source of files that lie in the store.
    pub fn new(inner: Arc<dyn FileSource>, store: ColdStore) -> Self {
        Self { inner, store }
    }

    fn over(&self, inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { inner, store: self.store.clone() })
    }

    /// A key of a sort over what the scan gives, as one over the columns of its files.
    fn below(&self, key: &PhysicalSortExpr) -> Result<PhysicalSortExpr> {
        let expr = match self.projection() {
            Some(projection) => projection.unproject_expr(&key.expr)?,
            None => Arc::clone(&key.expr),
        };
        Ok(PhysicalSortExpr::new(expr, key.options))
    }
}

impl FileSource for NamingSource {
    fn create_file_opener(
        &self,
        objects: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        self.inner.create_file_opener(objects, config, partition)
    }

    fn create_morselizer(
        &self,
        objects: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        let inner = self.inner.create_morselizer(objects, config, partition)?;
        Ok(Box::new(Naming { inner, store: self.store.clone() }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, rows: usize) -> Arc<dyn FileSource> {
        self.over(self.inner.with_batch_size(rows))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_extra(format, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.inner.supports_repartitioning()
    }

    fn repartitioned(
        &self,
        partitions: usize,
        smallest: usize,
        ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        self.inner.repartitioned(partitions, smallest, ordering, config)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let pushed = self.inner.try_pushdown_filters(filters, config)?;
        let updated_node = pushed.updated_node.map(|inner| self.over(inner));
        Ok(FilterPushdownPropagation { filters: pushed.filters, updated_node })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        _: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        let order = order.iter().map(|key| self.below(key)).collect::<Result<Vec<_>>>()?;
        // Nothing is known of the order of rows in a scan of several files.
        let properties = EquivalenceProperties::new(self.table_schema().table_schema().clone());
        Ok(match self.inner.try_pushdown_sort(&order, &properties)? {
            SortOrderPushdownResult::Exact { inner } => SortOrderPushdownResult::Exact { inner: self.over(inner) },
            SortOrderPushdownResult::Inexact { inner } => SortOrderPushdownResult::Inexact { inner: self.over(inner) },
            SortOrderPushdownResult::Unsupported => SortOrderPushdownResult::Unsupported,
        })
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.inner.reorder_files(files)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        Ok(self.inner.try_pushdown_projection(projection)?.map(|inner| self.over(inner)))
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(visit)
    }
}

/// A file of a scan.
#[derive(Debug, Clone)]
struct Named {
    store: ColdStore,
    path: Path,
    /// As the Delta log says it, in bytes.
    size: u64,
}

impl Named {
    /// The error, with the file's name where it is the file's or the store's.
    async fn blame(&self, error: DataFusionError) -> DataFusionError {
        if !is_of_a_read(&error) {
            return error;
        }
        let error = self.store.read_failed(format!("read {}", self.path), error.into());
        external(self.store.blame(&self.path, Some(self.size), error).await)
    }

    fn over(&self, planner: Box<dyn MorselPlanner>) -> Box<dyn MorselPlanner> {
        Box::new(NamingPlanner { inner: planner, file: self.clone() })
    }
}

/// A filter that fails on a row does so within the decoder, and is the statement's own fault.
fn is_of_a_read(error: &DataFusionError) -> bool {
    let (mut cause, mut is_of_a_read): (Option<&(dyn Error + 'static)>, _) = (Some(error), false);
    while let Some(found) = cause {
        if found.is::<EngineError>() {
            return false;
        }
        match found.downcast_ref::<ArrowError>() {
            Some(ArrowError::ParquetError(_) | ArrowError::IoError(..)) => is_of_a_read = true,
            Some(ArrowError::ExternalError(_)) | None => {}
            Some(_) => return false,
        }
        is_of_a_read |= found.is::<ParquetError>() || found.is::<object_store::Error>();
        cause = found.source();
    }
    is_of_a_read
}

#[derive(Debug)]
struct Naming {
    inner: Box<dyn Morselizer>,
    store: ColdStore,
}

impl Morselizer for Naming {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        let (path, size) = (file.object_meta.location.clone(), file.object_meta.size);
        let named = Named { store: self.store.clone(), path, size };
        Ok(named.over(self.inner.plan_file(file)?))
    }
}

#[derive(Debug)]
struct NamingPlanner {
    inner: Box<dyn MorselPlanner>,
    file: Named,
}

impl MorselPlanner for NamingPlanner {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        let file = self.file;
        let mut plan = match self.inner.plan() {
            Ok(Some(plan)) => plan,
            Ok(None) => return Ok(None),
            // Who is to blame is known only once the store was asked.
            Err(error) => {
                return Ok(Some(MorselPlan::new().with_pending_planner(async move { Err(file.blame(error).await) })));
            }
        };
        let morsel = |inner| Box::new(NamingMorsel { inner, file: file.clone() }) as Box<dyn Morsel>;
        let morsels = plan.take_morsels().into_iter().map(morsel).collect();
        let planners = plan.take_ready_planners().into_iter().map(|planner| file.over(planner)).collect();
        let pending = plan.take_pending_planner();
        let named = MorselPlan::new().with_morsels(morsels).with_planners(planners);
        let Some(pending) = pending else { return Ok(Some(named)) };
        let file = file.clone();
        Ok(Some(named.with_pending_planner(async move {
            match pending.await {
                Ok(planner) => Ok(file.over(planner)),
                Err(error) => Err(file.blame(error).await),
            }
        })))
    }
}

#[derive(Debug)]
struct NamingMorsel {
    inner: Box<dyn Morsel>,
    file: Named,
}

impl Morsel for NamingMorsel {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let file = self.file;
        let blamed = move |error| {
            let file = file.clone();
            async move { Err(file.blame(error).await) }
        };
        self.inner.into_stream().or_else(blamed).boxed()
    }
}
