//! Parquet, whose end has to be read first: it waits in a file that has no name, and is gone with the load.

use std::path::Path;
use std::sync::Arc;

use ::arrow::record_batch::RecordBatch;
use datafusion::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;

use super::LoadConfig;
use crate::{ErrorCode, SqlError};

/// The file while it is written.
pub(super) struct Spool {
    file: tokio::fs::File,
    bytes: u64,
    most_bytes: u64,
}

/// Its rows.
pub(super) struct Batches(Option<Box<ParquetRecordBatchReader>>);

impl Spool {
    pub(super) async fn new(config: &LoadConfig) -> Result<Self, SqlError> {
        let folder: Arc<Path> = config.folder.as_path().into();
        let make = move || {
            std::fs::create_dir_all(&folder)?;
            tempfile::tempfile_in(&folder)
        };
        let file = spawn_blocking(make).await.map_err(failed)?.map_err(failed)?;
        Ok(Self { file: tokio::fs::File::from_std(file), bytes: 0, most_bytes: config.file_bytes })
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), SqlError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.most_bytes {
            let text = format!("the Parquet file is larger than {} bytes: send several", self.most_bytes);
            return Err(SqlError::new(ErrorCode::TooLarge, text));
        }
        self.file.write_all(bytes).await.map_err(failed)
    }

    pub(super) async fn read(mut self, batch_rows: usize) -> Result<Batches, SqlError> {
        self.file.flush().await.map_err(failed)?;
        let file = self.file.into_std().await;
        let open = move || ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(batch_rows).build();
        let reader = spawn_blocking(open).await.map_err(failed)?.map_err(unreadable)?;
        Ok(Batches(Some(Box::new(reader))))
    }
}

impl Batches {
    /// The next rows; none after the last.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, SqlError> {
        let Some(mut reader) = self.0.take() else { return Ok(None) };
        let read = move || (reader.next(), reader);
        let (batch, reader) = spawn_blocking(read).await.map_err(failed)?;
        self.0 = Some(reader);
        batch.transpose().map_err(unreadable)
    }
}

fn failed(error: impl std::fmt::Display) -> SqlError {
    SqlError::new(ErrorCode::Internal, format!("failed to keep the rows in a file until they are read: {error}"))
}

fn unreadable(error: impl std::fmt::Display) -> SqlError {
    SqlError::new(ErrorCode::InvalidBody, format!("failed to read the rows as Parquet: {error}"))
}
