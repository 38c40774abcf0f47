//! The tables of the namespace `system`. Secrets and password hashes are in none of them.

use std::sync::Arc;

use kalamdb_api::flush::{FlushJob, FlushReason};
use kalamdb_engine::catalog::{Credentials, User};
use kalamdb_engine::flush::{Job, JobKind};
use kalamdb_engine::schema::{AccessLevel, Column, DefaultValue, SqlType, Table, TableKind};
use kalamdb_engine::storage::{LOCAL_STORAGE, Storage};
use kalamdb_engine::value::{Row, Value};
use serde_json::{Map, Value as Json, json};

use super::view::{moment, optional_moment, optional_text, text};
use super::{Relations, View};
use crate::SqlError;
use crate::bind::sql_type::{sql_name, wire_name};
use crate::functions::role_name;

/// Every system table.
pub(super) const NAMES: [&str; 11] = [
    "namespaces",
    "tables",
    "schemas",
    "columns",
    "users",
    "storages",
    "jobs",
    "flush_jobs",
    "stats",
    "cluster",
    "datatypes",
];

const TEXT: SqlType = SqlType::Text;
const MOMENT: SqlType = SqlType::Timestamp;
const INT: SqlType = SqlType::Int;
const BIG: SqlType = SqlType::BigInt;
const BOOL: SqlType = SqlType::Boolean;

pub(super) fn view(relations: &Relations, name: &str) -> Result<Option<View>, SqlError> {
    Ok(Some(match name {
        "namespaces" => namespaces(relations),
        "tables" => tables(relations),
        "schemas" => schemas(relations),
        "columns" => columns(relations),
        "users" => users(relations),
        "storages" => storages(relations),
        "jobs" => jobs(relations),
        "flush_jobs" => flush_jobs(relations),
        "stats" => stats(relations),
        "cluster" => cluster(),
        "datatypes" => data_types(),
        _ => return Ok(None),
    }))
}

fn namespaces(relations: &Relations) -> View {
    let row = |namespace: &Arc<kalamdb_engine::catalog::Namespace>| -> Row {
        let tables = relations.visible_tables().filter(|table| table.name.namespace == namespace.name).count();
        vec![
            text(&namespace.name),
            text(&namespace.name),
            text(json!(namespace.options).to_string()),
            Value::Int(tables as i32),
            moment(namespace.created_at),
        ]
    };
    View::new(&[
        ("namespace_id", TEXT),
        ("name", TEXT),
        ("options", TEXT),
        ("table_count", INT),
        ("created_at", MOMENT),
    ])
    .with(relations.catalog.namespaces.values().map(row))
}

fn tables(relations: &Relations) -> View {
    let row = |table: &Arc<Table>| -> Row {
        vec![
            text(&table.name.namespace),
            text(&table.name.name),
            text(table.kind.as_str()),
            text(storage_id(table)),
            Value::Int(table.version.0 as i32),
            text(options(table).to_string()),
            Value::Null,
            moment(table.created_at),
            moment(table.updated_at),
        ]
    };
    View::new(&[
        ("namespace_id", TEXT),
        ("table_name", TEXT),
        ("table_type", TEXT),
        ("storage_id", TEXT),
        ("version", INT),
        ("options", TEXT),
        ("comment", TEXT),
        ("created_at", MOMENT),
        ("updated_at", MOMENT),
    ])
    .with(relations.visible_tables().map(row))
}

/// A row for every version of each.
fn schemas(relations: &Relations) -> View {
    let row = |(table, is_latest): (&Arc<Table>, bool)| -> Row {
        let column = |column: &Column| json!({"column_name": column.name, "data_type": wire_name(column.sql_type)});
        let columns: Vec<Json> = table.columns.iter().map(column).collect();
        vec![
            text(format!("{}:{}", table.name.namespace, table.name.name)),
            text(&table.name.namespace),
            text(&table.name.name),
            text(table.kind.as_str()),
            Value::Int(table.version.0 as i32),
            text(Json::from(columns).to_string()),
            text(options(table).to_string()),
            Value::Boolean(is_latest),
            moment(table.updated_at),
        ]
    };
    let versions = |newest: &Arc<Table>| {
        let newest_version = newest.version;
        let versions = relations.catalog.versions_of(newest.id).iter();
        versions.map(move |table| (table, table.version == newest_version))
    };
    View::new(&[
        ("table_id", TEXT),
        ("namespace_id", TEXT),
        ("table_name", TEXT),
        ("table_type", TEXT),
        ("schema_version", INT),
        ("columns", TEXT),
        ("options", TEXT),
        ("is_latest", BOOL),
        ("created_at", MOMENT),
    ])
    .with(relations.visible_tables().flat_map(versions).map(row))
}

fn storage_id(table: &Table) -> &str {
    table.storage.as_ref().map_or(LOCAL_STORAGE, |storage| &storage.id)
}

fn options(table: &Table) -> Json {
    let mut options = Map::new();
    options.insert("storage_id".into(), json!(storage_id(table)));
    if let Some(hours) = table.deleted_retention_hours {
        options.insert("deleted_retention_hours".into(), json!(hours));
    }
    let rows = table.flush_policy.rows.map(|rows| format!("rows:{rows}"));
    let interval = table.flush_policy.interval_seconds.map(|seconds| format!("interval:{seconds}"));
    let policy: Vec<String> = rows.into_iter().chain(interval).collect();
    if !policy.is_empty() {
        options.insert("flush_policy".into(), json!(policy.join(",")));
    }
    if let Some(seconds) = table.ttl_seconds {
        options.insert("ttl_seconds".into(), json!(seconds));
    }
    if table.kind == TableKind::Shared {
        let level = match table.access_level {
            AccessLevel::Public => "public",
            AccessLevel::Private => "private",
            AccessLevel::Restricted => "restricted",
            AccessLevel::Dba => "dba",
        };
        options.insert("access_level".into(), json!(level));
    }
    Json::Object(options)
}

/// A default as SQL writes it.
pub(crate) fn default_text(default: &DefaultValue) -> String {
    match default {
        DefaultValue::CurrentTimestamp => "CURRENT_TIMESTAMP".into(),
        DefaultValue::SnowflakeId => "SNOWFLAKE_ID()".into(),
        DefaultValue::UuidV7 => "UUID_V7()".into(),
        DefaultValue::Ulid => "ULID()".into(),
        DefaultValue::Literal(value) => literal_text(value),
    }
}

fn literal_text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Boolean(value) => value.to_string(),
        Value::SmallInt(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::BigInt(value) | Value::Timestamp(value) | Value::Time(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        Value::Decimal(value) => value.to_string(),
        Value::Date(value) => value.to_string(),
        Value::Text(value) | Value::Json(value) => format!("'{}'", value.replace('\'', "''")),
        Value::Uuid(value) => format!("'{value}'"),
        Value::Embedding(value) => format!("'{}'", json!(value)),
        Value::Bytes(value) => value.iter().fold("'\\x".to_owned(), |text, byte| format!("{text}{byte:02x}")) + "'",
    }
}

fn columns(relations: &Relations) -> View {
    let of_table = |table: &Arc<Table>| -> Vec<Row> {
        let row = |(place, column): (usize, &Column)| -> Row {
            vec![
                text(&table.name.namespace),
                text(&table.name.name),
                Value::Int(table.version.0 as i32),
                Value::Int(column.id.0 as i32),
                text(&column.name),
                text(sql_name(column.sql_type)),
                optional_text(column.default.as_ref().map(default_text)),
                Value::Int(place as i32 + 1),
                Value::Boolean(column.nullable),
                Value::Boolean(table.primary_key.contains(&column.id)),
                Value::Null,
            ]
        };
        table.columns.iter().enumerate().map(row).collect()
    };
    View::new(&[
        ("namespace_id", TEXT),
        ("table_name", TEXT),
        ("version", INT),
        ("column_id", INT),
        ("column_name", TEXT),
        ("data_type", TEXT),
        ("default_value", TEXT),
        ("ordinal", INT),
        ("nullable", BOOL),
        ("primary_key", BOOL),
        ("comment", TEXT),
    ])
    .with(relations.visible_tables().flat_map(of_table))
}

fn users(relations: &Relations) -> View {
    let row = |user: &Arc<User>| -> Row {
        let auth_type = match user.credentials {
            Credentials::Password(_) => "password",
            Credentials::None => "internal",
            Credentials::OAuth => "oauth",
        };
        vec![
            text(user.id.as_str()),
            text(role_name(user.role)),
            optional_text(user.email.as_deref()),
            text(auth_type),
            Value::Null,
            moment(user.created_at),
            moment(user.updated_at),
            Value::Null,
            Value::Null,
            Value::Int(0),
        ]
    };
    View::new(&[
        ("user_id", TEXT),
        ("role", TEXT),
        ("email", TEXT),
        ("auth_type", TEXT),
        ("deleted_at", MOMENT),
        ("created_at", MOMENT),
        ("updated_at", MOMENT),
        ("last_login_at", MOMENT),
        ("locked_until", MOMENT),
        ("failed_login_attempts", INT),
    ])
    .with(relations.catalog.users.values().map(row))
}

pub(crate) fn storages(relations: &Relations) -> View {
    let row = |storage: &Arc<Storage>| -> Row {
        vec![
            text(&storage.id),
            text(&storage.name),
            optional_text(storage.description.as_deref()),
            text(storage.location.kind()),
            text(storage.location.to_string()),
            moment(storage.created_at),
            moment(storage.updated_at),
        ]
    };
    let created = relations.catalog.namespaces.values().map(|namespace| namespace.created_at).min().unwrap_or_default();
    View::new(&[
        ("storage_id", TEXT),
        ("storage_name", TEXT),
        ("description", TEXT),
        ("storage_type", TEXT),
        ("base_directory", TEXT),
        ("created_at", MOMENT),
        ("updated_at", MOMENT),
    ])
    .with([vec![
        text(LOCAL_STORAGE),
        text(LOCAL_STORAGE),
        text("the object store that this instance was started with"),
        text("filesystem"),
        text(""),
        moment(created),
        moment(created),
    ]])
    .with(relations.catalog.storages.values().map(row))
}

fn visible_jobs(relations: &Relations) -> Vec<Job> {
    let visible: std::collections::HashSet<String> =
        relations.visible_tables().map(|table| table.name.to_string()).collect();
    relations.engine.jobs().into_iter().filter(|job| visible.contains(&job.job.table)).collect()
}

fn jobs(relations: &Relations) -> View {
    let row = |Job { kind, job }: Job| -> Row {
        // What flushes by itself for want of a scheduler compacts by its own policy.
        let reason = match (kind, job.reason) {
            (JobKind::Compact, FlushReason::Safety) => "policy",
            (_, by) => reason(by),
        };
        vec![
            text(&job.id),
            text(kind.as_str()),
            text(job.state.as_str()),
            text(json!({"table_id": job.table, "reason": reason}).to_string()),
            optional_text(job.message),
            moment(job.created_at),
            optional_moment(job.started_at),
            optional_moment(job.finished_at),
            text(&job.id),
        ]
    };
    View::new(&[
        ("job_id", TEXT),
        ("job_type", TEXT),
        ("status", TEXT),
        ("parameters", TEXT),
        ("message", TEXT),
        ("created_at", MOMENT),
        ("started_at", MOMENT),
        ("finished_at", MOMENT),
        ("idempotency_key", TEXT),
    ])
    .with(visible_jobs(relations).into_iter().map(row))
}

fn flush_jobs(relations: &Relations) -> View {
    let row = |job: FlushJob| -> Row {
        vec![
            text(&job.id),
            text(&job.table),
            text(reason(job.reason)),
            text(job.state.as_str()),
            Value::BigInt(job.rows as i64),
            Value::BigInt(job.bytes as i64),
            optional_text(job.message),
            moment(job.created_at),
            optional_moment(job.started_at),
            optional_moment(job.finished_at),
        ]
    };
    View::new(&[
        ("job_id", TEXT),
        ("table_name", TEXT),
        ("reason", TEXT),
        ("status", TEXT),
        ("rows", BIG),
        ("bytes", BIG),
        ("message", TEXT),
        ("created_at", MOMENT),
        ("started_at", MOMENT),
        ("finished_at", MOMENT),
    ])
    .with(visible_jobs(relations).into_iter().filter(|job| job.kind == JobKind::Flush).map(|job| row(job.job)))
}

fn reason(reason: FlushReason) -> &'static str {
    match reason {
        FlushReason::Bytes => "bytes",
        FlushReason::Rows => "rows",
        FlushReason::Age => "age",
        FlushReason::Disk => "disk",
        FlushReason::Statement => "statement",
        FlushReason::Safety => "safety",
    }
}

fn stats(relations: &Relations) -> View {
    let unflushed = relations.engine.unflushed();
    let sizes = relations.engine.storage_sizes();
    let hot: u64 = sizes.column_families.values().sum();
    let figures = [
        ("total_users", relations.catalog.users.len().to_string()),
        ("total_namespaces", relations.catalog.namespaces.len().to_string()),
        ("total_tables", relations.catalog.tables.len().to_string()),
        ("server_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("pid", std::process::id().to_string()),
        ("unflushed_rows", unflushed.iter().map(|table| table.rows).sum::<u64>().to_string()),
        ("unflushed_bytes", unflushed.iter().map(|table| table.bytes).sum::<u64>().to_string()),
        ("hot_tier_bytes", hot.to_string()),
        ("disk_used_bytes", sizes.disk_used.to_string()),
        ("disk_free_bytes", sizes.disk_free.to_string()),
    ];
    View::new(&[("metric_name", TEXT), ("metric_value", TEXT)])
        .with(figures.into_iter().map(|(name, value)| vec![text(name), text(value)]))
}

fn cluster() -> View {
    View::new(&[
        ("cluster_id", TEXT),
        ("node_id", TEXT),
        ("role", TEXT),
        ("status", TEXT),
        ("is_self", BOOL),
        ("is_leader", BOOL),
        ("version", TEXT),
    ])
    .with([vec![
        text("kalamdb"),
        text("1"),
        text("standalone"),
        text("active"),
        Value::Boolean(true),
        Value::Boolean(true),
        text(env!("CARGO_PKG_VERSION")),
    ]])
}

fn data_types() -> View {
    let known = [
        (SqlType::Boolean, "true or false"),
        (SqlType::SmallInt, "16-bit integer"),
        (SqlType::Int, "32-bit integer"),
        (SqlType::BigInt, "64-bit integer"),
        (SqlType::Float, "32-bit floating point"),
        (SqlType::Double, "64-bit floating point"),
        (SqlType::Decimal { precision: 38, scale: 10 }, "exact number of up to 38 digits"),
        (SqlType::Text, "UTF-8 text"),
        (SqlType::Bytes, "bytes"),
        (SqlType::Timestamp, "microseconds since 1970-01-01 UTC"),
        (SqlType::Date, "days since 1970-01-01"),
        (SqlType::Json, "JSON text"),
        (SqlType::DateTime, "microseconds since 1970-01-01 UTC"),
        (SqlType::Time, "microseconds since midnight"),
        (SqlType::Uuid, "128 bits in 36 characters"),
        (SqlType::Embedding { dimensions: 384 }, "1 to 8192 numbers of 32 bits"),
        (SqlType::File, "reference to a file, a JSON object"),
    ];
    let row = |(of, about): (SqlType, &str)| -> Row {
        let kalam_type = wire_name(of);
        let kalam_type = kalam_type.as_str().map_or_else(|| kalam_type.to_string(), str::to_owned);
        vec![text(of.arrow().to_string()), text(kalam_type), text(sql_name(of)), text(about)]
    };
    View::new(&[("arrow_type", TEXT), ("kalam_type", TEXT), ("sql_name", TEXT), ("description", TEXT)])
        .with(known.into_iter().map(row))
}
