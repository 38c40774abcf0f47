//! `system.queries`: the statements that run now.

use chrono::Utc;
use kalamdb_engine::schema::SqlType;
use kalamdb_engine::value::{Row, Value};

use super::view::{moment, text};
use super::{Relations, View};
use crate::running::RunningQuery;

/// The user's own, and from DBA on all; the statement that asks is one of them.
pub(super) fn queries(relations: &Relations) -> View {
    let now = Utc::now();
    let row = |query: RunningQuery| -> Row {
        vec![
            text(query.id.to_string()),
            text(query.user.as_str()),
            text(query.namespace),
            text(query.sql),
            moment(query.started_at.timestamp_millis()),
            Value::BigInt((now - query.started_at).num_milliseconds().max(0)),
        ]
    };
    View::new(&[
        ("query_id", SqlType::Text),
        ("user_id", SqlType::Text),
        ("namespace_id", SqlType::Text),
        ("query", SqlType::Text),
        ("started_at", SqlType::Timestamp),
        ("elapsed_ms", SqlType::BigInt),
    ])
    .with(relations.running.visible_to(&relations.identity).into_iter().map(row))
}
