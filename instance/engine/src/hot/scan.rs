//! A table's hot rows, many at a time, one snapshot, key order. It owns all that it needs, so that it can go from thread to thread between
//! batches: each batch seeks to where the one before ended. Rows leave it as they are stored, so that another thread can decode them.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::EngineError;
use crate::commit::record::KeyRange;
use crate::hot::HotSnapshot;
use crate::hot::key::{self, KeyBounds};
use crate::hot::ordinals::{Ordinals, is_scanned};
use crate::hot::row;
use crate::hot::store::{Family, failed};
use crate::hot::stored::StoredRows;
use crate::hot::stream::{self, Buckets};
use crate::schema::{Table, TableKind, UserId};
use crate::seq::Seq;

/// A batch is closed at this many bytes of encoded rows, however few they are, so that wide rows stay bounded in memory.
const BATCH_BYTES: usize = 16 << 20;
/// Bytes of a key before the user's part.
const TABLE_ID_LENGTH: usize = 4;

/// Reads a table's visible hot rows batch by batch.
pub struct HotScan {
    snapshot: HotSnapshot,
    table: Arc<Table>,
    with_user: bool,
    /// What is still to be read: from, to. A stream table has one range for each bucket.
    ranges: VecDeque<KeyRange>,
    /// In stream tables, which versions have not expired.
    buckets: Option<Buckets>,
    /// Stored keys that are left out.
    without: Arc<HashSet<Vec<u8>>>,
    user: LastUser,
    /// Rows that are still wanted.
    left: usize,
    /// How many rows came together last, and their bytes: as many will come again.
    expected: (usize, usize),
    reads: Reads,
    /// The numbers of the rows, where somebody asks for them.
    ordinals: Option<Ordinals>,
    /// What is read in place of the versions above `flushed_through`; only ever set by a planted bug.
    between: Option<(Seq, Seq)>,
}

/// How much of what a scan reads will be read again soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// As much as of any read.
    Again,
    /// Nothing: it does not push other blocks out of the cache, and reads ahead.
    Once,
}

/// Bytes that a scan of what is read once reads ahead.
const READ_AHEAD_BYTES: usize = 1 << 20;

impl HotScan {
    pub(crate) fn new(
        snapshot: HotSnapshot,
        table: Arc<Table>,
        user: Option<&UserId>,
        bounds: &KeyBounds,
        with_user: bool,
    ) -> Self {
        let (prefix, buckets) = (key::part_prefix(table.id, user), Buckets::of(&table));
        let part = &prefix[TABLE_ID_LENGTH..];
        let ranges = match buckets {
            None => VecDeque::from([bounds.below(&prefix)]),
            Some(buckets) => {
                let live = buckets.live(snapshot.moment());
                live.map(|bucket| bounds.below(&stream::stored_key(table.id, bucket, part))).collect()
            }
        };
        Self {
            snapshot,
            table,
            with_user,
            ranges,
            buckets,
            without: Arc::default(),
            user: LastUser::default(),
            left: usize::MAX,
            expected: (0, 0),
            reads: Reads::Again,
            ordinals: None,
            between: None,
        }
    }

    /// Leaves these stored keys out.
    pub(crate) fn without(mut self, keys: Arc<HashSet<Vec<u8>>>) -> Self {
        self.without = keys;
        self
    }

    /// Ends after so many rows.
    pub(crate) fn limited(mut self, rows: usize) -> Self {
        self.left = rows;
        self
    }

    /// For rows that nobody will read here again, as those that a flush moves. Their numbers can be taken afterwards.
    pub(crate) fn once(mut self) -> Self {
        (self.reads, self.ordinals) = (Reads::Once, Some(Ordinals::default()));
        self
    }

    /// The numbers of the rows so far.
    pub(crate) fn take_ordinals(&mut self) -> Option<Ordinals> {
        self.ordinals.take()
    }

    /// Reads the versions above `after` and up to `until`, wherever the tiers meet: what a planted bug does.
    pub(crate) fn between(mut self, after: Seq, until: Seq) -> Self {
        self.between = Some((after, until));
        self
    }

    /// Whether nothing is left to be read.
    pub fn is_at_end(&self) -> bool {
        self.ranges.is_empty() || self.left == 0
    }

    /// The next rows, at most `max_rows`; none at the end.
    pub fn next_rows(&mut self, max_rows: usize) -> Result<Option<StoredRows>, EngineError> {
        let max_rows = max_rows.min(self.left);
        let (rows, bytes) = self.expected;
        let mut rows = StoredRows::with_capacity(rows, bytes);
        while max_rows > 0
            && let Some((from, to)) = self.ranges.pop_front()
        {
            if let Some(next) = self.fill(&mut rows, &from, &to, max_rows)? {
                self.ranges.push_front((next, to));
                break;
            }
        }
        self.expected = (rows.len(), rows.size());
        self.left -= rows.len();
        Ok((!rows.is_empty()).then_some(rows))
    }

    /// Reads a range; gives where to go on where the batch is full before its end.
    fn fill(
        &mut self,
        rows: &mut StoredRows,
        from: &[u8],
        to: &[u8],
        max_rows: usize,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let (flushed, now) = (self.snapshot.tier(self.table.id)?.flushed_through, self.snapshot.moment().now);
        // After a flush RocksDB would step over every row that it has deleted.
        if self.between.is_none() && self.snapshot.has_none_above(self.table.id, flushed) {
            return Ok(None);
        }
        let (after, until) = self.between.unwrap_or((flushed, Seq::MAX));
        let family = Family::of_rows(self.table.kind);
        let mut iterator = match self.reads {
            Reads::Again => self.snapshot.iterator(family, to.to_vec()),
            Reads::Once => self.snapshot.iterator_once(family, to.to_vec(), READ_AHEAD_BYTES),
        };
        iterator.seek(from);
        while let Some((stored, bytes)) = iterator.item() {
            if rows.len() >= max_rows || rows.size() >= BATCH_BYTES {
                return Ok(Some(stored.to_vec()));
            }
            let header = row::header(bytes)?;
            let has_expired = self.buckets.is_some_and(|buckets| !buckets.is_live(header.updated, now));
            let is_meant = is_scanned(&header, after) && header.seq <= until;
            if is_meant && !has_expired && !self.without.contains(stored) {
                match self.with_user {
                    true => rows.push_of(self.user.of(self.table.kind, stored)?, bytes),
                    false => rows.push(bytes),
                }
                if let Some(ordinals) = &mut self.ordinals {
                    ordinals.add(&stored[TABLE_ID_LENGTH..]);
                }
            }
            iterator.next();
        }
        iterator.status().map_err(failed("read hot rows"))?;
        Ok(None)
    }
}

/// The user of the row before: many rows of one user follow one another.
#[derive(Default)]
struct LastUser {
    /// As its key has it.
    part: Vec<u8>,
    user: Option<UserId>,
}

impl LastUser {
    /// Whose row lies at that stored key of a per-user table.
    fn of(&mut self, kind: TableKind, stored: &[u8]) -> Result<&UserId, EngineError> {
        let key = key::split_table(stored)?.1;
        let part = &key[..key::user_length(kind, key)?];
        if part != self.part || self.user.is_none() {
            (self.part, self.user) = (part.to_vec(), key::split_user(kind, key)?.0);
        }
        let of_nobody = || EngineError::Corrupt { what: "key of a row".into(), reason: "it names no user".into() };
        self.user.as_ref().ok_or_else(of_nobody)
    }
}
