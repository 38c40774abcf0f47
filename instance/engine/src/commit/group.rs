//! One batch of row writes: each member is judged by the rows on disk and by the members before it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rocksdb::{DBPinnableSlice, WriteBatch};

use crate::EngineError;
use crate::commit::Shared;
use crate::commit::clock::Draw;
use crate::commit::judge::{is_current, is_current_in_stream, is_dirtied, visible_hot};
use crate::commit::record::{ColdRow, Read, RowRecord};
use crate::commit::unflushed::Version;
use crate::commit::writer::{TableState, Tables, no_table, stage_high_water};
use crate::engine::Committed;
use crate::hot::changes::{self, Operation};
use crate::hot::row::{self, RowHeader};
use crate::hot::store::{Family, failed};
use crate::hot::stream::{self, Buckets, Moment};
use crate::hot::tier::{self, Mask};
use crate::plant::{Plant, planted};
use crate::schema::TableId;
use crate::seq::Seq;

/// A batch that is being built.
pub(super) struct Group<'a> {
    shared: &'a Shared,
    tables: &'a Tables,
    members: &'a [Vec<RowRecord>],
    batch: WriteBatch,
    /// Rows of members that were accepted, by stored key.
    accepted: HashMap<&'a [u8], Accepted>,
    staged: Staged,
    /// When rows of stream tables are looked up: no version is newer.
    moment: Moment,
    /// Where a row is stamped before it is copied into the batch.
    scratch: Vec<u8>,
}

/// The newest version of a key within the group.
#[derive(Clone, Copy)]
struct Accepted {
    header: RowHeader,
    member: usize,
    row: usize,
}

/// The visible hot version that a write meets.
struct Visible<'a> {
    header: RowHeader,
    bytes: Bytes<'a>,
}

enum Bytes<'a> {
    Stored(DBPinnableSlice<'a>),
    /// A row of an earlier member, without its stamp.
    Accepted(&'a [u8]),
}

impl Bytes<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Stored(bytes) => bytes.len(),
            Self::Accepted(bytes) => bytes.len(),
        }
    }
}

/// What the group changes in memory, once its batch is on disk.
pub(super) struct Staged {
    pub(super) last_seq: Seq,
    rows: Vec<StagedRow>,
}

struct StagedRow {
    table: TableId,
    new: Version,
    superseded: Option<Version>,
    change_bytes: u64,
    /// Whether a flush will carry it.
    is_unflushed: bool,
}

impl<'a> Group<'a> {
    pub(super) fn new(shared: &'a Shared, tables: &'a Tables, last_seq: Seq, members: &'a [Vec<RowRecord>]) -> Self {
        Self {
            shared,
            tables,
            members,
            batch: WriteBatch::default(),
            accepted: HashMap::new(),
            staged: Staged { last_seq, rows: Vec::new() },
            moment: shared.clock.moment(),
            scratch: Vec::new(),
        }
    }

    /// Judges a member, and stages all of its rows or none.
    pub(super) fn commit(&mut self, member: usize) -> Result<Committed, EngineError> {
        let visible = self.judge(member)?;
        let shared = self.shared;
        let mut draw = shared.clock.draw();
        for (row, visible) in visible.into_iter().enumerate() {
            self.stage(member, row, visible, &mut draw);
        }
        Ok(Committed { last_seq: self.staged.last_seq, updated: draw.updated() })
    }

    /// The batch, and what to publish once it is on disk.
    pub(super) fn finish(mut self) -> (WriteBatch, Staged) {
        stage_high_water(self.shared, &mut self.batch);
        (self.batch, self.staged)
    }

    /// The visible version that each row of the member supersedes, if everything that it read still holds.
    fn judge(&self, member: usize) -> Result<Vec<Option<Visible<'a>>>, EngineError> {
        let rows = &self.members[member];
        let stored = self.stored(rows)?;
        let mut keys = HashMap::with_capacity(rows.len());
        let mut visible = Vec::with_capacity(rows.len());
        for (row, stored) in rows.iter().zip(stored) {
            let state = table_of(self.tables, row)?;
            if row.has_hidden_key() {
                // It is unique by its `_seq`.
            } else if let Entry::Vacant(first) = keys.entry(row.key.as_slice()) {
                first.insert(());
            } else {
                return Err(EngineError::Invalid(format!("a commit names a key of table {} twice", state.name)));
            }
            let raw = stored.as_ref().filter(|_| planted(Plant::ComparesRawHotSeq)).map(|bytes| row::header(bytes));
            let raw = raw.transpose()?;
            let found = self.visible(row, stored, state)?;
            let header = found.as_ref().map(|visible| &visible.header).or(raw.as_ref());
            let is_current = match state.buckets {
                Some(_) => is_current_in_stream(header, &row.read),
                None => is_current(header, &row.read, &state.record.tier),
            };
            if row.version != state.version || !is_current {
                return Err(EngineError::Stale);
            }
            visible.push(found);
        }
        Ok(visible)
    }

    /// What is stored at the keys of these rows. Generated keys are not looked up.
    fn stored(&self, rows: &[RowRecord]) -> Result<Vec<Option<DBPinnableSlice<'a>>>, EngineError> {
        let mut found: Vec<_> = rows.iter().map(|_| None).collect();
        let mut by_family: HashMap<Family, Vec<usize>> = HashMap::new();
        for (at, row) in rows.iter().enumerate().filter(|(_, row)| row.read != Read::Generated) {
            let state = table_of(self.tables, row)?;
            match state.buckets {
                Some(buckets) => found[at] = self.live_in_stream(row, buckets)?,
                None => by_family.entry(Family::of_rows(state.kind)).or_default().push(at),
            }
        }
        for (family, places) in by_family {
            let (db, family) = (self.shared.hot.db(), self.shared.hot.family(family));
            let keys = places.iter().map(|at| rows[*at].key.as_slice());
            for (at, value) in places.iter().zip(db.batched_multi_get_cf(family, keys, false)) {
                found[*at] = value.map_err(failed("read rows that a commit supersedes"))?;
            }
        }
        Ok(found)
    }

    /// The version of a stream table's row that has not expired. One that was found lies in the bucket of its `_seq`; one that was
    /// not may have come since, in any bucket.
    fn live_in_stream(&self, row: &RowRecord, buckets: Buckets) -> Result<Option<DBPinnableSlice<'a>>, EngineError> {
        let of_bucket = |bucket| stream::stored_key(row.table, bucket, row.row_key());
        let probes: Vec<_> = match &row.read {
            Read::Looked { seq: Some(seq), .. } => vec![of_bucket(buckets.of_seq(*seq))],
            _ => buckets.live(self.moment).rev().map(of_bucket).collect(),
        };
        let (db, family) = (self.shared.hot.db(), self.shared.hot.family(Family::StreamTable));
        for found in db.batched_multi_get_cf(family, probes.iter(), false) {
            let Some(bytes) = found.map_err(failed("read rows that a commit supersedes"))? else { continue };
            if buckets.is_live(row::header(&bytes)?.updated, self.moment.now) {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    fn visible(
        &self,
        row: &RowRecord,
        stored: Option<DBPinnableSlice<'a>>,
        state: &TableState,
    ) -> Result<Option<Visible<'a>>, EngineError> {
        let is_blind = planted(Plant::GroupBlindToItself);
        if let Some(earlier) = self.accepted.get(row.key.as_slice()).filter(|_| !is_blind) {
            let bytes = Bytes::Accepted(&self.members[earlier.member][earlier.row].value);
            return Ok(Some(Visible { header: earlier.header, bytes }));
        }
        let Some(bytes) = stored else { return Ok(None) };
        let header = visible_hot(Some(row::header(&bytes)?), &state.record.tier);
        Ok(header.map(|header| Visible { header, bytes: Bytes::Stored(bytes) }))
    }

    /// The batch: row, mask, dirty key, change record. It can't fail, or a part of a member would be committed.
    fn stage(&mut self, member: usize, at: usize, visible: Option<Visible<'_>>, draw: &mut Draw<'_>) {
        let (hot, row) = (&self.shared.hot, &self.members[member][at]);
        let state = self.tables.get(&row.table).expect("the member was judged");
        let (seq, updated) = (draw.seq(), draw.updated());
        self.scratch.clear();
        self.scratch.extend_from_slice(&row.value);
        row::stamp(&mut self.scratch, seq, updated);
        let header = RowHeader { seq, updated, deleted: row.deletes, schema: row.version };

        let superseded = visible.as_ref().map(|visible| visible.header);
        let row_key = row_key(row, seq);
        match state.buckets {
            Some(buckets) => self.stage_in_stream(row, &row_key, buckets, header, superseded.as_ref()),
            None => self.batch.put_cf(hot.family(Family::of_rows(state.kind)), &row.key, &self.scratch),
        }
        let cold = visible.is_none().then(|| cold_row(row)).flatten();
        if let Some(cold) = cold {
            let mask = Mask::storage_key(row.table, &cold.place.file, cold.place.row);
            self.batch.put_cf(hot.family(Family::Masks), mask, Mask::storage_value(seq, row.row_key()));
        }
        if let Some(intent) = is_dirtied(superseded.as_ref(), &state.record.intents) {
            let dirty = tier::dirty_key(row.table, intent.job, row.row_key());
            self.batch.put_cf(hot.family(Family::Dirty), dirty, []);
        }
        let change_bytes = self.stage_change(row, &row_key, seq, visible.as_ref(), cold);

        let bytes = |value: usize| (row.key.len() + value) as u64;
        let old = |visible: &Visible<'_>| Version {
            seq: visible.header.seq,
            updated: visible.header.updated,
            bytes: bytes(visible.bytes.len()),
        };
        self.staged.rows.push(StagedRow {
            table: row.table,
            new: Version { seq, updated, bytes: bytes(row.value.len()) },
            superseded: visible.as_ref().map(old),
            change_bytes,
            is_unflushed: state.buckets.is_none(),
        });
        self.staged.last_seq = seq;
        if !row.has_hidden_key() {
            self.accepted.insert(&row.key, Accepted { header, member, row: at });
        }
    }

    /// Stages the row that lies in `scratch` into the bucket of its `_seq`, and takes the version that it supersedes out of its own.
    /// There is nothing below that a tombstone would have to hide.
    fn stage_in_stream(
        &mut self,
        row: &RowRecord,
        row_key: &[u8],
        buckets: Buckets,
        header: RowHeader,
        superseded: Option<&RowHeader>,
    ) {
        let family = self.shared.hot.family(Family::StreamTable);
        let stored = |seq| stream::stored_key(row.table, buckets.of_seq(seq), row_key);
        if let Some(old) = superseded.filter(|old| !old.deleted) {
            self.batch.delete_cf(family, stored(old.seq));
        }
        if !header.deleted {
            self.batch.put_cf(family, stored(header.seq), &self.scratch);
        }
    }

    /// Stages the change record; gives its size.
    fn stage_change(
        &mut self,
        row: &RowRecord,
        row_key: &[u8],
        seq: Seq,
        visible: Option<&Visible<'_>>,
        cold: Option<&ColdRow>,
    ) -> u64 {
        let live = visible.filter(|visible| !visible.header.deleted);
        let old = match live.map(|visible| (&visible.bytes, visible.header)) {
            Some((Bytes::Stored(bytes), _)) => Some(&bytes[..]),
            Some((Bytes::Accepted(bytes), header)) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(bytes);
                row::stamp(&mut self.scratch, header.seq, header.updated);
                Some(&self.scratch[..])
            }
            None => cold.map(|cold| &cold.image[..]),
        };
        let operation = match (row.deletes, old) {
            (true, _) => Operation::Delete,
            (false, Some(_)) => Operation::Update,
            (false, None) => Operation::Insert,
        };
        let key = changes::storage_key(row.table, row.user(), seq);
        let value = changes::storage_value(operation, row_key, old);
        self.batch.put_cf(self.shared.hot.family(Family::Changes), &key, &value);
        (key.len() + value.len()) as u64
    }
}

impl Staged {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The tables that rows were written of, with the sequence of each, ascending.
    pub(super) fn written(&self) -> impl Iterator<Item = (TableId, Seq)> {
        self.rows.iter().map(|row| (row.table, row.new.seq))
    }

    /// Counts what is on disk now.
    pub(super) fn publish(self, shared: &Shared) {
        let (mut unflushed, mut changes) = (shared.unflushed.lock(), shared.changes.lock());
        for row in self.rows {
            if row.is_unflushed {
                unflushed.entry(row.table).or_default().put(row.new, row.superseded);
            }
            changes.add(row.table, row.new.seq, row.change_bytes);
        }
    }
}

/// The key within the table, once the `_seq` is known.
fn row_key(row: &RowRecord, seq: Seq) -> Cow<'_, [u8]> {
    if row.has_hidden_key() {
        return Cow::Owned([row.row_key(), &stream::hidden_key(seq)].concat());
    }
    Cow::Borrowed(row.row_key())
}

fn table_of<'t>(tables: &'t Tables, row: &RowRecord) -> Result<&'t TableState, EngineError> {
    tables.get(&row.table).ok_or_else(|| no_table(row.table))
}

fn cold_row(row: &RowRecord) -> Option<&ColdRow> {
    match &row.read {
        Read::Looked { cold, .. } => cold.as_ref(),
        Read::Generated => None,
    }
}
