//! One engine in a folder of its own, with one table, worked without SQL and HTTP.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use datafusion::prelude::{SessionConfig, SessionContext};
use kalamdb_api::flush::{FlushReason, FlushState};
use kalamdb_engine::catalog::CatalogChange;
use kalamdb_engine::cold::{ColdStore, ColdTier};
use kalamdb_engine::commit::clock::SystemClock;
use kalamdb_engine::config::{
    CompactionConfig, Durability, EngineConfig, FlushConfig, Limits, ObjectStoreConfig, VacuumConfig,
};
use kalamdb_engine::engine::{LookUp, RowWrite};
use kalamdb_engine::schema::{
    AccessLevel, Column, ColumnId, FlushPolicy, SchemaVersion, SqlType, Table, TableId, TableKind, TableName,
};
use kalamdb_engine::value::{Row, Value};
use kalamdb_engine::{Engine, EngineError};

use crate::requests::Counting;

const FIRST_AT: i64 = 1_700_000_000_000_000;

/// The engine and its table.
pub struct Database {
    folder: tempfile::TempDir,
    /// The engine.
    pub engine: Engine,
    /// The table.
    pub table: Arc<Table>,
    /// Requests for bytes that have reached its object store.
    pub gets: Arc<AtomicUsize>,
    flushes: AtomicUsize,
}

impl Database {
    /// Begins an empty one, durable, with all defaults but that it starts no job by itself.
    pub async fn open() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let gets = Arc::new(AtomicUsize::new(0));
        let engine = open(folder.path(), gets.clone()).await?;
        engine.change_catalog(CatalogChange::CreateTable(Box::new(events()))).await?;
        let table = engine.catalog().tables[&TableName::new("default", "events")].clone();
        Ok(Self { folder, engine, table, gets, flushes: AtomicUsize::new(0) })
    }

    /// Inserts as a statement does: looks the keys up, and commits the rows.
    pub async fn insert(&self, rows: Vec<Row>) -> anyhow::Result<()> {
        let snapshot = self.engine.snapshot();
        let keys = rows.iter().map(|row| Engine::key(&self.table, row)).collect::<Result<Vec<_>, _>>()?;
        let look_ups = snapshot.look_up(&self.table, None, &keys).await?;
        let write =
            |((key, look_up), row)| RowWrite { table: self.table.clone(), user: None, key, look_up, new: Some(row) };
        let writes = keys.into_iter().zip(look_ups).zip(rows).map(write).collect();
        self.engine.commit(writes).await?;
        Ok(())
    }

    /// Deletes the rows of these ids.
    pub async fn delete(&self, ids: Vec<i64>) -> anyhow::Result<()> {
        let key = |id| Engine::key_of(&self.table, &[Value::BigInt(id)]);
        let keys = ids.into_iter().map(key).collect::<Result<Vec<_>, _>>()?;
        let look_ups = self.engine.snapshot().look_up(&self.table, None, &keys).await?;
        let write = |(key, look_up)| RowWrite { table: self.table.clone(), user: None, key, look_up, new: None };
        self.engine.commit(keys.into_iter().zip(look_ups).map(write).collect()).await?;
        Ok(())
    }

    /// The row of that id, read as a statement does.
    pub async fn read(&self, id: i64) -> anyhow::Result<Row> {
        let key = Engine::key_of(&self.table, &[Value::BigInt(id)])?;
        match self.engine.snapshot().look_up(&self.table, None, &[key]).await?.pop() {
            Some(LookUp::Read { found: Some(found), .. }) => Ok(found.row),
            _ => bail!("row {id} is gone"),
        }
    }

    /// How many requests for bytes a piece of work makes.
    pub fn requests(&self) -> usize {
        self.gets.load(Ordering::Relaxed)
    }

    /// Flushes the table; answers how long it took.
    pub async fn flush(&self) -> anyhow::Result<Duration> {
        let id = format!("flush-{}", self.flushes.fetch_add(1, Ordering::Relaxed));
        let began = Instant::now();
        let started = self.start_flush(&id).await?;
        anyhow::ensure!(started, "a job of the id {id} was there");
        let end = Instant::now() + Duration::from_secs(600);
        while Instant::now() < end {
            let job = self.engine.flush_job(&id).context("the job is gone")?;
            match job.state {
                FlushState::Completed => return Ok(began.elapsed()),
                FlushState::Failed => bail!("the flush failed: {job:?}"),
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        bail!("the flush did not end within 600 s")
    }

    async fn start_flush(&self, id: &str) -> Result<bool, EngineError> {
        Ok(self.engine.start_flush(id, &self.table.name, FlushReason::Statement).await?.1)
    }

    /// How long a query of the table takes, `FROM events`.
    pub async fn query(&self, sql: &str) -> anyhow::Result<Duration> {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        let began = Instant::now();
        context.register_table("events", self.engine.snapshot().provider(&self.table, None))?;
        context.sql(sql).await?.collect().await?;
        Ok(began.elapsed())
    }

    /// Ends the engine; its folder stays as long as the value that is returned.
    pub async fn close(self) -> (tempfile::TempDir, PathBuf) {
        self.engine.close().await;
        let hot = kalamdb_engine::hot::store::folder(&self.folder.path().join("data"));
        (self.folder, hot)
    }

    /// The Parquet files of its cold tier.
    pub fn parquet_files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let folder = self.folder.path().join("cold/tables").join(self.table.uuid.to_string());
        let entries = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
        let mut files = entries.collect::<Result<Vec<_>, _>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "parquet"));
        Ok(files)
    }
}

async fn open(folder: &Path, gets: Arc<AtomicUsize>) -> Result<Engine, EngineError> {
    let config = EngineConfig {
        data_dir: folder.join("data"),
        object_store: ObjectStoreConfig::Local { path: folder.join("cold") },
        durability: Durability::Sync,
        flush: FlushConfig { scheduler_timeout: Duration::from_secs(3600), ..FlushConfig::default() },
        compaction: CompactionConfig { automatic: false, ..CompactionConfig::default() },
        vacuum: VacuumConfig::default(),
        limits: Limits::default(),
    };
    let store = ColdStore::open(&config.object_store)?.wrapped(|inner| Arc::new(Counting { inner, gets }));
    let tier = ColdTier::over(store, config.limits.footer_cache_bytes);
    Engine::open_over(config, Arc::new(SystemClock), tier).await
}

/// `id BIGINT PRIMARY KEY, moment TIMESTAMP NOT NULL, kind TEXT, value DOUBLE, payload TEXT`.
fn events() -> Table {
    let columns = [
        ("id", SqlType::BigInt),
        ("moment", SqlType::Timestamp),
        ("kind", SqlType::Text),
        ("value", SqlType::Double),
        ("payload", SqlType::Text),
    ];
    let column = |(at, (name, sql_type)): (usize, (&str, SqlType))| Column {
        nullable: at > 1,
        ..Column::new(ColumnId(at as u32 + 1), name, sql_type)
    };
    Table {
        id: TableId(1),
        uuid: uuid::Uuid::new_v4(),
        name: TableName::new("default", "events"),
        kind: TableKind::Shared,
        version: SchemaVersion(1),
        columns: columns.into_iter().enumerate().map(column).collect(),
        primary_key: vec![ColumnId(1)],
        next_column_id: ColumnId(6),
        flush_policy: FlushPolicy::default(),
        access_level: AccessLevel::default(),
        ttl_seconds: None,
        created_at: 0,
        updated_at: 0,
        storage: None,
        deleted_retention_hours: None,
    }
}

/// Row number `id`.
pub fn row(id: i64) -> Row {
    let scrambled = (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    vec![
        Value::BigInt(id),
        Value::Timestamp(FIRST_AT + id * 1_000_000),
        Value::Text(["click", "view", "order", "login"][(scrambled >> 62) as usize].into()),
        Value::Double((scrambled >> 40) as f64 / 1000.0),
        Value::Text(format!("{scrambled:016x}{:016x}", scrambled.rotate_left(17))),
    ]
}
