//! `schedule`: the flush scheduler over a static list of instances, without Kubernetes.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use kalamdb_flush::{
    Job, Limits, Observer, Outcome, Sample, ScrapeError, StaticTargets, StoreKey, Target, TargetId, scheduler,
};
use metrics::{counter, histogram};
use tokio_util::sync::CancellationToken;

use crate::commands::{FleetArguments, read_token};
use crate::health::Health;
use crate::telemetry::{FLUSH_DURATION, FLUSH_JOBS, SCRAPE_FAILURES, serve};

/// Which instances, and when their tables are due.
#[derive(Debug, Args)]
pub struct ScheduleArguments {
    /// An instance, as http://host:port. May be given several times.
    #[arg(long = "target", required = true)]
    targets: Vec<String>,
    /// The file that holds the scheduler token: one for all instances, or one for each in the same order.
    #[arg(long = "token-file", required = true)]
    token_files: Vec<PathBuf>,
    /// Unflushed bytes that make a table due.
    #[arg(long, default_value = "256Mi")]
    max_bytes: kalamdb_crds::Quantity,
    /// Unflushed rows that make a table due.
    #[arg(long, default_value_t = 1_000_000)]
    max_rows: u64,
    /// Age of the oldest unflushed row that makes a table due.
    #[arg(long, default_value = "10m")]
    max_age: kalamdb_crds::Duration,
    /// Flush jobs of one instance at a time.
    #[arg(long, default_value_t = 2)]
    max_concurrent: usize,
    /// Where /healthz and /metrics answer; nowhere by default.
    #[arg(long)]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    fleet: FleetArguments,
}

/// Schedules until `shutdown`.
pub async fn run(arguments: ScheduleArguments, shutdown: CancellationToken) -> anyhow::Result<()> {
    let targets = targets(&arguments)?;
    let health = Arc::new(Health::default());
    for target in &targets {
        tracing::info!(target = %target.id, "scheduling flushes");
    }
    let scheduling = scheduler::run(
        arguments.fleet.settings(),
        Arc::new(StaticTargets(targets)),
        Arc::new(Log { health: health.clone(), silent: Mutex::default() }),
        Arc::new(rand::random),
        shutdown.clone(),
    );
    let serving = async {
        match arguments.listen {
            Some(listen) => serve(listen, health, shutdown.clone()).await,
            None => Ok(()),
        }
    };
    let scheduling = async { scheduling.await.context("failed to start the flush scheduler") };
    tokio::try_join!(scheduling, serving).map(drop)
}

fn targets(arguments: &ScheduleArguments) -> anyhow::Result<Vec<Target>> {
    let (targets, files) = (&arguments.targets, &arguments.token_files);
    anyhow::ensure!(
        files.len() == 1 || files.len() == targets.len(),
        "{} targets and {} token files: give one --token-file for all, or one for each --target",
        targets.len(),
        files.len()
    );
    let limits = Limits {
        max_bytes: arguments.max_bytes.value().max(1),
        max_rows: arguments.max_rows.max(1),
        max_age: Duration::from(&arguments.max_age),
        max_concurrent: arguments.max_concurrent.max(1),
    };
    targets
        .iter()
        .enumerate()
        .map(|(index, url)| {
            let url = url.trim_end_matches('/').to_owned();
            anyhow::ensure!(
                url.starts_with("http://") || url.starts_with("https://"),
                "the target {url:?} is no address: write it as http://host:port"
            );
            let token = read_token(files.get(index).unwrap_or(&files[0]))?;
            Ok(Target { id: TargetId(url.clone()), store: StoreKey(url.clone()), url, token, limits })
        })
        .collect()
}

/// Tells in the log what happens.
struct Log {
    health: Arc<Health>,
    /// Instances that did not answer the last time: only the first silence is worth a warning.
    silent: Mutex<HashSet<TargetId>>,
}

impl Observer for Log {
    fn turned(&self) {
        self.health.flush_loop_turned();
    }

    fn scraped(&self, target: &TargetId, result: Result<&Sample, &ScrapeError>) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(sample) => {
                if silent.remove(target) {
                    tracing::info!(%target, "the instance answers again");
                }
                tracing::debug!(%target, rows = sample.rows(), bytes = sample.bytes(), "scraped");
            }
            Err(error) => {
                counter!(SCRAPE_FAILURES).increment(1);
                if silent.insert(target.clone()) {
                    tracing::warn!(%error, "an instance was not scraped; trying on");
                }
            }
        }
    }

    fn started(&self, job: &Job) {
        tracing::info!(target = %job.target, table = %job.table, reason = ?job.reason, "flush is due");
    }

    fn ended(&self, job: &Job, outcome: &Outcome, took: Duration) {
        count_flush(outcome, took);
        log_flush(&job.target.0, job, outcome, took);
    }
}

/// Counts a flush job that ended.
pub fn count_flush(outcome: &Outcome, took: Duration) {
    counter!(FLUSH_JOBS, "result" => outcome.label()).increment(1);
    histogram!(FLUSH_DURATION, "result" => outcome.label()).record(took.as_secs_f64());
}

/// Logs a flush job that ended.
pub fn log_flush(instance: &str, job: &Job, outcome: &Outcome, took: Duration) {
    let milliseconds = took.as_millis();
    match outcome {
        Outcome::Completed { rows, bytes } => {
            tracing::info!(instance, table = %job.table, rows, bytes, milliseconds, "flushed");
        }
        Outcome::Skipped => tracing::info!(instance, table = %job.table, milliseconds, "there was nothing to flush"),
        Outcome::Failed { message } | Outcome::Refused { message } | Outcome::Lost { message } => {
            tracing::warn!(instance, table = %job.table, result = outcome.label(), message, "a flush failed; trying again later");
        }
    }
}
