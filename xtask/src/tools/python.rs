//! Python packages: peers that are measured beside KalamDB, and engines that read its tables. Each set lies in a folder of its own.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cache::{self, Cache};
use crate::console;
use crate::program::Program;
use crate::tools::debian;

/// A set of packages that are used together.
#[derive(Debug, Clone, Copy)]
pub struct Packages {
    name: &'static str,
    version: &'static str,
    requirements: &'static [&'static str],
}

/// The engine that the cold tier's queries are measured beside.
pub const DUCKDB: Packages = Packages { name: "duckdb", version: "2.0.0", requirements: &["duckdb==2.0.0"] };

/// The engines that must read our tables. The extension goes with one release of DuckDB.
pub const READERS: Packages = Packages {
    name: "delta-readers",
    version: "1",
    // DuckDB hands out times with a zone by way of pytz.
    requirements: &["duckdb==1.5.5", "duckdb-extension-delta==1.5.5", "deltalake==1.6.6", "pytz==2025.2"],
};

/// Installs the packages where they are missing; answers the folder for `PYTHONPATH`.
pub fn ensure(cache: &Cache, packages: Packages) -> Result<PathBuf> {
    debian::ensure(debian::PYTHON)?;
    let folder = cache.tool(packages.name, packages.version);
    if !folder.exists() {
        console::step(&format!("install {} (Python)", packages.requirements.join(", ")), || {
            install("python3".as_ref(), &folder, packages.requirements)
        })?;
    }
    Ok(folder)
}

/// Installs by pip what the arguments name, into a folder of its own: into a draft first, so that an install that broke off is not
/// taken for a whole one.
pub fn install(python: &Path, folder: &Path, arguments: &[&str]) -> Result<()> {
    let draft = folder.with_extension("draft");
    let _ = std::fs::remove_dir_all(&draft);
    cache::create(&draft)?;
    let pip = Program::new(python).args(["-m", "pip", "install", "--quiet", "--target"]);
    pip.arg(&draft).args(arguments).output()?;
    let _ = std::fs::remove_dir_all(folder);
    Ok(std::fs::rename(&draft, folder)?)
}
