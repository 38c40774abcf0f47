//! The cold tier in a bucket, over the real S3 protocol.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::server::{Folder, SCHEDULER_TOKEN, Server};

/// The S3 server of the tests: the binary that `KALAMDB_TEST_VERSITYGW` names.
pub struct S3 {
    child: std::process::Child,
}

impl S3 {
    fn start(binary: &str, folder: &std::path::Path, port: u16) -> Result<Self> {
        let child = std::process::Command::new(binary)
            .args(["--access", "test", "--secret", "testsecret", "--port", &format!("127.0.0.1:{port}"), "posix"])
            .arg(folder)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {binary}"))?;
        Ok(Self { child })
    }

    /// Sends it a signal, such as `STOP` or `CONT`. Killed it is when it is dropped.
    pub fn signal(&self, name: &str) -> Result<()> {
        let (name, id) = (format!("-{name}"), self.child.id().to_string());
        let status = std::process::Command::new("kill").args([&name, &id]).status()?;
        anyhow::ensure!(status.success(), "kill {name}: {status}");
        Ok(())
    }
}

/// A bucket on that server.
pub struct Bucket {
    binary: String,
    folder: tempfile::TempDir,
    pub port: u16,
}

impl Bucket {
    /// None where the environment names no S3 server.
    pub fn new() -> Result<Option<Self>> {
        let Ok(binary) = std::env::var("KALAMDB_TEST_VERSITYGW") else {
            eprintln!("skipped: KALAMDB_TEST_VERSITYGW names no S3 server");
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("kalam"))?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Some(Self { binary, folder, port }))
    }

    pub async fn serve(&self) -> Result<S3> {
        let s3 = S3::start(&self.binary, self.folder.path(), self.port)?;
        let begun = std::time::Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(60), "the S3 server does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(s3)
    }

    /// A database that flushes into it.
    pub fn database(&self) -> Result<Folder> {
        Ok(Folder::new()?
            .with("KALAMDB_OBJECT_STORE_TYPE", "s3")
            .with("KALAMDB_OBJECT_STORE_BUCKET", "kalam")
            .with("KALAMDB_OBJECT_STORE_ENDPOINT", format!("http://127.0.0.1:{}", self.port))
            .with("AWS_ACCESS_KEY_ID", "test")
            .with("AWS_SECRET_ACCESS_KEY", "testsecret"))
    }

    /// Names of the objects of all tables, but for the logs.
    pub fn objects(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().join("kalam/tables")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()? {
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type()?.is_dir() && name != "_delta_log" {
                    folders.push(entry.path());
                } else if name != "_delta_log" {
                    found.push(name);
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn writes_go_on_while_the_bucket_is_gone_and_the_flush_is_repeated() -> Result<()> {
    let Some(bucket) = Bucket::new()? else { return Ok(()) };
    let s3 = bucket.serve().await?;
    let server = Server::start_in(bucket.database()?).await?;
    server.sql("CREATE TABLE t (id BIGINT AUTO_INCREMENT PRIMARY KEY, v INT)").await?;
    server.sql("INSERT INTO t (v) SELECT 1 FROM generate_series(1, 50)").await?;
    assert_eq!(server.flush("t").await?, "completed");
    server.sql("INSERT INTO t (v) SELECT 2 FROM generate_series(1, 50)").await?;
    drop(s3);
    let job = json!({"id": "while-away", "table": "default.t", "reason": "rows"});
    assert_eq!(server.post("/v1/api/flush-jobs", SCHEDULER_TOKEN, &job).await?.status(), 202);
    server.sql("INSERT INTO t (v) SELECT 3 FROM generate_series(1, 50)").await?;
    assert_eq!(server.job_end("while-away").await?, "failed");
    let refused = format!(
        "the object store (bucket kalam at http://127.0.0.1:{}) can't be reached: nothing listens at its address; check that it \
         runs, and its endpoint",
        bucket.port
    );
    let away = json!({"reachable": false, "message": refused});
    assert_eq!(told_of_store(&server).await?, (true, away.clone()));
    // What is tried next is something else: the mirror of a new table. The reason is the same, and so are its words.
    server.sql("CREATE TABLE u (id BIGINT PRIMARY KEY); INSERT INTO u VALUES (1)").await?;
    assert_eq!(server.flush("u").await?, "failed");
    assert_eq!(told_of_store(&server).await?, (true, away));

    let _s3 = bucket.serve().await?;
    assert_eq!(server.flush("t").await?, "completed", "the next job succeeds once the bucket is back");
    assert_eq!(told_of_store(&server).await?, (true, json!({"reachable": true, "message": null})));
    assert_eq!(
        server.rows("SELECT v, count(*) FROM t GROUP BY v ORDER BY v").await?,
        json!([[1, "50"], [2, "50"], [3, "50"]])
    );
    Ok(())
}

/// What `/readyz` says: whether the instance takes writes, and how its object store is.
async fn told_of_store(server: &Server) -> Result<(bool, Value)> {
    let told: Value = server.http.get(format!("{}/readyz", server.url)).send().await?.json().await?;
    Ok((told["ready"] == true, told["objectStore"].clone()))
}

#[tokio::test]
async fn a_bucket_that_is_deleted_is_named_and_its_return_is_noticed() -> Result<()> {
    let Some(bucket) = Bucket::new()? else { return Ok(()) };
    let _s3 = bucket.serve().await?;
    let server = Server::start_in(bucket.database()?).await?;
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY); INSERT INTO t VALUES (1)").await?;
    assert_eq!(server.flush("t").await?, "completed");
    let (here, gone) = (bucket.folder.path().join("kalam"), bucket.folder.path().join("gone"));
    std::fs::rename(&here, &gone)?;
    server.sql("INSERT INTO t VALUES (2)").await?;
    assert_eq!(server.flush("t").await?, "failed");
    let (ready, store) = told_of_store(&server).await?;
    let message = store["message"].as_str().unwrap_or_default();
    assert!(ready && message.contains("NoSuchBucket") && message.ends_with("create it"), "{store}");
    std::fs::rename(&gone, &here)?;
    assert_eq!(server.flush("t").await?, "completed");
    assert_eq!(told_of_store(&server).await?, (true, json!({"reachable": true, "message": null})));
    assert_eq!(server.rows("SELECT id FROM t ORDER BY id").await?, json!([["1"], ["2"]]));
    Ok(())
}

/// The real S3 protocol all the way: files are merged after an ALTER TABLE, the process is killed during compactions, and what left the
/// table is deleted.
#[tokio::test]
async fn a_bucket_is_compacted_and_swept() -> Result<()> {
    let Some(bucket) = Bucket::new()? else { return Ok(()) };
    let _s3 = bucket.serve().await?;
    let settings = bucket.database()?.with("KALAMDB_COMPACTION_AUTOMATIC", "false");
    let mut server = Server::start_in(settings.with("KALAMDB_VACUUM_RETENTION_SECONDS", "1")).await?;
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, v DOUBLE)").await?;
    for round in 0..4u64 {
        server.sql(&format!("INSERT INTO t SELECT value * 4 + {round}, value FROM generate_series(1, 50)")).await?;
        server
            .sql(&format!("DELETE FROM t WHERE id % 7 = {round}; UPDATE t SET v = -1 WHERE id % 5 = {round}"))
            .await?;
        assert_eq!(server.flush("t").await?, "completed");
    }
    server
        .sql("ALTER TABLE t ADD COLUMN w INT DEFAULT 3; UPDATE t SET v = 7 WHERE id < 20; DELETE FROM t WHERE id = 20")
        .await?;
    let rows = server.rows("SELECT * FROM t ORDER BY id").await?;
    for milliseconds in [0, 10, 25, 50, 100] {
        server.sql("STORAGE COMPACT TABLE t").await?;
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        server = Server::start_in(server.kill()?).await?;
        assert_eq!(server.rows("SELECT * FROM t ORDER BY id").await?, rows, "killed after {milliseconds} ms");
    }
    assert_ne!(server.compact("t").await?, "failed");
    assert_eq!(server.compact("t").await?, "nothing");
    assert_eq!(server.rows("SELECT * FROM t ORDER BY id").await?, rows);
    // A job that changes the files lets the sweep begin: this one, or that of a killed process, whose epoch this flush fences.
    server.sql("UPDATE t SET w = 4 WHERE id > 100").await?;
    assert_eq!(server.flush("t").await?, "completed");
    assert_eq!(server.compact("t").await?, "completed");
    let rows = server.rows("SELECT * FROM t ORDER BY id").await?;
    let begun = std::time::Instant::now();
    while bucket.objects()?.len() > 1 {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(60), "still there: {:?}", bucket.objects()?);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(server.rows("SELECT * FROM t ORDER BY id").await?, rows);
    let server = Server::start_in(server.kill()?).await?;
    assert_eq!(server.rows("SELECT * FROM t ORDER BY id").await?, rows);
    Ok(())
}
