//! The way in: what waits for its commit, the thread that takes it in order, and the one batch and one sync for all whose rows wait.
//!
//! A panic in the thread ends the process, and so does a batch that could not be written: what is on disk is not known then, and
//! nobody may be told that a commit is done.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::EngineError;
use crate::commit::Committer;
use crate::commit::group::Group;
use crate::commit::record::{CommitRecord, RowRecord};
use crate::commit::writer::Writer;
use crate::engine::{Committed, Engine, RowWrite};
use crate::flush::Intent;
use crate::hot::{HotSnapshot, RowKey};

/// Rows and bytes that one batch may hold; what waits beyond that goes into the next.
const GROUP_BYTES: usize = 16 << 20;
/// The unit in which waiting bytes are counted.
pub(super) const QUEUE_UNIT: usize = 1024;

impl Engine {
    /// Commits all writes or none. [`EngineError::Stale`] where anything that was read has changed: look up again and retry.
    pub async fn commit(&self, writes: Vec<RowWrite>) -> Result<Committed, EngineError> {
        self.check_writable(&writes)?;
        let row_bytes = self.config().limits.row_bytes;
        let rows = writes.into_iter().map(|write| RowRecord::new(write, row_bytes)).collect::<Result<_, _>>()?;
        let _writing = self.writing().await;
        self.committer().rows(rows).await
    }
}

impl Committer {
    /// Commits all rows or none.
    pub async fn rows(&self, rows: Vec<RowRecord>) -> Result<Committed, EngineError> {
        let bytes = rows.iter().map(RowRecord::size).sum();
        match self.submit(CommitRecord::Rows(rows), bytes).await? {
            Outcome::Committed(committed) => Ok(committed),
            other => unreachable!("rows end in {other:?}"),
        }
    }

    /// Lets the thread wait until what this gives is dropped: what is sent meanwhile is taken together.
    #[cfg(test)]
    pub(crate) async fn hold(&self) -> std::sync::mpsc::Sender<()> {
        let (held, until) = std::sync::mpsc::channel();
        self.queue.send(Message::Hold(until)).await.map_err(|_| closed()).expect("the committer runs");
        held
    }

    pub(super) async fn submit(&self, record: CommitRecord, bytes: usize) -> Result<Outcome, EngineError> {
        let units = u32::try_from(bytes.div_ceil(QUEUE_UNIT)).unwrap_or(u32::MAX).clamp(1, self.waiting_units);
        let permit = self.waiting.clone().acquire_many_owned(units).await.expect("the semaphore is never closed");
        let (reply, answer) = oneshot::channel();
        let request = Request { record, bytes, reply, permit: Some(permit) };
        self.queue.send(Message::Commit(request)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// What comes through the queue.
pub(super) enum Message {
    /// A commit that waits for its answer.
    Commit(Request),
    /// Ends the thread once everything before it is answered.
    Stop,
    /// The thread waits, so that a test fills the queue with what is to be one group.
    #[cfg(test)]
    Hold(std::sync::mpsc::Receiver<()>),
}

/// A commit that waits for its answer.
pub(super) struct Request {
    pub(super) record: CommitRecord,
    pub(super) bytes: usize,
    pub(super) reply: oneshot::Sender<Result<Outcome, EngineError>>,
    /// Given back when the request is dropped, after the answer.
    pub(super) permit: Permit,
}

/// How a commit ended.
pub(super) enum Outcome {
    /// Rows are committed.
    Committed(Committed),
    /// A flush has begun.
    Begun(Intent, HotSnapshot),
    /// The intent of a fence or of a compaction is stored.
    Stored(Intent),
    /// The end of a flush or of a compaction lacks the places of these keys.
    Missing(Vec<RowKey>),
    /// Nothing was done: a part has to be named.
    NotAll,
    /// It is done.
    Done,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Committed(_) => "Committed",
            Self::Begun(..) => "Begun",
            Self::Stored(_) => "Stored",
            Self::Missing(_) => "Missing",
            Self::NotAll => "NotAll",
            Self::Done => "Done",
        })
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn spawn(mut self, mut queue: mpsc::Receiver<Message>) -> Result<JoinHandle<()>, EngineError> {
        #[cfg(test)]
        let plant = crate::plant::testing::current();
        let run = move || {
            #[cfg(test)]
            crate::plant::testing::plant(plant);
            if catch_unwind(AssertUnwindSafe(|| self.run(&mut queue))).is_err() {
                fatal("the committer panicked");
            }
        };
        let thread = std::thread::Builder::new().name("committer".into()).spawn(run);
        thread.map_err(|error| EngineError::Unavailable(format!("failed to start the committer's thread: {error}")))
    }

    fn run(&mut self, queue: &mut mpsc::Receiver<Message>) {
        let mut held = None;
        while let Some(message) = held.take().or_else(|| queue.blocking_recv()) {
            match message {
                Message::Stop => {
                    // What has expired stays so, also when the computer's clock is set back before the next start.
                    self.write_high_water();
                    break;
                }
                #[cfg(test)]
                Message::Hold(until) => drop(until.recv()),
                Message::Commit(request) => match request.record {
                    CommitRecord::Rows(_) => held = self.commit_group(request, queue),
                    _ => self.commit_alone(request),
                },
            }
        }
    }

    /// Commits the row writes that wait, as far as they fit into one batch. Gives back the message that ended the group.
    fn commit_group(&mut self, first: Request, queue: &mut mpsc::Receiver<Message>) -> Option<Message> {
        let (mut bytes, mut held) = (first.bytes, None);
        let (mut group, mut replies) = (Vec::new(), Vec::new());
        add(first, &mut group, &mut replies);
        while bytes < GROUP_BYTES {
            match queue.try_recv() {
                Ok(Message::Commit(request)) if matches!(request.record, CommitRecord::Rows(_)) => {
                    bytes += request.bytes;
                    add(request, &mut group, &mut replies);
                }
                Ok(other) => {
                    held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let ended = self.write_group(&group);
        crash_point!("commit.published");
        for ((reply, permit), end) in replies.into_iter().zip(ended) {
            drop(permit);
            // A caller that has gone away does not want the answer.
            let _ = reply.send(end.map(Outcome::Committed));
        }
        crash_point!("commit.answered");
        held
    }

    /// Writes what is current of the group in one batch, and says how each member ended.
    fn write_group(&mut self, group: &[Vec<RowRecord>]) -> Vec<Result<Committed, EngineError>> {
        let shared = self.shared.clone();
        let mut building = Group::new(&shared, &self.tables, self.last_seq, group);
        let ended = (0..group.len()).map(|member| building.commit(member)).collect();
        let (batch, staged) = building.finish();
        if staged.is_empty() {
            return ended;
        }
        staged.written().for_each(|(table, seq)| shared.hot.newest().raise(table, seq));
        crash_point!("commit.staged");
        self.write(batch, self.sync);
        crash_point!("commit.written");
        self.last_seq = staged.last_seq;
        shared.set_committed(staged.last_seq);
        for (table, seq) in staged.written() {
            if let Some(state) = self.tables.get_mut(&table) {
                state.last_written = seq;
            }
        }
        staged.publish(&shared);
        ended
    }

    pub(super) fn write(&self, batch: WriteBatch, sync: bool) {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        if let Err(error) = self.shared.hot.db().write_opt(batch, &options) {
            fatal(&format!("a commit could not be written: {error}"));
        }
    }
}

/// Held by a request until it is answered, so that waiting bytes are bounded.
type Permit = Option<OwnedSemaphorePermit>;

fn closed() -> EngineError {
    EngineError::Unavailable("the instance is shutting down; retry once it is up again".into())
}

type Reply = (oneshot::Sender<Result<Outcome, EngineError>>, Permit);

fn add(request: Request, group: &mut Vec<Vec<RowRecord>>, replies: &mut Vec<Reply>) {
    if let CommitRecord::Rows(rows) = request.record {
        group.push(rows);
        replies.push((request.reply, request.permit));
    }
}

/// What is on disk is not known any more: a restart finds out.
fn fatal(reason: &str) -> ! {
    tracing::error!(reason, "the process ends, so that no commit is acknowledged that may be lost; restart it");
    eprintln!("kalamdb: {reason}; the process ends, so that no commit is acknowledged that may be lost");
    std::process::abort()
}
