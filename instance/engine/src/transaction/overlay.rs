//! What a transaction has written and not committed: looked up and scanned instead of the committed rows of the same keys.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use parking_lot::RwLock;
use roaring::RoaringTreemap;

use super::TransactionLimits;
use crate::EngineError;
use crate::engine::{FoundRow, LookUp, RowWrite};
use crate::hot::batch::RowDecoder;
use crate::hot::stored::StoredRows;
use crate::hot::{Key, RowKey, key, row};
use crate::schema::{Table, TableId, TableKind, UserId};
use crate::seq::Seq;
use crate::value::{Row, Value};

/// Bytes that a row takes in memory beside its values.
const ROW_OVERHEAD: usize = 256;

/// The written rows. Shared between the transaction, which writes, and the statement that reads.
pub struct Overlay {
    /// `_updated` of rows that are not committed: when the transaction began, in microseconds since the Unix epoch.
    begun: i64,
    limits: TransactionLimits,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    tables: BTreeMap<TableId, BTreeMap<RowKey, Pending>>,
    rows: usize,
    bytes: usize,
}

/// The last state of a key, with what was read of it first.
struct Pending {
    write: RowWrite,
    /// Provisional: above all that the transaction reads, below what its commit will give.
    seq: Seq,
    bytes: usize,
}

/// One table's part for a scan.
#[derive(Default)]
pub struct Written {
    /// Stored keys of hot rows that are overwritten.
    pub keys: Arc<HashSet<Vec<u8>>>,
    /// Cold rows that are overwritten, by file.
    pub places: HashMap<Arc<str>, RoaringTreemap>,
    /// Keys within the table, as the change log has them, of rows that live: none of them is deleted any more.
    pub alive: Arc<HashSet<Vec<u8>>>,
    /// The rows that live, with their provisional `_seq`.
    rows: Vec<(Seq, Row)>,
    /// The rows that it has deleted, likewise.
    deleted: Vec<(Seq, Row)>,
    begun: i64,
}

impl Overlay {
    pub(super) fn new(begun: i64, limits: TransactionLimits) -> Self {
        Self { begun, limits, state: RwLock::default() }
    }

    /// Refuses tables that take no part in transactions.
    pub fn check(table: &Table) -> Result<(), EngineError> {
        match table.kind {
            TableKind::User | TableKind::Shared => Ok(()),
            TableKind::Stream => Err(EngineError::NotInTransaction(format!(
                "table {} is a STREAM table and can't be used in a transaction: use it before BEGIN or after COMMIT",
                table.name
            ))),
        }
    }

    /// Takes a statement's writes: all of them or none. What was read of a key first stays.
    pub(super) fn write(&self, writes: Vec<(Seq, RowWrite)>) -> Result<(), EngineError> {
        let mut state = self.state.write();
        state.check_size(&writes, self.limits)?;
        for (seq, write) in writes {
            state.put(seq, write);
        }
        Ok(())
    }

    /// What the commit must carry: a key that came and went within the transaction is none of it.
    pub(super) fn writes(&self) -> Vec<RowWrite> {
        let state = self.state.read();
        let all = state.tables.values().flat_map(BTreeMap::values).map(|pending| &pending.write);
        all.filter(|write| write.new.is_some() || write.look_up.found().is_some()).cloned().collect()
    }

    /// For each key what the transaction made of it; none where it has not written it.
    pub fn found(&self, table: &Table, user: Option<&UserId>, keys: &[Key]) -> Vec<Option<Option<FoundRow>>> {
        let state = self.state.read();
        let Some(written) = state.tables.get(&table.id) else { return vec![None; keys.len()] };
        let found = |key: &Key| {
            let pending = written.get(&RowKey { user: user.cloned(), key: key.clone() })?;
            let row = |row: &Row| FoundRow { seq: pending.seq, updated: self.begun, row: row.clone(), place: None };
            Some(pending.write.new.as_ref().map(row))
        };
        keys.iter().map(found).collect()
    }

    /// One table's part, or one user's of it.
    pub fn written(&self, table: &Table, user: Option<&UserId>) -> Written {
        let state = self.state.read();
        let (mut keys, mut alive) = (HashSet::new(), HashSet::new());
        let mut written = Written { begun: self.begun, ..Written::default() };
        let pending = state.tables.get(&table.id).into_iter().flatten();
        for (key, pending) in pending.filter(|(key, _)| key.user.as_ref() == user) {
            keys.insert(key::storage_key(table.id, user, &key.key));
            let found = pending.write.look_up.found();
            if let Some(place) = found.and_then(|found| found.place.as_ref()) {
                written.places.entry(place.file.clone()).or_default().insert(place.row);
            }
            match &pending.write.new {
                Some(row) => {
                    alive.insert(key.bytes());
                    written.rows.push((pending.seq, row.clone()));
                }
                None => written.deleted.extend(found.map(|found| (pending.seq, found.row.clone()))),
            }
        }
        (written.keys, written.alive) = (Arc::new(keys), Arc::new(alive));
        written
    }
}

impl State {
    fn check_size(&self, writes: &[(Seq, RowWrite)], limits: TransactionLimits) -> Result<(), EngineError> {
        let rows = self.rows + writes.len();
        let bytes = self.bytes + writes.iter().map(|(_, write)| size_of(write)).sum::<usize>();
        if rows > limits.rows || bytes > limits.bytes {
            return Err(EngineError::TooLarge(format!(
                "a transaction writes at most {} rows of {} bytes in all, this one {rows} of {bytes}: split it",
                limits.rows, limits.bytes
            )));
        }
        Ok(())
    }

    fn put(&mut self, seq: Seq, write: RowWrite) {
        let key = RowKey { user: write.user.clone(), key: write.key.clone() };
        let bytes = size_of(&write);
        match self.tables.entry(write.table.id).or_default().entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(Pending { write, seq, bytes });
                self.rows += 1;
                self.bytes += bytes;
            }
            Entry::Occupied(mut entry) => {
                let pending = entry.get_mut();
                self.bytes = self.bytes + bytes - pending.bytes;
                (pending.write.new, pending.seq, pending.bytes) = (write.new, seq, bytes);
            }
        }
    }
}

impl Written {
    /// The living rows, with all columns of `projection`: places in the table's SQL schema.
    pub fn batch(&self, table: &Table, projection: &[usize]) -> Result<Option<RecordBatch>, EngineError> {
        self.batch_of(&self.rows, false, table, projection)
    }

    /// The deleted rows with their last values, likewise.
    pub fn deleted_batch(&self, table: &Table, projection: &[usize]) -> Result<Option<RecordBatch>, EngineError> {
        self.batch_of(&self.deleted, true, table, projection)
    }

    fn batch_of(
        &self,
        rows: &[(Seq, Row)],
        deleted: bool,
        table: &Table,
        projection: &[usize],
    ) -> Result<Option<RecordBatch>, EngineError> {
        if rows.is_empty() {
            return Ok(None);
        }
        let mut stored = StoredRows::default();
        for (seq, values) in rows {
            let mut bytes = row::encode_row(table, values)?;
            row::stamp(&mut bytes, *seq, self.begun);
            if deleted {
                row::mark_deleted(&mut bytes);
            }
            stored.push(&bytes);
        }
        RowDecoder::new(table, Some(projection), false).decode(stored).map(Some)
    }
}

/// Bytes that a write takes in memory, about.
fn size_of(write: &RowWrite) -> usize {
    let row = |row: &Row| row.iter().map(value_size).sum::<usize>();
    let old = match &write.look_up {
        LookUp::Read { found: Some(found), .. } => row(&found.row),
        _ => 0,
    };
    ROW_OVERHEAD + write.key.0.len() + write.new.as_ref().map_or(0, row) + old
}

fn value_size(value: &Value) -> usize {
    let heap = match value {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Embedding(numbers) => size_of_val(numbers.as_slice()),
        _ => 0,
    };
    size_of_val(value) + heap
}
