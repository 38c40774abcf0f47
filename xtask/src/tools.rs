//! What the commands need beyond Rust and Go: Debian's packages, and in the cache tools built from Go modules and Python packages.

pub mod debian;
pub mod go;
pub mod python;

use anyhow::Result;

use crate::cache::Cache;
use crate::console;
use crate::tools::go::{GoTool, Tools};

/// Sets up everything, for `cargo xtask tools`.
pub fn set_up(cache: &Cache) -> Result<()> {
    debian::ensure(debian::BUILD)?;
    debian::ensure(debian::CLUSTER)?;
    let tools = for_cluster(cache)?;
    for tool in GoTool::ALL {
        console::say(&format!("{:<26} {}", tool.title(), tools.folder(tool).display()));
    }
    Ok(())
}

/// Builds the Go tools that are missing; the packages of Debian are another step.
pub fn for_cluster(cache: &Cache) -> Result<Tools> {
    go::ensure(cache, &GoTool::ALL)
}
