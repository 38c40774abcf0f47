//! `POST /v1/api/sql`.

use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use kalamdb_api::sql::{SqlReply, SqlRequest, Status};
use kalamdb_sql::{Identity, Request};

use super::{Serving, auth, reply};
use crate::auth::{TokenError, TokenKind};

/// Authenticates, runs the statements, and writes their results.
pub async fn execute(
    State(state): State<super::State>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let begun = Instant::now();
    let Some(serving) = state.serving() else {
        let text = "the database is starting; ask again in a moment".into();
        return reply::sql_failure(StatusCode::SERVICE_UNAVAILABLE, begun, "UNAVAILABLE", text, None);
    };
    // Before the user is looked up, whom an empty volume does not know.
    if let Err(error) = serving.engine.check_history() {
        return reply::sql_failure(StatusCode::SERVICE_UNAVAILABLE, begun, "UNAVAILABLE", error.to_string(), None);
    }
    let identity = match identify(serving, &headers) {
        Ok(identity) => identity,
        Err((code, text)) => return reply::sql_failure(StatusCode::UNAUTHORIZED, begun, code, text.into(), None),
    };
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let (status, code, text) = reply::body_refused(&rejection, state.shared.server.body_bytes);
            return reply::sql_failure(status, begun, code, text, None);
        }
    };
    let request: SqlRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => {
            let text = format!("the body is not a SQL request such as {{\"sql\":\"SELECT 1\"}}: {error}");
            return reply::sql_failure(StatusCode::BAD_REQUEST, begun, "INVALID_REQUEST", text, None);
        }
    };
    let Ok(_turn) = state.shared.statements.acquire().await else {
        let text = "the database is stopping".into();
        return reply::sql_failure(StatusCode::SERVICE_UNAVAILABLE, begun, "UNAVAILABLE", text, None);
    };
    let SqlRequest { sql, params, namespace_id } = request;
    let request = Request { sql, parameters: params, namespace: namespace_id, ws_url: ws_url(&headers) };
    run(serving, request, &identity, begun).await
}

/// The WebSocket of this instance, by the name that the client knows it under.
fn ws_url(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = if text("x-forwarded-proto") == Some("https") { "wss" } else { "ws" };
    format!("{scheme}://{}/v1/ws", text("host").unwrap_or("localhost"))
}

async fn run(serving: &Serving, request: Request, identity: &Identity, begun: Instant) -> Response {
    let outcomes = match serving.database.execute(request, identity).await {
        Ok(outcomes) => outcomes,
        Err(error) => return reply::sql_error(begun, error),
    };
    let results = outcomes.into_iter().map(|outcome| kalamdb_sql::reply::statement_result(outcome, identity));
    match results.collect::<Result<Vec<_>, _>>() {
        Ok(results) => {
            Json(SqlReply { status: Status::Success, results, took: reply::took(begun), error: None }).into_response()
        }
        Err(error) => reply::sql_error(begun, error),
    }
}

/// Who asks, or the code and the text of the refusal.
fn identify(serving: &Serving, headers: &HeaderMap) -> Result<Identity, (&'static str, &'static str)> {
    let Some(token) = auth::presented(headers, auth::ACCESS_COOKIE) else {
        return Err(("MISSING_AUTHORIZATION", "this endpoint needs 'Authorization: Bearer <access token>'"));
    };
    serving.authority.identify(token, TokenKind::Access, &serving.engine.catalog()).map_err(|error| match error {
        TokenError::Expired => ("TOKEN_EXPIRED", "Token expired"),
        TokenError::Invalid => ("INVALID_CREDENTIALS", "Invalid credentials"),
    })
}
