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
use crate::hot::key::{self, Key};
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
    /// The part of the table that is read, as stored keys.
    prefix: Vec<u8>,
    /// What is still to be read: from, to. A stream table has one range for each bucket.
    ranges: VecDeque<KeyRange>,
    /// In stream tables, which versions have not expired.
    buckets: Option<Buckets>,
    /// Stored keys that are left out.
    without: Arc<HashSet<Vec<u8>>>,
    /// What is read in place of the versions above `flushed_through`; only ever set by a planted bug.
    between: Option<(Seq, Seq)>,
}

impl HotScan {
    pub(crate) fn new(
        snapshot: HotSnapshot,
        table: Arc<Table>,
        user: Option<&UserId>,
        projection: Option<&[usize]>,
        with_user: bool,
    ) -> Self {
        let (prefix, buckets) = (key::part_prefix(table.id, user), Buckets::of(&table));
        let builder = BatchBuilder::new(&table, projection, with_user);
        let range = |prefix: Vec<u8>| {
            let end = key::prefix_end(&prefix);
            (prefix, end)
        };
        let part = &prefix[TABLE_ID_LENGTH..];
        let ranges = match buckets {
            None => VecDeque::from([range(prefix.clone())]),
            Some(buckets) => {
                let live = buckets.live(snapshot.moment());
                live.map(|bucket| range(stream::stored_key(table.id, bucket, part))).collect()
            }
        };
        Self { snapshot, table, builder, with_user, prefix, ranges, buckets, without: Arc::default(), between: None }
    }

    /// Narrows the scan to keys from `from` on and below `to`, within the user's part or the shared table. Not for stream tables.
    pub fn with_range(mut self, from: Option<&Key>, to: Option<&Key>) -> Self {
        let stored = |key: &Key| [&self.prefix, &key.0[..]].concat();
        let (from, to) = (from.map(stored), to.map(stored));
        if let Some((next, end)) = self.ranges.front_mut() {
            *next = from.unwrap_or(std::mem::take(next));
            *end = to.unwrap_or(std::mem::take(end));
        }
        self
    }

    /// Leaves these stored keys out.
    pub(crate) fn without(mut self, keys: Arc<HashSet<Vec<u8>>>) -> Self {
        self.without = keys;
        self
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
        let (after, until) = self.between.unwrap_or((flushed, Seq::MAX));
        let mut iterator = self.snapshot.iterator(Family::of_rows(self.table.kind), to.to_vec());
        iterator.seek(from);
        while let Some((stored, bytes)) = iterator.item() {
            if self.builder.rows() >= max_rows || self.builder.bytes() >= BATCH_BYTES {
                return Ok(Some(stored.to_vec()));
            }
            let header = row::header(bytes)?;
            let has_expired = self.buckets.is_some_and(|buckets| !buckets.is_live(header.updated, now));
            let is_meant = header.seq > after && header.seq <= until;
            if is_meant && !header.deleted && !has_expired && !self.without.contains(stored) {
                let user = match self.with_user {
                    true => key::split_user(self.table.kind, key::split_table(stored)?.1)?.0,
                    false => None,
                };
                self.builder.append(bytes, &header, user.as_ref().map(UserId::as_str))?;
            }
            iterator.next();
        }
        iterator.status().map_err(failed("read hot rows"))?;
        Ok(None)
    }
}
