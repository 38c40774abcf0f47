//! Bytes to rows, whatever the form.

use std::sync::Arc;

use kalamdb_engine::schema::Table;

use super::Given;
use super::arrow::ArrowRows;
use super::csv::CsvRows;
use super::ndjson::JsonRows;
use crate::SqlError;
use crate::format::Format;

/// Takes a stream in pieces that may be cut anywhere.
pub(super) enum Decoder {
    Json(JsonRows),
    Csv(CsvRows),
    Arrow(Box<ArrowRows>),
}

impl Decoder {
    /// `most_bytes` is how long a line, a record or an Arrow batch may be; only CSV can have no header.
    pub(super) fn new(
        (format, has_header): (Format, bool),
        table: &Arc<Table>,
        most_bytes: usize,
    ) -> Result<Self, SqlError> {
        let table = Arc::clone(table);
        Ok(match format {
            Format::NdJson => Self::Json(JsonRows::new(table, most_bytes)),
            Format::Csv => Self::Csv(CsvRows::new(table, has_header, most_bytes)),
            Format::ArrowStream => Self::Arrow(Box::new(ArrowRows::new(table, most_bytes))),
            Format::Parquet => return Err(SqlError::not_available("Parquet that is read from its beginning")),
        })
    }

    /// Adds the rows that end within these bytes. The error is one of the whole stream; rows that are none are rows too.
    pub(super) fn push(&mut self, bytes: &[u8], rows: &mut Vec<Given>) -> Result<(), SqlError> {
        match self {
            Self::Json(json) => json.push(bytes, rows),
            Self::Csv(csv) => csv.push(bytes, rows),
            Self::Arrow(arrow) => arrow.push(bytes, rows),
        }
    }

    /// Adds a last row that nothing ended.
    pub(super) fn end(&mut self, rows: &mut Vec<Given>) -> Result<(), SqlError> {
        match self {
            Self::Json(json) => json.end(rows),
            Self::Csv(csv) => csv.end(rows),
            Self::Arrow(arrow) => arrow.end(),
        }
    }
}
