//! Where the rows that a flush has written lie in its files, told by their numbers: nothing of the files is read.
//!
//! Only the process that wrote the files knows it. After a crash their keys are looked up in the files themselves.

use std::sync::Arc;

use crate::EngineError;
use crate::cold::file::WrittenFile;
use crate::engine::Place;
use crate::hot::ordinals::Ordinals;
use crate::hot::{HotSnapshot, RowKey};
use crate::schema::Table;

/// The rows of one job.
pub struct JobPlaces {
    table: Arc<Table>,
    /// The one that the rows were read from.
    snapshot: HotSnapshot,
    ordinals: Ordinals,
    /// The files in their order, each with the number of its first row.
    files: Vec<(u64, Arc<str>)>,
}

impl JobPlaces {
    /// The places of the rows that were written into these files; none where the files do not have as many rows as the scan gave.
    pub fn new(table: Arc<Table>, snapshot: HotSnapshot, ordinals: Ordinals, written: &[WrittenFile]) -> Option<Self> {
        let (mut first, mut files) = (0, Vec::with_capacity(written.len()));
        for file in written {
            files.push((first, file.name.as_str().into()));
            first += file.stats.rows;
        }
        (first == ordinals.rows()).then_some(Self { table, snapshot, ordinals, files })
    }

    /// Where the rows of these keys lie; answers in their order. Reads from RocksDB.
    pub fn of(&self, keys: &[RowKey]) -> Result<Vec<Option<Place>>, EngineError> {
        let mut ascending: Vec<_> = keys.iter().map(RowKey::bytes).zip(0..).collect();
        ascending.sort_unstable();
        let (ascending, order): (Vec<_>, Vec<usize>) = ascending.into_iter().unzip();
        let mut places = vec![None; keys.len()];
        for (at, ordinal) in order.into_iter().zip(self.ordinals.find(&self.snapshot, &self.table, &ascending)?) {
            places[at] = ordinal.and_then(|ordinal| self.place(ordinal));
        }
        Ok(places)
    }

    fn place(&self, ordinal: u64) -> Option<Place> {
        let file = self.files.partition_point(|(first, _)| *first <= ordinal).checked_sub(1)?;
        let (first, file) = &self.files[file];
        Some(Place { file: file.clone(), row: ordinal - first })
    }
}
