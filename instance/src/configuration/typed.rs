//! Texts to typed settings, each refused by the name of its key.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use kalamdb_engine::EngineConfig;
use kalamdb_engine::TransactionLimits;
use kalamdb_engine::access::LockPolicy;
use kalamdb_engine::config::{
    CompactionConfig, Durability, FlushConfig, LONGEST_RETENTION, Limits, ObjectStoreConfig, Patience, VacuumConfig,
};
use kalamdb_sql::SqlConfig;
use kalamdb_sql::cache::CacheConfig;
use kalamdb_sql::cache::query::TimesToLive;
use kalamdb_sql::config::DropNamespace;
use kalamdb_sql::load::LoadConfig;
use kalamdb_sql::password::HashCost;
use kalamdb_sql::planner::PlannerConfig;
use kalamdb_sql::relations::Setting;
use kalamdb_sql::turns::TurnsConfig;

use super::{AuthConfig, Configuration, KEYS, Key, LogConfig, LogFormat, ServerConfig};

/// The shortest secret that tokens are signed with, in bytes: as long as HS256's hash.
const SHORTEST_JWT_SECRET: usize = 32;

struct Values<'a>(&'a BTreeMap<String, String>);

impl Values<'_> {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", |text| text.as_str())
    }

    fn number<T: FromStr + PartialOrd + From<u8>>(&self, key: &str) -> Result<T> {
        let text = self.text(key);
        let number = text.replace('_', "").parse::<T>().ok().filter(|number| *number >= T::from(1));
        number.ok_or_else(|| anyhow!("{key} = '{text}': it is a whole number above zero that fits its type"))
    }

    fn seconds(&self, key: &str) -> Result<Duration> {
        self.number(key).map(Duration::from_secs)
    }

    fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T> {
        let text = self.text(key);
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
        found.ok_or_else(|| anyhow!("{key} = '{text}': it is {}", names.join(" or ")))
    }
}

/// The settings that the texts say.
pub(super) fn configuration(
    values: &BTreeMap<String, String>,
    secret: impl Fn(&str) -> Option<String>,
) -> Result<Configuration> {
    let values = Values(values);
    let data_dir = PathBuf::from(values.text("data.dir"));
    Ok(Configuration {
        server: server(&values)?,
        auth: auth(&values, &secret)?,
        engine: EngineConfig {
            object_store: object_store(&values, &data_dir, &secret)?,
            durability: values.choice("data.durability", &[("sync", Durability::Sync), ("os", Durability::Os)])?,
            flush: flush(&values, secret("KALAMDB_SCHEDULER_TOKEN").is_some())?,
            compaction: compaction(&values)?,
            vacuum: vacuum(&values)?,
            limits: limits(&values)?,
            data_dir: data_dir.clone(),
        },
        sql: sql(&values, &data_dir)?,
        settings: settings(&values),
        label_values: values.number::<u32>("metrics.label_values")? as usize,
        log: LogConfig {
            filter: values.text("log.filter").to_owned(),
            format: values.choice("log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)])?,
            kept_lines: values.number::<u32>("log.kept_lines")? as usize,
        },
    })
}

fn settings(values: &Values<'_>) -> Vec<Setting> {
    let setting = |key: &Key| {
        let name = key.dotted();
        Setting { value: values.text(&name).to_owned(), name, description: key.about.to_owned() }
    };
    KEYS.iter().map(setting).collect()
}

fn server(values: &Values<'_>) -> Result<ServerConfig> {
    let port = values.text("server.port");
    Ok(ServerConfig {
        host: values.text("server.host").to_owned(),
        port: port.parse().map_err(|_| anyhow!("server.port = '{port}': it is a number from 0 to 65535"))?,
        body_bytes: values.number::<u32>("server.body_bytes")? as usize,
        shutdown: values.seconds("server.shutdown_seconds")?,
        remote_setup: values.choice("server.remote_setup", &[("true", true), ("false", false)])?,
    })
}

fn auth(values: &Values<'_>, secret: &impl Fn(&str) -> Option<String>) -> Result<AuthConfig> {
    let jwt_secret = secret("KALAMDB_JWT_SECRET");
    if let Some(text) = &jwt_secret {
        let length = text.len();
        ensure!(
            length >= SHORTEST_JWT_SECRET,
            "KALAMDB_JWT_SECRET has {length} bytes: at least {SHORTEST_JWT_SECRET} are needed"
        );
    }
    Ok(AuthConfig {
        token: values.seconds("auth.token_seconds")?,
        refresh: values.seconds("auth.refresh_seconds")?,
        requests_per_second: values.number("auth.requests_per_second")?,
        lock: LockPolicy {
            attempts: values.number("auth.lock_attempts")?,
            lock_ms: i64::from(values.number::<u32>("auth.lock_seconds")?) * 1000,
        },
        oidc_issuers: values.text("auth.oidc_issuers").to_owned(),
        root_password: secret("KALAMDB_ROOT_PASSWORD"),
        jwt_secret,
        scheduler_token: secret("KALAMDB_SCHEDULER_TOKEN"),
    })
}

fn object_store(
    values: &Values<'_>,
    data_dir: &std::path::Path,
    secret: &impl Fn(&str) -> Option<String>,
) -> Result<ObjectStoreConfig> {
    let optional = |key: &str| Some(values.text(key).to_owned()).filter(|text| !text.is_empty());
    match values.text("object_store.type") {
        "local" => {
            let path = optional("object_store.path").map_or_else(|| data_dir.join("cold"), PathBuf::from);
            Ok(ObjectStoreConfig::Local { path })
        }
        "s3" => {
            let missing =
                || anyhow!("object_store.bucket is empty: object_store.type = 's3' needs the name of a bucket");
            Ok(ObjectStoreConfig::S3 {
                bucket: optional("object_store.bucket").ok_or_else(missing)?,
                prefix: values.text("object_store.prefix").to_owned(),
                endpoint: optional("object_store.endpoint"),
                region: values.text("object_store.region").to_owned(),
                access_key_id: secret("AWS_ACCESS_KEY_ID"),
                secret_access_key: secret("AWS_SECRET_ACCESS_KEY"),
                patience: Patience {
                    request: values.seconds("object_store.request_timeout_seconds")?,
                    connect: values.seconds("object_store.connect_timeout_seconds")?,
                    retries: usize::from(values.number::<u16>("object_store.retries")?),
                    retry_within: values.seconds("object_store.retry_seconds")?,
                },
            })
        }
        other => bail!("object_store.type = '{other}': it is local or s3"),
    }
}

fn flush(values: &Values<'_>, has_scheduler: bool) -> Result<FlushConfig> {
    let patience = values.seconds("flush.scheduler_timeout_seconds")?;
    Ok(FlushConfig {
        max_bytes: values.number("flush.max_bytes")?,
        max_rows: values.number("flush.max_rows")?,
        max_age: values.seconds("flush.max_age_seconds")?,
        max_concurrent: usize::from(values.number::<u16>("flush.max_concurrent")?),
        scheduler_timeout: if has_scheduler { patience } else { Duration::ZERO },
        target_file_bytes: values.number("flush.target_file_bytes")?,
    })
}

fn compaction(values: &Values<'_>) -> Result<CompactionConfig> {
    Ok(CompactionConfig {
        automatic: values.choice("compaction.automatic", &[("true", true), ("false", false)])?,
        min_runs: usize::from(values.number::<u16>("compaction.min_runs")?),
        max_runs: usize::from(values.number::<u16>("compaction.max_runs")?),
        size_percent: values.number("compaction.size_percent")?,
        deleted_percent: values.number("compaction.deleted_percent")?,
        merge_runs: usize::from(values.number::<u16>("compaction.merge_runs")?),
        max_bytes: values.number("compaction.max_bytes")?,
        max_concurrent: usize::from(values.number::<u16>("compaction.max_concurrent")?),
    })
}

fn vacuum(values: &Values<'_>) -> Result<VacuumConfig> {
    let retention = values.seconds("vacuum.retention_seconds")?;
    ensure!(
        retention <= LONGEST_RETENTION,
        "vacuum.retention_seconds = {}: it is at most {}, for so long a table's log remembers removed files",
        retention.as_secs(),
        LONGEST_RETENTION.as_secs()
    );
    Ok(VacuumConfig { retention, interval: values.seconds("vacuum.interval_seconds")? })
}

fn limits(values: &Values<'_>) -> Result<Limits> {
    Ok(Limits {
        block_cache_bytes: values.number::<u64>("limits.block_cache_bytes")? as usize,
        footer_cache_bytes: values.number::<u64>("limits.footer_cache_bytes")? as usize,
        wal_bytes: values.number("limits.wal_bytes")?,
        disk_reserve_bytes: values.number("limits.disk_reserve_bytes")?,
        row_bytes: values.number::<u32>("limits.row_bytes")? as usize,
        commit_queue: usize::from(values.number::<u16>("limits.commit_queue")?),
        commit_queue_bytes: values.number::<u64>("limits.commit_queue_bytes")? as usize,
        reserve_file_bytes: values.number("limits.reserve_file_bytes")?,
        memtable_bytes: values.number::<u64>("limits.memtable_bytes")? as usize,
        change_log_bytes: values.number("limits.change_log_bytes")?,
        change_log_age: values.seconds("limits.change_log_seconds")?,
        audit_entries: values.number::<u32>("limits.audit_entries")? as usize,
    })
}

fn sql(values: &Values<'_>, data_dir: &std::path::Path) -> Result<SqlConfig> {
    Ok(SqlConfig {
        planner: PlannerConfig {
            memory_bytes: values.number::<u64>("sql.memory_bytes")? as usize,
            query_memory_bytes: values.number::<u64>("sql.query_memory_bytes")? as usize,
            spill_dir: data_dir.join("spill"),
            spill_bytes: values.number("sql.spill_bytes")?,
            partitions: usize::from(values.number::<u16>("sql.partitions")?),
        },
        cache: cache(values)?,
        load: LoadConfig {
            batch_rows: values.number::<u32>("load.batch_rows")? as usize,
            piece_bytes: values.number::<u32>("load.piece_bytes")? as usize,
            folder: data_dir.join("spill"),
            file_bytes: values.number("load.file_bytes")?,
            reported: values.number::<u32>("load.reported")? as usize,
        },
        turns: TurnsConfig {
            statements: usize::from(values.number::<u16>("server.concurrent_statements")?),
            of_user: usize::from(values.number::<u16>("server.user_statements")?),
        },
        statement_timeout: values.seconds("sql.statement_timeout_seconds")?,
        reply_bytes: values.number::<u64>("sql.reply_bytes")? as usize,
        write_rows: values.number::<u32>("sql.write_rows")? as usize,
        transaction: TransactionLimits {
            rows: values.number::<u32>("sql.transaction_rows")? as usize,
            bytes: values.number::<u64>("sql.transaction_bytes")? as usize,
        },
        hash_cost: HashCost {
            memory_kib: values.number("auth.hash_memory_kib")?,
            iterations: values.number("auth.hash_iterations")?,
        },
        drop_namespace: values.choice(
            "sql.drop_namespace",
            &[("restrict", DropNamespace::Restrict), ("cascade", DropNamespace::Cascade)],
        )?,
    })
}

fn cache(values: &Values<'_>) -> Result<CacheConfig> {
    Ok(CacheConfig {
        shortcuts: values.choice("sql.shortcuts", &[("true", true), ("false", false)])?,
        schemas: values.number("cache.schemas")?,
        schema_time: values.seconds("cache.schema_seconds")?,
        query_bytes: values.number("cache.query_bytes")?,
        query_times: TimesToLive {
            tables: values.seconds("cache.tables_seconds")?,
            namespaces: values.seconds("cache.namespaces_seconds")?,
            live_queries: values.seconds("cache.live_queries_seconds")?,
            storage_locations: values.seconds("cache.storage_locations_seconds")?,
            jobs: values.seconds("cache.jobs_seconds")?,
        },
        statement_bytes: values.number("cache.statement_bytes")?,
        plan_bytes: values.number("cache.plan_bytes")?,
    })
}
