//! One version's files as a Parquet scan: files pruned by what the log says, hidden rows left out by position.

use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, Statistics, internal_datafusion_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricType};
use roaring::RoaringTreemap;

use super::columns::ScanColumns;
use super::naming::NamingSource;
use crate::EngineError;
use crate::cold::footer::object_meta;
use crate::cold::vector::selection;
use crate::cold::{ColdFile, DeltaLog, FileCache};

/// The name under which DataFusion knows our object store; files are read through our own reader, not by this URL.
const STORE_URL: &str = "kalamdb://cold";

/// A file and the rows of it that this read must not see.
pub struct VisibleFile {
    /// The file.
    pub file: Arc<ColdFile>,
    /// Its deletion vector and its masks.
    pub hidden: RoaringTreemap,
}

/// Lives as long as the plan that reads the file, so that no vacuum deletes it under a query.
struct Pin(#[expect(dead_code, reason = "held, never read")] Arc<ColdFile>);

impl VisibleFile {
    fn is_hidden_whole(&self) -> bool {
        self.hidden.len() >= self.file.stats.rows
    }

    /// The file for DataFusion, with its hidden rows as a selection.
    fn partitioned(self, log: &DeltaLog, columns: &ScanColumns) -> PartitionedFile {
        let meta = object_meta(&log.path_of(&self.file.path), &self.file);
        let file = PartitionedFile::new_from_meta(meta)
            .with_statistics(Arc::new(statistics(&self.file, columns)))
            .with_extension(Pin(self.file.clone()));
        if self.hidden.is_empty() {
            return file;
        }
        file.with_extension(ParquetRowSelection::new(selection(&self.hidden, self.file.stats.rows)))
    }
}

/// The files that a scan reads, and what was told of the others: `EXPLAIN ANALYZE` shows it.
pub struct Chosen {
    /// The files that may hold a row that passes the filters.
    pub files: Vec<VisibleFile>,
    /// How many files the version has.
    pub considered: usize,
}

impl Chosen {
    /// Leaves out files without a visible row, and counts what each step left out.
    fn counted(self, metrics: &ExecutionPlanMetricsSet) -> Vec<VisibleFile> {
        let pruned = |name: &'static str, before: usize, after: usize| {
            let metric = MetricBuilder::new(metrics).with_type(MetricType::Summary).pruning_metrics(name, 0);
            metric.add_pruned(before - after);
            metric.add_matched(after);
        };
        let may_match = self.files.len();
        let files: Vec<_> = self.files.into_iter().filter(|file| !file.is_hidden_whole()).collect();
        pruned("files_pruned_by_log", self.considered, may_match);
        pruned("files_pruned_as_deleted", may_match, files.len());
        let hidden: u64 = files.iter().map(|file| file.hidden.len()).sum();
        let rows_hidden = MetricBuilder::new(metrics).with_type(MetricType::Summary).global_counter("rows_hidden");
        rows_hidden.add(usize::try_from(hidden).unwrap_or(usize::MAX));
        files
    }
}

/// Drops the files that can't hold a row that passes the filters.
pub fn prune(
    state: &dyn Session,
    columns: &ScanColumns,
    filters: &[Expr],
    files: Vec<Arc<ColdFile>>,
) -> Result<Vec<Arc<ColdFile>>> {
    let Some(filter) = conjunction(filters.to_vec()) else { return Ok(files) };
    let schema = DFSchema::try_from(columns.schema().as_ref().clone())?;
    let filter = state.create_physical_expr(filter, &schema)?;
    // A filter of which no pruning predicate can be made prunes nothing.
    let Ok(predicate) = PruningPredicateBuilder::new().with_file_schema(columns.schema().clone()).try_build(filter)
    else {
        return Ok(files);
    };
    let statistics = files.iter().map(|file| Arc::new(statistics(file, columns))).collect();
    let keep = predicate.prune(&PrunableStatistics::new(statistics, columns.schema().clone()))?;
    Ok(files.into_iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect())
}

/// The scan of the files, with all columns of `projection`. It stands in the plan also where no file is left, and says why.
pub fn plan(
    state: &dyn Session,
    cache: &FileCache,
    log: &DeltaLog,
    columns: &ScanColumns,
    chosen: Chosen,
    projection: Vec<usize>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let url = ObjectStoreUrl::parse(STORE_URL)?;
    state.runtime_env().register_object_store(url.as_ref(), cache.store().objects().clone());
    let mut options = state.table_options().parquet.clone();
    options.global.pushdown_filters = true;
    options.global.enable_page_index = true;
    options.global.bloom_filter_on_read = true;
    let source = ParquetSource::new(columns.physical().clone())
        .with_table_parquet_options(options)
        .with_parquet_file_reader_factory(cache.reader_factory());
    let files: Vec<_> =
        chosen.counted(source.metrics()).into_iter().map(|file| file.partitioned(log, columns)).collect();
    let mut groups = FileGroup::new(files).split_files(state.config().target_partitions());
    if groups.is_empty() {
        groups.push(FileGroup::default());
    }
    let unnamed = || internal_datafusion_err!("a Parquet scan takes no projection");
    let source = source.try_pushdown_projection(&columns.named(&projection))?.ok_or_else(unnamed)?;
    let source = NamingSource::new(source, cache.store().clone());
    let config = FileScanConfigBuilder::new(url, Arc::new(source))
        .with_file_groups(groups)
        .with_limit(limit)
        .with_expr_adapter(Some(Arc::new(columns.clone())))
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

/// Counts are inexact, for rows may be hidden. Bounds are told as exact, for only such ones prune; they stand at single files,
/// where pruning looks, and never at the scan as a whole, from which DataFusion would take the answer of a `min()`.
fn statistics(file: &ColdFile, columns: &ScanColumns) -> Statistics {
    let rows = usize::try_from(file.stats.rows).unwrap_or(usize::MAX);
    let column_statistics = columns.stats_of(file).map(|stats| {
        let Some(stats) = stats else { return ColumnStatistics::new_unknown() };
        ColumnStatistics {
            null_count: stats.nulls.map_or(Precision::Absent, |nulls| Precision::Inexact(nulls as usize)),
            min_value: stats.min.map_or(Precision::Absent, Precision::Exact),
            max_value: stats.max.map_or(Precision::Absent, Precision::Exact),
            ..ColumnStatistics::new_unknown()
        }
    });
    Statistics {
        num_rows: Precision::Inexact(rows),
        total_byte_size: Precision::Absent,
        column_statistics: column_statistics.collect(),
    }
}

/// An engine's error as DataFusion carries it.
pub fn external(error: EngineError) -> datafusion::error::DataFusionError {
    datafusion::error::DataFusionError::External(Box::new(error))
}
