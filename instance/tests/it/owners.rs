//! Two processes, one bucket: the one that came later owns it, the other says why it does not, and nothing is overwritten or lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::server::{Folder, ROOT_PASSWORD, Server};

/// A folder that serves several instances as their object store.
fn database_in(store: &Path) -> Result<Folder> {
    Ok(Folder::new()?.with("KALAMDB_OBJECT_STORE_PATH", store.display().to_string()))
}

/// Every object and its content.
fn objects(store: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let (mut found, mut folders) = (Vec::new(), vec![store.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)?.collect::<std::io::Result<Vec<_>>>()? {
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push((entry.path(), std::fs::read(entry.path())?));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[tokio::test]
async fn a_lost_volume_comes_back_from_the_bucket_with_what_was_flushed() -> Result<()> {
    let store = tempfile::tempdir()?;
    let server = Server::start_in(database_in(store.path())?).await?;
    server.sql("CREATE NAMESPACE shop").await?;
    server.sql("CREATE USER ann WITH PASSWORD 'pass-of-ann' ROLE 'dba'").await?;
    server.sql("CREATE TABLE shop.orders (id BIGINT PRIMARY KEY, v TEXT, n DECIMAL(20, 4) DEFAULT 1.5)").await?;
    server.sql("CREATE USER TABLE notes (id INT PRIMARY KEY, body TEXT)").await?;
    server.sql("INSERT INTO shop.orders (id, v) SELECT value, 'first' FROM generate_series(1, 100)").await?;
    server.sql("INSERT INTO notes VALUES (1, 'of root')").await?;
    ensure!(server.flush("shop.orders").await? == "completed" && server.flush("notes").await? == "completed");
    server.sql("ALTER TABLE shop.orders ADD COLUMN more TEXT DEFAULT 'm'").await?;
    server.sql("UPDATE shop.orders SET v = 'second' WHERE id <= 10; DELETE FROM shop.orders WHERE id > 90").await?;
    ensure!(server.flush("shop.orders").await? == "completed");
    let flushed = server.rows("SELECT * FROM shop.orders ORDER BY id").await?;
    server.sql("INSERT INTO shop.orders (id, v) VALUES (1000, 'hot'); DELETE FROM shop.orders WHERE id = 1").await?;
    drop(server.kill()?);

    let mut server = Server::launch(database_in(store.path())?)?;
    server.begin().await?;
    assert_eq!(server.rows("SELECT * FROM shop.orders ORDER BY id").await?, flushed, "_seq too");
    assert_eq!(server.rows("SELECT body FROM notes").await?, json!([["of root"]]));
    assert_eq!(server.rows("SELECT role FROM system.users WHERE user_id = 'ann'").await?, json!([["dba"]]));
    ensure!(server.login("ann", "pass-of-ann").await.is_err(), "a password that no mirror may hold");
    server.sql("ALTER USER ann SET PASSWORD 'another-of-ann'").await?;
    server.login("ann", "another-of-ann").await?;
    server
        .sql("INSERT INTO shop.orders (id, v) VALUES (1001, 'new'); UPDATE shop.orders SET v = 'third' WHERE id = 2")
        .await?;
    ensure!(server.flush("shop.orders").await? == "completed");
    let rows = server.rows("SELECT id, v, n, more FROM shop.orders WHERE id IN (1, 2, 1001) ORDER BY id").await?;
    let expected =
        json!([["1", "second", "1.5000", "m"], ["2", "third", "1.5000", "m"], ["1001", "new", "1.5000", "m"]]);
    assert_eq!(rows, expected);
    let server = Server::start_in(server.kill()?).await?;
    assert_eq!(server.rows("SELECT count(*) FROM shop.orders").await?, json!([["91"]]));
    Ok(())
}

/// The newest mirror is damaged: nobody may take what stands there for an empty database.
#[tokio::test]
async fn while_a_volume_is_not_recovered_every_statement_says_so() -> Result<()> {
    let store = tempfile::tempdir()?;
    let server = Server::start_in(database_in(store.path())?).await?;
    server.sql("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)").await?;
    ensure!(server.flush("t").await? == "completed");
    drop(server.stop()?);
    let mirrors = std::fs::read_dir(store.path().join("catalog"))?.collect::<std::io::Result<Vec<_>>>()?;
    let newest = mirrors.iter().map(|entry| entry.path()).max().context("a mirror")?;
    let whole = std::fs::read(&newest)?;
    std::fs::write(&newest, &whole[..whole.len() - 1])?;
    let mut server = Server::launch(database_in(store.path())?)?;
    let message = server.wait_for("VolumeEmpty").await?;
    let name = newest.file_name().context("a name")?.to_string_lossy().into_owned();
    ensure!(message.contains(&name) && message.contains("restore this object"), "{message}");
    let answer = server.try_sql("SELECT * FROM t").await?;
    answer.assert_refused("SELECT", 503, "UNAVAILABLE", "can't be recovered");
    let login = server.login("root", ROOT_PASSWORD).await;
    ensure!(login.is_err_and(|error| error.to_string().contains("503")));
    std::fs::write(&newest, whole)?;
    server.begin().await?;
    assert_eq!(server.rows("SELECT * FROM t").await?.as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_owners_the_older_stops_under_load_and_loses_nothing_of_the_newers() -> Result<()> {
    let store = tempfile::tempdir()?;
    let older = Arc::new(Server::start_in(database_in(store.path())?).await?);
    older.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT); CREATE TABLE u (id BIGINT PRIMARY KEY, v TEXT)").await?;
    for table in ["t", "u"] {
        older.sql(&format!("INSERT INTO {table} SELECT value, 'flushed' FROM generate_series(1, 50)")).await?;
        ensure!(older.flush(table).await? == "completed");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(write_and_flush(older.clone(), stop.clone()));
    tokio::time::sleep(Duration::from_millis(700)).await;

    let mut newer = Server::launch(database_in(store.path())?)?;
    newer.begin().await?;
    let found = ids(&newer, "t").await?;
    newer.sql("INSERT INTO t VALUES (-1, 'of the newer'); UPDATE t SET v = 'of the newer' WHERE id <= 10").await?;
    ensure!(newer.flush("t").await? == "completed");

    // The older one meets the fence with its next flush of each table, and says why it stops.
    let refusal = refusal_of(&older, "t").await?;
    ensure!(
        refusal.contains("table default.t is stopped") && refusal.contains("another instance owns the prefix"),
        "{refusal}"
    );
    stop.store(true, Ordering::SeqCst);
    let acknowledged = load.await??;
    let before = objects(store.path())?;
    let refused = older.try_sql("INSERT INTO t VALUES (999999, 'lost')").await?;
    ensure!(refused.status.as_u16() == 500 && refused.body.to_string().contains("is stopped"), "{}", refused.body);
    older.sql("INSERT INTO u VALUES (999999, 'in its volume only')").await?;
    ensure!(refusal_of(&older, "u").await?.contains("another instance owns the prefix"));
    older.sql("CREATE TABLE stray (id INT PRIMARY KEY); INSERT INTO stray VALUES (1)").await?;
    ensure!(refusal_of(&older, "stray").await?.contains("another instance owns"));
    check_nothing_changed(&before, &objects(store.path())?)?;

    // What the newer one found is a prefix of what was acknowledged: nothing in between is missing, nothing is there twice.
    let hot: Vec<i64> = found.iter().copied().filter(|id| *id > 50).collect();
    ensure!(hot.iter().copied().eq(51..51 + hot.len() as i64), "{hot:?}");
    ensure!(acknowledged >= hot.len() as i64 && found.len() == 50 + hot.len());
    let rows = newer.rows("SELECT count(*) FROM t WHERE v = 'of the newer'").await?;
    assert_eq!(rows, json!([["11"]]));
    assert_eq!(newer.rows("SELECT count(*) FROM u").await?, json!([["50"]]));

    // Started again, it stays out; the newer one goes on.
    let folder = Arc::into_inner(older).context("nobody else has it")?.kill()?;
    let mut older = Server::launch(folder)?;
    let message = older.wait_for("VolumeBehind").await?;
    ensure!(message.contains("another volume"), "{message}");
    older.try_sql("SELECT 1").await?.assert_refused("SELECT 1", 503, "UNAVAILABLE", "not the newest");
    newer.sql("DELETE FROM t WHERE id = -1").await?;
    ensure!(newer.flush("t").await? == "completed" && newer.compact("t").await? != "failed");
    assert_eq!(newer.rows("SELECT count(*) FROM t").await?, json!([[found.len().to_string()]]));
    Ok(())
}

/// How a successor comes by its volume while the older process still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Successor {
    /// With an empty one: it is recovered from the bucket.
    Empty,
    /// With a snapshot of the older one's disk, taken while that is stalled.
    Snapshot,
}

/// The older one is stopped in the middle of a flush, before its Delta commit, and wakes up when a successor has gone on.
async fn check_stalled(successor: Successor) -> Result<()> {
    let store = tempfile::tempdir()?;
    let older = Server::start_in(database_in(store.path())?).await?;
    older.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT)").await?;
    older.sql("INSERT INTO t SELECT value, 'flushed' FROM generate_series(1, 50)").await?;
    ensure!(older.flush("t").await? == "completed");
    let (job, rows) = stall_in_flush(&older, store.path()).await?;

    let folder = database_in(store.path())?;
    if successor == Successor::Snapshot {
        copy_volume(older.folder(), &folder)?;
    }
    let mut newer = Server::launch(folder)?;
    newer.begin().await?;
    let expected = match successor {
        // Flushes that were faster than the signal are in the bucket.
        Successor::Empty => 50 + rows - STALLED_ROWS,
        Successor::Snapshot => 50 + rows,
    };
    let count = "SELECT count(*), sum(id) FROM t";
    assert_eq!(newer.rows(count).await?, json!([[expected.to_string(), (expected * (expected + 1) / 2).to_string()]]));
    newer.sql("UPDATE t SET v = 'of the newer' WHERE id <= 10").await?;
    ensure!(newer.flush("t").await? == "completed");
    let (logs, known) = (log_entries(store.path())?, newer.rows("SELECT id, v FROM t ORDER BY id").await?);

    signal(&older, "CONT")?;
    assert_eq!(older.job_end(&job).await?, "failed", "{successor:?}");
    let message = older.rows(&format!("SELECT message FROM system.jobs WHERE job_id = '{job}'")).await?.to_string();
    ensure!(message.contains("another instance owns the prefix"), "{successor:?}: {message}");
    let refused = older.try_sql("INSERT INTO t VALUES (0, 'too late')").await?;
    refused.assert_refused("INSERT", 500, "INTERNAL_ERROR", "table default.t is stopped");
    assert_eq!(
        older.rows(count).await?,
        json!([[(50 + rows).to_string(), ((50 + rows) * (51 + rows) / 2).to_string()]])
    );
    assert_eq!(log_entries(store.path())?, logs, "{successor:?}: the older one commits nothing");
    drop(older.kill()?);

    newer.sql("INSERT INTO t VALUES (-1, 'on')").await?;
    ensure!(newer.flush("t").await? == "completed" && newer.compact("t").await? != "failed");
    newer.sql("DELETE FROM t WHERE id = -1").await?;
    let newer = Server::start_in(newer.kill()?).await?;
    assert_eq!(newer.rows("SELECT id, v FROM t ORDER BY id").await?, known, "{successor:?}");
    Ok(())
}

#[tokio::test]
async fn an_owner_that_stalls_before_its_commit_is_fenced_by_a_recovered_successor() -> Result<()> {
    check_stalled(Successor::Empty).await
}

#[tokio::test]
async fn an_owner_that_stalls_before_its_commit_is_fenced_by_one_with_a_snapshot_of_its_volume() -> Result<()> {
    check_stalled(Successor::Snapshot).await
}

/// Rows of each flush that is to be stopped.
const STALLED_ROWS: i64 = 100_000;

/// Inserts more and more rows and flushes them, until the process could be stopped between the flush's first file and its commit.
/// Answers with the job, and how many rows were inserted, from 51 on.
async fn stall_in_flush(server: &Server, store: &Path) -> Result<(String, i64)> {
    let mut rows = 0;
    for _ in 0..20 {
        let (from, to) = (51 + rows, 50 + rows + STALLED_ROWS);
        server.sql(&format!("INSERT INTO t SELECT value, 'hot' FROM generate_series({from}, {to})")).await?;
        rows += STALLED_ROWS;
        let (logs, files) = (log_entries(store)?, files_of_tables(store)?.len());
        let started = server.sql("STORAGE FLUSH TABLE t").await?;
        let job =
            started["message"].as_str().and_then(|text| text.split_once("Job ID: ")).context("a job")?.1.to_owned();
        while files_of_tables(store)?.len() == files {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        signal(server, "STOP")?;
        if log_entries(store)? == logs {
            return Ok((job, rows));
        }
        signal(server, "CONT")?;
        ensure!(server.job_end(&job).await? == "completed");
    }
    anyhow::bail!("each flush was faster than the signal")
}

fn signal(server: &Server, name: &str) -> Result<()> {
    let sent =
        std::process::Command::new("kill").args([format!("-{name}"), server.process_id().to_string()]).status()?;
    ensure!(sent.success(), "kill -{name}");
    Ok(())
}

/// A snapshot of the disk.
fn copy_volume(from: &Folder, to: &Folder) -> Result<()> {
    let to = to.data.path().join("data");
    std::fs::create_dir_all(&to)?;
    let copied = std::process::Command::new("cp").arg("-a").arg(from.data.path().join("data/hot")).arg(&to).status()?;
    ensure!(copied.success(), "cp -a");
    Ok(())
}

/// The Delta logs' entries and their contents.
fn log_entries(store: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut entries = objects(store)?;
    entries.retain(|(path, _)| path.extension().is_some_and(|extension| extension == "json") && is_of_tables(path));
    Ok(entries)
}

/// Files below the tables' folders, those that are being written too.
fn files_of_tables(store: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, tables) = (Vec::new(), store.join("tables"));
    for table in std::fs::read_dir(tables)?.collect::<std::io::Result<Vec<_>>>()? {
        found.extend(std::fs::read_dir(table.path())?.flatten().map(|entry| entry.path()));
    }
    Ok(found)
}

fn is_of_tables(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tables")
}

/// A snapshot of before the last flush: its rows are behind the log of one table alone.
#[tokio::test]
async fn a_restored_volume_that_is_behind_a_log_stops_that_table_and_overwrites_nothing() -> Result<()> {
    let store = tempfile::tempdir()?;
    let server = Server::start_in(database_in(store.path())?).await?;
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY); CREATE TABLE u (id BIGINT PRIMARY KEY)").await?;
    server.sql("INSERT INTO t VALUES (1); INSERT INTO u VALUES (1)").await?;
    ensure!(server.flush("t").await? == "completed" && server.flush("u").await? == "completed");
    let (folder, older) = (server.stop()?, database_in(store.path())?);
    copy_volume(&folder, &older)?;
    let server = Server::start_in(folder).await?;
    server.sql("INSERT INTO t VALUES (2)").await?;
    ensure!(server.flush("t").await? == "completed");
    let (folder, logs) = (server.stop()?, log_entries(store.path())?);

    let restored = Server::start_in(older).await?;
    restored.sql("INSERT INTO t VALUES (3)").await?;
    let refusal = refusal_of(&restored, "t").await?;
    ensure!(refusal.contains("older than the log") && refusal.contains("nothing was overwritten"), "{refusal}");
    restored.try_sql("INSERT INTO t VALUES (4)").await?.assert_refused("INSERT", 500, "INTERNAL_ERROR", "is stopped");
    assert_eq!(log_entries(store.path())?, logs);
    restored.sql("INSERT INTO u VALUES (3)").await?;
    drop(restored.stop()?);

    let server = Server::start_in(folder).await?;
    server.sql("INSERT INTO t VALUES (5)").await?;
    ensure!(server.flush("t").await? == "completed");
    assert_eq!(server.rows("SELECT id FROM t ORDER BY id").await?, json!([["1"], ["2"], ["5"]]));
    Ok(())
}

/// A snapshot of before a CREATE TABLE that was mirrored since: it must not start at all.
#[tokio::test]
async fn a_restored_volume_that_lacks_a_table_is_not_ready_and_changes_nothing() -> Result<()> {
    let store = tempfile::tempdir()?;
    let server = Server::start_in(database_in(store.path())?).await?;
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY); INSERT INTO t VALUES (1)").await?;
    ensure!(server.flush("t").await? == "completed");
    let (folder, older) = (server.stop()?, database_in(store.path())?);
    copy_volume(&folder, &older)?;
    let server = Server::start_in(folder).await?;
    server.sql("CREATE TABLE u (id BIGINT PRIMARY KEY); INSERT INTO u VALUES (1)").await?;
    ensure!(server.flush("u").await? == "completed");
    let (folder, before) = (server.stop()?, objects(store.path())?);
    let mut restored = Server::launch(older)?;
    let message = restored.wait_for("VolumeBehind").await?;
    ensure!(message.contains("not the newest of its database") && message.contains("default.u"), "{message}");
    restored.try_sql("SELECT * FROM t").await?.assert_refused("SELECT", 503, "UNAVAILABLE", "not the newest");
    drop(restored.stop()?);
    assert_eq!(objects(store.path())?, before);
    let server = Server::start_in(folder).await?;
    assert_eq!(server.rows("SELECT count(*) FROM u").await?, json!([["1"]]));
    Ok(())
}

/// A displaced owner changes no object, and adds at most files of flushes that could not be committed.
fn check_nothing_changed(before: &[(PathBuf, Vec<u8>)], after: &[(PathBuf, Vec<u8>)]) -> Result<()> {
    let gone = before.iter().find(|object| !after.contains(object));
    ensure!(gone.is_none(), "changed: {:?}", gone.map(|(path, _)| path));
    let is_file = |path: &Path| is_of_tables(path) && path.extension().is_some_and(|extension| extension == "parquet");
    for (path, _) in after.iter().filter(|object| !before.contains(object)) {
        ensure!(is_file(path) && !path.components().any(|part| part.as_os_str() == "_delta_log"), "{}", path.display());
    }
    Ok(())
}

/// Inserts 51, 52, … into `t` and flushes all the while; answers how many were acknowledged.
async fn write_and_flush(server: Arc<Server>, stop: Arc<AtomicBool>) -> Result<i64> {
    let mut acknowledged = 0;
    while !stop.load(Ordering::SeqCst) {
        let answer = server.try_sql(&format!("INSERT INTO t VALUES ({}, 'hot')", 51 + acknowledged)).await?;
        if !answer.status.is_success() {
            ensure!(answer.body.to_string().contains("is stopped"), "{}", answer.body);
            break;
        }
        acknowledged += 1;
        if acknowledged % 10 == 0 {
            let _ = server.sql("STORAGE FLUSH TABLE t").await;
        }
    }
    Ok(acknowledged)
}

/// Flushes until the job fails; answers why.
async fn refusal_of(server: &Server, table: &str) -> Result<String> {
    for _ in 0..50 {
        let _ = server.flush(table).await?;
        let failed =
            format!("SELECT message FROM system.jobs WHERE status = 'failed' AND parameters LIKE '%default.{table}%'");
        if let Some(message) = server.rows(&failed).await?[0][0].as_str() {
            return Ok(message.to_owned());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("no flush of {table} failed")
}

async fn ids(server: &Server, table: &str) -> Result<Vec<i64>> {
    let rows = server.rows(&format!("SELECT id FROM {table} ORDER BY id")).await?;
    let id = |row: &Value| row[0].as_str().context("id")?.parse().context("a number");
    rows.as_array().context("rows")?.iter().map(id).collect()
}
