//! Deletion vectors: which rows of a file are hidden for every reader, KalamDB or not.
//!
//! The kernel writes and reads their bytes; the descriptor in the Delta log is ours to fill.

use bytes::Bytes;
use delta_kernel::actions::deletion_vector_writer::{DeletionVector, StreamingDeletionVectorWriter};
use deltalake_core::kernel::{DeletionVectorDescriptor, StorageType};
use roaring::RoaringTreemap;
use uuid::Uuid;

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

/// Encodes the vectors into one file.
pub fn encode(vectors: &[RoaringTreemap]) -> Result<VectorFile, EngineError> {
    let failed = |error: delta_kernel::Error| EngineError::Cold {
        action: "encode deletion vectors".into(),
        source: error.into(),
    };
    let id = Uuid::new_v4();
    let mut bytes = Vec::new();
    let mut writer = StreamingDeletionVectorWriter::new(&mut bytes);
    let mut descriptors = Vec::with_capacity(vectors.len());
    for vector in vectors {
        let written = writer.write_deletion_vector(Rows(vector)).map_err(failed)?;
        descriptors.push(DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: z85::encode(id.as_bytes()),
            offset: Some(written.offset),
            size_in_bytes: written.size_in_bytes,
            cardinality: written.cardinality,
        });
    }
    writer.finalize().map_err(failed)?;
    Ok(VectorFile { name: format!("deletion_vector_{id}.bin"), bytes: bytes.into(), descriptors })
}
