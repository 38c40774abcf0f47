//! The rows of some files in key order, without those that deletion vectors hide: runs are read side by side and merged.
//!
//! Of each run one file is open, of each file one row group is in memory, and of its rows one bounded batch is decoded. Masks are
//! never applied here: a lost volume would lose the flushed version before its successor is flushed.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{cast, interleave_record_batch};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use arrow_schema::{ArrowError, SchemaRef};
use datafusion::common::ScalarValue;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use tokio::runtime::Handle;

use super::policy::Run;
use crate::EngineError;
use crate::cold::reader::RangeReader;
use crate::cold::scalar::default_scalar;
use crate::cold::vector::selection;
use crate::cold::{ColdFile, ColdTier, schema};
use crate::schema::Table;

/// Rows of a batch, at most.
const BATCH_ROWS: usize = 8192;
/// Decoded bytes that a batch of one run is meant to have at most; wide rows come in fewer at once.
const BATCH_BYTES: u64 = 4 << 20;

/// Reads files in the shape of the table's present schema: columns that they lack get their DEFAULT, columns that were dropped are
/// left out, narrower types are widened.
pub struct Shape {
    tier: Arc<ColdTier>,
    table: Arc<Table>,
    schema: SchemaRef,
    /// What each column reads where a file does not have it.
    absent: Vec<ScalarValue>,
}

impl Shape {
    /// The shape of the table's files.
    pub fn new(tier: Arc<ColdTier>, table: Arc<Table>) -> Result<Self, EngineError> {
        let schema = schema::file_schema(&table);
        let absent = schema.fields().iter().map(|field| {
            match table.columns.iter().find(|column| column.physical_name == *field.name()) {
                Some(column) => default_scalar(column.default.as_ref(), column.sql_type),
                None => ScalarValue::try_from(field.data_type()).map_err(|error| failed("type a NULL", error)),
            }
        });
        let absent = absent.collect::<Result<_, _>>()?;
        Ok(Self { tier, table, schema, absent })
    }

    /// The rows of a file that its deletion vector does not hide.
    async fn read(&self, file: &ColdFile) -> Result<BoxStream<'static, Result<RecordBatch, EngineError>>, EngineError> {
        let path = self.tier.log(self.table.uuid).path_of(&file.path);
        let tier = self.tier.clone();
        let what = format!("read {path} for a compaction");
        let cold = move |error: ParquetError| tier.cache().failed(what.clone(), error.into());
        let footer = self.tier.cache().footer(&path, file).await?;
        let rows = batch_rows(&footer);
        let metadata = ArrowReaderMetadata::try_new(footer.clone(), ArrowReaderOptions::new()).map_err(&cold)?;
        let reader = RangeReader::new(self.tier.store().objects().clone(), path, footer);
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata);
        let names = self.schema.fields().iter().map(|field| field.name().as_str());
        let mask = ProjectionMask::columns(builder.parquet_schema(), names);
        let mut builder = builder.with_projection(mask).with_batch_size(rows);
        if let Some(hidden) = self.tier.hidden_rows(self.table.uuid, file).await? {
            builder = builder.with_row_selection(selection(hidden, file.stats.rows));
        }
        Ok(builder.build().map_err(&cold)?.map_err(cold).boxed())
    }

    fn shaped(&self, batch: &RecordBatch) -> Result<RecordBatch, EngineError> {
        let column = |(field, absent): (&arrow_schema::FieldRef, &ScalarValue)| match batch.column_by_name(field.name())
        {
            Some(found) if found.data_type() == field.data_type() => Ok(found.clone()),
            Some(found) => cast(found, field.data_type()),
            None => Ok::<ArrayRef, ArrowError>(absent.to_array_of_size(batch.num_rows())?),
        };
        let columns: Result<_, _> = self.schema.fields().iter().zip(&self.absent).map(column).collect();
        let shaped = columns.and_then(|columns| RecordBatch::try_new(self.schema.clone(), columns));
        shaped.map_err(|error| failed("bring old rows into the table's present shape", error))
    }
}

/// Rows whose decoded size is about [`BATCH_BYTES`], by the widest row group.
fn batch_rows(footer: &ParquetMetaData) -> usize {
    let row_bytes = |group: &parquet::file::metadata::RowGroupMetaData| {
        let column = |column: &parquet::file::metadata::ColumnChunkMetaData| {
            column.uncompressed_size().max(column.unencoded_byte_array_data_bytes().unwrap_or(0)).unsigned_abs()
        };
        group.columns().iter().map(column).sum::<u64>() / group.num_rows().unsigned_abs().max(1)
    };
    let widest = footer.row_groups().iter().map(row_bytes).max().unwrap_or(0).max(1);
    usize::try_from(BATCH_BYTES / widest).unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS)
}

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
    stream: Option<BoxStream<'static, Result<RecordBatch, EngineError>>>,
    rows: Option<(RecordBatch, Rows)>,
    at: usize,
}

impl Merge {
    /// Opens nothing yet. Made on the runtime whose I/O it uses.
    pub fn new(shape: Shape, runs: &[Run]) -> Result<Self, EngineError> {
        let columns = schema::looked_up_columns(&shape.table);
        let columns = columns.iter().map(|name| shape.schema.index_of(name)).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|error| failed("find key columns", error))?;
        let fields = columns.iter().map(|at| SortField::new(shape.schema.field(*at).data_type().clone())).collect();
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
                return Err(out_of_order(&self.shape.table));
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
                let batch = shape.shaped(&batch?)?;
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

fn failed(action: &str, error: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    EngineError::Cold { action: action.into(), source: Box::new(error) }
}
