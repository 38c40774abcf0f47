//! How rows of stream tables lie by time: table id, time bucket, user, primary key. Pure.
//!
//! The bucket comes from the version's `_seq`, so that expired rows lie in ranges that are dropped whole. Whether a row is still to be
//! seen is judged by its `_updated`, to the microsecond; its `_seq` is never earlier than that, so that a bucket whose end is older
//! than the TTL holds no row that anyone may see. A key has at most one version that is not expired: whoever supersedes it deletes
//! it from its bucket.

use std::ops::RangeInclusive;

use crate::hot::key;
use crate::schema::{Table, TableId, TableKind};
use crate::seq::{EPOCH_MS, Seq};

/// A TTL spans so many buckets: a look-up asks one more than these, and a row is deleted at most one bucket after it expires.
const BUCKETS: i64 = 16;
/// Bytes of a bucket in a key, and of the `_seq` that is the key of rows without a primary key.
const NUMBER_LENGTH: usize = 8;

/// When something is read, by the database's own time, which never goes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Microseconds since the Unix epoch.
    pub now: i64,
    /// No version that was committed before has a higher sequence.
    pub newest: Seq,
}

/// The time buckets of one stream table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    ttl_micros: i64,
    width_ms: i64,
}

impl Buckets {
    /// Those of a stream table; none for other tables, whose rows do not expire.
    pub fn of(table: &Table) -> Option<Self> {
        let seconds = table.ttl_seconds.filter(|_| table.kind == TableKind::Stream)?;
        let ttl_ms = i64::from(seconds) * 1000;
        Some(Self { ttl_micros: ttl_ms * 1000, width_ms: (ttl_ms / BUCKETS).max(1) })
    }

    /// The bucket of a version.
    pub fn of_seq(self, seq: Seq) -> u64 {
        (seq.millis() / self.width_ms).unsigned_abs()
    }

    /// Whether a version that was written then may be seen at that moment: it may until its age is the TTL.
    pub fn is_live(self, updated: i64, now: i64) -> bool {
        now.saturating_sub(updated) < self.ttl_micros
    }

    /// The first bucket that can hold a version that may be seen then; all before it can go.
    pub fn oldest_live(self, now: i64) -> u64 {
        let born = now.saturating_sub(self.ttl_micros).div_euclid(1000) - EPOCH_MS;
        (born.max(0) / self.width_ms).unsigned_abs()
    }

    /// All buckets that can hold a version that may be seen at that moment.
    pub fn live(self, moment: Moment) -> RangeInclusive<u64> {
        self.oldest_live(moment.now)..=self.of_seq(moment.newest)
    }
}

/// The first bytes of all keys of a bucket, or of one user's in it; `row_key` is empty, the user's part, or a whole key within the table.
pub fn stored_key(table: TableId, bucket: u64, row_key: &[u8]) -> Vec<u8> {
    let mut bytes = key::table_prefix(table);
    bytes.extend_from_slice(&bucket.to_be_bytes());
    bytes.extend_from_slice(row_key);
    bytes
}

/// The bucket of a stored key; none where it is too short to have one.
pub fn bucket_of(stored: &[u8]) -> Option<u64> {
    let bytes = stored.get(4..4 + NUMBER_LENGTH)?;
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// The key of a row without a primary key: the sequence of its only version.
pub fn hidden_key(seq: Seq) -> [u8; NUMBER_LENGTH] {
    seq.0.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::SqlType;
    use crate::schema::testing::table;
    use crate::seq::WorkerId;

    fn buckets(ttl: u32) -> Buckets {
        let mut table = table(TableKind::Stream, &[SqlType::Int], &[0]);
        table.ttl_seconds = Some(ttl);
        Buckets::of(&table).unwrap()
    }

    #[test]
    fn whatever_may_be_seen_lies_in_a_live_bucket_and_there_are_few() {
        for ttl in [1, 7, 60, 86_400] {
            let (buckets, ttl) = (buckets(ttl), i64::from(ttl) * 1_000_000);
            for born in (0..3_000_000_000_i64).step_by(77_777_777) {
                let updated = EPOCH_MS * 1000 + born;
                let seq = Seq::ZERO.next(updated.div_euclid(1000), WorkerId::new(3));
                let last = updated + ttl - 1;
                assert!(buckets.is_live(updated, last) && !buckets.is_live(updated, last + 1));
                let newest = Seq::ZERO.next(last.div_euclid(1000), WorkerId::new(3));
                let live = buckets.live(Moment { now: last, newest });
                assert!(live.contains(&buckets.of_seq(seq)), "{live:?}");
                assert!(live.end() - live.start() <= 2 + BUCKETS as u64, "{live:?}");
            }
        }
    }

    #[test]
    fn stored_keys_sort_by_bucket_first() {
        let key = stored_key(TableId(1), 258, b"ab");
        assert_eq!((key.as_slice(), bucket_of(&key)), (&b"\0\0\0\x01\0\0\0\0\0\0\x01\x02ab"[..], Some(258)));
    }
}
