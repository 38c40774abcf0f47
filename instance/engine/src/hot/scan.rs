//! A table's hot rows as Arrow batches, one snapshot, key order. It owns all that it needs, so that it can go from thread to
//! thread between batches: each batch seeks to where the one before ended.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;

use crate::EngineError;
use crate::commit::record::KeyRange;
use crate::hot::HotSnapshot;
use crate::hot::batch::BatchBuilder;
use crate::hot::key::{self, KeyBounds};
use crate::hot::ordinals::{Ordinals, is_scanned};
use crate::hot::row;
use crate::hot::store::{Family, failed};
use crate::hot::stream::{self, Buckets};
use crate::schema::{Table, UserId};
use crate::seq::Seq;

/// A batch is closed at this many bytes of encoded rows, however few they are, so that wide rows stay bounded in memory.
const BATCH_BYTES: usize = 16 << 20;
/// Bytes of a key before the user's part.
const TABLE_ID_LENGTH: usize = 4;

/// Reads a table's visible hot rows batch by batch.
pub struct HotScan {
    snapshot: HotSnapshot,
    table: Arc<Table>,
    builder: BatchBuilder,
    with_user: bool,
    /// What is still to be read: from, to. A stream table has one range for each bucket.
    ranges: VecDeque<KeyRange>,
    /// In stream tables, which versions have not expired.
    buckets: Option<Buckets>,
    /// Stored keys that are left out.
    without: Arc<HashSet<Vec<u8>>>,
    /// The user of the row before, as its key has it and as text: many rows of one user follow one another.
    user: (Vec<u8>, Option<UserId>),
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
        projection: Option<&[usize]>,
        with_user: bool,
    ) -> Self {
        let (prefix, buckets) = (key::part_prefix(table.id, user), Buckets::of(&table));
        let builder = BatchBuilder::new(&table, projection, with_user);
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
            builder,
            with_user,
            ranges,
            buckets,
            without: Arc::default(),
            user: Default::default(),
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

    /// The schema of its batches.
    pub fn schema(&self) -> SchemaRef {
        self.builder.schema()
    }

    /// Whether nothing is left to be read.
    pub fn is_at_end(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The next batch of at most `max_rows` rows; none at the end.
    pub fn next_batch(&mut self, max_rows: usize) -> Result<Option<RecordBatch>, EngineError> {
        while let Some((from, to)) = self.ranges.pop_front() {
            if let Some(next) = self.fill(&from, &to, max_rows)? {
                self.ranges.push_front((next, to));
                break;
            }
        }
        if self.builder.rows() == 0 { Ok(None) } else { self.builder.finish().map(Some) }
    }

    /// Reads a range; gives where to go on where the batch is full before its end.
    fn fill(&mut self, from: &[u8], to: &[u8], max_rows: usize) -> Result<Option<Vec<u8>>, EngineError> {
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
            if self.builder.rows() >= max_rows || self.builder.bytes() >= BATCH_BYTES {
                return Ok(Some(stored.to_vec()));
            }
            let header = row::header(bytes)?;
            let has_expired = self.buckets.is_some_and(|buckets| !buckets.is_live(header.updated, now));
            let is_meant = is_scanned(&header, after) && header.seq <= until;
            if is_meant && !has_expired && !self.without.contains(stored) {
                if self.with_user {
                    let key = key::split_table(stored)?.1;
                    let part = &key[..key::user_length(self.table.kind, key)?];
                    if part != self.user.0 {
                        self.user = (part.to_vec(), key::split_user(self.table.kind, key)?.0);
                    }
                }
                self.builder.append(bytes, &header, self.user.1.as_ref().map(UserId::as_str))?;
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
