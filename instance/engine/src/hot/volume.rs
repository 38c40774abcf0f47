//! Whose volume this is: format, database, worker; its lives; and the high-water mark of its clock. Kept in the family `meta`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::EngineError;
use crate::codec;
use crate::plant::{Plant, planted};
use crate::seq::{Seq, WorkerId};

/// The format of the whole volume: families, keys and records. A build refuses volumes of any other.
pub const VOLUME_FORMAT: u32 = 1;
/// Lives that are remembered. A client of an older one starts over, which is always safe.
const LIVES_KEPT: usize = 256;

/// Key of the [`VolumeRecord`]'s format alone: eight bytes of magic, then the format, so that every build can read it.
pub(crate) const FORMAT_KEY: &[u8] = b"format";
/// Key of the [`VolumeRecord`].
pub(crate) const VOLUME_KEY: &[u8] = b"volume";
/// Key of the [`Lives`].
pub(crate) const LIVES_KEY: &[u8] = b"lives";
/// Key of the [`HighWater`].
pub(crate) const HIGH_WATER_KEY: &[u8] = b"high_water";
/// Key of the next table id.
pub(crate) const NEXT_TABLE_KEY: &[u8] = b"next_table_id";
/// Key of the flag that the volume has met its identity object in the object store.
pub(crate) const PREFIX_PROVEN_KEY: &[u8] = b"prefix_proven";
/// Key of the volume's own id.
pub(crate) const VOLUME_ID_KEY: &[u8] = b"volume_id";
const MAGIC: &[u8; 8] = b"kalamdb\0";
const RECORD_FORMAT: u8 = 1;

/// Drawn at the volume's first start. Its database changes once where the volume is recovered from the object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// The database that the volume belongs to.
    pub database_id: Uuid,
    /// The worker bits of its `_seq`.
    pub worker: WorkerId,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// One run of a process over this volume. A client that resumes names it beside its `_seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Life(pub Uuid);

/// The present life, and where each earlier one ended: written at each start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lives {
    /// The present one.
    pub life: Life,
    /// Earlier ones with their last sequence, oldest first.
    pub ended: Vec<(Life, Seq)>,
}

impl Lives {
    /// The lives of a volume that starts again, or for the first time.
    pub fn begin(before: Option<Self>, last_seq: Seq, life: Life) -> Self {
        let mut ended = before.map_or_else(Vec::new, |mut before| {
            before.ended.push((before.life, last_seq));
            before.ended
        });
        ended.drain(..ended.len().saturating_sub(LIVES_KEPT));
        Self { life, ended }
    }

    /// Whether a client that saw `seq` in that life saw a part of this volume's history.
    pub fn know(&self, life: Life, seq: Seq) -> bool {
        planted(Plant::ResumeBySeqAlone)
            || self.life == life
            || self.ended.iter().any(|(ended, last)| *ended == life && seq <= *last)
    }
}

/// The last `_seq` and `_updated` that were given out. In the batch of every commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HighWater {
    /// Never below any stored `_seq`.
    pub seq: Seq,
    /// Never below any stored `_updated`, in microseconds since the Unix epoch.
    pub updated: i64,
}

impl HighWater {
    /// The higher of each.
    pub fn max(self, other: Self) -> Self {
        Self { seq: self.seq.max(other.seq), updated: self.updated.max(other.updated) }
    }
}

pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    codec::encode(RECORD_FORMAT, record)
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, EngineError> {
    codec::decode(RECORD_FORMAT, bytes, what)
}

/// The bytes under [`FORMAT_KEY`].
pub(crate) fn format_bytes() -> Vec<u8> {
    [&MAGIC[..], &VOLUME_FORMAT.to_be_bytes()].concat()
}

/// Checks the bytes under [`FORMAT_KEY`]: why this build can't use the volume.
pub(crate) fn check_format(bytes: Option<&[u8]>) -> Result<(), String> {
    let stored = bytes.and_then(|bytes| bytes.strip_prefix(MAGIC)).and_then(|format| <[u8; 4]>::try_from(format).ok());
    match stored.map(u32::from_be_bytes) {
        None => Err("it holds a RocksDB that is no volume of KalamDB; choose another data.dir".into()),
        Some(VOLUME_FORMAT) => Ok(()),
        Some(format) => Err(format!(
            "its format is version {format}, this build reads version {VOLUME_FORMAT}; start the build that wrote it, or a later one"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_a_history_that_never_was_starts_over() {
        let [first, second, third] = [1, 2, 3].map(|n| Life(Uuid::from_u128(n)));
        let lives = Lives::begin(None, Seq(0), first);
        let lives = Lives::begin(Some(lives), Seq(10), second);
        assert!(lives.know(first, Seq(10)) && lives.know(second, Seq(999)));
        assert!(!lives.know(first, Seq(11)), "beyond that life's end");
        assert!(!lives.know(third, Seq(1)), "an unknown life");
    }
}
