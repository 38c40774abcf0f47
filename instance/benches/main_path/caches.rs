//! Look-ups in the caches beside the same without them, within this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use kalamdb_engine::Engine;
use kalamdb_engine::catalog::Role;
use kalamdb_engine::schema::{TableName, UserId};
use kalamdb_instance::configuration::{Configuration, Reading};
use kalamdb_sql::cache::schema::{ResolvedTable, SchemaCache};
use kalamdb_sql::cache::system_clock;
use kalamdb_sql::relations::{Host, LogLine, Session, Setting};
use kalamdb_sql::{Database, Identity, Request, SqlError, StatementKind, StatementObserver};

use crate::report::Report;

/// Tables in the catalog.
const TABLES: usize = 200;
/// Measurements of each kind; a cached look-up is too short to be measured alone.
const ROUNDS: usize = 50;
const LOOK_UPS: u32 = 1000;
const SYSTEM_QUERY: &str =
    "SELECT table_name, table_type, version FROM system.tables WHERE namespace_id = 'default' ORDER BY 1";

struct Unobserved;

impl StatementObserver for Unobserved {
    fn statement_ended(&self, _: StatementKind, _: Option<&TableName>, _: Duration) {}
}

/// A process of which nothing is asked here.
struct Alone;

impl Host for Alone {
    fn api_address(&self) -> String {
        String::new()
    }

    fn started_at(&self) -> i64 {
        0
    }

    fn workers(&self) -> usize {
        1
    }

    fn max_connections(&self) -> usize {
        1
    }

    fn settings(&self) -> Vec<Setting> {
        Vec::new()
    }

    fn sessions(&self) -> Vec<Session> {
        Vec::new()
    }

    fn log(&self) -> Vec<LogLine> {
        Vec::new()
    }
}

/// The two caches of phase 17.
pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").display().to_string();
    let Reading::Serve(configuration) = Configuration::read(["bench", "--data-dir", &data].map(Into::into))? else {
        anyhow::bail!("the configuration asks for no server")
    };
    let engine = Engine::open(configuration.engine.clone()).await?;
    let with = Database::new(engine.clone(), configuration.sql.clone(), Arc::new(Unobserved), Arc::new(Alone))?;
    let mut config = configuration.sql.clone();
    config.cache.shortcuts = false;
    let without = Database::new(engine.clone(), config, Arc::new(Unobserved), Arc::new(Alone))?;
    for at in 0..TABLES {
        let columns: Vec<String> = (0..20).map(|column| format!("c{column} TEXT DEFAULT 'x'")).collect();
        ask(&with, &format!("CREATE TABLE t{at} (id BIGINT PRIMARY KEY, {})", columns.join(", "))).await?;
    }
    schemas(&engine, report)?;
    system_queries(&with, &without, report).await?;
    engine.close().await;
    Ok(())
}

fn schemas(engine: &Engine, report: &mut Report) -> anyhow::Result<()> {
    let catalog = engine.catalog();
    let table = catalog.tables.get(&TableName::new("default", "t7")).context("the table is there")?;
    let load =
        || engine.stored_table(table.id, table.version)?.ok_or_else(|| SqlError::not_found("table", &table.name));
    let cache = SchemaCache::new(100, Duration::from_secs(300), system_clock());
    let (mut cached, mut uncached) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..LOOK_UPS {
            cache.get_or_load(&table.name, table.version, table.id, load)?;
        }
        cached.push(began.elapsed() / LOOK_UPS);
        let began = Instant::now();
        std::hint::black_box(ResolvedTable::of(Arc::new(load()?)));
        uncached.push(began.elapsed());
    }
    report.latencies("schema look-up, cached", "the same from the catalog as stored", &cached, &uncached);
    Ok(())
}

async fn system_queries(with: &Database, without: &Database, report: &mut Report) -> anyhow::Result<()> {
    let (mut cached, mut uncached) = (vec![], vec![]);
    ask(with, SYSTEM_QUERY).await?;
    for _ in 0..ROUNDS {
        cached.push(ask(with, SYSTEM_QUERY).await?);
        uncached.push(ask(without, SYSTEM_QUERY).await?);
    }
    report.latencies("query over a system table, cached", "the same without caches", &cached, &uncached);
    Ok(())
}

async fn ask(database: &Database, sql: &str) -> anyhow::Result<Duration> {
    let identity = Identity { user: UserId::from("root"), role: Role::System, address: None };
    let request = Request { sql: sql.to_owned(), ..Request::default() };
    let began = Instant::now();
    std::hint::black_box(database.execute(request, &identity).await?);
    Ok(began.elapsed())
}
