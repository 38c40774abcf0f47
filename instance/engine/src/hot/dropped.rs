//! Tables that were dropped and whose folder may still be in the object store: it stays for outside readers for a while.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::EngineError;
use crate::codec;
use crate::schema::{Table, TableId};
use crate::storage::TableStorage;

/// 2 brought the storage.
const DROPPED_FORMAT: u8 = 2;
const OWN_STORE_FORMAT: u8 = 1;

/// A record of the family `meta`. Written in the batch of the commit that drops the table, and kept until its folder is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedTable {
    /// Its number, which its last jobs know it by.
    pub id: TableId,
    /// Names its folder.
    pub uuid: Uuid,
    /// When it was dropped, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Where it lived; none for the database's own object store.
    pub storage: Option<TableStorage>,
}

impl DroppedTable {
    /// What the keys of all of them begin with.
    pub const KEY_PREFIX: &[u8] = b"dropped_table/";

    /// A table that is dropped at that moment.
    pub fn new(table: &Table, at_ms: i64) -> Self {
        Self { id: table.id, uuid: table.uuid, at_ms, storage: table.storage.clone() }
    }

    /// The record's key.
    pub fn key(&self) -> Vec<u8> {
        [Self::KEY_PREFIX, self.uuid.as_bytes()].concat()
    }

    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(DROPPED_FORMAT, self)
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, EngineError> {
        codec::decode_grown(OWN_STORE_FORMAT, DROPPED_FORMAT, bytes, &None::<TableStorage>, "record of a dropped table")
    }
}
