//! `cargo xtask suites`: the SQL tests that DataFusion publishes, run against the real instance; the share that passes is printed.
//!
//! They come as the crate `datafusion-sqllogictest` of the very version that the workspace uses, by way of cargo, and are never copied
//! into the repository. Nothing else of that crate is built.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::console;
use crate::program::Program;
use crate::tools::debian;
use crate::workspace;

const CRATE: &str = "datafusion-sqllogictest";

/// Fetches the suite where it is missing, and runs it.
pub fn run(cache: &Cache) -> Result<()> {
    debian::ensure(debian::BUILD)?;
    let version = version_in_use()?;
    let files = console::step(&format!("fetch {CRATE} {version}"), || fetch(&version))?;
    workspace::cargo(cache)
        .args(["test", "--workspace", "--locked", "--test", "it", "suites::", "--", "--nocapture"])
        .env("KALAMDB_TEST_SUITE", files)
        .shown()
}

/// The version of DataFusion that the workspace is locked to.
fn version_in_use() -> Result<String> {
    let lock = std::fs::read_to_string(workspace::root().join("Cargo.lock")).context("failed to read Cargo.lock")?;
    let (_, rest) = lock.split_once("name = \"datafusion\"\nversion = \"").context("Cargo.lock names no datafusion")?;
    rest.split_once('"').map(|(version, _)| version.to_owned()).context("Cargo.lock tells no version of datafusion")
}

/// Has cargo download the crate, checked against its index, and answers the folder of its test files.
fn fetch(version: &str) -> Result<PathBuf> {
    let package = format!("{CRATE}@{version}");
    Program::new("cargo").directory(workspace::root()).args(["info", "--quiet", package.as_str()]).output()?;
    let sources = cargo_home()?.join("registry/src");
    let indexes = std::fs::read_dir(&sources).with_context(|| format!("failed to list {}", sources.display()))?;
    let folders = indexes.flatten().map(|index| index.path().join(format!("{CRATE}-{version}")).join("test_files"));
    let found = folders.into_iter().find(|folder| folder.is_dir());
    found.with_context(|| format!("cargo did not unpack {package} below {}", sources.display()))
}

fn cargo_home() -> Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).context("neither CARGO_HOME nor HOME is set")
}
