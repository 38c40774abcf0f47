//! The files of `tests/slt`, over HTTP against the real binary: once on hot rows, once with everything flushed after each write, once with
//! a flush after every second write. The answers are the same.
//!
//! A file is a namespace of its own, named after it, which is dropped at the file's end. Beyond what `sqllogictest` knows there are two
//! commands, which stand where a statement stands:
//!
//! * `\connect USER PASSWORD`: the connection goes on as that user (use named connections for several);
//! * `\bind JSON ARRAY`: the next statement of the connection has these parameters.
//!
//! Column types are letters: `B` BOOLEAN, `I` SMALLINT and INT, `L` BIGINT, `R` FLOAT and DOUBLE, `D` DECIMAL, `T` TEXT, `P` TIMESTAMP,
//! DATETIME, DATE and TIME, `J` JSON, `Y` BYTES, `U` UUID, `V` EMBEDDING, `F` FILE. Every cell of every reply is held to its type's form on
//! the wire, and every error to its status and to the words that clients react to.

mod client;
mod reply;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sqllogictest::{Runner, strict_column_validator};

use crate::server::Server;
use client::{Client, World};

/// When the rows of a file are flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tiers {
    /// Never.
    Hot,
    /// After each write.
    Flushed,
    /// After every second write.
    Half,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_hold_on_hot_rows() -> Result<()> {
    run_all(Tiers::Hot).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_hold_when_all_is_flushed() -> Result<()> {
    run_all(Tiers::Flushed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_hold_when_half_is_flushed() -> Result<()> {
    run_all(Tiers::Half).await
}

/// Runs every file, whatever became of those before it, and then tells of all that failed. `KALAMDB_SLT=part` chooses files by name.
async fn run_all(tiers: Tiers) -> Result<()> {
    let chosen = std::env::var("KALAMDB_SLT").unwrap_or_default();
    let server = Server::start().await?;
    let mut failures = Vec::new();
    let (mut files, mut statements) = (0, 0);
    for file in files_below(&PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/slt")))? {
        if !file.to_string_lossy().contains(&chosen) {
            continue;
        }
        files += 1;
        match run_file(&server, &file, tiers).await {
            Ok(count) => statements += count,
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    ensure!(files > 0, "no file was run");
    println!("{tiers:?}: {files} files, {statements} statements");
    let count = failures.len();
    ensure!(failures.is_empty(), "{count} of {files} file(s) failed with {tiers:?} rows:\n{}", failures.join("\n\n"));
    Ok(())
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    Ok(files)
}

/// Answers how many statements it ran.
async fn run_file(server: &Server, file: &Path, tiers: Tiers) -> Result<u64> {
    let namespace = file.file_stem().context("a file has a name")?.to_string_lossy().replace('-', "_");
    server.sql(&format!("CREATE NAMESPACE {namespace}")).await?;
    let world = World::new(server, &namespace, tiers);
    let mut runner = Runner::new(|| std::future::ready(Ok(Client::new(world.clone()))));
    runner.with_column_validator(strict_column_validator);
    let ended = runner.run_file_async(file).await;
    server.sql(&format!("DROP NAMESPACE IF EXISTS {namespace} CASCADE")).await?;
    match ended {
        Ok(()) => Ok(world.statements()),
        // It says file and line.
        Err(error) => bail!("{}", error.display(false)),
    }
}
