//! `cargo xtask soak`: the engine's model test for as long as one likes, on seeds that no run before had.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::cache::Cache;
use crate::console;
use crate::tools::debian;
use crate::workspace;

/// How long, and from which seed on.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How long it runs, in seconds, beside the build.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// The first seed; a new one each time where none is given. A failure names its own.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs every scenario at once.
pub fn run(cache: &Cache, options: &Options) -> Result<()> {
    debian::ensure(debian::BUILD)?;
    let seconds_since_1970 = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Far apart, so that a later run begins where no earlier one has come to.
    let seed = options.seed.unwrap_or_else(|| seconds_since_1970() << 20);
    console::say(&format!("seeds from {seed} on, for {} s", options.seconds));
    workspace::cargo(cache)
        .args([
            "test",
            "--workspace",
            "--lib",
            "--locked",
            "model::case::",
            "--",
            "--nocapture",
            "--test-threads",
            "16",
        ])
        .env("KALAMDB_SOAK_SECONDS", options.seconds.to_string())
        .env("KALAMDB_SOAK_SEED", seed.to_string())
        .shown()
}
