//! What statements find and write: rows, and what was read of a key before it is written.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::hot::{HotRow, Key};
use crate::schema::{Table, UserId};
use crate::seq::Seq;
use crate::value::Row;

/// A live row, as a look-up found it.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundRow {
    /// The version's commit sequence.
    pub seq: Seq,
    /// The version's `_updated`, in microseconds since the Unix epoch.
    pub updated: i64,
    /// One value for each of the table's columns.
    pub row: Row,
    /// Where it lies in the cold tier; none for a hot row.
    pub place: Option<Place>,
}

/// A row of a cold file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The file's path below the table's folder.
    pub file: Arc<str>,
    /// The row's number in the file, from 0.
    pub row: u64,
}

/// What a statement read of one key before it writes it.
#[derive(Debug, Clone, PartialEq)]
pub enum LookUp {
    /// The key was looked up in a snapshot.
    Read {
        /// What lives there.
        found: Option<FoundRow>,
        /// The cold version that was looked in.
        cold_version: i64,
        /// Where the hot tier had no version of the key, not even a tombstone: every commit up to this one was seen.
        unwritten_through: Option<Seq>,
    },
    /// The statement generated the key from the `_seq` clock itself: nothing can live there.
    Generated,
}

/// One row of a commit. Within a commit each key stands once.
#[derive(Debug, Clone)]
pub struct RowWrite {
    /// The table, as the statement saw it.
    pub table: Arc<Table>,
    /// Whose row it is, in per-user tables.
    pub user: Option<UserId>,
    /// The encoded primary key, without table and user: [`Engine::key`]. Empty for a new row of a stream table without primary key.
    pub key: Key,
    /// What was read.
    pub look_up: LookUp,
    /// The new row; none deletes.
    pub new: Option<Row>,
}

/// What was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The last sequence of the commit; its rows have consecutive ones in the order of the writes.
    pub last_seq: Seq,
    /// `_updated` of its rows, in microseconds since the Unix epoch.
    pub updated: i64,
}

impl LookUp {
    /// The row that lives there.
    pub fn found(&self) -> Option<&FoundRow> {
        match self {
            Self::Read { found, .. } => found.as_ref(),
            Self::Generated => None,
        }
    }

    /// The version that lives there.
    pub fn seq(&self) -> Option<Seq> {
        self.found().map(|found| found.seq)
    }
}

impl Committed {
    /// The sequences of a commit of so many rows, in the order of its writes.
    pub fn seqs(&self, rows: usize) -> Vec<Seq> {
        let mut seqs: Vec<_> =
            std::iter::successors(Some(self.last_seq), |seq| Some(seq.before())).take(rows).collect();
        seqs.reverse();
        seqs
    }
}

impl FoundRow {
    /// A hot row; none for a tombstone.
    pub(super) fn of_hot(hot: HotRow) -> Option<Self> {
        Some(Self { seq: hot.seq, updated: hot.updated, row: hot.row?, place: None })
    }
}
