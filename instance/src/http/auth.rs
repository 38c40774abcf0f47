//! Logging in and out, and the first-run setup.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::DateTime;
use kalamdb_engine::EngineError;
use kalamdb_engine::access::{AccessChange, AuditEntry, AuditKind};
use kalamdb_engine::catalog::{CatalogChange, Credentials, Role, User};
use kalamdb_engine::schema::UserId;
use kalamdb_sql::functions::role_name;
use kalamdb_sql::password;
use kalamdb_sql::relations::Session;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Serving, reply};
use crate::auth::{Presented, TokenError, TokenKind, needs_setup, root};

/// The cookie of the access token.
const ACCESS_COOKIE: &str = "kalamdb_auth";
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

/// The token of the `Authorization` header. One of another scheme is a token that is no good.
pub fn in_header(headers: &HeaderMap) -> Option<&str> {
    headers.contains_key(header::AUTHORIZATION).then(|| bearer(headers).unwrap_or_default())
}

/// The token that a request about a log-in shows: the header wins over the cookie.
fn presented<'a>(headers: &'a HeaderMap, cookie: &str) -> Option<&'a str> {
    if let Some(token) = in_header(headers) {
        return Some(token);
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
    let now = now_ms();
    let is_locked = user.is_some_and(|user| serving.engine.user_access(&user.id).is_locked(now));
    let let_in = user.filter(|_| !is_locked);
    let is_right = serving.authority.verify(let_in.map(AsRef::as_ref), request.password).await;
    let right = let_in.filter(|_| is_right);
    let known = user.map(|user| user.id.clone());
    let attempt = Attempt { tried: &request.user, user: known, is_locked, from: from.ip(), at: now };
    serving.record(attempt.changes(right.is_some(), serving)).await;
    match right {
        Some(user) => logged_in(serving, user, Uuid::now_v7(), from.ip()),
        None => unauthorized(),
    }
}

/// Somebody who tries to log in.
struct Attempt<'a> {
    tried: &'a str,
    /// The user of that name.
    user: Option<UserId>,
    is_locked: bool,
    from: IpAddr,
    /// Milliseconds since the Unix epoch.
    at: i64,
}

impl Attempt<'_> {
    /// What to keep of it.
    fn changes(&self, is_right: bool, serving: &Serving) -> Vec<AccessChange> {
        let (user, at) = (self.user.clone(), self.at);
        let (action, reason) = match (is_right, &user) {
            (true, _) => ("LOGIN", "right password"),
            (false, None) => ("LOGIN FAILED", "unknown user"),
            (false, Some(_)) if self.is_locked => ("LOGIN FAILED", "locked after wrong passwords"),
            (false, Some(_)) => ("LOGIN FAILED", "wrong password"),
        };
        let policy = serving.authority.lock_policy();
        let counted = user.filter(|_| !self.is_locked).map(|user| match is_right {
            true => AccessChange::LoggedIn { user, at },
            false => AccessChange::Failed { user, at, policy },
        });
        let details = json!({"reason": reason});
        counted.into_iter().chain([audited(AuditKind::Login, action, self.tried, &details, self.from)]).collect()
    }
}

/// An entry of the audit log about a user, by that user.
fn audited(kind: AuditKind, action: &str, user: &str, details: &Value, from: IpAddr) -> AccessChange {
    let entry = AuditEntry {
        at: now_ms(),
        actor: user.to_owned(),
        action: action.into(),
        target: user.to_owned(),
        details: details.to_string(),
        address: Some(from.to_canonical().to_string()),
    };
    AccessChange::Audited { kind, entry }
}

impl Serving {
    /// Keeps what there is to keep of a log-in. It goes on where that fails, as on a full disk: reading must stay possible then.
    async fn record(&self, changes: Vec<AccessChange>) {
        if let Err(error) = self.engine.record_access(changes).await {
            tracing::warn!(%error, "failed to record a log-in");
        }
    }

    /// Who shows that token, and notes that the log-in was seen.
    pub(super) fn identify(&self, token: &str, kind: TokenKind, from: IpAddr) -> Result<Presented, TokenError> {
        let mut presented = self.authority.identify(token, kind, &self.engine)?;
        presented.identity.address = Some(from.to_canonical());
        if let Some(session) = &presented.session {
            self.authority.sessions().seen(session, Some(from));
        }
        Ok(presented)
    }
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
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
    match serving.identify(token, TokenKind::Refresh, from.ip()) {
        Ok(Presented { identity, session }) => match catalog.users.get(&identity.user) {
            Some(user) => logged_in(serving, user, session.map_or_else(Uuid::now_v7, |session| session.id), from.ip()),
            None => unauthorized(),
        },
        Err(error) => reply::failure(StatusCode::UNAUTHORIZED, "unauthorized", error.to_string()),
    }
}

fn logged_in(serving: &Serving, user: &User, session: Uuid, from: IpAddr) -> Response {
    let tokens = match serving.authority.issue(user, session) {
        Ok(tokens) => tokens,
        Err(error) => {
            tracing::error!("{error:#}");
            return reply::failure(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "no token could be issued");
        }
    };
    let now = now_ms();
    let session = Session {
        id: session,
        user: user.id.clone(),
        role: user.role,
        address: None,
        created_at: now,
        last_seen_at: now,
        expires_at: tokens.refresh_expires.saturating_mul(1000),
    };
    serving.authority.sessions().seen(&session, Some(from));
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

/// `POST /v1/api/auth/logout`: the cookies go, and no token of the log-in is good any more. Without a good token there is nothing to end.
pub async fn logout(
    State(state): State<super::State>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    let Some(serving) = state.serving() else { return reply::starting() };
    let shown = [(ACCESS_COOKIE, TokenKind::Access), (REFRESH_COOKIE, TokenKind::Refresh)];
    let shown = shown.map(|(cookie, kind)| serving.identify(presented(&headers, cookie)?, kind, from.ip()).ok());
    for presented in shown.into_iter().flatten() {
        if let Err(error) = end_session(serving, presented, state.shared.refresh).await {
            return reply::failure(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string());
        }
    }
    let mut response = Json(json!({"message": "Logged out"})).into_response();
    set_cookie(&mut response, ACCESS_COOKIE, "");
    set_cookie(&mut response, REFRESH_COOKIE, "");
    response
}

async fn end_session(serving: &Serving, shown: Presented, refresh: Duration) -> Result<(), EngineError> {
    let Some(session) = shown.session else { return Ok(()) };
    let at = now_ms();
    // Whatever token of the log-in lives longest was issued before this moment.
    let until = at.saturating_add(i64::try_from(refresh.as_millis()).unwrap_or(i64::MAX));
    let user = shown.identity.user;
    serving.engine.record_access(vec![AccessChange::Revoked { user, session: session.id, until, at }]).await?;
    serving.authority.sessions().ended(session.id);
    Ok(())
}

/// `GET /v1/api/auth/me`.
pub async fn me(
    State(state): State<super::State>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    let Some(serving) = state.serving() else { return reply::starting() };
    let catalog = serving.engine.catalog();
    let token = presented(&headers, ACCESS_COOKIE).unwrap_or_default();
    match serving.identify(token, TokenKind::Access, from.ip()) {
        Ok(Presented { identity, .. }) => match catalog.users.get(&identity.user) {
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
    // One at a time: of two that come together the second finds it done.
    let _turn = state.shared.setup.lock().await;
    if !needs_setup(&serving.engine.catalog()) {
        return reply::failure(StatusCode::CONFLICT, "already_set_up", "the database has been set up before");
    }
    match set_up(&state, serving, request, from.ip()).await {
        Ok(user) => Json(json!({"user": shown(&user), "message": "Setup complete; log in"})).into_response(),
        Err(response) => response,
    }
}

async fn set_up(
    state: &super::State,
    serving: &Serving,
    request: SetupRequest,
    from: IpAddr,
) -> Result<User, Response> {
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
    let details = json!({"role": role_name(dba.role)});
    let entry = audited(AuditKind::Change, "SETUP", dba.id.as_str(), &details, from);
    // Root comes last: until it has its password, the setup counts as not done and can be repeated.
    for (user, recorded) in [(dba.clone(), Vec::new()), (root, vec![entry])] {
        serving
            .engine
            .change_catalog_recorded(CatalogChange::PutUser(user), recorded)
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
