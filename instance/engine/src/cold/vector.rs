//! Deletion vectors: which rows of a file are hidden for every reader, KalamDB or not.
//!
//! The kernel writes and reads their bytes; the descriptor in the Delta log is ours to fill.

use bytes::Bytes;
use delta_kernel::actions::deletion_vector_writer::{DeletionVector, StreamingDeletionVectorWriter};
use deltalake_core::kernel::{DeletionVectorDescriptor, StorageType};
use parquet::arrow::arrow_reader::RowSelection;
use roaring::RoaringTreemap;

use super::name::JobName;
use crate::EngineError;

/// The hidden rows of one file, as the kernel's writer takes them.
struct Rows<'a>(&'a RoaringTreemap);

impl<'a> DeletionVector for Rows<'a> {
    type IndexIterator = roaring::treemap::Iter<'a>;

    fn into_iter(self) -> Self::IndexIterator {
        self.0.iter()
    }

    fn cardinality(&self) -> u64 {
        self.0.len()
    }
}

/// All deletion vectors of one commit, in the one file that holds them.
#[derive(Debug)]
pub struct VectorFile {
    /// Its name below the table's folder.
    pub name: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// One for each vector, in the order in which they were given.
    pub descriptors: Vec<DeletionVectorDescriptor>,
}

/// Encodes the vectors of a job into one file, whose name tells the job and its epoch.
pub fn encode(job: &JobName, vectors: &[RoaringTreemap]) -> Result<VectorFile, EngineError> {
    let failed = |error: delta_kernel::Error| EngineError::Cold {
        action: "encode deletion vectors".into(),
        source: error.into(),
    };
    let mut bytes = Vec::new();
    let mut writer = StreamingDeletionVectorWriter::new(&mut bytes);
    let mut descriptors = Vec::with_capacity(vectors.len());
    for vector in vectors {
        let written = writer.write_deletion_vector(Rows(vector)).map_err(failed)?;
        descriptors.push(DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: job.vector_id(),
            offset: Some(written.offset),
            size_in_bytes: written.size_in_bytes,
            cardinality: written.cardinality,
        });
    }
    writer.finalize().map_err(failed)?;
    Ok(VectorFile { name: job.vector(), bytes: bytes.into(), descriptors })
}

/// The selection of the rows of `0..rows` that are not hidden.
pub fn selection(hidden: &RoaringTreemap, rows: u64) -> RowSelection {
    let place = |row: u64| usize::try_from(row).expect("a file has fewer rows than memory has bytes");
    let mut visible = Vec::new();
    let mut from = 0;
    for row in hidden.iter().take_while(|row| *row < rows) {
        if row > from {
            visible.push(place(from)..place(row));
        }
        from = row + 1;
    }
    if from < rows {
        visible.push(place(from)..place(rows));
    }
    RowSelection::from_consecutive_ranges(visible.into_iter(), place(rows))
}
