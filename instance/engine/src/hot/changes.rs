//! The change log: (table, [user], `_seq`) -> operation, key, old image. Written in the batch of the rows that it tells of.

use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::hot::key;
use crate::hot::row::{put_varint, take_varint};
use crate::schema::{TableId, TableKind};
use crate::seq::Seq;

const CHANGE_FORMAT: u8 = 1;

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// No row lived at the key.
    Insert,
    /// A row was replaced.
    Update,
    /// A row was deleted.
    Delete,
}

/// A change as it is stored. The new image is the hot row of that `_seq`, as long as that is the newest version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The sequence of the version that it made.
    pub seq: Seq,
    /// What happened.
    pub operation: Operation,
    /// The key within the table: the user's part, if any, then the primary key.
    pub key: Vec<u8>,
    /// The encoded row that was replaced or deleted.
    pub old: Option<Vec<u8>>,
}

/// The key of a change, as [`put_storage_key`] appends it.
pub fn storage_key(table: TableId, user: &[u8], seq: Seq) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + user.len());
    put_storage_key(&mut bytes, table, user, seq);
    bytes
}

/// Appends the key of a change; `user` is the user's part of the key within the table, empty in shared tables.
pub fn put_storage_key(bytes: &mut Vec<u8>, table: TableId, user: &[u8], seq: Seq) {
    bytes.extend_from_slice(&table.0.to_be_bytes());
    bytes.extend_from_slice(user);
    bytes.extend_from_slice(&seq.0.to_be_bytes());
}

/// Appends the value of a change.
pub fn put_storage_value(bytes: &mut Vec<u8>, operation: Operation, row_key: &[u8], old: Option<&[u8]>) {
    let old = old.unwrap_or_default();
    bytes.push(CHANGE_FORMAT);
    bytes.push(match operation {
        Operation::Insert => 0,
        Operation::Update => 1,
        Operation::Delete => 2,
    });
    put_varint(bytes, row_key.len() as u64);
    bytes.extend_from_slice(row_key);
    bytes.extend_from_slice(old);
}

/// The user's part and the sequence of a change's key, which is given without the table id.
pub fn split_key(kind: TableKind, stored: &[u8]) -> Result<(&[u8], Seq), EngineError> {
    let (user, seq) = stored.split_at(key::user_length(kind, stored)?);
    let seq = seq.try_into().map(i64::from_be_bytes).map_err(|_| corrupt("its sequence is no number"))?;
    Ok((user, Seq(seq)))
}

/// Reads a change.
pub fn decode(seq: Seq, value: &[u8]) -> Result<Change, EngineError> {
    let [CHANGE_FORMAT, operation, rest @ ..] = value else {
        return Err(corrupt("its format is unknown"));
    };
    let operation = match operation {
        0 => Operation::Insert,
        1 => Operation::Update,
        2 => Operation::Delete,
        other => return Err(corrupt(&format!("operation {other} is unknown"))),
    };
    let mut rest = rest;
    let length = usize::try_from(take_varint(&mut rest)?).unwrap_or(usize::MAX);
    let (key, old) = rest.split_at_checked(length).ok_or_else(|| corrupt("its key ends early"))?;
    let old = (operation != Operation::Insert).then(|| old.to_vec());
    Ok(Change { seq, operation, key: key.to_vec(), old })
}

fn corrupt(reason: &str) -> EngineError {
    EngineError::Corrupt { what: "change record".into(), reason: reason.into() }
}
