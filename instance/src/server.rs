//! Starting and stopping. The port opens first, so that probes get answers while the engine recovers; the engine closes last.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kalamdb_engine::catalog::{CatalogChange, Credentials};
use kalamdb_engine::{Engine, EngineError};
use kalamdb_sql::{Database, password};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth::Authority;
use crate::configuration::Configuration;
use crate::http::{self, Serving, State};
use crate::metrics;

/// From one look at a data folder that another process has open to the next.
const VOLUME_PAUSE: Duration = Duration::from_millis(250);

/// Serves on a runtime of its own until SIGTERM or SIGINT.
pub fn block_on(configuration: Configuration) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start threads")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let stop = stop_on_signal(shutdown.clone()).context("failed to listen for signals")?;
        let result = run(configuration, shutdown).await;
        stop.abort();
        result
    })
}

/// Serves until `shutdown` is cancelled; then finishes what runs, and closes the engine.
pub async fn run(configuration: Configuration, shutdown: CancellationToken) -> Result<()> {
    let address = format!("{}:{}", configuration.server.host, configuration.server.port);
    let listener = TcpListener::bind(&address).await.with_context(|| format!("failed to listen on {address}"))?;
    let bound = listener.local_addr().context("failed to learn the address that was bound")?;
    let state = State::new(&configuration, metrics::Exporter::install(configuration.label_values)?);
    let upkeep = tokio::spawn(state.exporter().keep_up(shutdown.clone()));
    let requests = tokio::spawn(http::serve(listener, state.clone(), shutdown.clone()));
    tracing::info!("listening on http://{bound}");
    let engine = tokio::select! {
        engine = open(&configuration, &state) => Some(engine?),
        () = shutdown.cancelled() => None,
    };
    if engine.is_some() {
        tracing::info!("open: the data folder is {}", configuration.engine.data_dir.display());
    }
    shutdown.cancelled().await;
    tracing::info!("stopping: running requests have {} s to end", configuration.server.shutdown.as_secs());
    let ended = tokio::time::timeout(configuration.server.shutdown, requests).await;
    if ended.is_err() {
        tracing::warn!("some requests did not end in time and are given up");
    }
    if let Some(engine) = engine {
        engine.close().await;
    }
    upkeep.await.context("the upkeep of metrics broke off")?;
    tracing::info!("closed");
    Ok(())
}

/// Opens the engine and lets requests through to it.
async fn open(configuration: &Configuration, state: &State) -> Result<Engine> {
    let engine = open_engine(configuration).await.context("failed to open the database")?;
    let authority = Authority::open(&configuration.auth, &configuration.engine.data_dir, configuration.sql.hash_cost)?;
    set_root_password(configuration, &engine).await?;
    let exporter = state.exporter();
    engine.observe_jobs(Box::new(move |kind, table, took| exporter.record_job_duration(kind, table, took)));
    let observer = Arc::new(metrics::Latencies::new(state.exporter(), engine.clone()));
    let database =
        Database::new(engine.clone(), configuration.sql.clone(), observer).context("failed to start the SQL layer")?;
    state.begin_serving(Serving { engine: engine.clone(), database, authority });
    Ok(engine)
}

/// A pod that was replaced by force has a successor before it has ended. That one waits, for as long as a process may take to end.
async fn open_engine(configuration: &Configuration) -> Result<Engine, EngineError> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        match Engine::open(configuration.engine.clone()).await {
            Err(error @ EngineError::VolumeInUse { .. }) if begun.elapsed() < configuration.server.shutdown => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "waiting up to {} s for it", configuration.server.shutdown.as_secs());
                }
                tokio::time::sleep(VOLUME_PAUSE).await;
            }
            opened => return opened,
        }
    }
}

/// `KALAMDB_ROOT_PASSWORD` counts at the first start only: later root may have changed it.
async fn set_root_password(configuration: &Configuration, engine: &Engine) -> Result<()> {
    let Some(password) = configuration.auth.root_password.clone() else { return Ok(()) };
    let catalog = engine.catalog();
    let Some(root) = catalog.users.get(&crate::auth::root()) else { return Ok(()) };
    if root.credentials != Credentials::None {
        return Ok(());
    }
    password::check_strength(&password).context("KALAMDB_ROOT_PASSWORD")?;
    let cost = configuration.sql.hash_cost;
    let hash = tokio::task::spawn_blocking(move || password::hash(&password, cost)).await??;
    let mut root = root.as_ref().clone();
    root.credentials = Credentials::Password(hash);
    engine.change_catalog(CatalogChange::PutUser(root)).await.context("failed to store root's password")
}

/// The first SIGTERM or SIGINT begins the shutdown.
fn stop_on_signal(shutdown: CancellationToken) -> std::io::Result<tokio::task::JoinHandle<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    }))
}
