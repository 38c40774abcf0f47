//! System tables about those who come in: users, sessions, what they did, and the transactions that they have open.

use std::sync::Arc;

use kalamdb_engine::access::AuditEntry;
use kalamdb_engine::catalog::{Credentials, User};
use kalamdb_engine::schema::SqlType;
use kalamdb_engine::value::{Row, Value};

use super::host::Session;
use super::view::{moment, optional_moment, optional_text, text};
use super::{Relations, View};
use crate::functions::role_name;
use crate::transaction::OpenTransaction;
use crate::{ErrorCode, SqlError};

const TEXT: SqlType = SqlType::Text;
const MOMENT: SqlType = SqlType::Timestamp;

pub(super) fn users(relations: &Relations) -> View {
    let row = |user: &Arc<User>| -> Row {
        let auth_type = match user.credentials {
            Credentials::Password(_) => "password",
            Credentials::None => "internal",
            Credentials::OAuth => "oauth",
        };
        let access = relations.engine.user_access(&user.id);
        vec![
            text(user.id.as_str()),
            text(role_name(user.role)),
            optional_text(user.email.as_deref()),
            text(auth_type),
            Value::Null,
            moment(user.created_at),
            moment(user.updated_at),
            optional_moment(access.last_login),
            optional_moment(access.locked_until),
            Value::Int(i32::try_from(access.failed).unwrap_or(i32::MAX)),
        ]
    };
    View::new(&[
        ("user_id", TEXT),
        ("role", TEXT),
        ("email", TEXT),
        ("auth_type", TEXT),
        ("deleted_at", MOMENT),
        ("created_at", MOMENT),
        ("updated_at", MOMENT),
        ("last_login_at", MOMENT),
        ("locked_until", MOMENT),
        ("failed_login_attempts", SqlType::Int),
    ])
    .with(relations.catalog.users.values().map(row))
}

pub(super) fn sessions(relations: &Relations) -> View {
    let row = |session: Session| -> Row {
        vec![
            text(session.id.to_string()),
            text(session.user.as_str()),
            text(role_name(session.role)),
            text("active"),
            optional_text(session.address),
            moment(session.created_at),
            moment(session.last_seen_at),
            moment(session.expires_at),
        ]
    };
    View::new(&[
        ("session_id", TEXT),
        ("user_id", TEXT),
        ("role", TEXT),
        ("state", TEXT),
        ("client_addr", TEXT),
        ("created_at", MOMENT),
        ("last_seen_at", MOMENT),
        ("expires_at", MOMENT),
    ])
    .with(relations.inspection.host.sessions().into_iter().map(row))
}

/// The audit log lies on disk, and is read on a thread that may block.
pub(super) async fn audit_log(relations: &Relations) -> Result<View, SqlError> {
    let engine = relations.engine.clone();
    let entries = tokio::task::spawn_blocking(move || engine.audit_log()).await;
    let entries = entries.map_err(|error| SqlError::new(ErrorCode::Internal, error.to_string()))??;
    let row = |(id, entry): (u64, AuditEntry)| -> Row {
        vec![
            text(id.to_string()),
            moment(entry.at),
            text(entry.actor),
            text(entry.action),
            text(entry.target),
            text(entry.details),
            optional_text(entry.address),
        ]
    };
    Ok(View::new(&[
        ("audit_id", TEXT),
        ("timestamp", MOMENT),
        ("actor_user_id", TEXT),
        ("action", TEXT),
        ("target", TEXT),
        ("details", TEXT),
        ("ip_address", TEXT),
    ])
    .with(entries.into_iter().map(row)))
}

pub(super) fn transactions(relations: &Relations) -> View {
    let row = |open: OpenTransaction| -> Row {
        vec![text(open.id.to_string()), text(open.user.as_str()), text("SqlBatch"), text("open"), moment(open.began_at)]
    };
    View::new(&[("transaction_id", TEXT), ("user_id", TEXT), ("origin", TEXT), ("state", TEXT), ("started_at", MOMENT)])
        .with(relations.inspection.transactions.listed().into_iter().map(row))
}

/// Live queries come with the WebSocket; until then there are none.
pub(super) fn live() -> View {
    View::new(&[
        ("live_id", TEXT),
        ("subscription_id", TEXT),
        ("query", TEXT),
        ("user_id", TEXT),
        ("namespace_id", TEXT),
        ("table_name", TEXT),
        ("connection_id", TEXT),
        ("status", TEXT),
        ("created_at", MOMENT),
        ("changes", SqlType::BigInt),
    ])
}
