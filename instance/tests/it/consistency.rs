//! Writers, readers, flushes, compactions and restarts together: money moves between accounts of two tables in transactions, and whoever adds
//! it all up, by a scan, by look-ups, in a statement or in a transaction, finds the same sum at every moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::server::{Folder, Server};

const TABLES: [&str; 2] = ["checking", "savings"];
/// Accounts of each table.
const ACCOUNTS: i64 = 40;
const BALANCE: i64 = 1000;
const SUM: i64 = 2 * ACCOUNTS * BALANCE;
const WRITERS: u64 = 3;
/// How long it lasts where the environment says nothing.
const SECONDS: u64 = 20;

/// How often each reader and writer succeeded.
#[derive(Default, Debug)]
struct Counts {
    transfers: AtomicU64,
    conflicts: AtomicU64,
    scans: AtomicU64,
    look_ups: AtomicU64,
    transactions: AtomicU64,
}

struct Bank {
    server: Server,
    stop: AtomicBool,
    counts: Counts,
}

impl Bank {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Moves money between two accounts; now and then by closing one and opening it again.
    async fn transfer(self: Arc<Self>, writer: u64) -> Result<()> {
        let mut random = StdRng::seed_from_u64(writer);
        while self.goes_on() {
            let (from, to) = (random.random_range(0..2 * ACCOUNTS), random.random_range(0..2 * ACCOUNTS));
            if from == to {
                continue;
            }
            let (amount, account) =
                (random.random_range(1..20), |number: i64| (TABLES[(number % 2) as usize], number / 2));
            let ((from_table, from), (to_table, to)) = (account(from), account(to));
            let sql = match random.random_range(0..5) {
                0 => format!(
                    "BEGIN; UPDATE {to_table} SET balance = balance + {amount} WHERE id = {to};
                     DELETE FROM {from_table} WHERE id = {from};
                     INSERT INTO {from_table} SELECT {from}, {SUM} - (SELECT sum(balance) FROM checking)
                         - (SELECT sum(balance) FROM savings); COMMIT"
                ),
                _ => format!(
                    "BEGIN; UPDATE {from_table} SET balance = balance - {amount} WHERE id = {from};
                     UPDATE {to_table} SET balance = balance + {amount} WHERE id = {to}; COMMIT"
                ),
            };
            let answer = self.server.try_sql(&sql).await?;
            match answer.body["error"]["code"].as_str() {
                None => self.counts.transfers.fetch_add(1, Ordering::Relaxed),
                Some("TRANSACTION_CONFLICT") => self.counts.conflicts.fetch_add(1, Ordering::Relaxed),
                Some(_) => anyhow::bail!("{sql}: {}", answer.body),
            };
        }
        Ok(())
    }

    /// One statement over both tables, planned in different ways.
    async fn scan(self: Arc<Self>) -> Result<()> {
        let queries = [
            "SELECT (SELECT sum(balance) FROM checking) + (SELECT sum(balance) FROM savings), \
             (SELECT count(*) FROM checking) + (SELECT count(*) FROM savings)",
            "SELECT sum(balance), count(DISTINCT name) FROM (SELECT 'c' || id AS name, balance FROM checking \
             UNION ALL SELECT 's' || id, balance FROM savings)",
            "SELECT sum(c.balance + s.balance), 2 * count(*) FROM checking c JOIN savings s ON c.id = s.id",
        ];
        for turn in 0.. {
            if !self.goes_on() {
                break;
            }
            let sql = queries[turn % queries.len()];
            let rows = self.server.rows(sql).await?;
            ensure!(numbers(&rows)? == [[SUM, 2 * ACCOUNTS]], "{sql}: {rows}");
            self.counts.scans.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A transaction that looks each account up by its key, one statement after the other.
    async fn look_up(self: Arc<Self>) -> Result<()> {
        let one = |table: &str, id: i64| format!("SELECT balance FROM {table} WHERE id = {id};");
        let all: String = (0..ACCOUNTS).flat_map(|id| TABLES.map(|table| one(table, id))).collect();
        let sql = format!("BEGIN; {all} COMMIT");
        while self.goes_on() {
            let answer = self.server.try_sql(&sql).await?;
            let results = answer.body["results"].as_array().with_context(|| answer.body.to_string())?;
            let found = &results[1..results.len() - 1];
            let mut sum = 0;
            for result in found {
                let rows = numbers(&result["rows"])?;
                ensure!(rows.len() == 1, "{result}");
                sum += rows[0][0];
            }
            ensure!((sum, found.len() as i64) == (SUM, 2 * ACCOUNTS), "the look-ups add up to {sum}: {}", answer.body);
            self.counts.look_ups.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A transaction whose statements scan one table each, at different times.
    async fn read_in_turns(self: Arc<Self>) -> Result<()> {
        let sql = "BEGIN; SELECT sum(balance) FROM checking; SELECT count(*) FROM savings WHERE balance > -1000000; \
                   SELECT sum(balance) FROM savings; COMMIT";
        while self.goes_on() {
            let answer = self.server.try_sql(sql).await?;
            let number = |at: usize| Ok::<_, anyhow::Error>(numbers(&answer.body["results"][at]["rows"])?[0][0]);
            ensure!(number(1)? + number(3)? == SUM && number(2)? == ACCOUNTS, "{}", answer.body);
            self.counts.transactions.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Flushes and compacts both tables by statement, beside what the instance does by itself.
    async fn tend(self: Arc<Self>) -> Result<()> {
        for turn in 0.. {
            if !self.goes_on() {
                break;
            }
            let table = TABLES[turn % 2];
            ensure!(self.server.flush(table).await? != "failed");
            if turn % 6 > 3 {
                ensure!(self.server.compact(table).await? != "failed");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn numbers(rows: &Value) -> Result<Vec<Vec<i64>>> {
    let number = |value: &Value| match value {
        Value::String(text) => text.parse().context("a number"),
        other => other.as_i64().context("a number"),
    };
    let rows = rows.as_array().with_context(|| format!("rows: {rows}"))?;
    rows.iter().map(|row| row.as_array().context("a row")?.iter().map(number).collect()).collect()
}

/// Works until the time is over or something is wrong.
async fn work(bank: &Arc<Bank>, until: Instant) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        tasks.spawn(bank.clone().transfer(writer));
    }
    tasks.spawn(bank.clone().scan());
    tasks.spawn(bank.clone().look_up());
    tasks.spawn(bank.clone().read_in_turns());
    tasks.spawn(bank.clone().tend());
    let stop = bank.clone();
    tasks.spawn(async move {
        tokio::time::sleep_until(until.into()).await;
        stop.stop.store(true, Ordering::SeqCst);
        Ok(())
    });
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended.context("a task panicked").flatten() {
            bank.stop.store(true, Ordering::SeqCst);
            return Err(error);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_sees_one_moment_whatever_goes_on() -> Result<()> {
    let seconds = std::env::var("KALAMDB_SOAK_SECONDS").map_or(Ok(SECONDS), |seconds| seconds.parse())?;
    let folder = Folder::new()?.with("KALAMDB_COMPACTION_MIN_RUNS", "3").with("KALAMDB_VACUUM_RETENTION_SECONDS", "1");
    let server = Server::start_in(folder).await?;
    for table in TABLES {
        server.sql(&format!("CREATE TABLE {table} (id BIGINT PRIMARY KEY, balance BIGINT)")).await?;
        let rows = format!("SELECT value, {BALANCE} FROM generate_series(0, {})", ACCOUNTS - 1);
        server.sql(&format!("INSERT INTO {table} {rows}")).await?;
    }
    let bank = Arc::new(Bank { server, stop: AtomicBool::new(false), counts: Counts::default() });
    work(&bank, Instant::now() + Duration::from_secs(seconds)).await?;
    let jobs = bank
        .server
        .rows("SELECT job_type, status, count(*) FROM system.jobs GROUP BY job_type, status ORDER BY 1, 2")
        .await;
    println!("{:?}; jobs: {jobs:?}", bank.counts);
    let counts = &bank.counts;
    for count in [&counts.transfers, &counts.scans, &counts.look_ups, &counts.transactions] {
        ensure!(count.load(Ordering::Relaxed) > 3, "somebody did nothing: {counts:?}");
    }
    let bank = Arc::into_inner(bank).context("all tasks have ended")?;
    let server = Server::start_in(bank.server.kill()?).await?;
    let rows = server.rows("SELECT (SELECT sum(balance) FROM checking) + (SELECT sum(balance) FROM savings)").await?;
    ensure!(numbers(&rows)? == [[SUM]], "after kill -9: {rows}");
    Ok(())
}
