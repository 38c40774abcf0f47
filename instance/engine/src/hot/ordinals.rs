//! Which row of a table's scan a key is, without a list of all keys.
//!
//! A scan gives rows in key order, so that a row's number says where it lies in files that were written from it. Of every so many rows the key is
//! kept; for a key between two of them the rows of the snapshot are counted again. There are never more than [`SAMPLES`] keys of
//! [`SAMPLE_BYTES`]: of a larger table fewer rows are kept.

use rocksdb::DBRawIterator;

use crate::EngineError;
use crate::hot::HotSnapshot;
use crate::hot::key;
use crate::hot::row::{self, RowHeader};
use crate::hot::store::{Family, failed};
use crate::schema::Table;
use crate::seq::Seq;

/// Keys that are kept at most.
const SAMPLES: usize = 64 << 10;
/// Rows from one key to the next, at first: so many are counted again at most.
const SPACING: u64 = 16;
/// Bytes that they take at most, about.
const SAMPLE_BYTES: usize = 8 << 20;

/// Whether a scan of what lies above `flushed` gives the version.
pub(crate) fn is_scanned(header: &RowHeader, flushed: Seq) -> bool {
    header.seq > flushed && !header.deleted
}

/// The numbers of a scan's rows by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordinals {
    /// The key of every so many rows is kept, of the first one too.
    every: u64,
    rows: u64,
    samples: Vec<Box<[u8]>>,
    bytes: usize,
    /// Keys that are kept at most.
    limit: usize,
}

impl Default for Ordinals {
    fn default() -> Self {
        Self { every: SPACING, ..Self::keeping(SAMPLES) }
    }
}

impl Ordinals {
    /// With so many keys at most.
    pub(crate) fn keeping(limit: usize) -> Self {
        Self { every: 1, rows: 0, samples: Vec::new(), bytes: 0, limit }
    }

    /// The scan has given a row of this key within the table.
    pub fn add(&mut self, key: &[u8]) {
        if self.rows.is_multiple_of(self.every) && (self.samples.len() >= self.limit || self.bytes >= SAMPLE_BYTES) {
            self.thin_out();
        }
        if self.rows.is_multiple_of(self.every) {
            self.bytes += key.len();
            self.samples.push(key.into());
        }
        self.rows += 1;
    }

    fn thin_out(&mut self) {
        let mut place = 0;
        self.samples.retain(|_| {
            place += 1;
            place % 2 == 1
        });
        self.bytes = self.samples.iter().map(|key| key.len()).sum();
        self.every *= 2;
    }

    /// Rows that the scan has given.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The numbers of these keys' rows, from 0; none where the scan gave no row of the key. `snapshot` is the scan's, `keys` are
    /// ascending keys within the table.
    pub fn find(
        &self,
        snapshot: &HotSnapshot,
        table: &Table,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<u64>>, EngineError> {
        let mut walk = Walk::new(snapshot, table)?;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(sample) = self.samples.partition_point(|sample| **sample <= **key).checked_sub(1) else {
                found.push(None);
                continue;
            };
            let ordinal = sample as u64 * self.every;
            if walk.ordinal.is_none_or(|at| at < ordinal) {
                walk.go_to(&self.samples[sample], ordinal)?;
            }
            found.push(walk.advance_to(key)?);
        }
        Ok(found)
    }
}

/// The rows of the scan, once more.
struct Walk<'a> {
    prefix: Vec<u8>,
    flushed: Seq,
    iterator: DBRawIterator<'a>,
    /// The number of the row that it stands at; none before the first step.
    ordinal: Option<u64>,
}

impl<'a> Walk<'a> {
    fn new(snapshot: &'a HotSnapshot, table: &Table) -> Result<Self, EngineError> {
        let prefix = key::table_prefix(table.id);
        let iterator = snapshot.iterator(Family::of_rows(table.kind), key::prefix_end(&prefix));
        Ok(Self { flushed: snapshot.tier(table.id)?.flushed_through, prefix, iterator, ordinal: None })
    }

    /// Goes to a row whose number is known.
    fn go_to(&mut self, key: &[u8], ordinal: u64) -> Result<(), EngineError> {
        self.iterator.seek([&self.prefix, key].concat());
        self.iterator.status().map_err(failed("read hot rows"))?;
        self.ordinal = Some(ordinal);
        Ok(())
    }

    /// The number of the key's row, which does not stand before the present one.
    fn advance_to(&mut self, key: &[u8]) -> Result<Option<u64>, EngineError> {
        let mut ordinal = self.ordinal.unwrap_or_default();
        let mut found = None;
        while let Some((stored, bytes)) = self.iterator.item() {
            let at = &stored[self.prefix.len()..];
            let is_scanned = is_scanned(&row::header(bytes)?, self.flushed);
            if at >= key {
                found = (at == key && is_scanned).then_some(ordinal);
                break;
            }
            ordinal += u64::from(is_scanned);
            self.iterator.next();
        }
        self.iterator.status().map_err(failed("read hot rows"))?;
        self.ordinal = Some(ordinal);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_keys_are_kept_of_however_many_rows() {
        let mut ordinals = Ordinals::default();
        for row in 0..1_000_000u64 {
            ordinals.add(&row.to_be_bytes());
        }
        assert!(ordinals.samples.len() <= SAMPLES && ordinals.samples.len() > SAMPLES / 4);
        assert_eq!(ordinals.rows(), 1_000_000);
        for (sample, key) in ordinals.samples.iter().enumerate() {
            assert_eq!(**key, (sample as u64 * ordinals.every).to_be_bytes());
        }
    }
}
