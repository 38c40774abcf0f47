//! The main path beside single-purpose engines, as ratios in one run: `cargo xtask bench`.
//!
//! Each measurement starts the real binary, works it over HTTP, and does the same work with the peer on the same machine, in turns,
//! so that a noisy neighbour hits both. It reports medians and asserts nothing: these machines are shared.

mod caches;
mod instance;
mod peers;
mod planned;
mod report;
mod workload;

use std::time::{Duration, Instant};

use instance::Instance;
use report::Report;
use workload::Workload;

fn main() -> anyhow::Result<()> {
    // `cargo test --all-targets` runs benchmarks too, but without this flag: there is nothing to assert then.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(run(&Workload::from_environment()?))
}

async fn run(workload: &Workload) -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    workload.create_table(&instance).await?;
    let mut report = Report::default();
    let asked = std::env::var("KALAMDB_BENCH_ONLY").ok();
    let wants = |part: &str| asked.as_deref().is_none_or(|asked| asked.split(',').any(|name| name == part));
    if wants("caches") {
        caches::measure(&mut report).await?;
    }
    // The others need the rows.
    inserts(workload, &instance, &mut report).await?;
    if wants("points") {
        point_reads(workload, &instance, &mut report).await?;
        planned::single_inserts(workload, &instance, &mut report).await?;
    }
    if wants("queries") {
        planned::planned_again(workload, &instance, &mut report).await?;
        planned::streams(&instance, "hot", &mut report).await?;
    }
    flush(&instance, &mut report).await?;
    if wants("cold") {
        planned::streams(&instance, "cold", &mut report).await?;
        time_ranges(workload, &instance, &mut report).await?;
    }
    println!("{report}");
    Ok(())
}

async fn inserts(workload: &Workload, instance: &Instance, report: &mut Report) -> anyhow::Result<()> {
    let raw = peers::RawRocks::open()?;
    let (mut ours, mut theirs) = (vec![], vec![]);
    for batch in workload.batches() {
        let statement = workload.insert_statement(&batch);
        ours.push(timed(instance.sql(&statement, vec![])).await?);
        theirs.push(raw.write(&batch)?);
    }
    report.rates("batch insert, 1 client", "raw RocksDB, same bytes and fsync", workload.batch_rows, &ours, &theirs);
    Ok(())
}

async fn point_reads(workload: &Workload, instance: &Instance, report: &mut Report) -> anyhow::Result<()> {
    let handler = peers::EmptyHandler::start().await?;
    let (mut ours, mut theirs) = (vec![], vec![]);
    for id in workload.sampled_ids() {
        let (sql, params) = workload.point_read(id);
        ours.push(timed(instance.sql(sql, params.clone())).await?);
        theirs.push(timed(handler.ask(sql, params)).await?);
    }
    report.latencies("point read, hot", "empty axum handler", &ours, &theirs);
    Ok(())
}

async fn flush(instance: &Instance, report: &mut Report) -> anyhow::Result<()> {
    let ours = instance.flush(workload::TABLE).await?;
    let theirs = peers::parquet_writer_alone(&instance.parquet_files()?)?;
    report.throughput("flush", "arrow's Parquet writer alone", theirs.rows, ours, theirs.took);
    Ok(())
}

async fn time_ranges(workload: &Workload, instance: &Instance, report: &mut Report) -> anyhow::Result<()> {
    let mut duckdb = peers::DuckDb::start(&instance.parquet_files()?)?;
    let (mut ours, mut theirs) = (vec![], vec![]);
    for range in workload.time_ranges() {
        let began = Instant::now();
        let answer = instance.sql(&workload.time_range_query(workload::TABLE, &range), vec![]).await?;
        ours.push(began.elapsed());
        let (expected, took) = duckdb.count(&workload.time_range_query("cold", &range))?;
        theirs.push(took);
        anyhow::ensure!(workload::count_of(&answer)? == expected, "{range:?}: {answer} but DuckDB counts {expected}");
    }
    report.latencies("time range over cold", "DuckDB on the same files", &ours, &theirs);
    Ok(())
}

/// How long a fallible piece of work took.
async fn timed<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed())
}
