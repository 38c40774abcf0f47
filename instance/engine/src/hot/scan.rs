//! A table's hot rows as Arrow batches, one snapshot, key order. It owns all that it needs, so that it can go from thread to
//! thread between batches: each batch seeks to where the one before ended.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;

use crate::EngineError;
use crate::hot::HotSnapshot;
use crate::hot::batch::BatchBuilder;
use crate::hot::key::{self, Key};
use crate::hot::row;
use crate::hot::store::{Family, failed};
use crate::schema::{Table, UserId};

/// A batch is closed at this many bytes of encoded rows, however few they are, so that wide rows stay bounded in memory.
const BATCH_BYTES: usize = 16 << 20;

/// Reads a table's visible hot rows batch by batch.
pub struct HotScan {
    snapshot: HotSnapshot,
    table: Arc<Table>,
    builder: BatchBuilder,
    with_user: bool,
    /// The part of the table that is read, as stored keys.
    prefix: Vec<u8>,
    next: Vec<u8>,
    end: Vec<u8>,
    done: bool,
}

impl HotScan {
    pub(crate) fn new(
        snapshot: HotSnapshot,
        table: Arc<Table>,
        user: Option<&UserId>,
        projection: Option<&[usize]>,
        with_user: bool,
    ) -> Self {
        let prefix = key::part_prefix(table.id, user);
        let builder = BatchBuilder::new(&table, projection, with_user);
        let (next, end) = (prefix.clone(), key::prefix_end(&prefix));
        Self { snapshot, table, builder, with_user, prefix, next, end, done: false }
    }

    /// Narrows the scan to keys from `from` on and below `to`, within the user's part or the shared table.
    pub fn with_range(mut self, from: Option<&Key>, to: Option<&Key>) -> Self {
        let stored = |key: &Key| [&self.prefix, &key.0[..]].concat();
        let (from, to) = (from.map(stored), to.map(stored));
        self.next = from.unwrap_or(self.next);
        self.end = to.unwrap_or(self.end);
        self
    }

    /// The schema of its batches.
    pub fn schema(&self) -> SchemaRef {
        self.builder.schema()
    }

    /// The next batch of at most `max_rows` rows; none at the end.
    pub fn next_batch(&mut self, max_rows: usize) -> Result<Option<RecordBatch>, EngineError> {
        if self.done {
            return Ok(None);
        }
        self.fill(max_rows)?;
        if self.builder.rows() == 0 { Ok(None) } else { self.builder.finish().map(Some) }
    }

    fn fill(&mut self, max_rows: usize) -> Result<(), EngineError> {
        let flushed = self.snapshot.tier(self.table.id)?.flushed_through;
        let mut iterator = self.snapshot.iterator(Family::of_rows(self.table.kind), self.end.clone());
        iterator.seek(&self.next);
        while let Some((stored, bytes)) = iterator.item() {
            if self.builder.rows() >= max_rows || self.builder.bytes() >= BATCH_BYTES {
                self.next = stored.to_vec();
                return Ok(());
            }
            let header = row::header(bytes)?;
            if header.seq > flushed && !header.deleted {
                let user = match self.with_user {
                    true => key::split_user(self.table.kind, key::split_table(stored)?.1)?.0,
                    false => None,
                };
                self.builder.append(bytes, &header, user.as_ref().map(UserId::as_str))?;
            }
            iterator.next();
        }
        iterator.status().map_err(failed("read hot rows"))?;
        self.done = true;
        Ok(())
    }
}
