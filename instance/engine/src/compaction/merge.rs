//! The rows of some files in key order: runs are read side by side and merged.
//!
//! Of each run one file is open, of each file one row group is in memory, and of its rows one bounded batch is decoded. Masks are
//! never applied here: a lost volume would lose the flushed version before its successor is flushed.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use futures::StreamExt;
use tokio::runtime::Handle;

use super::policy::Run;
use super::shape::{BATCH_ROWS, Batches, Shape, failed};
use crate::EngineError;
use crate::cold::{ColdFile, schema};
use crate::schema::Table;

/// The merged rows, batch by batch. It waits for reads where it is pulled, so that it runs on a thread that may block.
pub struct Merge {
    shape: Shape,
    runtime: Handle,
    keys: Keys,
    cursors: Vec<Cursor>,
    /// The key of the last row of the batch before.
    last: Option<OwnedRow>,
}

/// Keys of rows in comparable form: their order is that of the encoded keys of the hot tier.
struct Keys {
    columns: Vec<usize>,
    converter: RowConverter,
}

/// Where a run is read.
struct Cursor {
    files: VecDeque<Arc<ColdFile>>,
    stream: Option<Batches>,
    rows: Option<(RecordBatch, Rows)>,
    at: usize,
}

impl Merge {
    /// Opens nothing yet. Made on the runtime whose I/O it uses.
    pub fn new(shape: Shape, runs: &[Run]) -> Result<Self, EngineError> {
        let columns = schema::looked_up_columns(shape.table());
        let columns = columns.iter().map(|name| shape.schema().index_of(name)).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|error| failed("find key columns", error))?;
        let fields = columns.iter().map(|at| SortField::new(shape.schema().field(*at).data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(|error| failed("compare keys", error))?;
        let cursor = |run: &Run| Cursor { files: run.files.iter().cloned().collect(), stream: None, rows: None, at: 0 };
        let cursors = runs.iter().map(cursor).collect();
        Ok(Self { shape, runtime: Handle::current(), keys: Keys { columns, converter }, cursors, last: None })
    }

    /// Some rows in key order: up to the end of the first batch of a run that is used up.
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        for cursor in &mut self.cursors {
            self.runtime.block_on(cursor.fill(&self.shape, &self.keys))?;
        }
        self.cursors.retain(|cursor| cursor.rows.is_some());
        let cursors = &mut self.cursors;
        let mut picks: Vec<(usize, usize)> = Vec::new();
        while let Some(least) =
            (0..cursors.len()).min_by(|a, b| cursors[*a].key(cursors[*a].at).cmp(&cursors[*b].key(cursors[*b].at)))
        {
            let at = cursors[least].at;
            let key = cursors[least].key(at);
            let before =
                picks.last().map(|(run, row)| cursors[*run].key(*row)).or(self.last.as_ref().map(OwnedRow::row));
            if before.is_some_and(|before| before >= key) {
                return Err(out_of_order(self.shape.table()));
            }
            picks.push((least, at));
            cursors[least].at += 1;
            if cursors[least].is_used_up() || picks.len() == BATCH_ROWS {
                break;
            }
        }
        let Some((run, row)) = picks.last() else { return Ok(None) };
        self.last = Some(cursors[*run].key(*row).owned());
        let batches: Vec<_> = cursors.iter().map(Cursor::batch).collect();
        let merged = interleave_record_batch(&batches, &picks).map_err(|error| failed("merge rows", error))?;
        Ok(Some(merged))
    }
}

impl Iterator for Merge {
    type Item = Result<RecordBatch, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

impl Cursor {
    /// Brings the next rows, where those before are used up; none at the end of the run.
    async fn fill(&mut self, shape: &Shape, keys: &Keys) -> Result<(), EngineError> {
        while self.rows.is_none() || self.is_used_up() {
            self.rows = None;
            if let Some(stream) = &mut self.stream
                && let Some(batch) = stream.next().await
            {
                let batch = batch?;
                let columns: Vec<_> = keys.columns.iter().map(|at| batch.column(*at).clone()).collect();
                let converted =
                    keys.converter.convert_columns(&columns).map_err(|error| failed("compare keys", error))?;
                (self.rows, self.at) = (Some((batch, converted)), 0);
                continue;
            }
            self.stream = None;
            let Some(file) = self.files.pop_front() else { return Ok(()) };
            self.stream = Some(shape.read(&file).await?);
        }
        Ok(())
    }

    fn is_used_up(&self) -> bool {
        self.rows.as_ref().is_some_and(|(batch, _)| self.at >= batch.num_rows())
    }

    fn key(&self, row: usize) -> arrow::row::Row<'_> {
        self.rows.as_ref().expect("cursors without rows were dropped").1.row(row)
    }

    fn batch(&self) -> &RecordBatch {
        &self.rows.as_ref().expect("cursors without rows were dropped").0
    }
}

fn out_of_order(table: &Table) -> EngineError {
    EngineError::Corrupt {
        what: format!("cold files of table {}", table.name),
        reason: "a key stands in them twice or out of order; nothing was changed".into(),
    }
}
