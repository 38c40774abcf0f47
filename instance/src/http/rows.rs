//! `POST /v1/api/tables/{namespace}/{table}/rows`: rows in bulk.

use std::net::SocketAddr;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kalamdb_engine::schema::TableName;
use kalamdb_sql::format::Format;
use kalamdb_sql::load::{LoadEnd, LoadRequest, OnTaken, Rejected};
use kalamdb_sql::{ErrorCode, SqlError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply;
use super::sql::identify;

/// What may stand behind `?`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// `reject`, `nothing` or `update`.
    on_conflict: Option<String>,
}

/// Authenticates, and writes the body's rows as they come.
pub async fn load(
    State(state): State<super::State>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Path((namespace, table)): Path<(String, String)>,
    options: Result<Query<Options>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let begun = Instant::now();
    let unavailable =
        |text: String| reply::sql_failure(StatusCode::SERVICE_UNAVAILABLE, begun, "UNAVAILABLE", text, None);
    let Some(serving) = state.serving() else {
        return unavailable("the database is starting; ask again in a moment".into());
    };
    if let Err(error) = serving.engine.check_history() {
        return unavailable(error.to_string());
    }
    let identity = match identify(serving, &headers, from.ip()) {
        Ok(identity) => identity,
        Err((code, text)) => return reply::sql_failure(StatusCode::UNAUTHORIZED, begun, code, text.into(), None),
    };
    if let Some(encoding) = encoded(&headers) {
        let text = format!("Content-Encoding is '{encoding}': send the rows as they are");
        return reply::sql_failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, begun, "INVALID_REQUEST", text, None);
    }
    let request = match request(TableName::new(namespace, table), options, &headers) {
        Ok(request) => request,
        Err(error) => return reply::sql_error(begun, error),
    };
    match serving.database.load(request, &identity, body.into_data_stream()).await {
        Ok(end) => report(begun, end),
        Err(error) => reply::sql_error(begun, error),
    }
}

fn request(
    table: TableName,
    options: Result<Query<Options>, axum::extract::rejection::QueryRejection>,
    headers: &HeaderMap,
) -> Result<LoadRequest, SqlError> {
    let Query(options) = options.map_err(|error| SqlError::new(ErrorCode::InvalidBody, error.body_text()))?;
    let on_taken = options.on_conflict.as_deref().map_or(Ok(OnTaken::default()), str::parse)?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(format) = Format::of_media_type(content_type) else {
        let known = [Format::NdJson, Format::Csv, Format::ArrowStream, Format::Parquet].map(Format::media_type);
        let text = format!("Content-Type is '{content_type}': rows come as {}", known.join(", "));
        return Err(SqlError::new(ErrorCode::InvalidBody, text));
    };
    Ok(LoadRequest { table, format, has_header: has_header(content_type)?, on_taken })
}

/// How the body is encoded, where it is.
fn encoded(headers: &HeaderMap) -> Option<&str> {
    let encodings = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let mut names = encodings.flat_map(|value| value.to_str().unwrap_or("?").split(',')).map(str::trim);
    names.find(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"))
}

/// The parameter `header` of `text/csv`, as RFC 4180 has it.
fn has_header(content_type: &str) -> Result<bool, SqlError> {
    let mut parameters = content_type.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let said = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("header"));
    match said.map(|(_, value)| value.trim().trim_matches('"').to_ascii_lowercase()).as_deref() {
        None | Some("present") => Ok(true),
        Some("absent") => Ok(false),
        Some(other) => {
            let text = format!("Content-Type says header={other}: it is present or absent");
            Err(SqlError::new(ErrorCode::InvalidBody, text))
        }
    }
}

/// What was written stays, also where something stopped the load: so the counts stand beside the error.
fn report(begun: Instant, end: LoadEnd) -> Response {
    let LoadEnd { report, failure } = end;
    let rejected = |Rejected { line, error }: Rejected| json!({"line": line, "code": error.code.as_str(), "message": error.message});
    let mut body = json!({
        "status": if failure.is_none() { "success" } else { "error" },
        "received": report.received,
        "inserted": report.inserted,
        "updated": report.updated,
        "skipped": report.skipped,
        "rejected": report.rejected,
        "batches": report.batches,
        "errors": report.errors.into_iter().map(rejected).collect::<Vec<_>>(),
        "took": reply::took(begun),
        "error": Value::Null,
    });
    let Some(error) = failure else { return Json(body).into_response() };
    body["error"] = json!({"code": error.code.as_str(), "message": error.message});
    let status = reply::status_of(&error);
    reply::with_retry(status, (status, Json(body)).into_response())
}
