//! An Arrow IPC stream.

use std::sync::Arc;

use ::arrow::buffer::Buffer;
use ::arrow::error::ArrowError;
use ::arrow::ipc::reader::StreamDecoder;
use kalamdb_engine::schema::Table;

use super::Given;
use super::place::Numbered;
use crate::{ErrorCode, SqlError};

/// Batches to rows.
pub(super) struct ArrowRows {
    table: Arc<Table>,
    most_bytes: usize,
    decoder: StreamDecoder,
    rows: Numbered,
    /// Bytes of a batch whose end has not come yet.
    begun: usize,
}

impl ArrowRows {
    pub(super) fn new(table: Arc<Table>, most_bytes: usize) -> Self {
        Self { table, most_bytes, decoder: StreamDecoder::new(), rows: Numbered::default(), begun: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8], rows: &mut Vec<Given>) -> Result<(), SqlError> {
        let mut buffer = Buffer::from(bytes);
        while !buffer.is_empty() {
            let before = buffer.len();
            let batch = self.decoder.decode(&mut buffer).map_err(failed)?;
            self.begun += before - buffer.len();
            if let Some(batch) = batch {
                self.rows.take(&batch, &self.table, rows)?;
                self.begun = 0;
            }
        }
        if self.begun > self.most_bytes {
            let text = format!("an Arrow batch is larger than {} bytes: send smaller ones", self.most_bytes);
            return Err(SqlError::new(ErrorCode::TooLarge, text));
        }
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), SqlError> {
        if self.decoder.schema().is_none() {
            let text = "the body holds no Arrow IPC stream, which begins with its schema, also where it has no rows";
            return Err(SqlError::new(ErrorCode::InvalidBody, text));
        }
        self.decoder.finish().map_err(failed)
    }
}

fn failed(error: ArrowError) -> SqlError {
    SqlError::new(ErrorCode::InvalidBody, format!("failed to read the rows as an Arrow IPC stream: {error}"))
}
