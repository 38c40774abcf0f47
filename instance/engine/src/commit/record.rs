//! What can be committed. Each record says all that its commit does, and can be serialised: a replica could apply it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::EngineError;
use crate::access::AccessChange;
use crate::catalog::CatalogChange;
use crate::commit::recovery::Recovered;
use crate::engine::{LookUp, Place, RowWrite};
use crate::flush::{Epoch, Intent};
use crate::hot::row;
use crate::hot::tier::TableTier;
use crate::hot::volume::HighWater;
use crate::hot::{RowKey, key};
use crate::schema::{SchemaVersion, Table, TableId, TableKind};
use crate::seq::Seq;

/// One commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CommitRecord {
    /// Rows of any tables, all or none.
    Rows(Vec<RowRecord>),
    /// A change of the catalog.
    Catalog {
        /// The change.
        change: CatalogChange,
        /// What is kept of who made it, all or nothing together with it.
        recorded: Vec<AccessChange>,
    },
    /// Step 1 of a flush: fixes W.
    BeginFlush {
        /// The table.
        table: TableId,
        /// Of the process that flushes.
        epoch: Epoch,
        /// The job.
        job: Uuid,
    },
    /// A fence is about to be put.
    StoreFence {
        /// The table.
        table: TableId,
        /// Of the process that fences.
        epoch: Epoch,
        /// The job.
        job: Uuid,
    },
    /// Step 4 of a flush: its Delta commit has landed.
    EndFlush {
        /// The table.
        table: TableId,
        /// The flush's intent.
        intent: Intent,
        /// Where dirty keys lie in the new files; none for those that do not.
        places: Vec<(RowKey, Option<Place>)>,
    },
    /// A compaction has read a version and written its files: it is about to be put.
    StoreCompaction {
        /// The table.
        table: TableId,
        /// Of the process that compacts.
        epoch: Epoch,
        /// The job.
        job: Uuid,
        /// The cold version that it read.
        base: i64,
    },
    /// A compaction's Delta commit has landed.
    EndCompaction {
        /// The table.
        table: TableId,
        /// The compaction's intent.
        intent: Intent,
        /// Paths of the files that it has replaced.
        replaced: Vec<Arc<str>>,
        /// Where keys of masked rows lie in the new files; none for those that do not.
        places: Vec<(RowKey, Option<Place>)>,
    },
    /// A fence has landed.
    EndFence {
        /// The table.
        table: TableId,
        /// The fence's intent.
        intent: Intent,
    },
    /// Step 5 of a flush, or a part of it.
    DeleteFlushed {
        /// The table.
        table: TableId,
        /// Which rows.
        what: FlushedRows,
    },
    /// The oldest part of a table's change log goes.
    TrimChanges {
        /// The table.
        table: TableId,
        /// The change log has every change above it.
        floor: Seq,
        /// What goes.
        ranges: Vec<KeyRange>,
    },
    /// An empty volume takes over what the object store holds of its database.
    Recover(Box<Recovered>),
    /// The Delta log of a table, which could not be read when its volume was recovered, was read now.
    RecoverTable {
        /// The table.
        table: TableId,
        /// Where its tiers meet.
        tier: TableTier,
        /// Nothing that was flushed is above it.
        high_water: HighWater,
        /// The table's next version, where its rows are not known to hold to the newest one.
        next: Option<Box<Table>>,
    },
    /// The oldest time buckets of a stream table go.
    DropExpired {
        /// The table.
        table: TableId,
        /// What goes: buckets in which nothing may be seen any more.
        range: KeyRange,
    },
    /// Who came in, and who did what.
    Access(Vec<AccessChange>),
}

/// Rows at or below `flushed_through` that are to be deleted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FlushedRows {
    /// All rows of the table, if none of them is newer.
    Whole,
    /// Those in the range where some lay when it was scanned.
    Part(KeyRange),
}

/// A range of stored keys: from inclusive, to exclusive.
pub type KeyRange = (Vec<u8>, Vec<u8>);

/// One row of a commit, encoded but for its `_seq` and `_updated`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowRecord {
    /// The table.
    pub table: TableId,
    /// The schema with which the statement worked.
    pub version: SchemaVersion,
    /// The whole stored key, in stream tables without its time bucket, which comes with the `_seq`; there it may end with the user,
    /// and goes on with the `_seq` then.
    pub key: Vec<u8>,
    /// Where the user's part ends in the key; the table id's end in shared tables.
    pub user_end: usize,
    /// What the statement read.
    pub read: Read,
    /// The new row or tombstone, without its stamp.
    pub value: Vec<u8>,
    /// Whether the row is deleted.
    pub deletes: bool,
}

/// What a statement read of a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Read {
    /// The statement made the key from the `_seq` clock: nothing can live there.
    Generated,
    /// A snapshot was looked in.
    Looked {
        /// The version that was found.
        seq: Option<Seq>,
        /// The row, where it lay in the cold tier.
        cold: Option<ColdRow>,
        /// The cold version of the snapshot.
        cold_version: i64,
        /// Where the hot tier had no version of the key, not even a tombstone: the snapshot has every commit up to this one.
        unwritten_through: Option<Seq>,
    },
}

/// A row of the cold tier that a commit supersedes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColdRow {
    /// Where it lies.
    pub place: Place,
    /// The row as it would be stored hot, for the change log.
    pub image: Vec<u8>,
}

impl RowRecord {
    /// Encodes a write. `row_bytes` bounds the encoded row.
    pub fn new(write: RowWrite, row_bytes: usize) -> Result<Self, EngineError> {
        let table = &write.table;
        let invalid = |what: &str| EngineError::Invalid(format!("{what} of table {}", table.name));
        if table.kind.is_per_user() != write.user.is_some() {
            return Err(invalid("a row names its user in per-user tables, and only there: not so a row"));
        }
        let found = matches!(&write.look_up, LookUp::Read { found: Some(_), .. });
        let (value, deletes) = match &write.new {
            Some(new) => (row::encode_row(table, new)?, false),
            None if found => (row::encode_tombstone(table), true),
            None => return Err(invalid("only a row that was found can be deleted: not so a row")),
        };
        if value.len() > row_bytes {
            let what = format!("{} bytes are more than limits.row_bytes = {row_bytes} allows a row", value.len());
            return Err(invalid(&what));
        }
        if write.key.0.is_empty() && (table.kind != TableKind::Stream || write.new.is_none() || found) {
            return Err(invalid("only new rows of stream tables go without a key: not so a row"));
        }
        let mut key =
            Vec::with_capacity(write.user.as_ref().map_or(4, |user| user.as_str().len() + 8) + write.key.0.len());
        key::put_part_prefix(&mut key, table.id, write.user.as_ref());
        let user_end = key.len();
        key.extend_from_slice(&write.key.0);
        let read = Read::of(&write)?;
        Ok(Self { table: table.id, version: table.version, key, user_end, read, value, deletes })
    }

    /// Whether its key is the `_seq` that it is about to get.
    pub fn has_hidden_key(&self) -> bool {
        self.key.len() == self.user_end
    }

    /// The key within the table.
    pub fn row_key(&self) -> &[u8] {
        &self.key[4..]
    }

    /// The user's part of the key within the table.
    pub fn user(&self) -> &[u8] {
        &self.key[4..self.user_end]
    }

    /// Bytes that it takes while it waits.
    pub fn size(&self) -> usize {
        let image = match &self.read {
            Read::Looked { cold: Some(cold), .. } => cold.image.len(),
            _ => 0,
        };
        self.key.len() + self.value.len() + image + 64
    }
}

impl Read {
    fn of(write: &RowWrite) -> Result<Self, EngineError> {
        let LookUp::Read { found, cold_version, unwritten_through } = &write.look_up else {
            return Ok(Self::Generated);
        };
        let in_cold = found.as_ref().and_then(|found| found.place.clone().map(|place| (found, place)));
        let cold = in_cold.map(|(found, place)| {
            let mut image = row::encode_row(&write.table, &found.row)?;
            row::stamp(&mut image, found.seq, found.updated);
            Ok::<_, EngineError>(ColdRow { place, image })
        });
        let seq = found.as_ref().map(|found| found.seq);
        Ok(Self::Looked {
            seq,
            cold: cold.transpose()?,
            cold_version: *cold_version,
            unwritten_through: *unwritten_through,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::flush::IntentKind;

    #[test]
    fn commits_come_back_from_their_bytes() {
        let intent =
            Intent { kind: IntentKind::Flush, epoch: Epoch(3), job: Uuid::from_u128(9), version: 4, w: Seq(77) };
        let place = Place { file: "part-1.parquet".into(), row: 12 };
        let looked = Read::Looked {
            seq: Some(Seq(5)),
            cold: Some(ColdRow { place: place.clone(), image: vec![1, 2] }),
            cold_version: 3,
            unwritten_through: Some(Seq(4)),
        };
        let row = RowRecord {
            table: TableId(1),
            version: SchemaVersion(1),
            key: vec![0, 0, 0, 1, 9],
            user_end: 4,
            read: looked,
            value: vec![1; 30],
            deletes: false,
        };
        let key = RowKey { user: Some("u".into()), key: crate::hot::Key([1].into()) };
        let places = vec![(key, Some(place))];
        for record in [CommitRecord::Rows(vec![row]), CommitRecord::EndFlush { table: TableId(1), intent, places }] {
            assert_eq!(codec::decode::<CommitRecord>(1, &codec::encode(1, &record), "commit").unwrap(), record);
        }
    }
}
