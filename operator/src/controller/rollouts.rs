//! Lets few databases restart at a time when it is the operator's own doing.
//!
//! A new version of the operator has a new default image; without this it would restart every database of the cluster at
//! once. What a user changes in a spec is never held back.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The databases that restart now.
#[derive(Debug)]
pub struct Rollouts {
    limit: usize,
    rolling: Mutex<HashSet<String>>,
}

impl Rollouts {
    /// Lets `limit` databases restart at a time.
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), rolling: Mutex::default() }
    }

    /// Whether the database `uid` may restart now; it then counts until it is [`Rollouts::settled`].
    pub fn may_begin(&self, uid: &str) -> bool {
        let mut rolling = self.rolling();
        let may = rolling.contains(uid) || rolling.len() < self.limit;
        if may {
            rolling.insert(uid.to_owned());
        }
        may
    }

    /// Only the databases for which `exists` is true are there any more; one that is gone never comes up.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.rolling().retain(|uid| exists(uid));
    }

    /// The database `uid` is up in its newest form.
    pub fn settled(&self, uid: &str) {
        self.rolling().remove(uid);
    }

    fn rolling(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.rolling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_database_restarts_when_the_one_before_is_up() {
        let rollouts = Rollouts::new(1);
        assert!(rollouts.may_begin("a") && rollouts.may_begin("a"));
        assert!(!rollouts.may_begin("b"));
        rollouts.settled("a");
        assert!(rollouts.may_begin("b"));
        assert!(!rollouts.may_begin("c"));
        rollouts.retain(|uid| uid != "b");
        assert!(rollouts.may_begin("c"), "b was deleted before it came up");
    }
}
