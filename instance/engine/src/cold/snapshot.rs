//! One version of a table's cold tier in memory: its files, their statistics and their deletion vectors.
//!
//! It is loaded from the Delta log once and then moves forward with our own commits; no query reads a log.

use std::sync::Arc;

use arrow_schema::Schema;
use datafusion::common::ScalarValue;
use deltalake_core::kernel::{Action, Add, DeletionVectorDescriptor, Metadata, Remove};
use roaring::RoaringTreemap;
use tokio::sync::OnceCell;

use super::name;
use super::schema::SCHEMA_VERSION_KEY;
use super::stats::FileStats;
use crate::EngineError;
use crate::schema::{SEQ, SchemaVersion};

/// A deletion vector, read when it is first needed.
#[derive(Debug)]
pub struct Vector {
    /// Where it lies.
    pub descriptor: DeletionVectorDescriptor,
    /// The hidden rows.
    pub(super) rows: OnceCell<RoaringTreemap>,
}

impl Vector {
    /// One whose rows are read when they are first needed.
    pub fn new(descriptor: DeletionVectorDescriptor) -> Self {
        Self { descriptor, rows: OnceCell::new() }
    }

    /// About what it takes in memory, with its rows once they were read.
    pub fn bytes(&self) -> usize {
        let rows = self.rows.get().map_or(0, RoaringTreemap::serialized_size);
        size_of::<Self>() + self.descriptor.path_or_inline_dv.len() + rows
    }
}

/// One file of a version.
#[derive(Debug, Clone)]
pub struct ColdFile {
    /// Its path below the table's folder.
    pub path: Arc<str>,
    /// Its size in bytes.
    pub size: u64,
    /// Milliseconds since the Unix epoch.
    pub modified: i64,
    /// What is known of its rows.
    pub stats: Arc<FileStats>,
    /// Rows that no reader sees any more.
    pub vector: Option<Arc<Vector>>,
}

impl ColdFile {
    /// The file as the log tells it. Our files always have statistics; one without them was not written by us.
    pub fn from_add(add: &Add, schema: &Schema) -> Result<Self, EngineError> {
        let stats = add.stats.as_deref().and_then(|stats| FileStats::from_json(stats, schema));
        let stats = stats.ok_or_else(|| EngineError::Corrupt {
            what: format!("Delta log entry of {}", add.path),
            reason: "it has no count of rows".into(),
        })?;
        Ok(Self {
            path: add.path.as_str().into(),
            size: add.size.unsigned_abs(),
            modified: add.modification_time,
            stats: stats.into(),
            vector: add.deletion_vector.clone().map(|descriptor| Arc::new(Vector::new(descriptor))),
        })
    }

    /// About what it takes in memory, but for its statistics and its deletion vector, which files may share.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.path.len()
    }

    /// The highest `_seq` of its rows: those of a newer run are all above it.
    fn last_seq(&self) -> i64 {
        match self.stats.columns.get(SEQ).and_then(|stats| stats.max.as_ref()) {
            Some(ScalarValue::Int64(Some(seq))) => *seq,
            _ => 0,
        }
    }

    /// Rows that its deletion vector hides.
    pub fn deleted_rows(&self) -> u64 {
        self.vector.as_ref().map_or(0, |vector| vector.descriptor.cardinality.unsigned_abs())
    }

    /// Its name, and that of the file of its deletion vector.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let vector = self.vector.as_ref().and_then(|vector| name::vector_file(&vector.descriptor));
        std::iter::once(self.path.to_string()).chain(vector)
    }

    /// The action that adds it.
    pub fn to_add(&self) -> Add {
        Add {
            path: self.path.to_string(),
            size: i64::try_from(self.size).expect("a file is smaller than 8 EiB"),
            modification_time: self.modified,
            data_change: true,
            stats: Some(self.stats.to_json(self.vector.is_none())),
            deletion_vector: self.vector.as_ref().map(|vector| vector.descriptor.clone()),
            ..Add::default()
        }
    }

    /// The action that removes it, in this state of its deletion vector.
    pub fn to_remove(&self, now_ms: i64) -> Remove {
        Remove {
            path: self.path.to_string(),
            data_change: true,
            deletion_timestamp: Some(now_ms),
            extended_file_metadata: Some(true),
            partition_values: Some(Default::default()),
            size: i64::try_from(self.size).ok(),
            deletion_vector: self.vector.as_ref().map(|vector| vector.descriptor.clone()),
            ..Remove::default()
        }
    }

    /// A file's identity in the log: its path and its deletion vector.
    fn is(&self, path: &str, vector: Option<&DeletionVectorDescriptor>) -> bool {
        *self.path == *path && self.vector.as_ref().map(|own| &own.descriptor) == vector
    }
}

/// One version of a table's cold tier. Immutable.
#[derive(Debug, Clone, Default)]
pub struct ColdSnapshot {
    /// The Delta version; -1 before the first.
    pub version: i64,
    /// The schema that the log's metadata describes.
    pub schema_version: Option<SchemaVersion>,
    /// The oldest rows first, whatever compactions made of their files.
    pub files: Vec<Arc<ColdFile>>,
}

impl ColdSnapshot {
    /// A table that was never flushed.
    pub fn empty() -> Self {
        Self { version: -1, ..Self::default() }
    }

    /// A version with these files, in whatever order they come.
    pub fn new(version: i64, schema_version: Option<SchemaVersion>, mut files: Vec<Arc<ColdFile>>) -> Self {
        files.sort_by_key(|file| file.last_seq());
        Self { version, schema_version, files }
    }

    /// The next version: this one and the actions of its commit. `schema` names the columns whose statistics are kept. Fails where the commit
    /// removes what this version has not, or adds what it has: then one of the two is not what it should be.
    pub fn after(&self, actions: &[Action], schema: &Schema) -> Result<Self, EngineError> {
        let mut next = Self { version: self.version + 1, ..self.clone() };
        let misfit = |does: &str, path: &str| EngineError::Corrupt {
            what: format!("Delta commit of version {}", self.version + 1),
            reason: format!("it {does} {path}, against what version {} has", self.version),
        };
        for action in actions {
            match action {
                Action::Remove(remove) => {
                    let files = next.files.len();
                    next.files.retain(|file| !file.is(&remove.path, remove.deletion_vector.as_ref()));
                    if next.files.len() == files {
                        return Err(misfit("removes", &remove.path));
                    }
                }
                Action::Metadata(metadata) => next.schema_version = schema_version(metadata),
                _ => {}
            }
        }
        // Delta's actions have no order: what a commit removes is gone before it adds anything.
        for action in actions {
            if let Action::Add(add) = action {
                if next.file(&add.path).is_some() {
                    return Err(misfit("adds", &add.path));
                }
                next.files.push(self.added(add, schema)?);
            }
        }
        Ok(Self::new(next.version, next.schema_version, next.files))
    }

    /// A file that only got another deletion vector keeps the statistics that it has in memory.
    fn added(&self, add: &Add, schema: &Schema) -> Result<Arc<ColdFile>, EngineError> {
        let Some(known) = self.file(&add.path) else { return ColdFile::from_add(add, schema).map(Arc::new) };
        let vector = add.deletion_vector.clone().map(|descriptor| Arc::new(Vector::new(descriptor)));
        Ok(Arc::new(ColdFile { vector, ..ColdFile::clone(known) }))
    }

    /// The file of that path.
    pub fn file(&self, path: &str) -> Option<&Arc<ColdFile>> {
        self.files.iter().find(|file| *file.path == *path)
    }

    /// These files as this version has them: what a planted bug asks for.
    pub(crate) fn same_files(&self, files: &[Arc<ColdFile>]) -> Vec<Arc<ColdFile>> {
        files.iter().filter_map(|file| self.file(&file.path)).cloned().collect()
    }

    /// The files that `self` has and `older` has not.
    pub fn new_files(&self, older: &ColdSnapshot) -> Vec<Arc<ColdFile>> {
        self.files.iter().filter(|file| older.file(&file.path).is_none()).cloned().collect()
    }
}

/// Which schema the metadata describes; none where we did not write it.
pub fn schema_version(metadata: &Metadata) -> Option<SchemaVersion> {
    metadata.configuration().get(SCHEMA_VERSION_KEY)?.parse().ok().map(SchemaVersion)
}

#[cfg(test)]
mod tests {
    use deltalake_core::kernel::StorageType;

    use super::*;

    fn file(path: &str, vector: Option<&str>) -> ColdFile {
        let descriptor = |path: &str| DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: path.into(),
            offset: Some(1),
            size_in_bytes: 1,
            cardinality: 1,
        };
        ColdFile {
            path: path.into(),
            size: 1,
            modified: 0,
            stats: Arc::new(FileStats { rows: 5, ..FileStats::default() }),
            vector: vector.map(|path| Arc::new(Vector::new(descriptor(path)))),
        }
    }

    #[test]
    fn a_commit_that_does_not_fit_its_version_is_refused() {
        let before = ColdSnapshot {
            files: vec![Arc::new(file("a", None)), Arc::new(file("b", Some("x")))],
            ..ColdSnapshot::default()
        };
        let after = |actions: &[Action]| before.after(actions, &Schema::empty());
        let (add, remove) =
            (|file: ColdFile| Action::Add(file.to_add()), |file: ColdFile| Action::Remove(file.to_remove(0)));
        let next = after(&[add(file("b", Some("y"))), remove(file("b", Some("x"))), remove(file("a", None))]).unwrap();
        assert_eq!(next.files.len(), 1, "in whatever order");
        assert!(next.files[0].is("b", Some(&file("b", Some("y")).vector.unwrap().descriptor)));
        let misfits =
            [remove(file("c", None)), remove(file("a", Some("x"))), remove(file("b", None)), add(file("a", Some("z")))];
        for misfit in misfits {
            let error = after(std::slice::from_ref(&misfit)).unwrap_err();
            assert!(matches!(error, EngineError::Corrupt { .. }), "{misfit:?}: {error}");
        }
    }
}
