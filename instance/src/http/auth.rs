//! Logging in and out, and the first-run setup.

use std::net::SocketAddr;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::DateTime;
use kalamdb_engine::catalog::{CatalogChange, Credentials, Role, User};
use kalamdb_engine::schema::UserId;
use kalamdb_sql::functions::role_name;
use kalamdb_sql::password;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Serving, reply};
use crate::auth::{TokenKind, needs_setup, root};

/// The cookie of the access token.
pub const ACCESS_COOKIE: &str = "kalamdb_auth";
/// The cookie of the refresh token.
const REFRESH_COOKIE: &str = "kalamdb_refresh";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginRequest {
    #[serde(alias = "username")]
    user: String,
    password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetupRequest {
    user: String,
    password: String,
    root_password: String,
    #[serde(default)]
    email: Option<String>,
}

/// The token of an `Authorization: Bearer` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The token that a request shows: the header wins over the cookie. A header of another scheme is a token that is no good.
pub fn presented<'a>(headers: &'a HeaderMap, cookie: &str) -> Option<&'a str> {
    if headers.contains_key(header::AUTHORIZATION) {
        return Some(bearer(headers).unwrap_or_default());
    }
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == cookie).map(|(_, value)| value)
}

fn unauthorized() -> Response {
    reply::failure(StatusCode::UNAUTHORIZED, "unauthorized", "Invalid credentials")
}

fn invalid(message: impl Into<String>) -> Response {
    reply::failure(StatusCode::BAD_REQUEST, "invalid_request", message)
}

/// The engine, if it is open and the caller does not ask too often.
fn admit(state: &super::State, from: SocketAddr) -> Result<&Serving, Response> {
    if !state.shared.rate.allows(from.ip(), Instant::now()) {
        let text = "more authentication requests than one address may send in a second";
        return Err(reply::failure(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_EXCEEDED", text));
    }
    let serving = state.serving().ok_or_else(reply::starting)?;
    // The users of an empty volume are not the database's.
    match serving.engine.check_history() {
        Ok(()) => Ok(serving),
        Err(error) => Err(reply::failure(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string())),
    }
}

fn read<T: DeserializeOwned>(state: &super::State, body: Result<Bytes, BytesRejection>) -> Result<T, Response> {
    let body = body.map_err(|rejection| {
        let (status, code, text) = reply::body_refused(&rejection, state.shared.server.body_bytes);
        reply::failure(status, code, text)
    })?;
    serde_json::from_slice(&body).map_err(|error| invalid(format!("the body can't be read: {error}")))
}

/// `POST /v1/api/auth/login`.
pub async fn login(
    State(state): State<super::State>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (serving, request) = match admit(&state, from).and_then(|ok| Ok((ok, read::<LoginRequest>(&state, body)?))) {
        Ok(admitted) => admitted,
        Err(response) => return response,
    };
    let catalog = serving.engine.catalog();
    if needs_setup(&catalog) {
        let text = "root has no password yet: call /v1/api/auth/setup, or start with KALAMDB_ROOT_PASSWORD";
        return reply::failure(StatusCode::PRECONDITION_REQUIRED, "setup_required", text);
    }
    let user = catalog.users.get(&UserId::from(request.user.as_str()));
    if !serving.authority.verify(user.map(AsRef::as_ref), request.password).await {
        return unauthorized();
    }
    match user {
        Some(user) => logged_in(serving, user),
        None => unauthorized(),
    }
}

/// `POST /v1/api/auth/refresh`.
pub async fn refresh(
    State(state): State<super::State>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    let serving = match admit(&state, from) {
        Ok(serving) => serving,
        Err(response) => return response,
    };
    let catalog = serving.engine.catalog();
    let token = presented(&headers, REFRESH_COOKIE).unwrap_or_default();
    match serving.authority.identify(token, TokenKind::Refresh, &catalog) {
        Ok(identity) => match catalog.users.get(&identity.user) {
            Some(user) => logged_in(serving, user),
            None => unauthorized(),
        },
        Err(error) => reply::failure(StatusCode::UNAUTHORIZED, "unauthorized", error.to_string()),
    }
}

fn logged_in(serving: &Serving, user: &User) -> Response {
    let tokens = match serving.authority.issue(user) {
        Ok(tokens) => tokens,
        Err(error) => {
            tracing::error!("{error:#}");
            return reply::failure(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "no token could be issued");
        }
    };
    let body = json!({
        "user": shown(user),
        "admin_ui_access": user.role >= Role::Dba,
        "expires_at": rfc3339(tokens.access_expires.saturating_mul(1000)),
        "access_token": tokens.access,
        "refresh_token": tokens.refresh,
        "refresh_expires_at": rfc3339(tokens.refresh_expires.saturating_mul(1000)),
    });
    let mut response = Json(body).into_response();
    set_cookie(&mut response, ACCESS_COOKIE, &tokens.access);
    set_cookie(&mut response, REFRESH_COOKIE, &tokens.refresh);
    response
}

fn set_cookie(response: &mut Response, name: &str, value: &str) {
    let age = if value.is_empty() { "; Max-Age=0" } else { "" };
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{age}");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

fn shown(user: &User) -> Value {
    json!({
        "id": user.id.as_str(),
        "role": role_name(user.role),
        "email": user.email,
        "created_at": rfc3339(user.created_at),
        "updated_at": rfc3339(user.updated_at),
    })
}

fn rfc3339(ms: i64) -> Option<String> {
    DateTime::from_timestamp_millis(ms).map(|moment| moment.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

/// `POST /v1/api/auth/logout`: the cookies go. Tokens end by themselves, or when the user's password changes.
pub async fn logout() -> Response {
    let mut response = Json(json!({"message": "Logged out"})).into_response();
    set_cookie(&mut response, ACCESS_COOKIE, "");
    set_cookie(&mut response, REFRESH_COOKIE, "");
    response
}

/// `GET /v1/api/auth/me`.
pub async fn me(State(state): State<super::State>, headers: HeaderMap) -> Response {
    let Some(serving) = state.serving() else { return reply::starting() };
    let catalog = serving.engine.catalog();
    let token = presented(&headers, ACCESS_COOKIE).unwrap_or_default();
    match serving.authority.identify(token, TokenKind::Access, &catalog) {
        Ok(identity) => match catalog.users.get(&identity.user) {
            Some(user) => Json(json!({"user": shown(user), "admin_ui_access": user.role >= Role::Dba})).into_response(),
            None => unauthorized(),
        },
        Err(error) => reply::failure(StatusCode::UNAUTHORIZED, "unauthorized", error.to_string()),
    }
}

/// `GET /v1/api/auth/status`: clients poll it until the database answers.
pub async fn status(State(state): State<super::State>) -> Response {
    let Some(serving) = state.serving() else { return reply::starting() };
    let needs_setup = needs_setup(&serving.engine.catalog());
    let message = if needs_setup { "root has no password yet: call /v1/api/auth/setup" } else { "ready" };
    Json(json!({"needs_setup": needs_setup, "message": message})).into_response()
}

/// `POST /v1/api/auth/setup`: root's password and one DBA, once.
pub async fn setup(
    State(state): State<super::State>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if !state.shared.server.remote_setup && !from.ip().to_canonical().is_loopback() {
        let text = "setup is open to this machine only, unless server.remote_setup = true";
        return reply::failure(StatusCode::FORBIDDEN, "forbidden", text);
    }
    let (serving, request) = match admit(&state, from).and_then(|ok| Ok((ok, read::<SetupRequest>(&state, body)?))) {
        Ok(admitted) => admitted,
        Err(response) => return response,
    };
    if !needs_setup(&serving.engine.catalog()) {
        return reply::failure(StatusCode::CONFLICT, "already_set_up", "the database has been set up before");
    }
    match set_up(&state, serving, request).await {
        Ok(user) => Json(json!({"user": shown(&user), "message": "Setup complete; log in"})).into_response(),
        Err(response) => response,
    }
}

async fn set_up(state: &super::State, serving: &Serving, request: SetupRequest) -> Result<User, Response> {
    for password in [&request.password, &request.root_password] {
        password::check_strength(password).map_err(|error| invalid(error.message))?;
    }
    let id = UserId::from(request.user.as_str());
    if request.user.is_empty() || id == root() {
        return Err(invalid("'user' names the first DBA: not empty, and not 'root'"));
    }
    let now = chrono::Utc::now().timestamp_millis();
    let dba = User {
        id,
        role: Role::Dba,
        email: request.email,
        credentials: hashed(state, request.password).await?,
        created_at: now,
        updated_at: now,
    };
    let catalog = serving.engine.catalog();
    let known = catalog.users.get(&root()).map(|user| user.as_ref().clone());
    let credentials = hashed(state, request.root_password).await?;
    let root = User {
        credentials,
        updated_at: now,
        ..known.unwrap_or_else(|| User { id: root(), role: Role::System, email: None, ..dba.clone() })
    };
    // Root comes last: until it has its password, the setup counts as not done and can be repeated.
    for user in [dba.clone(), root] {
        serving
            .engine
            .change_catalog(CatalogChange::PutUser(user))
            .await
            .map_err(|error| reply::failure(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string()))?;
    }
    Ok(dba)
}

async fn hashed(state: &super::State, password: String) -> Result<Credentials, Response> {
    let cost = state.shared.hash_cost;
    let hash = tokio::task::spawn_blocking(move || password::hash(&password, cost)).await;
    let failed = |text: String| reply::failure(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", text);
    let hash = hash.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.message))?;
    Ok(Credentials::Password(hash))
}
