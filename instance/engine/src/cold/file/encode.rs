//! Batches of rows into Parquet files: where files and row groups end, and what is told of each file.
//!
//! The thread that pulls the batches hands the columns of one to a [`Crew`] and pulls the next meanwhile. In memory are a row group that
//! is not full, two batches, and what waits for the uploader, however many rows there are.

use std::ops::Range;
use std::sync::Arc;
use std::thread;

use arrow::array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use tokio::sync::mpsc;

use super::crew::{Column, Crew, Ending, Work};
use super::upload::{Chunks, Part};
use super::{FilePlan, WrittenFile, writer_properties};
use crate::EngineError;
use crate::cold::key_filter::{self, GroupKeys};
use crate::cold::stats::FileStats;

/// Encoded bytes that a row group may hold in memory before it is closed early.
const ROW_GROUP_BYTES: usize = 48 << 20;
/// Threads that encode the columns of a job, at most; the one that pulls its batches is among them.
const ENCODERS: usize = 4;

/// Why no files came about.
pub enum EncodeError {
    /// The batches ended with an error.
    Engine(EngineError),
    /// Parquet's writer, or the sink below it, has failed.
    Parquet(ParquetError),
}

impl From<ParquetError> for EncodeError {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error)
    }
}

impl From<arrow_schema::ArrowError> for EncodeError {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::Parquet(error.into())
    }
}

impl From<std::io::Error> for EncodeError {
    fn from(error: std::io::Error) -> Self {
        Self::Parquet(error.into())
    }
}

/// Writes the batches into as many files as the plan's target size asks for.
pub fn encode(
    plan: &FilePlan,
    batches: impl Iterator<Item = Result<RecordBatch, EngineError>>,
    sender: &mpsc::Sender<Part>,
) -> Result<Vec<WrittenFile>, EncodeError> {
    let crew = Crew::default();
    let helpers = thread::available_parallelism().map_or(1, usize::from).min(ENCODERS) - 1;
    thread::scope(|scope| {
        let _ending = Ending(&crew);
        for _ in 0..helpers {
            let helper = thread::Builder::new().name("encoder".into()).spawn_scoped(scope, || crew.help());
            // The thread that pulls does what no helper does.
            if let Err(error) = helper {
                tracing::warn!(%error, "failed to start a thread that encodes columns");
            }
        }
        Encoder::new(plan, &crew, sender).run(batches)
    })
}

struct Encoder<'a> {
    plan: &'a FilePlan,
    properties: WriterProperties,
    crew: &'a Crew,
    sender: &'a mpsc::Sender<Part>,
    open: Option<OpenFile<'a>>,
    files: Vec<WrittenFile>,
}

impl<'a> Encoder<'a> {
    fn new(plan: &'a FilePlan, crew: &'a Crew, sender: &'a mpsc::Sender<Part>) -> Self {
        let properties = writer_properties(&plan.schema, &plan.looked_up, plan.layout);
        Self { plan, properties, crew, sender, open: None, files: Vec::new() }
    }

    fn run(
        mut self,
        mut batches: impl Iterator<Item = Result<RecordBatch, EngineError>>,
    ) -> Result<Vec<WrittenFile>, EncodeError> {
        let mut next = batches.next();
        while let Some(batch) = next {
            let batch = batch.map_err(EncodeError::Engine)?;
            if batch.num_rows() == 0 {
                next = batches.next();
                continue;
            }
            let mut file = match self.open.take() {
                Some(file) => file,
                None => OpenFile::begin(&self, self.files.len())?,
            };
            file.begin_write(&batch)?;
            next = batches.next();
            file.end_write()?;
            if file.size() >= self.plan.target_bytes {
                self.files.push(file.end()?);
            } else {
                self.open = Some(file);
            }
        }
        if let Some(file) = self.open.take() {
            self.files.push(file.end()?);
        }
        Ok(self.files)
    }
}

struct OpenFile<'a> {
    name: String,
    schema: SchemaRef,
    crew: &'a Crew,
    row_group_rows: usize,
    writer: SerializedFileWriter<Chunks>,
    groups: ArrowRowGroupWriterFactory,
    /// The columns of the row group, while they are not with the crew; none before its first row.
    columns: Vec<ArrowColumnWriter>,
    /// Rows of the row group.
    rows: usize,
    /// NULLs of each column so far: Parquet counts them only where it keeps bounds too.
    nulls: Vec<u64>,
    /// The keys of the row group, where they are of more than one column.
    keys: Option<GroupKeys>,
    /// Where the filters over the keys of the row groups lie.
    key_filters: Vec<Range<u64>>,
}

impl<'a> OpenFile<'a> {
    fn begin(encoder: &Encoder<'a>, number: usize) -> Result<Self, EncodeError> {
        let plan = encoder.plan;
        let name = format!("{}-{number:05}.parquet", plan.name_prefix);
        let chunks = Chunks::begin(encoder.sender.clone(), name.clone())?;
        let writer = ArrowWriter::try_new(chunks, Arc::clone(&plan.schema), Some(encoder.properties.clone()))?;
        let (writer, groups) = writer.into_serialized_writer()?;
        Ok(Self {
            name,
            schema: Arc::clone(&plan.schema),
            crew: encoder.crew,
            row_group_rows: plan.layout.row_group_rows,
            writer,
            groups,
            columns: Vec::new(),
            rows: 0,
            nulls: vec![0; plan.schema.fields().len()],
            keys: GroupKeys::of(&plan.schema, &plan.looked_up),
            key_filters: Vec::new(),
        })
    }

    /// Begins to encode a batch, which goes on until [`OpenFile::end_write`]. What still fits into the row group goes there at once.
    fn begin_write(&mut self, batch: &RecordBatch) -> Result<(), EncodeError> {
        for (nulls, column) in self.nulls.iter_mut().zip(batch.columns()) {
            *nulls += column.null_count() as u64;
        }
        let mut rest = batch.clone();
        while self.rows + rest.num_rows() > self.row_group_rows {
            let fits = self.row_group_rows - self.rows;
            self.hand_out(&rest.slice(0, fits))?;
            self.end_write()?;
            rest = rest.slice(fits, rest.num_rows() - fits);
        }
        self.hand_out(&rest)
    }

    fn hand_out(&mut self, batch: &RecordBatch) -> Result<(), EncodeError> {
        if self.columns.is_empty() {
            self.columns = self.groups.create_column_writers(self.writer.flushed_row_groups().len())?;
        }
        self.rows += batch.num_rows();
        let values = self.schema.fields().iter().zip(batch.columns());
        let works = values.map(|(field, array)| Work::Write(field.clone(), array.clone()));
        self.crew.hand_out(std::mem::take(&mut self.columns).into_iter().zip(works));
        if let Some(keys) = &mut self.keys {
            keys.add(batch)?;
        }
        Ok(())
    }

    /// Waits until all that was begun is encoded, and closes the row group where it is full.
    fn end_write(&mut self) -> Result<(), EncodeError> {
        self.columns = self.crew.take_back()?.into_iter().filter_map(Column::open).collect();
        let memory: usize = self.columns.iter().map(ArrowColumnWriter::memory_size).sum();
        if self.rows >= self.row_group_rows || memory >= ROW_GROUP_BYTES {
            self.end_row_group()?;
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<(), EncodeError> {
        if self.rows == 0 {
            return Ok(());
        }
        self.rows = 0;
        self.crew.hand_out(std::mem::take(&mut self.columns).into_iter().map(|column| (column, Work::Close)));
        let mut group = self.writer.next_row_group()?;
        for chunk in self.crew.take_back()?.into_iter().filter_map(Column::closed) {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close()?;
        self.write_key_filter()
    }

    /// Behind the columns of the row group.
    fn write_key_filter(&mut self) -> Result<(), EncodeError> {
        let Some(keys) = &mut self.keys else { return Ok(()) };
        let filter = keys.take_filter()?;
        let start = self.writer.bytes_written() as u64;
        self.writer.write_all(&filter)?;
        self.key_filters.push(start..start + filter.len() as u64);
        Ok(())
    }

    /// Bytes of the file, as far as they are known.
    fn size(&self) -> u64 {
        let in_progress: usize = self.columns.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum();
        (self.writer.bytes_written() + in_progress) as u64
    }

    fn end(mut self) -> Result<WrittenFile, EncodeError> {
        self.end_row_group()?;
        if self.keys.is_some() {
            self.writer.append_key_value_metadata(key_filter::to_metadata(&self.key_filters));
        }
        let footer = self.writer.finish()?;
        let size = self.writer.bytes_written() as u64;
        self.writer.inner_mut().end()?;
        let schema: &Schema = &self.schema;
        let stats = FileStats::from_footer(&footer, schema)?.with_nulls(schema, &self.nulls);
        Ok(WrittenFile { name: self.name, size, stats })
    }
}
