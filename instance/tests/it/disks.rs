//! A disk that is really full: writes are refused, a flush still ends and frees space, and then writes go on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::server::{Folder, Server};

const SIZE_MIB: u64 = 96;

/// A file system of its own in memory; unmounted when it is dropped.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// None where this user may not mount.
    fn mount() -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let size = format!("size={SIZE_MIB}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Some(Self { folder })),
            refused => {
                eprintln!("skipped: a disk of its own needs the right to mount: {refused:?}");
                Ok(None)
            }
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills it up with a file of somebody else, to so many bytes that are left.
    fn fill(&self, left: u64) -> Result<PathBuf> {
        let (file, block) = (self.path().join("ballast"), vec![1u8; 1 << 16]);
        let mut ballast = std::fs::File::options().create(true).append(true).open(&file)?;
        while self.free()? > left {
            match std::io::Write::write_all(&mut ballast, &block) {
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                written => written?,
            }
        }
        Ok(file)
    }

    fn free(&self) -> Result<u64> {
        let output = Command::new("df").args(["--output=avail", "-B1"]).arg(self.path()).output()?;
        let text = String::from_utf8(output.stdout)?;
        text.lines().last().and_then(|line| line.trim().parse().ok()).with_context(|| text.clone())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}

/// Tries to write until it is refused for want of space, or taken, whichever is wanted.
async fn await_write(server: &Server, next: &mut i64, refused: bool) -> Result<()> {
    let began = Instant::now();
    loop {
        let sql = format!("INSERT INTO t VALUES ({next}, 'x')");
        let answer = server.try_sql(&sql).await?;
        match answer.body["error"]["code"].as_str() {
            None => *next += 1,
            Some(_) => answer.assert_refused(&sql, 503, "DISK_FULL", "limits.disk_reserve_bytes"),
        }
        if answer.status.is_success() != refused {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(30), "{sql}: {} {}", answer.status, answer.body);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn count(server: &Server) -> Result<i64> {
    let rows = server.rows("SELECT count(*) FROM t").await?;
    rows[0][0].as_str().context("a count")?.parse().context("a count")
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_a_flush_makes_room() -> Result<()> {
    let Some(disk) = Disk::mount()? else { return Ok(()) };
    let folder = Folder::new()?
        .with("KALAMDB_DATA_DIR", disk.path().join("data").display().to_string())
        .with("KALAMDB_LIMITS_DISK_RESERVE_BYTES", (16u64 << 20).to_string())
        .with("KALAMDB_LIMITS_RESERVE_FILE_BYTES", (12u64 << 20).to_string())
        .with("KALAMDB_LIMITS_MEMTABLE_BYTES", (4u64 << 20).to_string())
        .with("KALAMDB_LIMITS_WAL_BYTES", (8u64 << 20).to_string())
        .with("KALAMDB_FLUSH_SCHEDULER_TIMEOUT_SECONDS", "3600");
    let cold = folder.data.path().join("cold").display().to_string();
    let server = Server::start_in(folder.with("KALAMDB_OBJECT_STORE_PATH", cold)).await?;
    let reserve = disk.path().join("data/reserve");
    ensure!(reserve.metadata()?.len() == 12 << 20, "the reserve is set aside");
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT)").await?;
    let mut next = 0;
    await_write(&server, &mut next, false).await?;

    // Somebody else takes the space: first so much that writes need what is left.
    let ballast = disk.fill(14 << 20)?;
    await_write(&server, &mut next, true).await?;
    let ready: serde_json::Value = server.http.get(format!("{}/readyz", server.url)).send().await?.json().await?;
    ensure!(ready["reason"] == "DiskFull", "{ready}");
    ensure!(reserve.exists(), "there is room for a flush without it");
    ensure!(count(&server).await? == next, "reads go on");
    std::fs::remove_file(&ballast)?;
    await_write(&server, &mut next, false).await?;

    // Then all of it, while rows wait to be flushed.
    let rows = format!("INSERT INTO t SELECT value, 'waits' FROM generate_series({next}, {})", next + 999);
    server.sql(&rows).await?;
    next += 1000;
    disk.fill(0)?;
    await_write(&server, &mut next, true).await?;
    let began = Instant::now();
    while reserve.exists() {
        ensure!(began.elapsed() < Duration::from_secs(30), "the reserve is not given up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(disk.free()? > 8 << 20, "{} bytes are free", disk.free()?);
    // Or the instance has done so by itself: on a disk that is low every table is due.
    let flushed = server.flush("t").await?;
    ensure!(flushed != "failed", "a flush ends all the same");
    let unflushed = server.sql("STORAGE FLUSH TABLE t").await?["message"].to_string();
    ensure!(unflushed.contains("Nothing to flush"), "{unflushed}");
    ensure!(count(&server).await? == next, "nothing is lost");

    // A new life finds the disk full as well.
    let mut server = Server::launch(server.kill()?)?;
    server.wait_for("DiskFull").await?;
    std::fs::remove_file(ballast)?;
    server.begin().await?;
    await_write(&server, &mut next, false).await?;
    ensure!(count(&server).await? == next, "writes go on once there is room");
    let began = Instant::now();
    while !reserve.exists() {
        ensure!(began.elapsed() < Duration::from_secs(30), "the reserve is not set aside again");
        await_write(&server, &mut next, false).await?;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    ensure!(server.flush("t").await? == "completed");
    ensure!(count(&server).await? == next);
    drop(server.stop()?);
    drop(disk);
    Ok(())
}
