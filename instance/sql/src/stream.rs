//! Results of any size, a batch at a time: made no faster than they are taken, and no further than somebody takes them.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};

use crate::execute::{Outcome, ResultColumn, RowSet};
use crate::planner::{AbortOnDrop, Planner};
use crate::running::Ticket;
use crate::turns::{Lane, Turn};
use crate::{ErrorCode, SqlError};

/// Batches that are made before they are asked for: one is under way while another is being sent.
const BATCHES_AHEAD: usize = 1;

/// What a statement answers to who wants rows in pieces.
pub enum Streamed {
    /// A row set.
    Rows(RowStream),
    /// It has none.
    Done(Outcome),
}

/// A query that has begun to run.
pub(crate) struct Opened {
    pub(crate) columns: Vec<ResultColumn>,
    pub(crate) rows: SendableRecordBatchStream,
    /// Whether the same rows give the same result each time.
    pub(crate) is_deterministic: bool,
}

/// What goes along with a query until its last batch was taken, or nobody takes any more.
pub(crate) struct Producing {
    pub(crate) ticket: Ticket,
    pub(crate) ended: Option<Box<dyn FnOnce() + Send>>,
    /// How long a batch may take to be made, and to be taken.
    pub(crate) patience: Duration,
    /// Held while a batch is made, and not while one waits to be taken.
    pub(crate) turn: Turn,
    /// Held all the time.
    pub(crate) _open: Turn,
}

impl Drop for Producing {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended();
        }
    }
}

/// The rows of a result. A query that runs ends when this is dropped.
pub struct RowStream {
    columns: Vec<ResultColumn>,
    schema: SchemaRef,
    first: Option<RecordBatch>,
    source: Source,
}

enum Source {
    Known(std::vec::IntoIter<RecordBatch>),
    Running { batches: mpsc::Receiver<Piece>, _task: AbortOnDrop<()> },
}

enum Piece {
    Batch(RecordBatch),
    Failed(SqlError),
    /// Without it the rows are not all.
    End,
}

type Head = (Vec<ResultColumn>, SchemaRef);

impl RowStream {
    /// Of rows that are here.
    pub fn of(rows: RowSet) -> Self {
        let schema = rows.batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        Self { columns: rows.columns, schema, first: None, source: Source::Known(rows.batches.into_iter()) }
    }

    /// Begins to run a query; answers once its first batch is there, so that most of what can go wrong has gone wrong by then.
    pub(crate) async fn open(
        planner: &Planner,
        lane: Lane,
        open: impl Future<Output = Result<Opened, SqlError>> + Send + 'static,
        producing: Producing,
    ) -> Result<Self, SqlError> {
        let (head, told) = oneshot::channel();
        let (pieces, batches) = mpsc::channel(BATCHES_AHEAD);
        let task = planner.spawn(lane, produce(open, producing, head, pieces));
        let (columns, schema) = told.await.map_err(|_| broke_off())??;
        let source = Source::Running { batches, _task: task };
        let mut stream = Self { columns, schema, first: None, source };
        stream.first = stream.next().await?;
        Ok(stream)
    }

    /// The columns of the result.
    pub fn columns(&self) -> &[ResultColumn] {
        &self.columns
    }

    /// The schema of its batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next batch; none after the last. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, SqlError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        match &mut self.source {
            Source::Known(batches) => Ok(batches.next()),
            Source::Running { batches, .. } => match batches.recv().await {
                Some(Piece::Batch(batch)) => Ok(Some(batch)),
                Some(Piece::End) => {
                    self.source = Source::Known(Vec::new().into_iter());
                    Ok(None)
                }
                Some(Piece::Failed(error)) => Err(error),
                None => Err(broke_off()),
            },
        }
    }
}

fn broke_off() -> SqlError {
    SqlError::new(ErrorCode::Internal, "a query broke off")
}

async fn produce(
    open: impl Future<Output = Result<Opened, SqlError>> + Send,
    producing: Producing,
    head: oneshot::Sender<Result<Head, SqlError>>,
    pieces: mpsc::Sender<Piece>,
) {
    // Once this is over the query holds nothing any more, however long the last word waits to be taken.
    if let Some(last) = produce_all(open, producing, head, &pieces).await {
        let _ = pieces.send(last).await;
    }
}

/// Answers the last word; none where nobody waits for it.
async fn produce_all(
    open: impl Future<Output = Result<Opened, SqlError>> + Send,
    mut producing: Producing,
    head: oneshot::Sender<Result<Head, SqlError>>,
    pieces: &mpsc::Sender<Piece>,
) -> Option<Piece> {
    let patience = producing.patience;
    let opened = tokio::select! {
        opened = open => opened,
        error = producing.ticket.killed() => Err(error),
        () = tokio::time::sleep(patience) => Err(too_slow(patience)),
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let _ = head.send(Err(error));
            return None;
        }
    };
    head.send(Ok((opened.columns, opened.rows.schema()))).ok()?;
    Some(tokio::select! {
        sent = send_all(opened.rows, patience, &mut producing.turn, pieces) => {
            sent.map_or_else(Piece::Failed, |()| Piece::End)
        }
        error = producing.ticket.killed() => Piece::Failed(error),
    })
}

async fn send_all(
    mut rows: SendableRecordBatchStream,
    patience: Duration,
    turn: &mut Turn,
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), SqlError> {
    loop {
        turn.resume().await;
        let batch = tokio::time::timeout(patience, rows.next()).await.map_err(|_| too_slow(patience))?;
        let Some(batch) = batch.transpose()? else { return Ok(()) };
        if pieces.capacity() == 0 {
            turn.pause();
        }
        let sent = tokio::time::timeout(patience, pieces.send(Piece::Batch(batch))).await;
        if sent.map_err(|_| not_taken(patience))?.is_err() {
            return Ok(());
        }
    }
}

fn too_slow(patience: Duration) -> SqlError {
    let text = format!(
        "the statement was stopped after {} s without a row, which is as long as it may take",
        patience.as_secs()
    );
    SqlError::new(ErrorCode::StatementTimeout, text)
}

fn not_taken(patience: Duration) -> SqlError {
    let text = format!("the statement was stopped, for nobody took its rows for {} s", patience.as_secs());
    SqlError::new(ErrorCode::StatementTimeout, text)
}
