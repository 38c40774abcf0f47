//! Logs, and the operator's own `/metrics` and `/healthz`.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::health::Health;

/// Counter: flush jobs that ended. Label `result`: completed, skipped, failed, refused, lost.
pub const FLUSH_JOBS: &str = "kalamdb_operator_flush_jobs_total";
/// Histogram, seconds: from the decision on a flush job to its end. Label `result`.
pub const FLUSH_DURATION: &str = "kalamdb_operator_flush_duration_seconds";
/// Counter: scrapes of instances that failed.
pub const SCRAPE_FAILURES: &str = "kalamdb_operator_scrape_failures_total";
/// Histogram, seconds: reconciles. Label `result`: ok, error.
pub const RECONCILE_DURATION: &str = "kalamdb_operator_reconcile_duration_seconds";
/// Counter: objects written to the API server. Label `kind`.
pub const WRITES: &str = "kalamdb_operator_writes_total";
/// Counter: errors of a watch. Label `watch`.
pub const WATCH_ERRORS: &str = "kalamdb_operator_watch_errors_total";

const DURATION_BUCKETS: [f64; 11] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];

/// How log lines look.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Begins to log to standard error.
pub fn log(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("failed to read the log filter {filter:?}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Serves `/healthz` and `/metrics` until `shutdown`.
pub async fn serve(listen: SocketAddr, health: Arc<Health>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let metrics = install()?;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("failed to listen on {listen}: choose another address with --listen"))?;
    tracing::info!(%listen, "serving /healthz and /metrics");
    axum::serve(listener, routes(metrics, health))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .context("failed to serve /healthz and /metrics")
}

fn routes(metrics: PrometheusHandle, health: Arc<Health>) -> Router {
    let healthz = move || {
        let stale = health.stale();
        async move {
            match stale.is_empty() {
                true => (StatusCode::OK, "ok\n".to_owned()),
                false => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", stale.join("\n"))),
            }
        }
    };
    let render = move || {
        let metrics = metrics.clone();
        async move {
            metrics.run_upkeep();
            metrics.render()
        }
    };
    Router::new().route("/healthz", get(healthz)).route("/metrics", get(render))
}

fn install() -> anyhow::Result<PrometheusHandle> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &DURATION_BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("failed to install the metrics recorder")
        .inspect(|handle| {
            // Samples of histograms pile up until they are drained, also where nobody scrapes.
            let handle = handle.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    handle.run_upkeep();
                }
            });
        })
}
