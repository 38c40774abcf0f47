//! `POST /v1/api/sql`.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use kalamdb_api::sql::SqlRequest;
use kalamdb_sql::{Identity, Request};

use super::{Serving, auth, reply, results};
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
    let SqlRequest { sql, params, namespace_id } = request;
    let request = Request { sql, parameters: params, namespace: namespace_id, ws_url: ws_url(&headers) };
    if let Some(format) = results::asked_for(&headers) {
        return results::send(serving, request, &identity, format, begun).await;
    }
    match serving.database.execute(request, &identity).await {
        Ok(outcomes) => reply::sql_results(begun, outcomes, &identity),
        Err(error) => reply::sql_error(begun, error),
    }
}

/// Who asks, or the code and the text of the refusal. The cookie does not count here: a browser sends it along with whatever request
/// another page of the same site makes.
pub(super) fn identify(
    serving: &Serving,
    headers: &HeaderMap,
    from: IpAddr,
) -> Result<Identity, (&'static str, &'static str)> {
    let Some(token) = auth::in_header(headers) else {
        return Err(("MISSING_AUTHORIZATION", "this endpoint needs 'Authorization: Bearer <access token>'"));
    };
    match serving.identify(token, TokenKind::Access, from) {
        Ok(presented) => Ok(presented.identity),
        Err(TokenError::Expired) => Err(("TOKEN_EXPIRED", "Token expired")),
        Err(TokenError::Invalid) => Err(("INVALID_CREDENTIALS", "Invalid credentials")),
    }
}

/// The WebSocket of this instance, by the name that the client knows it under.
fn ws_url(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = if text("x-forwarded-proto") == Some("https") { "wss" } else { "ws" };
    format!("{scheme}://{}/v1/ws", text("host").unwrap_or("localhost"))
}
