//! The live rows of files of any age, in the shape that the table's files have now: columns that a file lacks read what rows older than
//! them do, dropped ones are left out, those of another type are cast, and rows that a deletion vector hides are gone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow_schema::{ArrowError, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use roaring::RoaringTreemap;

use crate::EngineError;
use crate::cold::reader::RangeReader;
use crate::cold::scalar::scalar_of;
use crate::cold::vector::selection;
use crate::cold::{ColdFile, ColdTier, schema};
use crate::evolution::reading::{FileSource, source_anew};
use crate::evolution::types;
use crate::schema::{Column, Table};

/// Rows of a batch, at most.
pub const BATCH_ROWS: usize = 8192;
/// Decoded bytes that a batch of one run is meant to have at most; wide rows come in fewer at once.
const BATCH_BYTES: u64 = 4 << 20;

/// Rows of one file, in its order.
pub type Batches = BoxStream<'static, Result<RecordBatch, EngineError>>;

/// How files are read for a compaction of a table. Cheap to clone.
#[derive(Clone)]
pub struct Shape {
    tier: Arc<ColdTier>,
    table: Arc<Table>,
    schema: SchemaRef,
    origins: Arc<Vec<Origin>>,
    /// Rows that are left out too, by file; only ever set by a planted bug.
    without: Arc<BTreeMap<Arc<str>, RoaringTreemap>>,
}

/// Where one column of the present schema comes from.
enum Origin {
    /// A column of the table, and what it reads in files that are older than it.
    Own(Column, ScalarValue),
    /// One that every file has under this name.
    System(String),
}

impl Origin {
    fn own(column: &Column) -> Result<Self, EngineError> {
        let initial = scalar_of(column.initial.clone(), column.sql_type)?;
        Ok(Self::Own(column.clone(), types::cast(initial, column.stored_type)?))
    }

    fn source_in(&self, file: &Schema) -> Result<FileSource, ArrowError> {
        match self {
            Self::Own(column, _) => Ok(source_anew(column, file)),
            Self::System(name) => Ok(FileSource::Present { index: file.index_of(name)?, casts: Vec::new() }),
        }
    }

    fn read(&self, source: &FileSource, batch: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        match (source, self) {
            (FileSource::Present { index, casts }, _) => {
                let found = batch.column(*index).clone();
                casts.iter().map(|to| to.arrow()).try_fold(found, |found, to| match *found.data_type() == to {
                    true => Ok(found),
                    false => cast(&found, &to),
                })
            }
            (FileSource::Absent, Self::Own(_, initial)) => Ok(initial.to_array_of_size(batch.num_rows())?),
            (FileSource::Absent, Self::System(name)) => Err(ArrowError::SchemaError(format!("no column {name}"))),
        }
    }
}

impl Shape {
    /// The shape of the table's files.
    pub fn new(tier: Arc<ColdTier>, table: Arc<Table>) -> Result<Self, EngineError> {
        let origin = |column: schema::FileColumn| match table.column(&column.name) {
            Some(own) => Origin::own(own),
            None => Ok(Origin::System(column.physical_name)),
        };
        let origins = schema::file_columns(&table).into_iter().map(origin).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { schema: schema::file_schema(&table), tier, table, origins: origins.into(), without: Arc::default() })
    }

    /// Leaves these rows out too: what a planted bug does.
    pub fn without(self, rows: BTreeMap<Arc<str>, RoaringTreemap>) -> Self {
        Self { without: rows.into(), ..self }
    }

    /// The table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The schema of its files.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows of a file that its deletion vector does not hide.
    pub async fn read(&self, file: &ColdFile) -> Result<Batches, EngineError> {
        let path = self.tier.log(self.table.uuid).path_of(&file.path);
        let tier = self.tier.clone();
        let what = format!("read {path} for a compaction");
        let cold = move |error: ParquetError| tier.store().read_failed(what.clone(), error.into());
        let footer = self.tier.cache().footer(&path, file).await?;
        let batch_rows = batch_rows(&footer);
        let metadata = ArrowReaderMetadata::try_new(footer.clone(), ArrowReaderOptions::new()).map_err(&cold)?;
        let (sources, columns) = self.sources_in(metadata.schema()).map_err(|error| cold(error.into()))?;
        let reader = RangeReader::new(self.tier.store().objects().clone(), path.clone(), footer);
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata);
        let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
        let mut builder = builder.with_projection(mask).with_batch_size(batch_rows);
        let mut hidden = self.tier.hidden_rows(self.table.uuid, file).await?.map(Cow::Borrowed);
        if let Some(others) = self.without.get(&file.path) {
            *hidden.get_or_insert_default().to_mut() |= others;
        }
        if let Some(hidden) = hidden {
            builder = builder.with_row_selection(selection(&hidden, file.stats.rows));
        }
        let (rows, shape) = (builder.build().map_err(&cold)?, self.clone());
        let shaped = move |batch: Result<RecordBatch, ParquetError>| shape.shaped(&sources, &batch.map_err(&cold)?);
        let (store, size) = (self.tier.store().clone(), file.size);
        let blamed = move |error| {
            let (store, path) = (store.clone(), path.clone());
            async move { Err(store.blame(&path, Some(size), error).await) }
        };
        Ok(rows.map(shaped).or_else(blamed).boxed())
    }

    /// Where each column comes from in batches that have only these columns of the file.
    fn sources_in(&self, file: &Schema) -> Result<(Vec<FileSource>, Vec<usize>), ArrowError> {
        let mut sources = self.origins.iter().map(|origin| origin.source_in(file)).collect::<Result<Vec<_>, _>>()?;
        let place = |source: &FileSource| match source {
            FileSource::Present { index, .. } => Some(*index),
            FileSource::Absent => None,
        };
        let mut columns: Vec<_> = sources.iter().filter_map(place).collect();
        columns.sort_unstable();
        for source in &mut sources {
            if let FileSource::Present { index, .. } = source {
                *index = columns.partition_point(|column| *column < *index);
            }
        }
        Ok((sources, columns))
    }

    fn shaped(&self, sources: &[FileSource], batch: &RecordBatch) -> Result<RecordBatch, EngineError> {
        let columns = self.origins.iter().zip(sources).map(|(origin, source)| origin.read(source, batch));
        let shaped = columns
            .collect::<Result<Vec<_>, _>>()
            .and_then(|columns| RecordBatch::try_new(self.schema.clone(), columns));
        shaped.map_err(|error| failed("bring old rows into the table's present shape", error))
    }
}

/// Rows whose decoded size is about [`BATCH_BYTES`], by the widest row group.
fn batch_rows(footer: &ParquetMetaData) -> usize {
    let column_bytes = |column: &ColumnChunkMetaData| {
        column.uncompressed_size().max(column.unencoded_byte_array_data_bytes().unwrap_or(0)).unsigned_abs()
    };
    let row_bytes = |group: &RowGroupMetaData| {
        group.columns().iter().map(column_bytes).sum::<u64>() / group.num_rows().unsigned_abs().max(1)
    };
    let widest = footer.row_groups().iter().map(row_bytes).max().unwrap_or(0).max(1);
    usize::try_from(BATCH_BYTES / widest).unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS)
}

pub(super) fn failed(action: &str, error: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    EngineError::Cold { action: action.into(), source: Box::new(error) }
}
