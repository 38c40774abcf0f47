//! What is counted. The names and labels are public: dashboards and the flush scheduler read them.
//!
//! Values of labels that users make (`table_name`, `connection_id`) are capped; what comes beyond the cap counts as `other`.

mod labels;
mod scrape;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kalamdb_api::metrics::{OTHER, TABLE_NAME};
use kalamdb_engine::Engine;
use kalamdb_engine::flush::JobKind;
use kalamdb_engine::schema::TableName;
use kalamdb_sql::{StatementKind, StatementObserver};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use labels::LabelCap;
pub use scrape::scrape;

/// Histogram, seconds: how long statements took. Labels `table_name`, `query_type`.
pub const QUERY_LATENCY: &str = "kalamdb_query_latency_seconds";
/// Histogram, seconds: how long flush jobs ran. Label `table_name`.
pub const FLUSH_DURATION: &str = "kalamdb_flush_duration_seconds";
/// Histogram, seconds: how long compactions ran that changed something. Label `table_name`.
pub const COMPACTION_DURATION: &str = "kalamdb_compaction_duration_seconds";
/// Counter: messages over WebSocket. Label `connection_id`.
pub const WEBSOCKET_MESSAGES: &str = "kalamdb_websocket_messages_total";
/// Gauge, bytes: size of a column family. Labels `cf_type`, `name`.
pub const COLUMN_FAMILY_SIZE: &str = "kalamdb_column_family_size_bytes";

/// Counter: look-ups in a cache that found what they looked for. Label `cache`: `schema`, `query`, `statement` or `plan`.
pub const CACHE_HITS: &str = "kalamdb_cache_hits_total";
/// Counter: look-ups in a cache that found nothing. Label `cache`.
pub const CACHE_MISSES: &str = "kalamdb_cache_misses_total";
/// Counter: entries that a cache has dropped. Label `cache`.
pub const CACHE_EVICTIONS: &str = "kalamdb_cache_evictions_total";
/// Gauge: entries of a cache. Label `cache`.
pub const CACHE_ENTRIES: &str = "kalamdb_cache_entries";

/// How often histograms are emptied into their buckets.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);
/// Upper bounds of the latencies' buckets, in seconds.
const LATENCY_BUCKETS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// Upper bounds of the flushes' and the compactions' buckets, in seconds.
const FLUSH_BUCKETS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

/// `query_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueryType {
    /// SELECT.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// CREATE TABLE.
    CreateTable,
    /// ALTER TABLE.
    AlterTable,
    /// DESCRIBE.
    DescribeTable,
}

impl QueryType {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Select => "Select",
            Self::Insert => "Insert",
            Self::Update => "Update",
            Self::Delete => "Delete",
            Self::CreateTable => "CreateTable",
            Self::AlterTable => "AlterTable",
            Self::DescribeTable => "DescribeTable",
        }
    }

    fn of(kind: StatementKind) -> Option<Self> {
        match kind {
            StatementKind::Select => Some(Self::Select),
            StatementKind::Insert => Some(Self::Insert),
            StatementKind::Update => Some(Self::Update),
            StatementKind::Delete => Some(Self::Delete),
            StatementKind::CreateTable => Some(Self::CreateTable),
            StatementKind::AlterTable => Some(Self::AlterTable),
            StatementKind::DescribeTable => Some(Self::DescribeTable),
            StatementKind::Other => None,
        }
    }
}

/// `cf_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnFamilyType {
    /// Rows of user tables.
    UserTable,
    /// Rows of shared tables.
    SharedTable,
    /// Rows of stream tables.
    StreamTable,
    /// The tables' definitions.
    SystemTables,
    /// The namespaces.
    SystemNamespaces,
    /// Live queries.
    SystemLiveQueries,
    /// Storage locations.
    SystemStorageLocations,
    /// Flush jobs.
    SystemFlushJobs,
}

impl ColumnFamilyType {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::UserTable,
        Self::SharedTable,
        Self::StreamTable,
        Self::SystemTables,
        Self::SystemNamespaces,
        Self::SystemLiveQueries,
        Self::SystemStorageLocations,
        Self::SystemFlushJobs,
    ];

    /// The label's value, which is the column family's name too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserTable => "user_table",
            Self::SharedTable => "shared_table",
            Self::StreamTable => "stream_table",
            Self::SystemTables => "system_tables",
            Self::SystemNamespaces => "system_namespaces",
            Self::SystemLiveQueries => "system_live_queries",
            Self::SystemStorageLocations => "system_storage_locations",
            Self::SystemFlushJobs => "system_flush_jobs",
        }
    }
}

/// Records metrics and renders them. One a process.
pub struct Exporter {
    handle: PrometheusHandle,
    /// Tables that a scrape names at most.
    most_tables: usize,
    tables: LabelCap,
    connections: LabelCap,
}

impl Exporter {
    /// Becomes the process's recorder of metrics.
    pub fn install(label_values: usize) -> Result<Arc<Self>> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(QUERY_LATENCY.into()), &LATENCY_BUCKETS)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Full(FLUSH_DURATION.into()), &FLUSH_BUCKETS))
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Full(COMPACTION_DURATION.into()), &FLUSH_BUCKETS)
            })
            .context("failed to set the histograms' buckets")?
            .build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).context("failed to install the recorder of metrics")?;
        metrics::describe_histogram!(QUERY_LATENCY, metrics::Unit::Seconds, "How long statements took");
        metrics::describe_histogram!(FLUSH_DURATION, metrics::Unit::Seconds, "How long flush jobs ran");
        metrics::describe_histogram!(COMPACTION_DURATION, metrics::Unit::Seconds, "How long compactions ran");
        metrics::describe_counter!(WEBSOCKET_MESSAGES, "Messages over WebSocket connections");
        metrics::describe_gauge!(COLUMN_FAMILY_SIZE, metrics::Unit::Bytes, "Size of a RocksDB column family");
        Ok(Arc::new(Self {
            handle,
            most_tables: label_values,
            tables: LabelCap::new(label_values),
            connections: LabelCap::new(label_values),
        }))
    }

    /// Empties the histograms' queues until `shutdown`, whether or not anybody scrapes: they would grow for ever.
    pub async fn keep_up(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(UPKEEP_PERIOD) => self.handle.run_upkeep(),
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// A statement ended.
    pub fn record_query_latency(&self, table: &TableName, query_type: QueryType, took: Duration) {
        self.record_latency(self.tables.fold(&table.to_string()), query_type, took);
    }

    /// A job ended.
    pub fn record_job_duration(&self, kind: JobKind, table: &TableName, took: Duration) {
        let table = self.tables.fold(&table.to_string());
        let name = match kind {
            JobKind::Flush => FLUSH_DURATION,
            JobKind::Compact => COMPACTION_DURATION,
        };
        metrics::histogram!(name, TABLE_NAME => table).record(took.as_secs_f64());
    }

    /// A message came or went.
    pub fn increment_websocket_messages(&self, connection: &str) {
        metrics::counter!(WEBSOCKET_MESSAGES, "connection_id" => self.connections.fold(connection)).increment(1);
    }

    /// A column family was measured.
    pub fn update_column_family_size(&self, of: ColumnFamilyType, name: &str, bytes: u64) {
        let labels = [("cf_type", of.as_str().to_owned()), ("name", name.to_owned())];
        metrics::gauge!(COLUMN_FAMILY_SIZE, &labels).set(bytes as f64);
    }

    fn record_latency(&self, table: String, query_type: QueryType, took: Duration) {
        let labels = [(TABLE_NAME, table), ("query_type", query_type.as_str().to_owned())];
        metrics::histogram!(QUERY_LATENCY, &labels).record(took.as_secs_f64());
    }
}

/// Records how long statements took.
pub struct Latencies {
    exporter: Arc<Exporter>,
    engine: Engine,
}

impl Latencies {
    /// Names are judged against the engine's catalog: what does not exist counts as `other`.
    pub fn new(exporter: Arc<Exporter>, engine: Engine) -> Self {
        Self { exporter, engine }
    }
}

impl StatementObserver for Latencies {
    fn statement_ended(&self, kind: StatementKind, table: Option<&TableName>, took: Duration) {
        let Some(query_type) = QueryType::of(kind) else { return };
        let exists = |name: &&TableName| kalamdb_sql::is_view(name) || self.engine.catalog().tables.contains_key(*name);
        match table.filter(exists) {
            Some(table) => self.exporter.record_query_latency(table, query_type, took),
            None => self.exporter.record_latency(OTHER.to_owned(), query_type, took),
        }
    }
}
