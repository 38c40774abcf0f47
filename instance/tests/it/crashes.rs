//! `kill -9` at any moment, and a gentle stop too: every acknowledged row is there after the restart, none twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::server::{Folder, Server};

const ROUNDS: u64 = 6;
const WRITERS: i64 = 3;

/// What each key must hold: the last acknowledged value, and the one whose answer never came.
type Ledger = Arc<Mutex<BTreeMap<i64, (Option<i64>, Option<i64>)>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_rows_outlive_kill_minus_nine_and_a_stop() -> Result<()> {
    let mut server = Server::start_in(Folder::new()?).await?;
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)").await?;
    let ledger = Ledger::default();
    for round in 0..ROUNDS {
        let running = Arc::new(Server::start_in(server.stop()?).await?);
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for writer in 0..WRITERS {
            tasks.push(tokio::spawn(write(
                Arc::clone(&running),
                Arc::clone(&ledger),
                Arc::clone(&stop),
                writer,
                round as i64,
            )));
        }
        // Old rows and new ones read its DEFAULT alike.
        running.sql(&format!("ALTER TABLE t ADD COLUMN c{round} INT NOT NULL DEFAULT {round}")).await?;
        tasks.push(tokio::spawn(tend(Arc::clone(&running), Arc::clone(&stop))));
        tokio::time::sleep(Duration::from_millis(700 + 370 * round)).await;
        // The writers have requests under way: the process dies in the middle of them.
        let killed = signal(&running, if round % 3 == 2 { "TERM" } else { "KILL" });
        stop.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await?;
        }
        killed?;
        let folder = Arc::into_inner(running).context("all tasks have ended")?.kill()?;
        server = Server::start_in(folder).await?;
        check(&server, &ledger, round).await?;
    }
    Ok(())
}

fn signal(server: &Server, name: &str) -> Result<()> {
    let (name, id) = (format!("-{name}"), server.process_id().to_string());
    let status = std::process::Command::new("kill").args([&name, &id]).status()?;
    anyhow::ensure!(status.success(), "kill {name}: {status}");
    Ok(())
}

/// Each writer owns its keys; each statement is one more version of one of them.
async fn write(server: Arc<Server>, ledger: Ledger, stop: Arc<AtomicBool>, writer: i64, round: i64) {
    for step in 0i64.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let (id, value) = (writer * 1000 + step % 40, round * 1_000_000 + step);
        let known = ledger.lock().expect("no writer panicked").get(&id).copied().unwrap_or_default();
        let sql = match known {
            (Some(_), _) if step % 7 == 3 => format!("DELETE FROM t WHERE id = {id}"),
            (Some(_), _) => format!("UPDATE t SET v = {value} WHERE id = {id}"),
            (None, _) => format!("INSERT INTO t (id, v) VALUES ({id}, {value})"),
        };
        let wanted = if sql.starts_with("DELETE") { None } else { Some(value) };
        match server.sql(&sql).await {
            Ok(_) => ledger.lock().expect("no writer panicked").insert(id, (wanted, wanted)),
            // The answer never came: either outcome is right, until the next check settles it.
            Err(_) => {
                ledger.lock().expect("no writer panicked").insert(id, (known.0, wanted));
                return;
            }
        };
    }
}

/// Flushes again and again, with compactions among them.
async fn tend(server: Arc<Server>, stop: Arc<AtomicBool>) {
    for turn in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let work = if turn % 3 == 2 { "COMPACT" } else { "FLUSH" };
        let _ = server.sql(&format!("STORAGE {work} TABLE t")).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

async fn check(server: &Server, ledger: &Ledger, round: u64) -> Result<()> {
    let rows = server.rows("SELECT id, v FROM t ORDER BY id").await?;
    let rows: Vec<(i64, i64)> = rows
        .as_array()
        .context("rows")?
        .iter()
        .map(|row| Ok((row[0].as_str().context("id")?.parse()?, row[1].as_str().context("v")?.parse()?)))
        .collect::<Result<_>>()?;
    let found: BTreeMap<i64, i64> = rows.iter().copied().collect();
    assert_eq!(found.len(), rows.len(), "round {round}: a key stands twice in {rows:?}");
    for column in 0..=round {
        let odd = server.rows(&format!("SELECT id, c{column} FROM t WHERE c{column} <> {column}")).await?;
        assert_eq!(odd, serde_json::json!([]), "round {round}, column {column}");
    }
    let mut ledger = ledger.lock().expect("no writer panicked");
    for (id, (acknowledged, in_doubt)) in ledger.iter_mut() {
        let now = found.get(id).copied();
        assert!(
            now == *acknowledged || now == *in_doubt,
            "round {round}, key {id}: {now:?}, not {acknowledged:?} or {in_doubt:?}"
        );
        (*acknowledged, *in_doubt) = (now, now);
    }
    assert!(found.keys().all(|id| ledger.contains_key(id)), "round {round}: a row that nobody wrote");
    assert!(!ledger.is_empty(), "the writers wrote");
    Ok(())
}

/// As when a pod is replaced by force: the next one starts while the one before still ends.
#[tokio::test]
async fn a_start_waits_until_the_process_before_it_has_left_the_folder() -> Result<()> {
    let folder = Folder::new()?;
    let data = folder.data.path().join("data").display().to_string();
    let before = Server::start_in(folder).await?;
    before.sql("CREATE TABLE t (id BIGINT PRIMARY KEY); INSERT INTO t VALUES (1)").await?;
    let folder = Folder::new()?.with("KALAMDB_DATA_DIR", data).with("KALAMDB_SERVER_SHUTDOWN_SECONDS", "300");
    let log = folder.log();
    let mut after = Server::launch(folder)?;
    while !std::fs::read_to_string(&log)?.contains("another process has it open") {
        after.wait_for("Starting").await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _folder = before.kill()?;
    after.begin().await?;
    assert_eq!(after.rows("SELECT id FROM t").await?, serde_json::json!([["1"]]));
    Ok(())
}
