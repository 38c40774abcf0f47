//! Results in other forms than the JSON reply, as a body that is sent while it is made.
//!
//! A body that can't be finished breaks off: its last chunk never comes, which every client of HTTP reports. So a result that looks whole
//! is whole.

use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use kalamdb_sql::format::{self, Format};
use kalamdb_sql::stream::{RowStream, Streamed};
use kalamdb_sql::{Identity, Request, SqlError};

use super::{Serving, reply};

/// The form that the caller asks for; none where that is the JSON reply. What comes first in `Accept` wins.
pub fn asked_for(headers: &HeaderMap) -> Option<Format> {
    let accepted = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let mut names =
        accepted.flat_map(|line| line.split(',')).map(|name| name.split(';').next().unwrap_or_default().trim());
    let known = |name: &&str| {
        name.eq_ignore_ascii_case("application/json") || *name == "*/*" || Format::of_media_type(name).is_some()
    };
    names.find(known).and_then(Format::of_media_type).filter(|format| Format::OF_RESULTS.contains(format))
}

/// Runs the request's statement, and sends its rows as they come.
pub async fn send(
    serving: &Serving,
    request: Request,
    identity: &Identity,
    format: Format,
    begun: Instant,
) -> Response {
    match serving.database.stream(request, identity).await {
        Ok(Streamed::Rows(rows)) => match body(rows, format) {
            Ok(body) => ([(header::CONTENT_TYPE, format.media_type())], body).into_response(),
            Err(error) => reply::sql_error(begun, error),
        },
        Ok(Streamed::Done(outcome)) => reply::sql_results(begun, vec![outcome], identity),
        Err(error) => reply::sql_error(begun, error),
    }
}

fn body(rows: RowStream, format: Format) -> Result<Body, SqlError> {
    let pieces = format::encode(rows, format)?;
    let sent =
        pieces.map(|piece| piece.map(Bytes::from).inspect_err(|error| tracing::info!("a result breaks off: {error}")));
    Ok(Body::from_stream(sent))
}
