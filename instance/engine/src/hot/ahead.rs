//! A scan that runs ahead of whoever decodes its rows: a thread that may block steps through RocksDB meanwhile.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::EngineError;
use crate::hot::HotScan;
use crate::hot::stored::StoredRows;

/// Batches of rows that wait to be decoded, at most. One more is being read.
const WAITING: usize = 1;

/// The rows of a scan, which ends soon after nobody asks for them any more.
pub struct RowsAhead {
    /// None where the scan has come to its end: a channel that closes before has lost its thread.
    rows: mpsc::Receiver<Result<Option<StoredRows>, EngineError>>,
}

impl RowsAhead {
    /// Begins to read batches of so many rows. Gives the scan back at its end.
    pub fn begin(mut scan: HotScan, max_rows: usize) -> (Self, JoinHandle<HotScan>) {
        let (sender, rows) = mpsc::channel(WAITING);
        let scan = tokio::task::spawn_blocking(move || {
            loop {
                let rows = if scan.is_at_end() { Ok(None) } else { scan.next_rows(max_rows) };
                let is_last = !matches!(rows, Ok(Some(_)));
                if sender.blocking_send(rows).is_err() || is_last {
                    return scan;
                }
            }
        });
        (Self { rows }, scan)
    }

    /// The next rows; none at the end.
    pub async fn next(&mut self) -> Result<Option<StoredRows>, EngineError> {
        self.rows.recv().await.unwrap_or_else(lost)
    }

    /// The same on a thread that may block.
    pub fn blocking_next(&mut self) -> Result<Option<StoredRows>, EngineError> {
        self.rows.blocking_recv().unwrap_or_else(lost)
    }
}

fn lost<T>() -> Result<T, EngineError> {
    Err(EngineError::Unavailable("the thread that reads hot rows has ended before their end".into()))
}
