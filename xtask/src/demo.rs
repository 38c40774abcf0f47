//! `cargo xtask demo`: the whole system at work on real rows, before the user's eyes.
//!
//! One story, told on one of two stages: a Kubernetes cluster with an S3 server, or plain processes with a local folder.

mod embedded;
mod kubernetes;
mod rows;
mod stage;
mod story;
mod table;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::cache::Cache;
use crate::cluster;
use crate::console;
use crate::demo::embedded::{Embedded, Place};
use crate::demo::kubernetes::Kubernetes;
use crate::demo::stage::Stage;
use crate::interruption;

/// What the demo is asked for.
#[derive(Debug, Args)]
pub struct Options {
    /// Removes what an earlier demo has left running, with its data.
    #[arg(long)]
    down: bool,
    /// Plain processes and a local folder in place of a cluster and S3.
    #[arg(long, conflicts_with = "context")]
    embedded: bool,
    /// An existing cluster: a context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Where an existing cluster gets its images, such as ghcr.io/you: they are pushed there. Without it, kind and minikube
    /// are handed the images directly.
    #[arg(long, requires = "context")]
    registry: Option<String>,
    /// All 336,776 flights, downloaded from PyPI, instead of the 10,525 in examples/.
    #[arg(long)]
    full: bool,
}

/// Runs it.
pub fn run(cache: &Cache, options: &Options) -> Result<()> {
    if options.down {
        return down(cache, options);
    }
    let started = Instant::now();
    play(cache, options).inspect_err(|_| {
        console::say("\nThe demo stopped. What it started stays for a look; `cargo xtask demo --down` removes it.");
    })?;
    console::say(&format!("\nThe demo took {}.", console::duration(started.elapsed())));
    Ok(())
}

fn play(cache: &Cache, options: &Options) -> Result<()> {
    let flights = rows::load(cache, options.full)?;
    if options.embedded || cannot_run_a_cluster(options) {
        let mut stage = Embedded::start(cache, &Place::of_the_demo(cache))?;
        story::tell(&mut stage, &flights)?;
        return tell_next(&stage);
    }
    let mut stage = match &options.context {
        Some(context) => Kubernetes::existing(cache, context, options.registry.as_deref())?,
        None => Kubernetes::local(cache)?,
    };
    story::tell(&mut stage, &flights)?;
    tell_next(&stage)
}

fn tell_next(stage: &dyn Stage) -> Result<()> {
    console::headline("To try next");
    console::say(&stage.next_commands()?);
    Ok(())
}

/// The embedded demo as a test: on its own folder, and removed at its end.
pub fn check_embedded(cache: &Cache) -> Result<()> {
    let place = Place::of_a_test(cache);
    let flights = rows::load(cache, false)?;
    let told = Embedded::start(cache, &place).and_then(|mut stage| story::tell(&mut stage, &flights));
    // A story that goes wrong has shown the ends of all logs; nothing of it goes on running.
    interruption::shielded(|| place.remove()).and(told)
}

fn down(cache: &Cache, options: &Options) -> Result<()> {
    if let Some(context) = &options.context {
        return kubernetes::remove_from(cache, context);
    }
    Place::of_the_demo(cache).remove()?;
    if options.embedded { Ok(()) } else { kubernetes::remove_local(cache) }
}

/// Says what is missing, so that nobody wonders why there is no cluster.
fn cannot_run_a_cluster(options: &Options) -> bool {
    let obstacles = if options.context.is_some() { Vec::new() } else { cluster::obstacles() };
    if obstacles.is_empty() {
        return false;
    }
    console::say("A cluster can't run here:");
    obstacles.iter().for_each(|obstacle| console::detail(obstacle));
    console::say("So the same runs with plain processes and a local folder (as `cargo xtask demo --embedded` does).");
    true
}

/// A program that the demo needs and can't install.
fn require(program: &str, purpose: &str) -> Result<std::path::PathBuf> {
    match crate::program::which(program) {
        Some(path) => Ok(path),
        None => bail!("{program} is not in PATH: install it, it {purpose}"),
    }
}
