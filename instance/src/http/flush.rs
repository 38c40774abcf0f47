//! Flush jobs, for the scheduler alone: it has a token of its own.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use kalamdb_api::flush::FlushRequest;
use kalamdb_engine::EngineError;
use kalamdb_engine::schema::TableName;

use super::auth::bearer;
use super::{Serving, reply};
use crate::auth::is_same_secret;

/// Whether the request shows the scheduler's token.
pub fn is_scheduler(state: &super::State, headers: &HeaderMap) -> bool {
    match (&state.shared.scheduler_token, bearer(headers)) {
        (Some(wanted), Some(given)) => is_same_secret(given, wanted),
        _ => false,
    }
}

fn admit<'a>(state: &'a super::State, headers: &HeaderMap) -> Result<&'a Serving, Response> {
    if state.shared.scheduler_token.is_none() {
        let text = "this instance has no KALAMDB_SCHEDULER_TOKEN, so that no scheduler can come in";
        return Err(reply::failure(StatusCode::FORBIDDEN, "forbidden", text));
    }
    if !is_scheduler(state, headers) {
        return Err(reply::failure(StatusCode::UNAUTHORIZED, "unauthorized", "Invalid credentials"));
    }
    let serving = state.serving().ok_or_else(reply::starting)?;
    serving.engine.scheduler_seen();
    Ok(serving)
}

/// `POST /v1/api/flush-jobs`.
pub async fn start(
    State(state): State<super::State>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let serving = match admit(&state, &headers) {
        Ok(serving) => serving,
        Err(response) => return response,
    };
    let refused = |text: String| reply::failure(StatusCode::BAD_REQUEST, "invalid_request", text);
    let request: FlushRequest = match body.map_err(|error| error.to_string()).and_then(|body| {
        serde_json::from_slice(&body).map_err(|error| format!("the body is no flush request: {error}"))
    }) {
        Ok(request) => request,
        Err(text) => return refused(text),
    };
    let table: TableName = match request.table.parse() {
        Ok(table) => table,
        Err(error) => return refused(format!("{error}")),
    };
    match serving.engine.start_flush(&request.id, &table, request.reason).await {
        Ok((job, is_new)) => {
            let status = if is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
            (status, Json(job)).into_response()
        }
        Err(error) => engine_failure(&error),
    }
}

/// `GET /v1/api/flush-jobs/{id}`.
pub async fn follow(State(state): State<super::State>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    match admit(&state, &headers) {
        Ok(serving) => match serving.engine.flush_job(&id) {
            Some(job) => Json(job).into_response(),
            None => reply::failure(StatusCode::NOT_FOUND, "not_found", format!("there is no flush job '{id}'")),
        },
        Err(response) => response,
    }
}

fn engine_failure(error: &EngineError) -> Response {
    let (status, code) = match error {
        EngineError::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
        EngineError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
        EngineError::AlreadyExists { .. } => (StatusCode::CONFLICT, "already_exists"),
        error if error.is_retryable() => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        EngineError::TableStopped { .. } => (StatusCode::CONFLICT, "table_stopped"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
    };
    reply::failure(status, code, error.to_string())
}
