//! What is stored of a table beside its rows: how far it was flushed, its unsettled intents, its masks and its dirty keys.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::EngineError;
use crate::codec;
use crate::flush::Intent;
use crate::hot::key::{self, RowKey};
use crate::schema::{TableId, TableKind};
use crate::seq::Seq;

/// Where a table's hot tier ends and its cold one begins. Read from the same snapshot as the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableTier {
    /// Rows up to here lie in the cold tier, if they live; hot rows count only above it.
    pub flushed_through: Seq,
    /// The version of the Delta table that goes with it; -1 where there is none yet, -2 where it is still to be recovered.
    pub cold_version: i64,
}

/// `cold_version` of a table whose Delta log could not be read when its volume was recovered.
const UNRECOVERED: i64 = -2;

impl TableTier {
    /// A table of which nothing is known but that it has a Delta log: it is neither read nor written before that was recovered.
    pub fn unrecovered() -> Self {
        Self { flushed_through: Seq::ZERO, cold_version: UNRECOVERED }
    }

    /// Whether its Delta log is still to be recovered.
    pub fn is_unrecovered(&self) -> bool {
        self.cold_version == UNRECOVERED
    }
}

impl Default for TableTier {
    /// A table that was never flushed.
    fn default() -> Self {
        Self { flushed_through: Seq::ZERO, cold_version: -1 }
    }
}

/// The stored record of a table's tiers, in the family `tiers` under the table's id. Written by the committer alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierRecord {
    /// Moved by the end of a flush or a fence.
    pub tier: TableTier,
    /// Delta commits that were begun. All name the version after `cold_version`; whatever takes it settles them all.
    pub intents: Vec<Intent>,
    /// The change log has every change above this sequence; those below may be trimmed.
    pub change_floor: Seq,
}

const TIER_FORMAT: u8 = 1;
const MASK_FORMAT: u8 = 1;

impl TierRecord {
    /// The record's key.
    pub fn key(table: TableId) -> [u8; 4] {
        table.0.to_be_bytes()
    }

    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(TIER_FORMAT, self)
    }

    /// Reads a record.
    pub fn decode(table: TableId, bytes: &[u8]) -> Result<Self, EngineError> {
        codec::decode(TIER_FORMAT, bytes, &format!("tier record of table {}", table.0))
    }
}

/// Row number `row` of `file` is hidden by the hot version `seq` of `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// The file's path below the table's folder.
    pub file: Arc<str>,
    /// The row's number in the file, from 0.
    pub row: u64,
    /// The key of that row.
    pub key: RowKey,
    /// The version that superseded it.
    pub seq: Seq,
}

impl Mask {
    /// The mask's key in the family `masks`: table, file, row.
    pub fn storage_key(table: TableId, file: &str, row: u64) -> Vec<u8> {
        let mut bytes = Self::file_prefix(table, file);
        bytes.extend_from_slice(&row.to_be_bytes());
        bytes
    }

    /// The first bytes of the keys of all masks on a file.
    pub fn file_prefix(table: TableId, file: &str) -> Vec<u8> {
        let mut bytes = key::table_prefix(table);
        key::put_name(&mut bytes, file);
        bytes
    }

    /// The key within the table of a stored mask, from its value.
    pub fn stored_row_key(value: &[u8]) -> Result<&[u8], EngineError> {
        Self::stored_seq(value)?;
        Ok(&value[9..])
    }

    /// The mask's value: the sequence, then the key within the table.
    pub fn storage_value(seq: Seq, row_key: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(9 + row_key.len());
        bytes.push(MASK_FORMAT);
        bytes.extend_from_slice(&seq.0.to_le_bytes());
        bytes.extend_from_slice(row_key);
        bytes
    }

    /// The sequence of a stored mask.
    pub fn stored_seq(value: &[u8]) -> Result<Seq, EngineError> {
        match value.split_first_chunk::<9>() {
            Some(([MASK_FORMAT, seq @ ..], _)) => Ok(Seq(i64::from_le_bytes(*seq))),
            _ => Err(corrupt("mask", "its format is unknown")),
        }
    }

    /// What the keys of all masks on a file begin with, and the row of this one; `stored` is its key without the table id.
    pub fn split_row(stored: &[u8]) -> Result<(&[u8], u64), EngineError> {
        let (file, row) = stored.split_last_chunk().ok_or_else(|| corrupt("mask", "its row is no number"))?;
        Ok((file, u64::from_be_bytes(*row)))
    }

    /// The file and the row of a stored mask; `stored` is its key without the table id.
    pub fn place(mut stored: &[u8]) -> Result<(String, u64), EngineError> {
        let file = key::take_name(&mut stored)?;
        let row = stored.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("mask", "its row is no number"))?;
        Ok((file, row))
    }

    /// Reads a stored mask; `stored` is its key without the table id.
    pub fn decode(kind: TableKind, stored: &[u8], value: &[u8]) -> Result<Self, EngineError> {
        let (file, row) = Self::place(stored)?;
        let seq = Self::stored_seq(value)?;
        Ok(Self { file: file.into(), row, key: RowKey::from_bytes(kind, &value[9..])?, seq })
    }
}

/// The key, in the family `dirty`, that says that this key's version at or below W was superseded while a flush runs.
pub fn dirty_key(table: TableId, job: Uuid, row_key: &[u8]) -> Vec<u8> {
    let mut bytes = dirty_prefix(table, job);
    bytes.extend_from_slice(row_key);
    bytes
}

/// The first bytes of all dirty keys of a job.
pub fn dirty_prefix(table: TableId, job: Uuid) -> Vec<u8> {
    let mut bytes = key::table_prefix(table);
    bytes.extend_from_slice(job.as_bytes());
    bytes
}

/// Bytes of a dirty key before the key within the table.
pub const DIRTY_PREFIX_LENGTH: usize = 20;

fn corrupt(what: &str, reason: &str) -> EngineError {
    EngineError::Corrupt { what: what.into(), reason: reason.into() }
}
