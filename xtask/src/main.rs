//! Developer commands: `cargo xtask --help`.

mod bench;
mod cache;
mod charts;
mod cluster;
mod console;
mod demo;
mod images;
mod interruption;
mod program;
mod soak;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::tools::go::Tools;
use crate::workspace::Warnings;

/// Developer commands of KalamDB.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs and builds the tools that the other commands need.
    Tools,
    /// Shows the whole system at work on real rows, on a cluster or without one.
    Demo(demo::Options),
    /// Runs all checks and all tests, on a real cluster and a real S3 server.
    Test,
    /// Checks formatting and lints.
    Lint,
    /// Runs the engine's model test for long, on new seeds.
    Soak(soak::Options),
    /// Runs the benchmarks, built for release.
    Bench {
        /// Passed on to `cargo bench`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds the workspace, and the container images with --images.
    Build {
        /// Builds the images too.
        #[arg(long)]
        images: bool,
        /// Builds the images and pushes them to this registry, such as ghcr.io/you (log in to it with `buildah login`).
        #[arg(long)]
        registry: Option<String>,
    },
    /// Starts, stops or describes the local Kubernetes cluster.
    Cluster {
        #[command(subcommand)]
        action: ClusterAction,
    },
}

#[derive(Debug, Subcommand)]
enum ClusterAction {
    /// Starts it; a running one is left as it is.
    Up,
    /// Builds the images from what `build` made, and installs the operator.
    Deploy,
    /// Removes it with all its data.
    Down,
    /// Tells what runs and how to reach it.
    Status,
}

fn main() -> ExitCode {
    match interruption::watch().and_then(|()| run(Arguments::parse().command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let cache = Cache::from_environment()?;
    match command {
        Command::Tools => tools::set_up(&cache),
        Command::Demo(options) => demo::run(&cache, &options),
        Command::Test => test::run(&cache),
        Command::Lint => test::lint(&cache),
        Command::Soak(options) => soak::run(&cache, &options),
        Command::Bench { arguments } => bench::run(&cache, arguments),
        Command::Build { images, registry } => build(&cache, images, registry.as_deref()),
        Command::Cluster { action } => on_cluster(&cache, action),
    }
}

fn on_cluster(cache: &Cache, action: ClusterAction) -> Result<()> {
    match action {
        ClusterAction::Up => {
            let cluster = Cluster::new(cache, tools::for_cluster(cache)?);
            cluster.up().map(|()| cluster.status())
        }
        ClusterAction::Deploy => {
            let tools = tools::for_cluster(cache)?;
            let cluster = Cluster::new(cache, tools.clone());
            cluster.up()?;
            charts::deploy(cache, &tools, &cluster)
        }
        ClusterAction::Down => Cluster::new(cache, Tools::places(cache)).down(),
        ClusterAction::Status => {
            Cluster::new(cache, Tools::places(cache)).status();
            Ok(())
        }
    }
}

/// Builds everything, then the images, and pushes them where that is asked for.
fn build(cache: &Cache, images: bool, registry: Option<&str>) -> Result<()> {
    tools::debian::ensure(tools::debian::BUILD)?;
    workspace::build(cache, Warnings::Ignored)?;
    if !images && registry.is_none() {
        return Ok(());
    }
    tools::debian::ensure(tools::debian::IMAGES)?;
    let products = images::build_products(cache)?;
    if let Some(registry) = registry {
        images::push(&products.all(), registry)?;
        console::say(&format!(
            "install the operator with\n\n  helm install kalamdb-operator charts/kalamdb-operator --namespace kalamdb-system --create-namespace {}",
            charts::image_settings(&products, Some(registry)).join(" ")
        ));
    }
    Ok(())
}
