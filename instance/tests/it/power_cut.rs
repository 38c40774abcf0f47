//! The power goes at any moment: what was acknowledged by then is there, and the instance comes up on what the disk holds.
//!
//! The real binary runs with a journal of everything that it does to its files (`power_cut/journal.c`, preloaded); from that follows what a disk
//! would hold if the power went at any moment of the run: what was synced by then, and nothing else for certain (`power_cut/disk.rs`). The
//! crate `powercut` sees only syncs that the test itself makes, and none of RocksDB's.

mod disk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use self::disk::{Journal, Unsynced};
use crate::server::{Folder, Server};

const WRITERS: i64 = 3;
const KEYS: i64 = 25;

/// Lengths of the journal before a statement was sent and once it was acknowledged; none where it never was.
#[derive(Debug, Clone, Copy)]
struct Span {
    sent: u64,
    acknowledged: Option<u64>,
}

/// What was done to each key, in its order: the value that it got, none for a deletion.
type Versions = BTreeMap<i64, Vec<(Span, Option<i64>)>>;

/// A database whose disk is watched.
struct Watched {
    folder: tempfile::TempDir,
    journal: PathBuf,
    versions: Arc<Mutex<Versions>>,
    /// Tables and columns that each need, with the moment from which they must be there.
    schema: Vec<(&'static str, u64)>,
}

impl Watched {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let library = folder.path().join("journal.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/power_cut/journal.c");
        let built = std::process::Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-lpthread")
            .status();
        ensure!(built.context("failed to run cc, which RocksDB was built with")?.success(), "journal.c");
        Ok(Self { journal: folder.path().join("journal"), folder, versions: Arc::default(), schema: Vec::new() })
    }

    /// A folder for the instance, all of whose files are watched.
    fn folder(&self, durability: &str) -> Result<Folder> {
        let folder = Folder::new()?;
        let root = folder.data.path().canonicalize()?.display().to_string();
        Ok(folder
            .with("LD_PRELOAD", self.folder.path().join("journal.so").display().to_string())
            .with("KALAMDB_POWER_JOURNAL", self.journal.display().to_string())
            .with("KALAMDB_POWER_ROOT", root)
            .with("KALAMDB_DATA_DURABILITY", durability)
            .with("KALAMDB_COMPACTION_AUTOMATIC", "false"))
    }

    /// How much was done by now.
    fn now(&self) -> Result<u64> {
        length(&self.journal)
    }

    /// Writers work beside these statements, which are flushes and changes of the schema.
    async fn work(&mut self, server: Server, statements: &[&'static str]) -> Result<Server> {
        let (server, stop) = (Arc::new(server), Arc::new(AtomicBool::new(false)));
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let (server, stop) = (server.clone(), stop.clone());
            writers.push(tokio::spawn(write(server, self.versions.clone(), self.journal.clone(), stop, writer)));
        }
        for statement in statements {
            tokio::time::sleep(Duration::from_millis(150)).await;
            match statement.strip_prefix("FLUSH ") {
                Some(table) => ensure!(server.flush(table).await? != "failed"),
                None => drop(server.sql(statement).await?),
            }
            if let Some(query) = seen_by(statement) {
                self.schema.push((query, self.now()?));
            }
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.await??;
        }
        Arc::into_inner(server).context("all writers have ended")
    }
}

fn length(journal: &Path) -> Result<u64> {
    Ok(std::fs::metadata(journal)?.len())
}

/// A query that fails where the statement has left nothing.
fn seen_by(statement: &str) -> Option<&'static str> {
    match statement {
        text if text.starts_with("CREATE TABLE other") => Some("SELECT count(*) FROM other"),
        text if text.starts_with("ALTER TABLE t") => Some("SELECT count(w) FROM t"),
        text if text.starts_with("CREATE USER") => Some("ALTER USER ann SET PASSWORD 'pass-of-ann'"),
        _ => None,
    }
}

/// Each writer owns its keys, and sends one statement at a time.
async fn write(
    server: Arc<Server>,
    versions: Arc<Mutex<Versions>>,
    journal: PathBuf,
    stop: Arc<AtomicBool>,
    writer: i64,
) -> Result<()> {
    let mut random = StdRng::seed_from_u64(writer as u64);
    while !stop.load(Ordering::SeqCst) {
        let (id, value) = (writer * KEYS + random.random_range(0..KEYS), random.random_range(0..1_000_000));
        let is_there = {
            let versions = versions.lock().expect("no writer panicked");
            versions.get(&id).and_then(|known| known.last()?.1).is_some()
        };
        let (sql, wanted) = match (is_there, random.random_range(0..4)) {
            (false, _) => (format!("INSERT INTO t (id, v) VALUES ({id}, {value})"), Some(value)),
            (true, 0) => (format!("DELETE FROM t WHERE id = {id}"), None),
            (true, _) => (format!("UPDATE t SET v = {value} WHERE id = {id}"), Some(value)),
        };
        let sent = length(&journal)?;
        server.sql(&sql).await?;
        let span = Span { sent, acknowledged: Some(length(&journal)?) };
        versions.lock().expect("no writer panicked").entry(id).or_default().push((span, wanted));
    }
    Ok(())
}

/// What is wrong with the rows that are there after a cut at that moment; none where nothing is.
fn wrong_rows(versions: &Versions, moment: u64, found: &[(i64, i64)]) -> Option<String> {
    let there: BTreeMap<i64, i64> = found.iter().copied().collect();
    if there.len() != found.len() {
        return Some(format!("a key stands twice in {found:?}"));
    }
    if let Some(odd) = there.keys().find(|id| !versions.contains_key(id)) {
        return Some(format!("nobody wrote {odd}"));
    }
    for (id, history) in versions {
        let is_old = |(span, _): &&(Span, Option<i64>)| span.acknowledged.is_some_and(|at| at <= moment);
        let acknowledged = history.iter().take_while(is_old).last().and_then(|(_, value)| *value);
        let under_way =
            history.iter().filter(|(span, _)| span.sent <= moment).skip_while(is_old).map(|(_, value)| *value);
        let now = there.get(id).copied();
        if now != acknowledged && !under_way.clone().any(|value| value == now) {
            let under_way: Vec<_> = under_way.collect();
            return Some(format!("{id} has {now:?} instead of {acknowledged:?} or one of {under_way:?}"));
        }
    }
    None
}

/// The power goes at that moment; what the next start then shows. None where not even the table was acknowledged.
async fn rows_after(
    journal: &Journal,
    moment: u64,
    unsynced: Unsynced,
    root: &Path,
    queries: &[(&'static str, u64)],
) -> Result<Vec<(i64, i64)>> {
    let folder = Folder::new()?;
    journal.cut(moment, unsynced, root, folder.data.path())?;
    let server = Server::start_in(folder).await?;
    for (query, from) in queries {
        if *from <= moment {
            server.sql(query).await.with_context(|| format!("acknowledged at {from}"))?;
        }
    }
    let answer = server.try_sql("SELECT id, v FROM t ORDER BY id").await?;
    let rows = answer.body["results"][0]["rows"].as_array().cloned().unwrap_or_default();
    let number = |value: &serde_json::Value| value.as_str().context("a number")?.parse::<i64>().context("a number");
    let rows = rows.iter().map(|row| Ok((number(&row[0])?, number(&row[1])?))).collect::<Result<Vec<_>>>()?;
    // It takes rows and flushes them as ever.
    server.sql("CREATE TABLE after (id INT PRIMARY KEY); INSERT INTO after VALUES (1)").await?;
    ensure!(server.flush("after").await? == "completed");
    if answer.status.is_success() {
        ensure!(server.flush("t").await? != "failed");
        let counted = server.rows("SELECT count(*) FROM t").await?;
        ensure!(counted == serde_json::json!([[rows.len().to_string()]]), "{counted} after a flush");
    }
    Ok(rows)
}

/// The moments at which the power goes: some just after an acknowledgement, some anywhere, the first of them within the first start.
fn moments(versions: &Versions, journal: &Journal, started: u64, count: usize, random: &mut StdRng) -> Vec<u64> {
    let (early, late): (Vec<_>, Vec<_>) = journal.moments().partition(|moment| *moment < started);
    let acknowledged: Vec<_> = versions.values().flatten().filter_map(|(span, _)| span.acknowledged).collect();
    let mut moments = Vec::new();
    for (from, count) in [(&early, count / 3), (&late, count / 3), (&acknowledged, count / 3)] {
        moments.extend(from.choose_multiple(random, count).copied());
    }
    moments
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_a_power_cut_at_any_moment() -> Result<()> {
    let mut watched = Watched::new()?;
    let server = Server::start_in(watched.folder("sync")?).await?;
    let (started, root) = (watched.now()?, server.folder().data.path().canonicalize()?);
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)").await?;
    watched.schema.push(("SELECT count(*) FROM t", watched.now()?));
    let statements = [
        "FLUSH t",
        "CREATE TABLE other (id INT PRIMARY KEY)",
        "FLUSH t",
        "ALTER TABLE t ADD COLUMN w INT NOT NULL DEFAULT 5",
        "FLUSH t",
        "STORAGE COMPACT TABLE t",
        "CREATE USER ann WITH PASSWORD 'pass-of-ann'",
    ];
    let server = watched.work(server, &statements).await?;
    // A clean end, and another life.
    let server = Server::start_in(server.stop()?).await?;
    let server = watched.work(server, &["FLUSH t", "STORAGE COMPACT TABLE t", "FLUSH t"]).await?;
    let folder = server.stop()?;
    let (journal, versions) =
        (Journal::read(&watched.journal)?, watched.versions.lock().expect("they have ended").clone());
    let statements: usize = versions.values().map(Vec::len).sum();
    println!("{statements} statements, {} syncs, {} records", journal.syncs(), journal.moments().count());
    ensure!(statements > 100 && journal.syncs() > 100, "too little was done");

    let seconds: u64 = std::env::var("KALAMDB_SOAK_SECONDS").map_or(Ok(0), |seconds| seconds.parse())?;
    let (began, mut random) = (std::time::Instant::now(), StdRng::seed_from_u64(7));
    let mut moments = moments(&versions, &journal, started, 9, &mut random);
    moments.push(watched.now()?);
    loop {
        for moment in &moments {
            for unsynced in [Unsynced::Lost, Unsynced::Partly(*moment)] {
                let when = || format!("the power goes at {moment}, what was not synced is {unsynced:?}");
                let rows = rows_after(&journal, *moment, unsynced, &root, &watched.schema).await.with_context(when)?;
                if let Some(wrong) = wrong_rows(&versions, *moment, &rows) {
                    anyhow::bail!("{}: {wrong}", when());
                }
            }
        }
        if began.elapsed().as_secs() >= seconds {
            break;
        }
        moments = self::moments(&versions, &journal, started, 9, &mut random);
    }
    drop(folder);
    Ok(())
}

/// The same test finds what is lost where acknowledgements do not wait for the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_a_power_cut_loses_rows_and_is_noticed() -> Result<()> {
    let mut watched = Watched::new()?;
    let server = Server::start_in(watched.folder("os")?).await?;
    let root = server.folder().data.path().canonicalize()?;
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)").await?;
    let server = watched.work(server, &["SELECT 1", "SELECT 1"]).await?;
    let moment = watched.now()?;
    drop(server);
    let (journal, versions) =
        (Journal::read(&watched.journal)?, watched.versions.lock().expect("they have ended").clone());
    let rows = rows_after(&journal, moment, Unsynced::Lost, &root, &[]).await?;
    ensure!(wrong_rows(&versions, moment, &rows).is_some(), "nothing was lost, so the test sees nothing");
    Ok(())
}
