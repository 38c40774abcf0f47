//! Who came in, who was kept out, and who changed what: the audit log, and what is kept of each user's log-ins beside the catalog.
//!
//! All of it passes the committer. The audit log is bounded by entries, log-ins apart from changes, so that no number of failed log-ins
//! pushes a change out of it.

mod audit;
mod store;
mod user;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::EngineError;
use crate::engine::Engine;
use crate::schema::UserId;

pub use audit::{AuditEntry, AuditKind};
pub(crate) use audit::{AuditIds, StoredEntry};
pub(crate) use store::{load, stage_audit, stage_user, unstage_user};
pub use user::{LockPolicy, UserAccess};

/// One thing that is kept of who came in and who did what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum AccessChange {
    /// A user showed a wrong password.
    Failed {
        /// The user, who exists.
        user: UserId,
        /// Milliseconds since the Unix epoch.
        at: i64,
        /// When that locks the user.
        policy: LockPolicy,
    },
    /// A user logged in.
    LoggedIn {
        /// The user.
        user: UserId,
        /// Milliseconds since the Unix epoch.
        at: i64,
    },
    /// A session's tokens are good no longer.
    Revoked {
        /// Whose.
        user: UserId,
        /// The session.
        session: Uuid,
        /// None of its tokens is good after it anyway, in milliseconds since the Unix epoch.
        until: i64,
        /// Milliseconds since the Unix epoch.
        at: i64,
    },
    /// An entry of the audit log.
    Audited {
        /// Which bound it counts for.
        kind: AuditKind,
        /// The entry.
        entry: AuditEntry,
    },
}

impl AccessChange {
    /// Whether it must outlive a power cut. A failed log-in that is forgotten costs one more attempt.
    pub(crate) fn is_durable(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::LoggedIn { .. } => false,
            Self::Revoked { .. } => true,
            Self::Audited { kind, .. } => *kind == AuditKind::Change,
        }
    }
}

/// What is in memory of it.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// Users of whom anything is kept.
    pub(crate) users: HashMap<UserId, UserAccess>,
    /// The entries that there are.
    pub(crate) audit: AuditIds,
}

impl Engine {
    /// Keeps these, all or none; what must outlive a power cut is on disk when it returns. Refuses where the disk is almost full.
    pub async fn record_access(&self, changes: Vec<AccessChange>) -> Result<(), EngineError> {
        self.hot().disk().check()?;
        self.committer().access(changes).await
    }

    /// What is kept of the user's log-ins.
    pub fn user_access(&self, user: &UserId) -> UserAccess {
        self.committer().shared().access.lock().users.get(user).cloned().unwrap_or_default()
    }

    /// Whether that token is no good any more: its session was ended. `issued` in seconds since the Unix epoch.
    pub fn is_revoked(&self, user: &UserId, session: Option<Uuid>, issued: i64) -> bool {
        let access = self.committer().shared().access.lock();
        access.users.get(user).is_some_and(|user| user.is_revoked(session, issued))
    }

    /// The audit log, oldest first, each entry under its number. Reads from disk: not for a thread that may not block.
    pub fn audit_log(&self) -> Result<Vec<(u64, AuditEntry)>, EngineError> {
        store::entries(&self.hot().snapshot())
    }
}
