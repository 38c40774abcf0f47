//! System tables about the process: settings, figures, its place in the cluster, its log.

use kalamdb_engine::schema::SqlType;
use kalamdb_engine::value::Value;

use super::host::{LogLine, Setting};
use super::view::{moment, text};
use super::{Relations, View};

const TEXT: SqlType = SqlType::Text;
const BOOL: SqlType = SqlType::Boolean;
const MOMENT: SqlType = SqlType::Timestamp;

pub(super) fn stats(relations: &Relations) -> View {
    let (catalog, host) = (&relations.catalog, &relations.inspection.host);
    let unflushed = relations.engine.unflushed();
    let sizes = relations.engine.storage_sizes();
    let hot: u64 = sizes.column_families.values().sum();
    let versions: usize = catalog.versions.values().map(|versions| versions.len()).sum();
    let figures = [
        ("server_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("server_uptime_seconds", uptime_seconds(relations).to_string()),
        ("server_workers_effective", host.workers().to_string()),
        ("max_connections", host.max_connections().to_string()),
        ("pid", std::process::id().to_string()),
        ("memory_usage_mb", memory_mb().to_string()),
        ("total_users", catalog.users.len().to_string()),
        ("total_namespaces", catalog.namespaces.len().to_string()),
        ("total_tables", catalog.tables.len().to_string()),
        ("schema_cache_size", versions.to_string()),
        ("active_sessions", host.sessions().len().to_string()),
        ("open_transactions", relations.inspection.transactions.listed().len().to_string()),
        ("active_subscriptions", "0".to_owned()),
        ("unflushed_rows", unflushed.iter().map(|table| table.rows).sum::<u64>().to_string()),
        ("unflushed_bytes", unflushed.iter().map(|table| table.bytes).sum::<u64>().to_string()),
        ("hot_tier_bytes", hot.to_string()),
        ("disk_used_bytes", sizes.disk_used.to_string()),
        ("disk_free_bytes", sizes.disk_free.to_string()),
    ];
    View::new(&[("metric_name", TEXT), ("metric_value", TEXT)])
        .with(figures.into_iter().map(|(name, value)| vec![text(name), text(value)]))
}

pub(super) fn settings(relations: &Relations) -> View {
    let row = |setting: Setting| {
        let category = setting.name.split_once('.').map_or("", |(section, _)| section).to_owned();
        vec![text(setting.name), text(setting.value), text(setting.description), text(category)]
    };
    View::new(&[("name", TEXT), ("value", TEXT), ("description", TEXT), ("category", TEXT)])
        .with(relations.inspection.host.settings().into_iter().map(row))
}

/// One row: this instance stands alone.
pub(super) fn cluster(relations: &Relations) -> View {
    View::new(&[
        ("cluster_id", TEXT),
        ("node_id", TEXT),
        ("role", TEXT),
        ("status", TEXT),
        ("api_addr", TEXT),
        ("is_self", BOOL),
        ("is_leader", BOOL),
        ("version", TEXT),
        ("uptime_seconds", SqlType::BigInt),
        ("started_at", MOMENT),
        ("memory_usage_mb", SqlType::BigInt),
        ("pid", SqlType::BigInt),
    ])
    .with([vec![
        text(relations.engine.database_id().to_string()),
        text("1"),
        text("standalone"),
        text("active"),
        text(relations.inspection.host.api_address()),
        Value::Boolean(true),
        Value::Boolean(true),
        text(env!("CARGO_PKG_VERSION")),
        Value::BigInt(uptime_seconds(relations)),
        moment(relations.inspection.host.started_at()),
        Value::BigInt(memory_mb()),
        Value::BigInt(i64::from(std::process::id())),
    ]])
}

pub(super) fn server_logs(relations: &Relations) -> View {
    let row = |line: LogLine| vec![Value::Timestamp(line.at), text(line.level), text(line.target), text(line.message)];
    View::new(&[("timestamp", MOMENT), ("level", TEXT), ("target", TEXT), ("message", TEXT)])
        .with(relations.inspection.host.log().into_iter().map(row))
}

fn uptime_seconds(relations: &Relations) -> i64 {
    (chrono::Utc::now().timestamp_millis() - relations.inspection.host.started_at()).max(0) / 1000
}

/// Memory that the process has in use, in MiB, as the system counts it; 0 where it does not tell.
fn memory_mb() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map_or(0, |kib: i64| kib / 1024)
}
