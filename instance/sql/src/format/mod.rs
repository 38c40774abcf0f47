//! Results as bytes in other forms than the JSON reply: Arrow IPC, a JSON object a line, CSV. A batch goes in, its bytes come out.
//!
//! The cells of the two text forms are those of the JSON reply ([`crate::reply`]).

mod text;

use arrow::datatypes::Schema;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use futures::Stream;
use serde_json::Value as Json;

use crate::execute::{ResultColumn, RowSet};
use crate::stream::RowStream;
use crate::{ErrorCode, SqlError, reply};

/// Rows that are turned into text at a time: text takes many times the memory of a batch.
const ROWS_OF_TEXT: usize = 1024;

/// A form of rows, outward and inward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An Arrow IPC stream.
    ArrowStream,
    /// A JSON object a line.
    NdJson,
    /// RFC 4180, with a header.
    Csv,
    /// Parquet: inward only.
    Parquet,
}

impl Format {
    /// The forms that results can be had in.
    pub const OF_RESULTS: [Self; 3] = [Self::ArrowStream, Self::NdJson, Self::Csv];

    /// Its name in `Accept` and `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::ArrowStream => "application/vnd.apache.arrow.stream",
            Self::NdJson => "application/x-ndjson",
            Self::Csv => "text/csv",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The form of that media type, whose parameters do not count.
    pub fn of_media_type(text: &str) -> Option<Self> {
        let name = text.split(';').next().unwrap_or_default().trim();
        let all = [Self::ArrowStream, Self::NdJson, Self::Csv, Self::Parquet];
        all.into_iter().find(|format| name.eq_ignore_ascii_case(format.media_type()))
    }
}

/// The rows in that form, piece by piece. An error is the last piece; without one the last row was there.
pub fn encode(rows: RowStream, format: Format) -> Result<impl Stream<Item = Result<Vec<u8>, SqlError>>, SqlError> {
    let encoder = Encoder::new(format, rows.columns(), rows.schema())?;
    Ok(futures::stream::try_unfold(Some((rows, encoder)), |state| async move {
        let Some((mut rows, mut encoder)) = state else { return Ok(None) };
        match rows.next().await? {
            Some(batch) => {
                let bytes = encoder.batch(&batch)?;
                Ok(Some((bytes, Some((rows, encoder)))))
            }
            None => Ok(Some((encoder.end()?, None))),
        }
    }))
}

enum Encoder {
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Text { columns: Vec<ResultColumn>, names: Vec<String>, head: Vec<u8>, write: WriteRow },
}

/// Writes one row, given the columns' names.
type WriteRow = fn(&mut Vec<u8>, &[String], &[Json]);

impl Encoder {
    fn new(format: Format, columns: &[ResultColumn], schema: &Schema) -> Result<Self, SqlError> {
        let names = || columns.iter().map(|column| column.name.as_str());
        match format {
            Format::ArrowStream => {
                let named = schema.fields().iter().zip(columns);
                let named = named.map(|(field, column)| field.as_ref().clone().with_name(&column.name));
                let schema = Schema::new_with_metadata(named.collect::<Vec<_>>(), schema.metadata().clone());
                let writer = StreamWriter::try_new(Vec::new(), &schema).map_err(failed)?;
                Ok(Self::Arrow(Box::new(writer)))
            }
            Format::NdJson => {
                let names = names().map(|name| Json::from(name).to_string()).collect();
                Ok(Self::Text { columns: columns.to_vec(), names, head: Vec::new(), write: text::json_line })
            }
            Format::Csv => {
                let head = text::csv_head(names());
                Ok(Self::Text { columns: columns.to_vec(), names: Vec::new(), head, write: text::csv_line })
            }
            Format::Parquet => Err(SqlError::not_available("a result as Parquet")),
        }
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, SqlError> {
        match self {
            Self::Arrow(writer) => {
                writer.write(batch).map_err(failed)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Self::Text { columns, names, head, write } => {
                let mut bytes = std::mem::take(head);
                for from in (0..batch.num_rows()).step_by(ROWS_OF_TEXT) {
                    let slice = batch.slice(from, ROWS_OF_TEXT.min(batch.num_rows() - from));
                    let rows = reply::cells(&RowSet { columns: columns.clone(), batches: vec![slice] })?;
                    rows.iter().for_each(|cells| write(&mut bytes, names, cells));
                }
                Ok(bytes)
            }
        }
    }

    /// The header where no batch brought it, and what says that this was all.
    fn end(&mut self) -> Result<Vec<u8>, SqlError> {
        match self {
            Self::Arrow(writer) => {
                writer.finish().map_err(failed)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Self::Text { head, .. } => Ok(std::mem::take(head)),
        }
    }
}

fn failed(error: arrow::error::ArrowError) -> SqlError {
    SqlError::new(ErrorCode::Internal, format!("failed to write a result as Arrow IPC: {error}"))
}
