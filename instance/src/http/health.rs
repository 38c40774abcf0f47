//! Health, readiness and metrics: open to all callers.

use std::sync::OnceLock;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use kalamdb_engine::engine::Readiness;
use serde_json::{Value, json};

use super::reply;

/// `/health`.
pub async fn health() -> Json<Value> {
    Json(json!({
        "status": "healthy",
        "version": env!("CARGO_PKG_VERSION"),
        "api_version": "v1",
        "build_date": build_date(),
    }))
}

/// When the program was built: what the build said, else when its file was written.
fn build_date() -> &'static str {
    static DATE: OnceLock<String> = OnceLock::new();
    let written = || std::env::current_exe().and_then(std::fs::metadata).and_then(|file| file.modified());
    let date = || match (option_env!("KALAMDB_BUILD_DATE"), written()) {
        (Some(date), _) => date.to_owned(),
        (None, Ok(moment)) => DateTime::<Utc>::from(moment).to_rfc3339_opts(SecondsFormat::Secs, true),
        (None, Err(_)) => "unknown".to_owned(),
    };
    DATE.get_or_init(date)
}

/// `/healthz`: the process answers.
pub async fn alive() -> Json<Value> {
    Json(json!({"alive": true}))
}

/// `/readyz`: 200 only when writes would succeed. `objectStore` tells apart whether rows can be flushed, which writes do not need.
pub async fn ready(State(state): State<super::State>) -> Response {
    let readiness = match state.serving() {
        Some(serving) => serving.engine.readiness(),
        None => Readiness::NotReady { reason: "Starting", message: "the database is starting".into() },
    };
    let trouble = match state.serving() {
        Some(serving) => serving.engine.object_store_trouble(),
        None => Some("it was not asked yet".into()),
    };
    let store = json!({"reachable": trouble.is_none(), "message": trouble});
    match readiness {
        Readiness::Ready => Json(json!({"ready": true, "objectStore": store})).into_response(),
        Readiness::NotReady { reason, message } => {
            let body = json!({"ready": false, "reason": reason, "message": message, "objectStore": store});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

/// `/metrics`. A scrape that shows the scheduler's token tells the engine that its scheduler is alive.
pub async fn metrics(State(state): State<super::State>, headers: HeaderMap) -> Response {
    let engine = state.serving().map(|serving| serving.engine.clone());
    let database = state.serving().map(|serving| serving.database.clone());
    if let Some(engine) = &engine
        && super::flush::is_scheduler(&state, &headers)
    {
        engine.scheduler_seen();
    }
    let exporter = state.exporter();
    let now_us = chrono::Utc::now().timestamp_micros();
    // Sizes ask RocksDB and the file system, which may wait for a disk.
    let text = tokio::task::spawn_blocking(move || {
        crate::metrics::scrape(&exporter, engine.as_ref(), database.as_ref(), now_us)
    })
    .await;
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => reply::failure(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", error.to_string()),
    }
}

/// Every other path.
pub async fn unknown() -> Response {
    reply::failure(StatusCode::NOT_FOUND, "not_found", "there is no such endpoint")
}
