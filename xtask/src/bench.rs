//! `cargo xtask bench`: the benchmarks, with the peers that they need.

use anyhow::Result;

use crate::cache::Cache;
use crate::tools::{debian, python};
use crate::workspace;

/// Builds the benchmarks for release, unless the arguments name another profile, and runs them.
pub fn run(cache: &Cache, arguments: Vec<String>) -> Result<()> {
    debian::ensure(debian::BUILD)?;
    let packages = python::ensure(cache, python::DUCKDB)?;
    workspace::cargo(cache)
        .args(["bench", "--workspace", "--locked", "--bench", "*"])
        .args(arguments)
        .env("PYTHONPATH", packages)
        .shown()
}
