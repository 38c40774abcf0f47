//! Commit sequence numbers: `_seq`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds between the Unix epoch and 2024-01-01 UTC, where `_seq` begins.
pub const EPOCH_MS: i64 = 1_704_067_200_000;
const WORKER_BITS: u32 = 10;
const COUNTER_BITS: u32 = 12;

/// Commit sequence of a row version: a snowflake of 41 bits of milliseconds since 2024-01-01, 10 bits of worker and 12 bits of
/// counter. Unique and increasing in commit order within an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub i64);

impl Seq {
    /// Below every sequence that is ever drawn.
    pub const ZERO: Self = Self(0);
    /// Above every sequence that is ever drawn.
    pub const MAX: Self = Self(i64::MAX);

    /// The next sequence after `self` at `now_ms` (milliseconds since the Unix epoch): never at or below `self`, so that it runs
    /// ahead of a clock that stands still or goes back.
    pub fn next(self, now_ms: i64, worker: WorkerId) -> Self {
        let earliest =
            ((now_ms - EPOCH_MS).max(0) << (WORKER_BITS + COUNTER_BITS)) | (i64::from(worker.0) << COUNTER_BITS);
        if earliest > self.0 {
            return Self(earliest);
        }
        let counter_mask = (1 << COUNTER_BITS) - 1;
        let same_worker = (self.0 >> COUNTER_BITS) & ((1 << WORKER_BITS) - 1) == i64::from(worker.0);
        if same_worker && self.0 & counter_mask < counter_mask {
            return Self(self.0 + 1);
        }
        let ms = (self.0 >> (WORKER_BITS + COUNTER_BITS)) + 1;
        Self((ms << (WORKER_BITS + COUNTER_BITS)) | (i64::from(worker.0) << COUNTER_BITS))
    }
}

impl Seq {
    /// Its time, in milliseconds since 2024-01-01: never before the clock of its commit, and ahead of it where many are drawn.
    pub fn millis(self) -> i64 {
        self.0 >> (WORKER_BITS + COUNTER_BITS)
    }

    /// The sequence that was drawn before this one in the same commit.
    pub fn before(self) -> Self {
        let counter_mask = (1 << COUNTER_BITS) - 1;
        if self.0 & counter_mask > 0 {
            return Self(self.0 - 1);
        }
        // The counter of the millisecond before was used up.
        Self((self.0 - (1 << (WORKER_BITS + COUNTER_BITS))) | counter_mask)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The worker bits of `_seq`, 0 to 1023: part of a database's identity; a clone gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkerId(u16);

impl WorkerId {
    /// Takes the low ten bits.
    pub fn new(number: u16) -> Self {
        Self(number & 0x3ff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_knows_the_one_before_it() {
        let (now, worker) = (EPOCH_MS + 5, WorkerId::new(7));
        let mut last = Seq::ZERO.next(now, worker);
        for _ in 0..9000 {
            let next = last.next(now, worker);
            assert_eq!(next.before(), last);
            last = next;
        }
        assert_eq!(last.millis(), 7);
    }

    #[test]
    fn a_sequence_never_goes_back() {
        let (now, worker) = (EPOCH_MS + 5, WorkerId::new(7));
        let mut last = Seq::ZERO;
        for clock in [now, now, now - 3, now + 1].into_iter().chain(std::iter::repeat_n(now, 9000)) {
            let next = last.next(clock, worker);
            assert!(next > last, "{next} does not follow {last}");
            last = next;
        }
        assert!(last.next(now, WorkerId::new(3)) > last, "another worker goes on where this one ended");
    }
}
