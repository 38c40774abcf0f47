//! Memory of queries: so much for one, so much for all together. What a query may not have it spills to disk, or goes without.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// What all queries hold together.
#[derive(Debug)]
pub struct TotalMemory {
    most: usize,
    used: AtomicUsize,
}

impl TotalMemory {
    /// At most so many bytes.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, used: AtomicUsize::new(0) })
    }

    fn try_take(&self, bytes: usize) -> Result<(), usize> {
        let take = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.most);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).map(drop)
    }
}

/// What one query holds: shared fairly among its operators that can spill, and counted in the total too.
#[derive(Debug)]
pub struct QueryMemory {
    own: FairSpillPool,
    total: Arc<TotalMemory>,
}

impl QueryMemory {
    /// For one query, at most so many bytes.
    pub fn new(most: usize, total: Arc<TotalMemory>) -> Self {
        Self { own: FairSpillPool::new(most), total }
    }
}

impl fmt::Display for QueryMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of one query", self.own)
    }
}

impl MemoryPool for QueryMemory {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.own.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.own.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.total.used.fetch_add(additional, Ordering::AcqRel);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.total.used.fetch_sub(shrink, Ordering::AcqRel);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.own.try_grow(reservation, additional)?;
        self.total.try_take(additional).map_err(|used| {
            self.own.shrink(reservation, additional);
            let (name, most) = (reservation.consumer().name(), self.total.most);
            DataFusionError::ResourcesExhausted(format!(
                "failed to give {name} {additional} more bytes: all queries together hold {used} of the {most} that they may"
            ))
        })
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_query_has_its_bound_and_all_together_have_theirs() {
        let total = TotalMemory::new(150);
        let query =
            |total: &Arc<TotalMemory>| -> Arc<dyn MemoryPool> { Arc::new(QueryMemory::new(100, Arc::clone(total))) };
        let (one, other) = (query(&total), query(&total));
        let of = |pool: &Arc<dyn MemoryPool>| MemoryConsumer::new("sort").register(pool);
        let (first, second) = (of(&one), of(&other));
        first.try_grow(90).unwrap();
        first.try_grow(20).expect_err("one query has 100");
        let error = second.try_grow(70).expect_err("both together have 150").to_string();
        assert!(error.contains("hold 90 of the 150"), "{error}");
        second.try_grow(60).unwrap();
        first.shrink(50);
        second.try_grow(40).unwrap();
        drop((first, second));
        assert_eq!((total.used.load(Ordering::Acquire), one.reserved(), other.reserved()), (0, 0, 0));
    }
}
