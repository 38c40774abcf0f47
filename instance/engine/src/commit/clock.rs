//! The clock from which `_seq` and `_updated` come. Neither ever goes back, whatever the computer's clock does.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};

use crate::hot::stream::Moment;
use crate::hot::volume::HighWater;
use crate::seq::{Seq, WorkerId};

/// Tells the time. Comes in from outside, so that tests own it.
pub trait Clock: Send + Sync + 'static {
    /// Microseconds since the Unix epoch.
    fn now_micros(&self) -> i64;
}

/// The computer's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_micros(&self) -> i64 {
        // A clock before 1970 is as good as one that stands still: sequences run ahead of it.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
    }
}

/// Draws sequences above all that were ever drawn.
pub struct SeqClock {
    clock: Arc<dyn Clock>,
    worker: WorkerId,
    last: Mutex<HighWater>,
}

impl SeqClock {
    /// Goes on above the high-water mark.
    pub fn new(clock: Arc<dyn Clock>, worker: WorkerId, high_water: HighWater) -> Self {
        Self { clock, worker, last: Mutex::new(high_water) }
    }

    /// The time, in microseconds since the Unix epoch.
    pub fn now_micros(&self) -> i64 {
        self.clock.now_micros()
    }

    /// One sequence for an id that a statement asks for.
    pub fn id(&self) -> Seq {
        self.draw().seq()
    }

    /// The last sequence and time that were given out.
    pub fn high_water(&self) -> HighWater {
        *self.last.lock()
    }

    /// From now on draws above that mark.
    pub fn raise(&self, mark: HighWater) {
        let mut last = self.last.lock();
        *last = last.max(mark);
    }

    /// The moment of a read. Later ones are never before it, whatever the computer's clock does, so that what has expired for one
    /// reader never comes back for another.
    pub fn moment(&self) -> Moment {
        let now = self.clock.now_micros();
        let mut last = self.last.lock();
        last.updated = last.updated.max(now);
        Moment { now: last.updated, newest: last.seq }
    }

    /// Begins to draw for one commit: nobody else draws until it is dropped, so that its sequences follow one another.
    pub fn draw(&self) -> Draw<'_> {
        let now = self.clock.now_micros();
        let mut last = self.last.lock();
        last.updated = last.updated.max(now);
        // By the same time as `_updated`, so that no `_seq` is earlier than it: rows of stream tables expire by both.
        let now_ms = last.updated.div_euclid(1000);
        Draw { last, now_ms, worker: self.worker }
    }
}

/// Sequences of one commit.
pub struct Draw<'a> {
    last: MutexGuard<'a, HighWater>,
    now_ms: i64,
    worker: WorkerId,
}

impl Draw<'_> {
    /// The next sequence.
    pub fn seq(&mut self) -> Seq {
        self.last.seq = self.last.seq.next(self.now_ms, self.worker);
        self.last.seq
    }

    /// `_updated` of the commit.
    pub fn updated(&self) -> i64 {
        self.last.updated
    }
}
