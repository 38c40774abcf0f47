//! Damaged objects and files: the error names what is damaged and how to mend it, one table suffers and the others do not, nothing crashes, and
//! no wrong row is answered.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::server::{Folder, Server, refusal};

/// Two flushed tables, `hurt` and `sound`, each of 1000 rows.
async fn flushed() -> Result<Server> {
    let server = Server::start().await?;
    for table in ["hurt", "sound"] {
        server.sql(&format!("CREATE TABLE {table} (id BIGINT PRIMARY KEY, v TEXT, n BIGINT)")).await?;
        let rows =
            "SELECT value, concat('text number ', value * 7919 % 100003), value * 31 FROM generate_series(1, 1000)";
        server.sql(&format!("INSERT INTO {table} {rows}")).await?;
        ensure!(server.flush(table).await? == "completed");
    }
    Ok(server)
}

/// The other table is whole, and is written and flushed as ever.
async fn check_sound(server: &Server) -> Result<()> {
    assert_eq!(server.rows("SELECT count(*), sum(n) FROM sound WHERE id > 0").await?, json!([["1000", "15515500"]]));
    server.sql("INSERT INTO sound VALUES (-1, 'x', 0)").await?;
    ensure!(server.flush("sound").await? == "completed");
    server.sql("DELETE FROM sound WHERE id = -1").await?;
    ensure!(server.flush("sound").await? == "completed");
    Ok(())
}

/// The folder of a table, by the name in the metadata of its log.
fn folder_of(folder: &Folder, table: &str) -> Result<PathBuf> {
    let tables = folder.data.path().join("data/cold/tables");
    let wanted = format!("\"name\":\"default.{table}\"");
    for entry in std::fs::read_dir(&tables)?.collect::<std::io::Result<Vec<_>>>()? {
        let first = std::fs::read_to_string(entry.path().join("_delta_log/00000000000000000000.json"))?;
        if first.contains(&wanted) {
            return Ok(entry.path());
        }
    }
    anyhow::bail!("{} has no table {table}", tables.display())
}

fn only(folder: &Path, extension: &str) -> Result<PathBuf> {
    let files = std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let mut found: Vec<_> = files.into_iter().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    ensure!(found.len() == 1, "{found:?}");
    Ok(found.remove(0))
}

fn name_of(path: &Path) -> Result<String> {
    Ok(path.file_name().context("a name")?.to_string_lossy().into_owned())
}

/// Damages the only Parquet file of `hurt` and asks for its rows, in a fresh process that has nothing of it in memory.
async fn check_damaged_file(what: &str, damage: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> Result<()> {
    let folder = flushed().await?.stop()?;
    let file = only(&folder_of(&folder, "hurt")?, "parquet")?;
    let whole = std::fs::read(&file)?;
    match damage(whole.clone()) {
        Some(damaged) => std::fs::write(&file, damaged)?,
        None => std::fs::remove_file(&file)?,
    }
    let server = Server::start_in(folder).await?;
    for sql in
        ["SELECT * FROM hurt", "SELECT sum(n), max(v) FROM hurt WHERE n > 5", "UPDATE hurt SET n = 0 WHERE id = 7"]
    {
        let answer = server.try_sql(sql).await?;
        eprintln!("{what}: {sql}: {} {}", answer.status, answer.body["error"]);
        ensure!(answer.status.as_u16() == 500, "{what}: {sql}: {}", answer.body);
        answer.assert_refused(sql, 500, "INTERNAL_ERROR", &name_of(&file)?);
    }
    check_sound(&server).await?;
    // Rows that are not in the file are there all the same.
    std::fs::write(&file, whole)?;
    let server = Server::start_in(server.stop()?).await?;
    assert_eq!(
        server.rows("SELECT count(*), sum(n) FROM hurt").await?,
        json!([["1000", "15515500"]]),
        "{what}: mended"
    );
    Ok(())
}

#[tokio::test]
async fn a_parquet_file_that_is_cut_off_is_named() -> Result<()> {
    check_damaged_file("half", |mut bytes| {
        bytes.truncate(bytes.len() / 2);
        Some(bytes)
    })
    .await
}

#[tokio::test]
async fn a_parquet_file_that_is_gone_is_named() -> Result<()> {
    check_damaged_file("gone", |_| None).await
}

#[tokio::test]
async fn a_parquet_file_with_rotten_pages_is_named() -> Result<()> {
    check_damaged_file("zeroes", |mut bytes| {
        let end = bytes.len() / 2;
        bytes[4..end].fill(0);
        Some(bytes)
    })
    .await
}

#[tokio::test]
async fn a_parquet_file_with_a_rotten_footer_is_named() -> Result<()> {
    check_damaged_file("footer", |mut bytes| {
        let at = bytes.len() - 200;
        bytes[at..at + 150].fill(0xa5);
        Some(bytes)
    })
    .await
}

/// Damages something of the log of `hurt` between two lives.
async fn check_damaged_log(server: Server, object: &str, damage: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = server.stop()?;
    let path = folder_of(&folder, "hurt")?.join("_delta_log").join(object);
    let whole = std::fs::read(&path)?;
    damage(&path)?;
    let server = Server::start_in(folder).await?;
    for sql in ["SELECT * FROM hurt", "UPDATE hurt SET n = 0 WHERE id = 7"] {
        let answer = server.try_sql(sql).await?;
        eprintln!("{object}: {sql}: {} {}", answer.status, answer.body["error"]);
        answer.assert_refused(sql, 500, "INTERNAL_ERROR", object);
    }
    check_sound(&server).await?;
    std::fs::write(&path, whole)?;
    assert_eq!(server.rows("SELECT count(*) FROM hurt WHERE id > 0").await?, json!([["1000"]]), "mended");
    server.sql("UPDATE hurt SET n = 0 WHERE id = 7").await?;
    ensure!(server.flush("hurt").await? == "completed");
    Ok(())
}

#[tokio::test]
async fn a_damaged_entry_of_a_log_is_named() -> Result<()> {
    check_damaged_log(flushed().await?, "00000000000000000001.json", |path| {
        let whole = std::fs::read(path)?;
        Ok(std::fs::write(path, &whole[..whole.len() / 2])?)
    })
    .await
}

#[tokio::test]
async fn a_missing_entry_of_a_log_is_named() -> Result<()> {
    check_damaged_log(flushed().await?, "00000000000000000001.json", |path| Ok(std::fs::remove_file(path)?)).await
}

#[tokio::test]
async fn a_damaged_checkpoint_is_named() -> Result<()> {
    let server = flushed().await?;
    for round in 0..12 {
        server.sql(&format!("INSERT INTO hurt VALUES ({}, 'more', 0)", -round)).await?;
        ensure!(server.flush("hurt").await? == "completed");
    }
    let checkpoint = only(&folder_of(server.folder(), "hurt")?.join("_delta_log"), "parquet")?;
    check_damaged_log(server, &name_of(&checkpoint)?, |path| {
        let mut bytes = std::fs::read(path)?;
        let middle = bytes.len() / 2;
        bytes[..middle].fill(0);
        Ok(std::fs::write(path, bytes)?)
    })
    .await
}

/// A foreign writer, or a torn entry, where the next commit is to go.
#[tokio::test]
async fn an_entry_that_we_did_not_write_stops_its_table() -> Result<()> {
    let server = flushed().await?;
    let log = folder_of(server.folder(), "hurt")?.join("_delta_log");
    let entry = log.join("00000000000000000002.json");
    let foreign = "{\"commitInfo\":{\"operation\":\"WRITE\",\"engineInfo\":\"somebody else\"}}\n";
    std::fs::write(&entry, foreign)?;
    server.sql("INSERT INTO hurt VALUES (-5, 'hot', 0)").await?;
    ensure!(server.flush("hurt").await? == "failed");
    let answer = server.try_sql("INSERT INTO hurt VALUES (-6, 'hot', 0)").await?;
    answer.assert_refused("INSERT", 500, "INTERNAL_ERROR", "a writer that is not KalamDB");
    assert_eq!(server.rows("SELECT count(*) FROM hurt").await?, json!([["1001"]]), "what was acknowledged is read");
    assert_eq!(std::fs::read_to_string(&entry)?, foreign, "nothing is overwritten");
    check_sound(&server).await
}

#[tokio::test]
async fn a_damaged_volume_is_refused_and_left_as_it_is() -> Result<()> {
    let folder = flushed().await?.stop()?;
    let hot = folder.data.path().join("data/hot");
    let files = std::fs::read_dir(&hot)?.collect::<std::io::Result<Vec<_>>>()?;
    let tables =
        files.iter().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|found| found == "sst"));
    for table in tables {
        let whole = std::fs::read(&table)?;
        std::fs::write(&table, &whole[..whole.len() / 2])?;
        let log = refusal(&folder)?;
        let (name, place) = (name_of(&table)?, hot.parent().context("a parent")?.display().to_string());
        ensure!(log.contains(&name) && log.contains(&place) && log.contains("restore"), "{name}: {log}");
        std::fs::write(&table, whole)?;
    }
    for name in ["CURRENT", "IDENTITY"] {
        let whole = std::fs::read(hot.join(name))?;
        std::fs::write(hot.join(name), "MANIFEST-999999\n")?;
        match name {
            "CURRENT" => {
                let log = refusal(&folder)?;
                ensure!(log.contains("MANIFEST-999999"), "{log}");
            }
            // RocksDB's own id of a database names nothing that we rely on.
            _ => drop(Server::start_in(Folder { data: tempfile::tempdir()?, settings: vec![] }).await?),
        }
        std::fs::write(hot.join(name), whole)?;
    }
    let server = Server::start_in(folder).await?;
    assert_eq!(server.rows("SELECT count(*) FROM hurt").await?, json!([["1000"]]), "nothing was changed by the tries");
    check_sound(&server).await
}

/// Without CURRENT, RocksDB would begin anew and delete what it does not know.
#[tokio::test]
async fn a_volume_without_its_current_file_is_refused() -> Result<()> {
    let folder = flushed().await?.stop()?;
    let hot = folder.data.path().join("data/hot");
    let current = std::fs::read(hot.join("CURRENT"))?;
    std::fs::remove_file(hot.join("CURRENT"))?;
    let log = refusal(&folder)?;
    ensure!(log.contains("CURRENT") && log.contains("restore"), "{log}");
    std::fs::write(hot.join("CURRENT"), current)?;
    check_sound(&Server::start_in(folder).await?).await
}

#[tokio::test]
async fn a_write_ahead_log_may_be_torn_and_may_not_rot() -> Result<()> {
    let server = flushed().await?;
    for round in 1..=20 {
        server.sql(&format!("INSERT INTO hurt VALUES ({}, 'hot', 0)", -round)).await?;
    }
    let folder = server.kill()?;
    let hot = folder.data.path().join("data/hot");
    let files = std::fs::read_dir(&hot)?.collect::<std::io::Result<Vec<_>>>()?;
    let mut logs: Vec<_> = files.into_iter().map(|entry| entry.path()).collect();
    logs.retain(|path| path.extension().is_some_and(|found| found == "log"));
    let wal = logs.into_iter().max().context("a write-ahead log")?;
    let whole = std::fs::read(&wal)?;
    let mut rotten = whole.clone();
    rotten[whole.len() / 2] ^= 0xff;
    std::fs::write(&wal, &rotten)?;
    let log = refusal(&folder)?;
    ensure!(log.contains(&name_of(&wal)?) && log.contains("damaged") && log.contains("restore"), "{log}");
    ensure!(std::fs::read(&wal)? == rotten, "it is left as it is");
    // A tail that was being written when the power went was never acknowledged.
    std::fs::write(&wal, [&whole[..], &[0x17, 0x2a, 0x99]].concat())?;
    let server = Server::start_in(folder).await?;
    assert_eq!(server.rows("SELECT count(*) FROM hurt").await?, json!([["1020"]]));
    check_sound(&server).await
}

/// A filter that fails on a row is the statement's fault, though it fails within the decoder.
#[tokio::test]
async fn a_filter_that_fails_is_no_damage() -> Result<()> {
    let server = flushed().await?;
    for sql in ["SELECT * FROM hurt WHERE 10 / (n - n) > 1", "SELECT * FROM hurt WHERE CAST(v AS INT) = 7"] {
        let answer = server.try_sql(sql).await?;
        ensure!(answer.status.as_u16() == 400 && answer.body["error"]["code"] != "INTERNAL_ERROR", "{}", answer.body);
    }
    check_sound(&server).await
}

#[tokio::test]
async fn a_volume_of_a_later_format_or_of_another_database_is_refused() -> Result<()> {
    let folder = flushed().await?.stop()?;
    let hot = folder.data.path().join("data/hot");
    put_format(&hot, 2)?;
    let log = refusal(&folder)?;
    ensure!(log.contains("its format is version 2, this build reads version 1"), "{log}");
    put_format(&hot, 1)?;
    let other = tempfile::tempdir()?;
    let stranger = Folder::new()?.with("KALAMDB_OBJECT_STORE_PATH", other.path().display().to_string());
    drop(Server::start_in(stranger).await?);
    let mut server = Server::launch(folder.with("KALAMDB_OBJECT_STORE_PATH", other.path().display().to_string()))?;
    let message = server.wait_for("VolumeForeign").await?;
    ensure!(message.contains("belongs to database"), "{message}");
    Ok(())
}

/// Writes the volume's format, as a later build would have.
fn put_format(hot: &Path, format: u32) -> Result<()> {
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, hot)?;
    let db = rocksdb::DB::open_cf(&options, hot, families)?;
    let meta = db.cf_handle("meta").context("the family meta")?;
    Ok(db.put_cf(meta, b"format", [b"kalamdb\0", &format.to_be_bytes()[..]].concat())?)
}

#[tokio::test]
async fn a_damaged_identity_is_named_and_nothing_is_claimed() -> Result<()> {
    let folder = flushed().await?.stop()?;
    let identity = folder.data.path().join("data/cold/identity.json");
    let whole = std::fs::read(&identity)?;
    std::fs::write(&identity, &whole[..whole.len() / 2])?;
    let epochs = |folder: &Folder| {
        Ok::<_, anyhow::Error>(std::fs::read_dir(folder.data.path().join("data/cold/epochs"))?.count())
    };
    let before = epochs(&folder)?;
    // A known volume serves, and flushes nothing.
    let server = Server::start_in(folder).await?;
    server.sql("INSERT INTO hurt VALUES (-1, 'hot', 0)").await?;
    ensure!(server.flush("hurt").await? == "failed");
    let message = server.rows("SELECT message FROM system.jobs WHERE status = 'failed'").await?;
    ensure!(message.to_string().contains("identity.json"), "{message}");
    assert_eq!(epochs(server.folder())?, before);
    std::fs::write(&identity, whole)?;
    let server = Server::start_in(server.stop()?).await?;
    ensure!(server.flush("hurt").await? == "completed");
    Ok(())
}

/// With its volume there, the catalog is whole, and the next mirror is too.
#[tokio::test]
async fn a_damaged_mirror_harms_no_volume() -> Result<()> {
    let folder = flushed().await?.stop()?;
    let mirrors = folder.data.path().join("data/cold/catalog");
    for entry in std::fs::read_dir(&mirrors)?.collect::<std::io::Result<Vec<_>>>()? {
        std::fs::write(entry.path(), "rot")?;
    }
    let server = Server::start_in(folder).await?;
    assert_eq!(server.rows("SELECT count(*) FROM hurt").await?, json!([["1000"]]));
    check_sound(&server).await?;
    let folder = server.kill()?;
    std::fs::remove_dir_all(folder.data.path().join("data/hot"))?;
    let server = Server::start_in(folder).await?;
    assert_eq!(server.rows("SELECT count(*) FROM hurt").await?, json!([["1000"]]), "recovered from the new mirror");
    Ok(())
}
