//! Errors as replies, in the two shapes of the protocol: whole SQL replies, and `{"error","message"}` elsewhere.

use std::time::Instant;

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kalamdb_api::sql::{SqlError as WireError, SqlReply, Status};
use kalamdb_sql::execute::Outcome;
use kalamdb_sql::{ErrorCode, Identity, SqlError};
use serde_json::json;

/// The least `took` that clients accept, in milliseconds.
const LEAST_TOOK: f64 = 0.001;

/// Milliseconds since then, as `took` tells it.
pub fn took(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 1e3).max(LEAST_TOOK)
}

/// A whole SQL reply that says what went wrong.
pub fn sql_failure(
    status: StatusCode,
    begun: Instant,
    code: &str,
    message: String,
    details: Option<String>,
) -> Response {
    let error = Some(WireError { code: code.into(), message, details });
    let reply = SqlReply { status: Status::Error, results: Vec::new(), took: took(begun), error };
    with_retry(status, (status, Json(reply)).into_response())
}

/// A statement's failure.
pub fn sql_error(begun: Instant, error: SqlError) -> Response {
    sql_failure(status_of(&error), begun, error.code.as_str(), error.message, error.details)
}

/// The HTTP status of a statement's failure; what nobody but us can mend is logged.
pub fn status_of(error: &SqlError) -> StatusCode {
    match error.code {
        ErrorCode::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorCode::Conflict | ErrorCode::TransactionConflict => StatusCode::CONFLICT,
        ErrorCode::Unavailable | ErrorCode::DiskFull => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => {
            tracing::error!("a statement failed: {}", error.message);
            StatusCode::INTERNAL_SERVER_ERROR
        }
        _ => StatusCode::BAD_REQUEST,
    }
}

/// The whole reply of statements that went well.
pub fn sql_results(begun: Instant, outcomes: Vec<Outcome>, identity: &Identity) -> Response {
    let results = outcomes.into_iter().map(|outcome| kalamdb_sql::reply::statement_result(outcome, identity));
    match results.collect::<Result<Vec<_>, _>>() {
        Ok(results) => {
            Json(SqlReply { status: Status::Success, results, took: took(begun), error: None }).into_response()
        }
        Err(error) => sql_error(begun, error),
    }
}

/// An error outside SQL.
pub fn failure(status: StatusCode, error: &str, message: impl Into<String>) -> Response {
    let body = Json(json!({"error": error, "message": message.into()}));
    with_retry(status, (status, body).into_response())
}

/// While the engine opens.
pub fn starting() -> Response {
    failure(StatusCode::SERVICE_UNAVAILABLE, "starting", "the database is starting; ask again in a moment")
}

/// Says when to ask again, where that can help.
pub fn with_retry(status: StatusCode, mut response: Response) -> Response {
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Why a body could not be read.
pub fn body_refused(rejection: &BytesRejection, limit: usize) -> (StatusCode, &'static str, String) {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "REQUEST_TOO_LARGE",
            format!("the request's body is larger than {limit} bytes"),
        ),
        _ => (StatusCode::BAD_REQUEST, "INVALID_REQUEST", "the request's body broke off".into()),
    }
}
