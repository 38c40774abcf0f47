//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use kalamdb_flush::Settings;
use kalamdb_flush::policy::FleetLimits;
use tokio_util::sync::CancellationToken;

use crate::{controller, schedule, telemetry};

/// Looks after KalamDB databases.
#[derive(Debug, Parser)]
#[command(name = "kalamdb-operator", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// How much is logged, such as info or kalamdb_operator=debug.
    #[arg(long, env = "KALAMDB_LOG", default_value = "info", global = true)]
    log: String,
    /// How log lines look.
    #[arg(long, env = "KALAMDB_LOG_FORMAT", default_value = "text", global = true)]
    log_format: telemetry::LogFormat,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Looks after every KalamDB of the cluster (the default).
    Run(RunArguments),
    /// Prints the KalamDB custom resource definition as YAML.
    Crd,
    /// Schedules flushes for a static list of instances, without Kubernetes.
    Schedule(schedule::ScheduleArguments),
}

/// How the operator runs in a cluster.
#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    /// The instance's image where a KalamDB names none.
    #[arg(long, env = "KALAMDB_INSTANCE_IMAGE", default_value = concat!("kalamdb-instance:", env!("CARGO_PKG_VERSION")))]
    pub instance_image: String,
    /// Where /healthz and /metrics answer.
    #[arg(long, env = "KALAMDB_OPERATOR_LISTEN", default_value = "0.0.0.0:8081")]
    pub listen: SocketAddr,
    /// KalamDBs that are reconciled at a time.
    #[arg(long, env = "KALAMDB_OPERATOR_CONCURRENCY", default_value_t = 8)]
    pub concurrency: u16,
    /// Databases that are restarted at a time when it is the operator's own doing, such as a new default image.
    #[arg(long, env = "KALAMDB_OPERATOR_MAX_ROLLOUTS", default_value_t = 1)]
    pub max_rollouts: usize,
    #[command(flatten)]
    pub fleet: FleetArguments,
}

/// How flushes are spread over the fleet.
#[derive(Debug, Clone, Args)]
pub struct FleetArguments {
    /// Time from one scrape of an instance to the next.
    #[arg(long = "interval", env = "KALAMDB_FLUSH_INTERVAL", default_value = "5s")]
    interval: kalamdb_crds::Duration,
    /// Flush jobs at a time that write to one object store.
    #[arg(long, env = "KALAMDB_FLUSH_MAX_PER_STORE", default_value_t = 4)]
    max_flushes_per_store: usize,
    /// Flush jobs at a time in the whole fleet.
    #[arg(long, env = "KALAMDB_FLUSH_MAX_FLEET", default_value_t = 16)]
    max_flushes: usize,
    /// From this fullness of an instance's disk on, in percent, all its tables are flushed.
    #[arg(long, env = "KALAMDB_FLUSH_DISK_FULL_PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=100))]
    disk_full_percent: u8,
}

impl FleetArguments {
    /// The scheduler's settings.
    pub fn settings(&self) -> Settings {
        let defaults = Settings::default();
        let fleet = FleetLimits {
            per_store: self.max_flushes_per_store.max(1),
            fleet: self.max_flushes.max(1),
            disk_full_percent: self.disk_full_percent,
            ..defaults.fleet
        };
        Settings { interval: Duration::from(&self.interval), fleet, ..defaults }
    }
}

impl Arguments {
    /// Does what the command line says.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command.unwrap_or(Command::Run(self.run)) {
            Command::Crd => {
                print!("{}", kalamdb_crds::crd_yaml());
                Ok(())
            }
            Command::Run(arguments) => {
                telemetry::log(&self.log, self.log_format)?;
                until_signal(|shutdown| controller::run(arguments, shutdown))
            }
            Command::Schedule(arguments) => {
                telemetry::log(&self.log, self.log_format)?;
                until_signal(|shutdown| schedule::run(arguments, shutdown))
            }
        }
    }
}

/// Reads a token file.
pub fn read_token(path: &PathBuf) -> anyhow::Result<kalamdb_flush::Token> {
    let token = std::fs::read_to_string(path).with_context(|| {
        format!(
            "failed to read the token file {}: give a file that holds the instance's scheduler token",
            path.display()
        )
    })?;
    anyhow::ensure!(
        !token.trim().is_empty(),
        "the token file {} is empty: write the instance's scheduler token into it",
        path.display()
    );
    Ok(kalamdb_flush::Token::new(&token))
}

fn until_signal<F: Future<Output = anyhow::Result<()>>>(
    work: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start the runtime")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let signalled = shutdown.clone();
        tokio::spawn(async move {
            signal().await;
            tracing::info!("shutting down");
            signalled.cancel();
        });
        work(shutdown).await
    })
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("the runtime handles signals");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
