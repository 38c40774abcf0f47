//! `POST /v1/api/sql`.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use kalamdb_api::sql::{SqlReply, SqlRequest, Status};
use kalamdb_sql::{Identity, Request};

use super::{Serving, auth, reply};
use crate::auth::{TokenError, TokenKind};

/// Authenticates, runs the statements, and writes their results.
pub async fn execute(
    State(state): State<super::State>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
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
    let identity = match identify(serving, &headers, from.ip()) {
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
    run(serving, request, &identity, begun).await
}

async fn run(serving: &Serving, request: SqlRequest, identity: &Identity, begun: Instant) -> Response {
    let request = Request { sql: request.sql, parameters: request.params, namespace: request.namespace_id };
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
fn identify(serving: &Serving, headers: &HeaderMap, from: IpAddr) -> Result<Identity, (&'static str, &'static str)> {
    let Some(token) = auth::presented(headers, auth::ACCESS_COOKIE) else {
        return Err(("MISSING_AUTHORIZATION", "this endpoint needs 'Authorization: Bearer <access token>'"));
    };
    match serving.identify(token, TokenKind::Access, from) {
        Ok(presented) => Ok(presented.identity),
        Err(TokenError::Expired) => Err(("TOKEN_EXPIRED", "Token expired")),
        Err(TokenError::Invalid) => Err(("INVALID_CREDENTIALS", "Invalid credentials")),
    }
}
