//! The engine beside what it is built on, as ratios in one run: `cargo xtask bench`.
//!
//! No SQL and no HTTP: rows go into the engine as a statement hands them on. Each measurement does the same work with RocksDB or with
//! arrow's Parquet writer alone on the same machine, in turns, so that a noisy neighbour hits both. It reports medians and asserts
//! nothing: these machines are shared. How many requests a cold read makes, and how much memory a flush takes, are tests as well.

mod database;
mod memory;
mod raw;
#[path = "../main_path/report.rs"]
mod report;
mod requests;

use std::time::{Duration, Instant};

use database::{Database, row};
use kalamdb_engine::Engine;
use kalamdb_engine::hot::key::storage_key;
use kalamdb_engine::hot::row::RowReader;
use kalamdb_engine::value::Value;
use raw::{RawRocks, Settings, Stored};
use report::Report;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Rows of one commit.
const BATCH: i64 = 1000;
/// Point reads of each kind.
const READS: i64 = 5000;
/// Turns of what takes long.
const TURNS: usize = 5;
/// How many times larger the second flush is of which the memory is measured.
const LARGER: i64 = 8;

fn main() -> anyhow::Result<()> {
    // `cargo test --all-targets` runs benchmarks too, but without this flag: there is nothing to assert then.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let rows = match std::env::var("KALAMDB_BENCH_ROWS") {
        Ok(rows) => rows.parse()?,
        Err(_) => 200_000,
    };
    tokio::runtime::Runtime::new()?.block_on(run(rows))
}

async fn run(rows: i64) -> anyhow::Result<()> {
    let mut report = Report::default();
    let asked = std::env::var("KALAMDB_BENCH_ONLY").ok();
    let wants = |part: &str| asked.as_deref().is_none_or(|asked| asked.split(',').any(|name| name == part));
    if wants("hot") {
        let stored = stored(rows).await?;
        inserts_and_hot_reads(&stored, rows, &mut report).await?;
    }
    if wants("flush") {
        flushes(rows, &mut report).await?;
    }
    if wants("cold") {
        cold_reads(rows, &mut report).await?;
    }
    if wants("masks") {
        masked_scans(rows, &mut report).await?;
    }
    println!("{report}");
    Ok(())
}

fn batches(rows: i64) -> impl Iterator<Item = std::ops::Range<i64>> {
    (0..rows).step_by(BATCH as usize).map(move |first| first..(first + BATCH).min(rows))
}

/// A database with so many rows in its hot tier.
async fn filled(rows: i64) -> anyhow::Result<Database> {
    let database = Database::open().await?;
    for batch in batches(rows) {
        database.insert(batch.map(row).collect()).await?;
    }
    Ok(database)
}

/// The bytes that the engine stores for these rows.
async fn stored(rows: i64) -> anyhow::Result<Stored> {
    let (_folder, hot) = filled(rows).await?.close().await;
    Stored::read(&hot)
}

async fn inserts_and_hot_reads(stored: &Stored, rows: i64, report: &mut Report) -> anyhow::Result<()> {
    let (database, raw) = (Database::open().await?, RawRocks::open()?);
    let (mut ours, mut theirs) = (vec![], vec![]);
    for batch in batches(rows) {
        let bytes = batch.start as usize..batch.end as usize;
        let new: Vec<_> = batch.map(row).collect();
        let began = Instant::now();
        database.insert(new).await?;
        ours.push(began.elapsed());
        theirs.push(raw.write(&stored.rows[bytes.clone()], &stored.changes[bytes])?);
    }
    report.rates("batched durable inserts", "RocksDB, same bytes and fsync", BATCH, &ours, &theirs);
    let (mut ours, mut theirs) = (vec![], vec![]);
    let reader = RowReader::of_all(&database.table);
    for n in 0..READS {
        let id = n * 7919 % rows;
        let key = storage_key(database.table.id, None, &Engine::key_of(&database.table, &[Value::BigInt(id)])?);
        let began = Instant::now();
        database.read(id).await?;
        ours.push(began.elapsed());
        theirs.push(raw.read(&database.table, &reader, &key)?);
    }
    report.latencies("point read, hot", "RocksDB get and decode", &ours, &theirs);
    inserts_beside_files(&database, rows, report).await
}

/// Inserts into the same table once it has cold files, in which the keys are looked up too.
async fn inserts_beside_files(database: &Database, rows: i64, report: &mut Report) -> anyhow::Result<()> {
    database.flush().await?;
    let mut took = vec![];
    for batch in batches(rows / 4) {
        let new = (rows + batch.start..rows + batch.end).map(row).collect();
        let began = Instant::now();
        database.insert(new).await?;
        took.push(began.elapsed());
    }
    report.alone("batched durable inserts, keys beyond those of the cold files", BATCH, &took);
    Ok(())
}

async fn flushes(rows: i64, report: &mut Report) -> anyhow::Result<()> {
    let (mut ours, mut bare, mut same) = (vec![], vec![], vec![]);
    for turn in 0..TURNS {
        let database = filled(rows).await?;
        let watch = memory::Watch::begin()?;
        ours.push(database.flush().await?);
        let peak = watch.end()?;
        if turn == 0 {
            report.held(&format!("memory of a flush of {rows} rows"), peak.heap, peak.resident);
        }
        let batches = raw::rows_of(&database.parquet_files()?)?;
        bare.push(raw::write_parquet(&database.table, &batches, Settings::Bare)?);
        same.push(raw::write_parquet(&database.table, &batches, Settings::Same)?);
    }
    report.rates("flush", "arrow's Parquet writer, its own settings", rows, &ours, &bare);
    report.rates("flush", "arrow's Parquet writer, the same settings", rows, &ours, &same);
    let database = filled(rows * LARGER).await?;
    let watch = memory::Watch::begin()?;
    let took = database.flush().await?;
    let peak = watch.end()?;
    report.held(&format!("memory of a flush of {} rows", rows * LARGER), peak.heap, peak.resident);
    report.alone(&format!("flush of {} rows", rows * LARGER), rows * LARGER, &[took]);
    Ok(())
}

async fn cold_reads(rows: i64, report: &mut Report) -> anyhow::Result<()> {
    let database = filled(rows).await?;
    database.flush().await?;
    let ids = (0..READS / 10).map(|n| n * 7919 % rows);
    // The first read of each row group brings its footer and its bloom filter.
    for id in (0..rows).step_by(10_000) {
        database.read(id).await?;
    }
    let (mut took, mut most) = (vec![], 0);
    for id in ids {
        let (before, began) = (database.requests(), Instant::now());
        database.read(id).await?;
        took.push(began.elapsed());
        most = most.max(database.requests() - before);
    }
    report.requests("point read, cold, cached footers", most, &took);
    Ok(())
}

async fn masked_scans(rows: i64, report: &mut Report) -> anyhow::Result<()> {
    let (whole, masked) = (filled(rows).await?, filled(rows).await?);
    whole.flush().await?;
    masked.flush().await?;
    masked.delete((0..rows / 100).map(|n| n * 100 + n * 7919 % 100).collect()).await?;
    scans("scan with 1 % of the rows masked", &whole, &masked, report).await?;
    masked.flush().await?;
    scans("scan with 1 % of the rows in deletion vectors", &whole, &masked, report).await
}

async fn scans(what: &str, whole: &Database, masked: &Database, report: &mut Report) -> anyhow::Result<()> {
    for sql in [
        "SELECT sum(value), max(moment), count(payload) FROM events",
        "SELECT count(*), sum(value) FROM events WHERE kind = 'click'",
    ] {
        let (mut ours, mut theirs): (Vec<Duration>, Vec<Duration>) = (vec![], vec![]);
        for _ in 0..TURNS * 4 {
            ours.push(masked.query(sql).await?);
            theirs.push(whole.query(sql).await?);
        }
        report.latencies(&format!("{what}: {sql}"), "the same files unmasked", &ours, &theirs);
    }
    Ok(())
}
