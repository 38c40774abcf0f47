//! Parquet files: how they are written, and the way from record batches to the object store in bounded memory.

use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::{DataType, Schema, SchemaRef};
use bytes::{Bytes, BytesMut};
use object_store::buffered::BufWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::log::DeltaLog;
use super::stats::FileStats;
use super::store::ColdStore;
use crate::EngineError;
use crate::schema::UPDATED;

/// Rows of a row group, at most.
pub const ROW_GROUP_ROWS: usize = 100_000;
/// Rows at which a data page is closed: small enough that the page index skips much, large enough to compress. The encoder looks
/// after each [`ENCODE_ROWS`], so that a page has up to as many more.
pub const PAGE_ROWS: usize = 7_000;
/// Rows that the encoder takes between two looks at the page's size.
const ENCODE_ROWS: usize = 1_000;
/// Bloom filter on `_updated`: false positives, and distinct values it is sized for before it is folded to what came.
const UPDATED_FPP: f64 = 0.01;
const UPDATED_NDV: u64 = 100_000;
/// Bloom filters on user and key.
const KEY_FPP: f64 = 0.001;
/// Encoded bytes that a row group may hold in memory before it is closed early.
const ROW_GROUP_BYTES: usize = 48 << 20;
/// Bytes that go to the uploader at once; two such chunks wait at most.
const CHUNK_BYTES: usize = 4 << 20;
const CHUNKS_WAITING: usize = 2;
/// Bytes of one part of a multipart upload; S3 wants at least 5 MiB.
const UPLOAD_PART_BYTES: usize = 8 << 20;
/// Parts of one file that are on their way at once.
const UPLOADS: usize = 2;

/// A file that was written, and is durable.
#[derive(Debug, Clone)]
pub struct WrittenFile {
    /// Its name below the table's folder.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// What is in it.
    pub stats: FileStats,
}

/// How rows lie within a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Rows of a row group, at most.
    pub row_group_rows: usize,
    /// Rows at which a data page is closed.
    pub page_rows: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Self { row_group_rows: ROW_GROUP_ROWS, page_rows: PAGE_ROWS }
    }
}

/// What to write and how.
#[derive(Debug, Clone)]
pub struct FilePlan {
    /// The columns, with physical names and field ids.
    pub schema: SchemaRef,
    /// Physical names of the columns that look-ups ask for.
    pub looked_up: Vec<String>,
    /// Each file's name is this, its number and `.parquet`.
    pub name_prefix: String,
    /// Size at which a file is closed and the next one begun.
    pub target_bytes: u64,
    /// How rows lie within a file.
    pub layout: Layout,
}

/// The writer's settings for a schema. Bloom filters answer equality only; time ranges are answered by the statistics.
pub fn writer_properties(schema: &Schema, looked_up: &[String], layout: Layout) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("KalamDB ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(Compression::SNAPPY)
        // Page statistics are the page index; they bring those of the whole chunk along.
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(layout.row_group_rows))
        .set_data_page_row_count_limit(layout.page_rows)
        .set_write_batch_size(ENCODE_ROWS.min(layout.page_rows));
    // Statistics leave NaN out, and comparisons hold it for the greatest value: they would hide rows.
    for field in schema.fields().iter().filter(|field| field.data_type().is_floating()) {
        properties =
            properties.set_column_statistics_enabled(ColumnPath::from(field.name().as_str()), EnabledStatistics::None);
    }
    // Hardly a number of an embedding stands twice, and its bounds prune nothing.
    for field in schema.fields().iter().filter(|field| matches!(field.data_type(), DataType::FixedSizeList(..))) {
        let numbers = ColumnPath::new(vec![field.name().clone(), "list".into(), "element".into()]);
        properties = properties
            .set_column_statistics_enabled(numbers.clone(), EnabledStatistics::None)
            .set_column_dictionary_enabled(numbers, false);
    }
    if schema.column_with_name(UPDATED).is_some() {
        properties = with_bloom_filter(properties, UPDATED, UPDATED_FPP, UPDATED_NDV);
    }
    for name in looked_up {
        properties = with_bloom_filter(properties, name, KEY_FPP, layout.row_group_rows as u64);
    }
    properties.build()
}

fn with_bloom_filter(
    properties: parquet::file::properties::WriterPropertiesBuilder,
    column: &str,
    fpp: f64,
    ndv: u64,
) -> parquet::file::properties::WriterPropertiesBuilder {
    let column = ColumnPath::from(column);
    properties
        .set_column_bloom_filter_enabled(column.clone(), true)
        .set_column_bloom_filter_fpp(column.clone(), fpp)
        .set_column_bloom_filter_max_ndv(column, ndv)
}

/// Writes the batches into as many files as the target size asks for; no file where there are no rows. The batches are pulled and
/// encoded on a thread that may block.
pub async fn write_files(
    store: &ColdStore,
    log: &DeltaLog,
    plan: FilePlan,
    batches: impl Iterator<Item = Result<RecordBatch, EngineError>> + Send + 'static,
) -> Result<Vec<WrittenFile>, EngineError> {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    let encoder = tokio::task::spawn_blocking(move || encode(&plan, batches, &sender));
    let uploaded = upload(store, log, receiver).await;
    let encoded = encoder
        .await
        .map_err(|error| EngineError::Cold { action: "encode Parquet files".into(), source: error.into() })?;
    // An upload that failed is why the encoder found nobody listening: its error is the cause.
    match (uploaded, encoded) {
        (Err(error), _) => Err(error),
        (Ok(()), encoded) => encoded.map_err(|error| match error {
            EncodeError::Engine(error) => error,
            EncodeError::Parquet(error) => {
                EngineError::Cold { action: "encode Parquet files".into(), source: error.into() }
            }
        }),
    }
}

/// What goes from the encoder to the uploader.
enum Part {
    Begin(String),
    Bytes(Bytes),
    End,
}

enum EncodeError {
    Engine(EngineError),
    Parquet(parquet::errors::ParquetError),
}

impl From<parquet::errors::ParquetError> for EncodeError {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::Parquet(error)
    }
}

fn encode(
    plan: &FilePlan,
    batches: impl Iterator<Item = Result<RecordBatch, EngineError>>,
    sender: &mpsc::Sender<Part>,
) -> Result<Vec<WrittenFile>, EncodeError> {
    let properties = writer_properties(&plan.schema, &plan.looked_up, plan.layout);
    let mut files = Vec::new();
    let mut open: Option<OpenFile> = None;
    for batch in batches {
        let batch = batch.map_err(EncodeError::Engine)?;
        if batch.num_rows() == 0 {
            continue;
        }
        let mut file = match open.take() {
            Some(file) => file,
            None => OpenFile::begin(plan, files.len(), &properties, sender)?,
        };
        file.write(&batch)?;
        if file.size() >= plan.target_bytes {
            files.push(file.end(&plan.schema)?);
        } else {
            open = Some(file);
        }
    }
    files.extend(open.map(|file| file.end(&plan.schema)).transpose()?);
    Ok(files)
}

struct OpenFile {
    name: String,
    writer: ArrowWriter<Chunks>,
    /// NULLs of each column so far: Parquet counts them only where it keeps bounds too.
    nulls: Vec<u64>,
}

impl OpenFile {
    fn begin(
        plan: &FilePlan,
        number: usize,
        properties: &WriterProperties,
        sender: &mpsc::Sender<Part>,
    ) -> Result<Self, EncodeError> {
        let name = format!("{}-{number:05}.parquet", plan.name_prefix);
        let chunks = Chunks { sender: sender.clone(), pending: BytesMut::new() };
        chunks.send(Part::Begin(name.clone())).map_err(parquet::errors::ParquetError::from)?;
        let writer = ArrowWriter::try_new(chunks, Arc::clone(&plan.schema), Some(properties.clone()))?;
        Ok(Self { name, writer, nulls: vec![0; plan.schema.fields().len()] })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), EncodeError> {
        self.writer.write(batch)?;
        for (nulls, column) in self.nulls.iter_mut().zip(batch.columns()) {
            *nulls += column.null_count() as u64;
        }
        if self.writer.memory_size() >= ROW_GROUP_BYTES {
            self.writer.flush()?;
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    fn end(mut self, schema: &Schema) -> Result<WrittenFile, EncodeError> {
        let footer = self.writer.finish()?;
        let size = self.writer.bytes_written() as u64;
        self.writer.inner_mut().end().map_err(parquet::errors::ParquetError::from)?;
        Ok(WrittenFile {
            name: self.name,
            size,
            stats: FileStats::from_footer(&footer, schema)?.with_nulls(schema, &self.nulls),
        })
    }
}

/// A sink that hands its bytes on in chunks.
struct Chunks {
    sender: mpsc::Sender<Part>,
    pending: BytesMut,
}

impl Chunks {
    fn send(&self, part: Part) -> std::io::Result<()> {
        self.sender.blocking_send(part).map_err(|_| std::io::Error::other("the upload has ended"))
    }

    fn send_pending(&mut self) -> std::io::Result<()> {
        let bytes = self.pending.split().freeze();
        if bytes.is_empty() { Ok(()) } else { self.send(Part::Bytes(bytes)) }
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.send_pending()?;
        self.send(Part::End)
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= CHUNK_BYTES {
            self.send_pending()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn upload(store: &ColdStore, log: &DeltaLog, mut parts: mpsc::Receiver<Part>) -> Result<(), EngineError> {
    while let Some(part) = parts.recv().await {
        if let Part::Begin(name) = part {
            upload_file(store, log, &name, &mut parts).await?;
        }
    }
    Ok(())
}

/// Uploads one file. Where it can't be done, or the encoder went away before its end, the upload is aborted: its parts would lie in the
/// object store unseen.
async fn upload_file(
    store: &ColdStore,
    log: &DeltaLog,
    name: &str,
    parts: &mut mpsc::Receiver<Part>,
) -> Result<(), EngineError> {
    let path = log.path_of(name);
    let failed = |error| store.failed(format!("write {path}"), error);
    let mut writer = BufWriter::with_capacity(store.objects().clone(), path.clone(), UPLOAD_PART_BYTES)
        .with_max_concurrency(UPLOADS);
    loop {
        match parts.recv().await {
            Some(Part::Bytes(bytes)) => {
                if let Err(error) = writer.put(bytes).await {
                    if let Err(error) = writer.abort().await {
                        tracing::debug!(%path, %error, "an upload was not aborted");
                    }
                    return Err(failed(error));
                }
            }
            Some(Part::End) => break,
            _ => return writer.abort().await.map_err(failed),
        }
    }
    let closed = writer.shutdown().await;
    closed.map_err(|error| match error.downcast::<object_store::Error>() {
        Ok(error) => failed(error),
        Err(error) => EngineError::Unavailable(format!("failed to write {path}: {error}")),
    })?;
    store.make_durable(&path).await
}

#[cfg(test)]
mod tests;
