//! `cargo xtask bench`: the benchmarks, with the peers that they need.

use anyhow::Result;

use crate::cache::{self, Cache};
use crate::console;
use crate::program::Program;
use crate::tools::debian;
use crate::workspace;

/// The release of DuckDB that the cold tier's queries are measured beside.
const DUCKDB: &str = "2.0.0";

/// Builds the benchmarks for release, unless the arguments name another profile, and runs them.
pub fn run(cache: &Cache, arguments: Vec<String>) -> Result<()> {
    debian::ensure(debian::BUILD)?;
    debian::ensure(debian::PYTHON)?;
    let packages = cache.tool("duckdb", DUCKDB);
    if !packages.join("duckdb").exists() {
        console::step("install DuckDB", || install_duckdb(&packages))?;
    }
    workspace::cargo(cache)
        .args(["bench", "--workspace", "--locked", "--bench", "*"])
        .args(arguments)
        .env("PYTHONPATH", packages)
        .shown()
}

fn install_duckdb(packages: &std::path::Path) -> Result<()> {
    cache::create(packages)?;
    let install = Program::new("python3").args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]);
    install.arg(packages).arg(format!("duckdb=={DUCKDB}")).output().map(drop)
}
