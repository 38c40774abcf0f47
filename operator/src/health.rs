//! Whether the operator still sees and does something.
//!
//! It is alive while every watch is fresh and the flush loop turns; an HTTP server that answers proves nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a watch may fail before the operator counts as stuck. A restart helps where the connection is to blame, and an
/// API server that is away for a short while is no reason for one.
const MAX_FAILING: Duration = Duration::from_secs(300);

/// How long the flush loop may take for a turn.
const MAX_TURN: Duration = Duration::from_secs(120);

/// What is known of the parts that must stay alive.
#[derive(Debug, Default)]
pub struct Health {
    failing: Mutex<BTreeMap<&'static str, Instant>>,
    last_turn: Mutex<Option<Instant>>,
}

impl Health {
    /// A watch told something.
    pub fn watch_is_fresh(&self, watch: &'static str) {
        lock(&self.failing).remove(watch);
    }

    /// A watch failed; it is the first failure that counts.
    pub fn watch_failed(&self, watch: &'static str) {
        lock(&self.failing).entry(watch).or_insert_with(Instant::now);
    }

    /// The flush loop began a turn.
    pub fn flush_loop_turned(&self) {
        *lock(&self.last_turn) = Some(Instant::now());
    }

    /// A sentence for each part that is stuck.
    pub fn stale(&self) -> Vec<String> {
        self.stale_at(Instant::now())
    }

    fn stale_at(&self, now: Instant) -> Vec<String> {
        let mut stale: Vec<_> = lock(&self.failing)
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(**since) > MAX_FAILING)
            .map(|(watch, _)| {
                format!("the watch of {watch} has been failing for more than {} s", MAX_FAILING.as_secs())
            })
            .collect();
        if lock(&self.last_turn).is_some_and(|turn| now.saturating_duration_since(turn) > MAX_TURN) {
            stale.push(format!("the flush loop has not turned for more than {} s", MAX_TURN.as_secs()));
        }
        stale
    }
}

/// A map of plain values is whole even where a panic left the lock poisoned.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_stale_when_it_failed_for_long_and_fresh_once_it_speaks() {
        let health = Health::default();
        health.watch_failed("KalamDB");
        assert!(health.stale().is_empty());
        let later = Instant::now() + MAX_FAILING + Duration::from_secs(1);
        assert_eq!(health.stale_at(later).len(), 1);
        health.watch_is_fresh("KalamDB");
        assert!(health.stale_at(later).is_empty());
    }

    #[test]
    fn a_flush_loop_that_began_and_stopped_is_stale() {
        let health = Health::default();
        let later = Instant::now() + MAX_TURN + Duration::from_secs(1);
        assert!(health.stale_at(later).is_empty(), "it has not begun: the operator waits for its CRD");
        health.flush_loop_turned();
        assert_eq!(health.stale_at(later).len(), 1);
    }
}
