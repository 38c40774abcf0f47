//! The audit log's entries, and which of them there are.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Longest text of each field, in bytes; what is longer is cut.
const FIELD_BYTES: usize = 4096;

/// Which bound an entry counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditKind {
    /// Namespaces, tables, users and storages were changed.
    Change,
    /// Somebody logged in, or did not.
    Login,
}

impl AuditKind {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Change, Self::Login];

    /// The first byte of the entry's key.
    pub(crate) fn tag(self) -> u8 {
        match self {
            Self::Change => 1,
            Self::Login => 2,
        }
    }
}

/// Who did what. It never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Milliseconds since the Unix epoch.
    pub at: i64,
    /// Who; a name that was tried, for a log-in that failed.
    pub actor: String,
    /// What was done, such as `CREATE TABLE`.
    pub action: String,
    /// To what.
    pub target: String,
    /// More of it, as JSON text.
    pub details: String,
    /// Where the request came from.
    pub address: Option<String>,
}

impl AuditEntry {
    /// With every text cut to its bound.
    pub(crate) fn bounded(mut self) -> Self {
        for text in [&mut self.actor, &mut self.action, &mut self.target, &mut self.details] {
            text.truncate(text.floor_char_boundary(FIELD_BYTES));
        }
        self
    }
}

/// An entry that gets its number.
pub(crate) struct StoredEntry {
    pub(crate) kind: AuditKind,
    pub(crate) id: u64,
    /// The one that goes for it.
    pub(crate) evicted: Option<u64>,
}

/// The numbers of the entries that there are, oldest first.
#[derive(Debug, Default)]
pub(crate) struct AuditIds {
    next: u64,
    changes: VecDeque<u64>,
    logins: VecDeque<u64>,
}

impl AuditIds {
    /// One that was stored before.
    pub(crate) fn known(&mut self, kind: AuditKind, id: u64) {
        self.next = self.next.max(id + 1);
        self.of(kind).push_back(id);
    }

    /// A number for a new one, of which kind at most `bound` are kept.
    pub(crate) fn add(&mut self, kind: AuditKind, bound: usize) -> StoredEntry {
        let id = self.next.max(1);
        self.next = id + 1;
        let ids = self.of(kind);
        let evicted = if ids.len() >= bound.max(1) { ids.pop_front() } else { None };
        ids.push_back(id);
        StoredEntry { kind, id, evicted }
    }

    fn of(&mut self, kind: AuditKind) -> &mut VecDeque<u64> {
        match kind {
            AuditKind::Change => &mut self.changes,
            AuditKind::Login => &mut self.logins,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_bound_and_numbers_go_on() {
        let mut ids = AuditIds::default();
        ids.known(AuditKind::Change, 7);
        let mut add = |kind| {
            let stored = ids.add(kind, 2);
            (stored.id, stored.evicted)
        };
        assert_eq!(add(AuditKind::Login), (8, None));
        assert_eq!(add(AuditKind::Login), (9, None));
        assert_eq!(add(AuditKind::Login), (10, Some(8)));
        assert_eq!(add(AuditKind::Change), (11, None));
        assert_eq!(add(AuditKind::Change), (12, Some(7)));
    }
}
