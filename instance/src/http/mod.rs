//! The endpoints of the public protocol.

#![allow(
    clippy::result_large_err,
    reason = "the Err of a handler's steps is the response that is sent; it is moved once and boxing it would only cost"
)]

mod auth;
mod flush;
mod health;
mod patience;
mod reply;
mod results;
mod rows;
mod sql;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use kalamdb_api::flush::FLUSH_JOBS_PATH;
use kalamdb_api::sql::{LOGIN_PATH, SQL_PATH};
use kalamdb_engine::Engine;
use kalamdb_sql::Database;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::auth::{Authority, RateLimit};
use crate::configuration::{Configuration, ServerConfig};
use crate::metrics::Exporter;

use patience::{Client, PatientListener};

/// What requests are answered with, once the engine is open.
pub struct Serving {
    /// The engine.
    pub engine: Engine,
    /// SQL over it.
    pub database: Database,
    /// Who may come in.
    pub authority: Authority,
}

/// What all handlers share. Cheap to clone.
#[derive(Clone)]
pub struct State {
    shared: Arc<Shared>,
}

struct Shared {
    serving: OnceLock<Serving>,
    exporter: Arc<Exporter>,
    server: ServerConfig,
    hash_cost: kalamdb_sql::password::HashCost,
    scheduler_token: Option<String>,
    rate: RateLimit,
    /// How long a client may stay silent in the middle of a request or of its reply.
    patience: Duration,
    /// How long a refresh token is good.
    refresh: Duration,
    setup: tokio::sync::Mutex<()>,
}

impl State {
    /// Before the engine is open.
    pub fn new(configuration: &Configuration, exporter: Arc<Exporter>) -> Self {
        let shared = Shared {
            serving: OnceLock::new(),
            exporter,
            server: configuration.server.clone(),
            hash_cost: configuration.sql.hash_cost,
            scheduler_token: configuration.auth.scheduler_token.clone(),
            rate: RateLimit::new(configuration.auth.requests_per_second),
            patience: configuration.sql.statement_timeout,
            refresh: configuration.auth.refresh,
            setup: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// From now on requests reach the engine.
    pub fn begin_serving(&self, serving: Serving) {
        let _ = self.shared.serving.set(serving);
    }

    /// The recorder of metrics.
    pub fn exporter(&self) -> Arc<Exporter> {
        Arc::clone(&self.shared.exporter)
    }

    fn serving(&self) -> Option<&Serving> {
        self.shared.serving.get()
    }
}

fn router(state: State) -> Router {
    let body_limit = DefaultBodyLimit::max(state.shared.server.body_bytes);
    let routes = Router::new()
        .route("/health", get(health::health))
        .route("/v1/api/healthcheck", get(health::health))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route(SQL_PATH, post(sql::execute))
        .route(LOGIN_PATH, post(auth::login))
        .route("/v1/api/auth/refresh", post(auth::refresh))
        .route("/v1/api/auth/logout", post(auth::logout))
        .route("/v1/api/auth/me", get(auth::me))
        .route("/v1/api/auth/status", get(auth::status))
        .route("/v1/api/auth/setup", post(auth::setup))
        .route(FLUSH_JOBS_PATH, post(flush::start))
        .route(&format!("{FLUSH_JOBS_PATH}/{{id}}"), get(flush::follow))
        .fallback(health::unknown);
    // A load looks after its body itself, and tells what it has written until then.
    let routes = patience::within(routes, state.shared.patience)
        .route("/v1/api/tables/{namespace}/{table}/rows", post(rows::load));
    patience::with_addresses(routes.layer(body_limit).with_state(state))
}

/// Answers until `shutdown`, then lets running requests end.
pub async fn serve(listener: TcpListener, state: State, shutdown: CancellationToken) -> std::io::Result<()> {
    let patience = state.shared.patience;
    let service = router(state).into_make_service_with_connect_info::<Client>();
    axum::serve(PatientListener::new(listener, patience), service)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}
