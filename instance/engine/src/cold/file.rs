//! Parquet files: how they are written, and the way from record batches to the object store in bounded memory.

mod crew;
mod encode;
mod upload;

use arrow::array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use tokio::sync::mpsc;

use self::encode::{EncodeError, encode};
use self::upload::{CHUNKS_WAITING, upload};
use super::log::DeltaLog;
use super::stats::FileStats;
use super::store::ColdStore;
use crate::EngineError;
use crate::schema::{SEQ, UPDATED, USER_ID};

/// Rows of a row group, at most.
pub const ROW_GROUP_ROWS: usize = 100_000;
/// Rows at which a data page is closed: small enough that the page index skips much, large enough to compress. The encoder looks
/// after each [`ENCODE_ROWS`], so that a page has up to as many more.
pub const PAGE_ROWS: usize = 7_000;
/// Bytes of a dictionary beyond which a column goes on without: every read of one of its pages needs the dictionary too, and a larger one
/// is of values that hardly repeat.
const DICTIONARY_BYTES: usize = 256 << 10;
/// Rows that the encoder takes between two looks at the page's size.
const ENCODE_ROWS: usize = 1_000;
/// Bloom filter on `_updated`: false positives, and distinct values it is sized for before it is folded to what came.
const UPDATED_FPP: f64 = 0.01;
const UPDATED_NDV: u64 = 100_000;
/// Bloom filters on user and key.
const KEY_FPP: f64 = 0.001;

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
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
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
    for field in schema.fields().iter().filter(|field| is_distinct(field.name(), looked_up)) {
        properties = without_dictionary(properties, field);
    }
    if schema.column_with_name(UPDATED).is_some() {
        properties = with_bloom_filter(properties, UPDATED, UPDATED_FPP, UPDATED_NDV);
    }
    for name in looked_up {
        properties = with_bloom_filter(properties, name, KEY_FPP, layout.row_group_rows as u64);
    }
    properties.build()
}

/// Whether hardly any value of the column comes twice: `_seq`, and a key of one column.
fn is_distinct(column: &str, looked_up: &[String]) -> bool {
    let mut key = looked_up.iter().filter(|name| *name != USER_ID);
    column == SEQ || (key.next().is_some_and(|name| name == column) && key.next().is_none())
}

/// A dictionary of distinct values costs a hash table and makes the column larger. Integers that lie near one another, as those of
/// sequences do, take a byte or two as differences.
fn without_dictionary(properties: WriterPropertiesBuilder, field: &Field) -> WriterPropertiesBuilder {
    let column = ColumnPath::from(field.name().as_str());
    let properties = properties.set_column_dictionary_enabled(column.clone(), false);
    match field.data_type() {
        DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Timestamp(..) => {
            properties.set_column_encoding(column, Encoding::DELTA_BINARY_PACKED)
        }
        _ => properties,
    }
}

fn with_bloom_filter(properties: WriterPropertiesBuilder, column: &str, fpp: f64, ndv: u64) -> WriterPropertiesBuilder {
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

#[cfg(test)]
mod tests;
