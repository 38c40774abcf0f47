//! The real S3 server is killed, restarted and frozen under load: every acknowledged row is there in the end, none twice, and a read that needed the
//! store meanwhile was right or got 503.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::buckets::Bucket;
use crate::server::Server;

const WRITERS: i64 = 2;
/// Old rows, in the bucket alone. Nobody changes them.
const OLD: i64 = 2000;
/// Rows of one statement.
const ROWS: i64 = 5;

/// What happens to the server, and for how long.
#[derive(Debug, Clone, Copy)]
enum Outage {
    Killed(Duration),
    /// It takes connections and does not answer: longer than a request may take.
    Frozen(Duration),
}

/// What came of it all.
#[derive(Default)]
struct Account {
    /// Key -> the value that was acknowledged last. A refusal says that nothing was written.
    rows: Mutex<BTreeMap<i64, i64>>,
    answered: AtomicU64,
    refused: AtomicU64,
    slowest_millis: AtomicI64,
}

impl Account {
    /// Notes how a request ended. Whoever needs the store and can't have it is told so, and when to ask again.
    async fn take(&self, response: reqwest::Response, sql: &str, began: Instant) -> Result<Option<Value>> {
        self.slowest_millis.fetch_max(began.elapsed().as_millis() as i64, Ordering::SeqCst);
        let (status, retry) = (response.status(), response.headers().get("retry-after").cloned());
        let body: Value = response.json().await?;
        if status.is_success() {
            self.answered.fetch_add(1, Ordering::SeqCst);
            return Ok(Some(body));
        }
        ensure!(status.as_u16() == 503, "{sql}: {status} {body}");
        ensure!(retry.is_some() && body["error"]["code"] == "UNAVAILABLE", "{sql}: {retry:?} {body}");
        self.refused.fetch_add(1, Ordering::SeqCst);
        Ok(None)
    }
}

async fn run(server: &Server, account: &Account, sql: &str) -> Result<Option<Value>> {
    let began = Instant::now();
    let response = server.post("/v1/api/sql", &server.token, &json!({"sql": sql})).await?;
    account.take(response, sql, began).await
}

/// Inserts and updates several rows in a statement, again and again. Each writer owns its keys.
async fn write(server: Arc<Server>, account: Arc<Account>, stop: Arc<AtomicBool>, writer: i64) -> Result<()> {
    for step in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let first = OLD + (writer + 1) * 100_000 + step % 60 * ROWS;
        let is_there = account.rows.lock().expect("nobody panicked").contains_key(&first);
        let value = step * ROWS;
        let values = |row: i64| format!("({}, {})", first + row, value + row);
        let sql = if is_there {
            format!("UPDATE t SET v = {value} + id - {first} WHERE id >= {first} AND id < {}", first + ROWS)
        } else {
            format!("INSERT INTO t (id, v) VALUES {}", (0..ROWS).map(values).collect::<Vec<_>>().join(", "))
        };
        if run(&server, &account, &sql).await?.is_some() {
            let mut rows = account.rows.lock().expect("nobody panicked");
            rows.extend((0..ROWS).map(|row| (first + row, value + row)));
        }
    }
    Ok(())
}

/// Reads old rows by scans and by key, in turns: nobody changes them, so their answers are known.
async fn read(server: Arc<Server>, account: Arc<Account>, stop: Arc<AtomicBool>) -> Result<()> {
    for step in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let id = step * 7919 % OLD;
        let (sql, wanted) = match step % 2 {
            0 => (
                format!("SELECT count(*), sum(v) FROM t WHERE id < {OLD}"),
                json!([[OLD.to_string(), (OLD * (OLD - 1)).to_string()]]),
            ),
            _ => (format!("SELECT v FROM t WHERE id = {id}"), json!([[(2 * id).to_string()]])),
        };
        if let Some(body) = run(&server, &account, &sql).await? {
            ensure!(body["results"][0]["rows"] == wanted, "{sql}: {body}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// What must hold once the store is back.
async fn check(server: &Server, account: &Account) -> Result<()> {
    let rows = server.rows(&format!("SELECT id, v FROM t WHERE id >= {OLD} ORDER BY id")).await?;
    let number = |value: &Value| value.as_str().context("a number")?.parse::<i64>().context("a number");
    let rows = rows.as_array().context("rows")?.iter().map(|row| Ok((number(&row[0])?, number(&row[1])?)));
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let found: BTreeMap<_, _> = rows.iter().copied().collect();
    ensure!(found.len() == rows.len(), "a key stands twice");
    let wanted = account.rows.lock().expect("nobody panicked").clone();
    for (id, acknowledged) in &wanted {
        ensure!(found.get(id) == Some(acknowledged), "{id}: {:?} instead of {acknowledged}", found.get(id));
    }
    ensure!(found.len() == wanted.len(), "{} rows instead of {}", found.len(), wanted.len());
    let old = server.rows(&format!("SELECT count(*), sum(v) FROM t WHERE id < {OLD}")).await?;
    ensure!(old == json!([[OLD.to_string(), (OLD * (OLD - 1)).to_string()]]), "{old}");
    Ok(())
}

async fn jobs_in(server: &Server, state: &str) -> Result<i64> {
    let rows = server.rows(&format!("SELECT count(*) FROM system.jobs WHERE status = '{state}'")).await?;
    rows[0][0].as_str().context("a count")?.parse().context("a count")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bucket_may_go_and_freeze_under_load() -> Result<()> {
    let Some(bucket) = Bucket::new()? else { return Ok(()) };
    let mut s3 = bucket.serve().await?;
    // Footers find no room, so that each read needs the store.
    let folder = bucket
        .database()?
        .with("KALAMDB_OBJECT_STORE_REQUEST_TIMEOUT_SECONDS", "2")
        .with("KALAMDB_OBJECT_STORE_CONNECT_TIMEOUT_SECONDS", "1")
        .with("KALAMDB_OBJECT_STORE_RETRIES", "1")
        .with("KALAMDB_OBJECT_STORE_RETRY_SECONDS", "1")
        .with("KALAMDB_LIMITS_FOOTER_CACHE_BYTES", "1")
        .with("KALAMDB_FLUSH_MAX_ROWS", "200")
        .with("KALAMDB_FLUSH_SCHEDULER_TIMEOUT_SECONDS", "1")
        .with("KALAMDB_COMPACTION_MIN_RUNS", "3");
    let server = Arc::new(Server::start_in(folder).await?);
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)").await?;
    server.sql(&format!("INSERT INTO t SELECT value, 2 * value FROM generate_series(0, {})", OLD - 1)).await?;
    ensure!(server.flush("t").await? == "completed");

    let (account, stop) = (Arc::new(Account::default()), Arc::new(AtomicBool::new(false)));
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        tasks.push(tokio::spawn(write(server.clone(), account.clone(), stop.clone(), writer)));
    }
    for _ in 0..2 {
        tasks.push(tokio::spawn(read(server.clone(), account.clone(), stop.clone())));
    }
    let seconds: u64 = std::env::var("KALAMDB_SOAK_SECONDS").map_or(Ok(0), |seconds| seconds.parse())?;
    let outages = [
        Outage::Killed(Duration::from_millis(1500)),
        Outage::Frozen(Duration::from_millis(5000)),
        Outage::Killed(Duration::from_millis(200)),
        Outage::Frozen(Duration::from_millis(700)),
    ];
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds.max(1)) {
        for outage in outages {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            match outage {
                Outage::Killed(time) => {
                    drop(s3);
                    tokio::time::sleep(time).await;
                    s3 = bucket.serve().await?;
                }
                Outage::Frozen(time) => {
                    s3.signal("STOP")?;
                    tokio::time::sleep(time).await;
                    s3.signal("CONT")?;
                }
            }
            if let Some(ended) = tasks.iter().position(|task| task.is_finished()) {
                tasks.swap_remove(ended).await?.with_context(|| format!("after {outage:?}"))?;
                anyhow::bail!("somebody has ended after {outage:?}");
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await??;
    }
    let (answered, refused) = (account.answered.load(Ordering::SeqCst), account.refused.load(Ordering::SeqCst));
    let (flushed, failed) = (jobs_in(&server, "completed").await?, jobs_in(&server, "failed").await?);
    let slowest = account.slowest_millis.load(Ordering::SeqCst);
    println!("{answered} answered, {refused} refused, slowest {slowest} ms; {flushed} jobs completed, {failed} failed");
    ensure!(refused > 0 && failed > 0 && flushed > 2, "the outages were felt, and jobs succeeded beside them");
    check(&server, &account).await.context("once the bucket is back")?;
    ensure!(server.flush("t").await? != "failed");
    ensure!(server.compact("t").await? != "failed");
    check(&server, &account).await.context("flushed and compacted")?;
    let folder = Arc::into_inner(server).context("all tasks have ended")?.kill()?;
    let server = Server::start_in(folder).await?;
    check(&server, &account).await.context("in the next life")
}
