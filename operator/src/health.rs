//! Whether the operator still sees and does something.
//!
//! It is alive while every watch is fresh and the flush loop turns; an HTTP server that answers proves nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a watch may fail before the operator counts as stuck. A restart helps where the connection is to blame, and an
/// API server that is away for a short while is no reason for one.
const MAX_FAILING: Duration = Duration::from_secs(300);

/// A watch that failed and has not failed again for this long works: its pauses grow to 30 s, and a request that hangs
/// fails after 295 s. It says nothing when it works again while none of its objects changes.
const MAX_PAUSE: Duration = Duration::from_secs(330);

/// How long the flush loop may take for a turn.
const MAX_TURN: Duration = Duration::from_secs(120);

/// What is known of the parts that must stay alive.
#[derive(Debug, Default)]
pub struct Health {
    failing: Mutex<BTreeMap<&'static str, Failing>>,
    last_turn: Mutex<Option<Instant>>,
}

/// Failures of a watch with nothing between them that shows that it worked.
#[derive(Debug, Clone, Copy)]
struct Failing {
    first: Instant,
    last: Instant,
}

impl Failing {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > MAX_PAUSE
    }

    fn is_for_long(&self) -> bool {
        self.last.saturating_duration_since(self.first) > MAX_FAILING
    }
}

impl Health {
    /// A watch told something.
    pub fn watch_is_fresh(&self, watch: &'static str) {
        lock(&self.failing).remove(watch);
    }

    /// A watch failed.
    pub fn watch_failed(&self, watch: &'static str) {
        self.watch_failed_at(watch, Instant::now());
    }

    fn watch_failed_at(&self, watch: &'static str, now: Instant) {
        let mut failing = lock(&self.failing);
        let before = failing.get(watch).filter(|before| !before.is_over(now));
        let first = before.map_or(now, |before| before.first);
        failing.insert(watch, Failing { first, last: now });
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
            .filter(|(_, failing)| failing.is_for_long() && !failing.is_over(now))
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
        let later = fails_until(&health, Instant::now(), MAX_FAILING + Duration::from_secs(30));
        assert_eq!(health.stale_at(later).len(), 1);
        health.watch_is_fresh("KalamDB");
        assert!(health.stale_at(later).is_empty());
    }

    #[test]
    fn a_watch_that_failed_a_while_and_has_nothing_to_tell_since_is_not_stale() {
        let health = Health::default();
        let began = Instant::now();
        let later = fails_until(&health, began, Duration::from_secs(60));
        assert!(health.stale_at(later + MAX_FAILING).is_empty(), "it may work again by now");
        let again = later + MAX_PAUSE + Duration::from_secs(1);
        health.watch_failed_at("KalamDB", again);
        assert!(health.stale_at(again).is_empty(), "another failure, long after the first");
        let later = fails_until(&health, again, MAX_FAILING + Duration::from_secs(30));
        assert_eq!(health.stale_at(later).len(), 1);
    }

    /// Fails every half a minute; answers when it failed last.
    fn fails_until(health: &Health, began: Instant, length: Duration) -> Instant {
        let pause = Duration::from_secs(30);
        let last = (0..=length.as_secs() / 30).map(|failure| began + pause * u32::try_from(failure).expect("few"));
        last.inspect(|now| health.watch_failed_at("KalamDB", *now)).last().expect("at least one failure")
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
