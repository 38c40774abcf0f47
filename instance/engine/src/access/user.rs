//! What is kept of one user's log-ins. Pure: the committer stores what comes of it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Ended sessions that are remembered one by one; beyond it all sessions of the user end.
const REVOKED: usize = 100;

/// When wrong passwords lock a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockPolicy {
    /// Wrong passwords in a row that lock a user.
    pub attempts: u32,
    /// For how long, in milliseconds.
    pub lock_ms: i64,
}

/// What is kept of a user's log-ins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserAccess {
    /// Wrong passwords since the last right one, or since the last lock.
    pub failed: u32,
    /// No password is right before it, in milliseconds since the Unix epoch.
    pub locked_until: Option<i64>,
    /// Milliseconds since the Unix epoch.
    pub last_login: Option<i64>,
    /// Sessions that were ended, each with the moment from which its tokens have expired anyway, in milliseconds since the Unix epoch.
    revoked: Vec<(Uuid, i64)>,
    /// Tokens issued before it are no good, in seconds since the Unix epoch.
    valid_from: i64,
}

impl UserAccess {
    /// Whether the user is kept out at that moment.
    pub fn is_locked(&self, now: i64) -> bool {
        self.locked_until.is_some_and(|until| now < until)
    }

    /// Whether a token of that session, issued at that second, is no good any more.
    pub fn is_revoked(&self, session: Option<Uuid>, issued: i64) -> bool {
        issued < self.valid_from || session.is_some_and(|session| self.revoked.iter().any(|(id, _)| *id == session))
    }

    /// After a wrong password.
    pub(crate) fn failed(mut self, at: i64, policy: LockPolicy) -> Self {
        self.failed = self.failed.saturating_add(1);
        if self.failed >= policy.attempts {
            self.failed = 0;
            self.locked_until = Some(at.saturating_add(policy.lock_ms));
        }
        self
    }

    /// After the right one.
    pub(crate) fn logged_in(self, at: i64) -> Self {
        Self { failed: 0, locked_until: None, last_login: Some(at), ..self }
    }

    /// After a change of the user, which is how a DBA lets a locked user in.
    pub(crate) fn unlocked(self) -> Self {
        Self { failed: 0, locked_until: None, ..self }
    }

    /// After the end of a session. Whoever ends very many ends all: the list stays short.
    pub(crate) fn revoked(mut self, session: Uuid, until: i64, at: i64) -> Self {
        self.revoked.retain(|(id, until)| *id != session && *until > at);
        self.revoked.push((session, until));
        if self.revoked.len() > REVOKED {
            self.revoked.clear();
            self.valid_from = at.div_euclid(1000).saturating_add(1);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_passwords_in_a_row_lock_for_a_while_and_a_right_one_starts_over() {
        let policy = LockPolicy { attempts: 3, lock_ms: 60_000 };
        let twice = UserAccess::default().failed(1, policy).failed(2, policy);
        assert!(!twice.is_locked(2) && twice.failed == 2);
        assert_eq!(twice.clone().logged_in(3).failed(4, policy).failed, 1);
        let locked = twice.failed(5, policy);
        assert!(locked.is_locked(5) && locked.is_locked(60_004) && !locked.is_locked(60_005));
        assert!(!locked.unlocked().is_locked(6));
    }

    #[test]
    fn ended_sessions_stay_ended_and_are_few() {
        let id = Uuid::from_u128;
        let one = UserAccess::default().revoked(id(1), 10_000, 5000);
        assert!(one.is_revoked(Some(id(1)), 4) && !one.is_revoked(Some(id(2)), 4) && !one.is_revoked(None, 4));
        let later = one.revoked(id(2), 30_000, 20_000);
        assert_eq!(later.revoked, [(id(2), 30_000)], "the first one's tokens have expired by themselves");
        let many = (3..=200).fold(later, |access, n| access.revoked(id(n), 50_000, 21_000));
        assert!(many.revoked.len() <= REVOKED && (2..=200).all(|n| many.is_revoked(Some(id(n)), 21)));
        assert!(!many.is_revoked(Some(id(999)), 22), "who logs in again comes in");
    }
}
