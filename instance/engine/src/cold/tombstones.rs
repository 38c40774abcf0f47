//! What a Delta log remembers of removed files: its tombstones, as a checkpoint of the version would hold them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::Int64Type;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::snapshot::Snapshot as KernelSnapshot;

use super::log::DeltaLog;
use super::name;
use crate::EngineError;

/// A file, or the file of a deletion vector, that left the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Its name below the table's folder.
    pub name: String,
    /// When the commit that removed it was prepared, in milliseconds since the Unix epoch. It may have landed much later.
    pub at_ms: i64,
}

impl DeltaLog {
    /// What left the table up to the version, as far back as the log remembers.
    pub async fn removed(&self, version: u64) -> Result<Vec<Removed>, EngineError> {
        let action = || format!("read the tombstones of {}", self.folder());
        let (engine, url) = (self.kernel(), self.root().clone());
        let read = tokio::task::spawn_blocking(move || {
            let snapshot = KernelSnapshot::builder_for(url).at_version(version).build(engine.as_ref())?;
            let mut removed = Vec::new();
            for batch in
                Arc::clone(&snapshot).create_checkpoint_writer(engine.as_ref())?.checkpoint_data(engine.as_ref())?
            {
                let data = ArrowEngineData::try_from_engine_data(batch?.apply_selection_vector()?)?;
                collect(data.record_batch(), &mut removed);
            }
            Ok::<_, delta_kernel::Error>(removed)
        });
        let read = read.await.map_err(|error| EngineError::Cold { action: action(), source: error.into() })?;
        read.map_err(|error| self.store().kernel_failed(action(), error))
    }
}

/// Adds the tombstones of one batch of actions.
fn collect(actions: &RecordBatch, removed: &mut Vec<Removed>) {
    let Some(removes) = actions.column_by_name("remove").and_then(|column| column.as_struct_opt()) else { return };
    let (Some(paths), Some(times)) = (texts(removes, "path"), removes.column_by_name("deletionTimestamp")) else {
        return;
    };
    let Some(times) = times.as_primitive_opt::<Int64Type>() else { return };
    let vectors = removes.column_by_name("deletionVector").and_then(|column| column.as_struct_opt());
    for row in (0..removes.len()).filter(|row| removes.is_valid(*row) && paths.is_valid(*row)) {
        // One without a time was not written by us: it counts as removed just now, for ever.
        let at_ms = if times.is_valid(row) { times.value(row) } else { i64::MAX };
        let vector = vectors.and_then(|vectors| vector_at(vectors, row));
        let names = std::iter::once(paths.value(row).to_owned()).chain(vector);
        removed.extend(names.map(|name| Removed { name, at_ms }));
    }
}

fn vector_at(vectors: &StructArray, row: usize) -> Option<String> {
    let (kinds, paths) = (texts(vectors, "storageType")?, texts(vectors, "pathOrInlineDv")?);
    let in_table = vectors.is_valid(row) && kinds.is_valid(row) && kinds.value(row) == "u" && paths.is_valid(row);
    in_table.then(|| name::relative_vector(paths.value(row))).flatten()
}

fn texts<'a>(of: &'a StructArray, name: &str) -> Option<&'a arrow::array::StringArray> {
    of.column_by_name(name)?.as_string_opt::<i32>()
}
