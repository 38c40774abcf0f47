//! What the caches have in common: a bounded number of entries, each good for a time, with counts of what came of the look-ups.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use equivalent::Equivalent;
use moka::notification::RemovalCause;
use moka::sync::Cache;

use crate::SqlError;

/// Tells the moment; tests move it by hand.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The computer's clock.
pub fn system_clock() -> Clock {
    Arc::new(Instant::now)
}

/// What became of a cache's look-ups and entries since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Look-ups that found an entry, or waited for one that another look-up was loading.
    pub hits: u64,
    /// Look-ups that found none.
    pub misses: u64,
    /// Entries that are gone: too old, too many, or invalidated.
    pub evictions: u64,
    /// Entries now.
    pub entries: u64,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

/// A value and the moment from which it is too old.
#[derive(Clone)]
struct Timed<V> {
    value: V,
    expires: Instant,
}

/// A bounded map whose entries are good for a time.
pub(super) struct Store<K, V> {
    entries: Cache<K, Timed<Result<V, SqlError>>>,
    clock: Clock,
    counts: Arc<Counts>,
}

impl<K, V> Store<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Holds entries up to that weight together; `weigh` is asked once for each.
    pub(super) fn new(most: u64, weigh: fn(&K, &V) -> usize, clock: Clock) -> Self {
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let weight = move |key: &K, entry: &Timed<Result<V, SqlError>>| match &entry.value {
            Ok(value) => u32::try_from(weigh(key, value)).unwrap_or(u32::MAX),
            Err(_) => 1,
        };
        let entries = Cache::builder()
            .max_capacity(most)
            .weigher(weight)
            .eviction_listener(move |_, entry: Timed<Result<V, SqlError>>, cause| {
                // A failed load is never an entry to its callers. What replaces an entry does so because that was too old.
                if entry.value.is_ok() {
                    counted.evictions.fetch_add(1, Ordering::Relaxed);
                }
                debug_assert_ne!(cause, RemovalCause::Expired, "the times are ours");
            })
            .build();
        Self { entries, clock, counts }
    }

    /// The value, if there is one that is not too old.
    pub(super) fn get<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q) -> Option<V> {
        self.get_if(key, |_| true)
    }

    /// As [`Self::get`], if the value is accepted.
    pub(super) fn get_if<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q, accepts: impl Fn(&V) -> bool) -> Option<V> {
        let found = self.fresh(key).filter(accepts);
        self.count(found.is_some());
        found
    }

    /// The value that is there and is accepted, or what `load` makes: once, however many wait for it. A failure is told to all who
    /// wait, and is not kept. The key is made of its parts where nothing is found.
    pub(super) fn get_or_load<Q>(
        &self,
        parts: &Q,
        good_for: Duration,
        accepts: impl Fn(&V) -> bool,
        load: impl FnOnce() -> Result<V, SqlError>,
    ) -> Result<V, SqlError>
    where
        Q: Equivalent<K> + Hash,
        K: Clone + for<'a> From<&'a Q>,
    {
        if let Some(value) = self.fresh(parts).filter(&accepts) {
            self.count(true);
            return Ok(value);
        }
        let key = K::from(parts);
        let now = (self.clock)();
        let is_of_no_use = |entry: &Timed<Result<V, SqlError>>| match &entry.value {
            Ok(value) => entry.expires <= now || !accepts(value),
            Err(_) => true,
        };
        let loaded = || Timed { value: load(), expires: (self.clock)() + good_for };
        let entry = self.entries.entry(key.clone()).or_insert_with_if(loaded, is_of_no_use);
        self.count(!entry.is_fresh());
        let value = entry.into_value().value;
        if value.is_err() {
            self.entries.invalidate(&key);
        }
        value
    }

    /// Keeps the value for that long.
    pub(super) fn put(&self, key: K, value: V, good_for: Duration) {
        self.entries.insert(key, Timed { value: Ok(value), expires: (self.clock)() + good_for });
    }

    /// Drops these entries.
    pub(super) fn remove_if(&self, is_meant: impl Fn(&K, &V) -> bool) {
        let is_meant = |key: &K, entry: &Timed<Result<V, SqlError>>| match &entry.value {
            Ok(value) => is_meant(key, value),
            Err(_) => true,
        };
        let meant: Vec<Arc<K>> =
            self.entries.iter().filter(|(key, entry)| is_meant(key, entry)).map(|(key, _)| key).collect();
        meant.iter().for_each(|key| self.entries.invalidate(key.as_ref()));
    }

    /// Drops what is too old, whether or not anybody asks for it again.
    pub(super) fn sweep(&self) {
        let now = (self.clock)();
        let old: Vec<Arc<K>> =
            self.entries.iter().filter(|(_, entry)| entry.expires <= now).map(|(key, _)| key).collect();
        old.iter().for_each(|key| self.entries.invalidate(key.as_ref()));
        self.entries.run_pending_tasks();
    }

    pub(super) fn statistics(&self) -> Statistics {
        self.entries.run_pending_tasks();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Statistics {
            hits: read(&self.counts.hits),
            misses: read(&self.counts.misses),
            evictions: read(&self.counts.evictions),
            entries: self.entries.entry_count(),
        }
    }

    fn fresh<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q) -> Option<V> {
        let entry = self.entries.get(key)?;
        if entry.expires <= (self.clock)() { None } else { entry.value.ok() }
    }

    fn count(&self, is_hit: bool) {
        let count = if is_hit { &self.counts.hits } else { &self.counts.misses };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
