//! A thread that keeps the change logs within their bounds: it finds what must go, and the committer deletes it.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;

use crate::EngineError;
use crate::commit::Shared;
use crate::commit::record::{CommitRecord, KeyRange};
use crate::commit::writer::{Message, Request};
use crate::config::Limits;
use crate::hot::changes;
use crate::hot::store::{Family, failed};
use crate::hot::{HotSnapshot, key};
use crate::schema::{TableId, TableKind};
use crate::seq::Seq;

/// How often the logs are looked at.
const INTERVAL: Duration = Duration::from_secs(5);
/// Ranges that one commit deletes: a per-user table has one range for each user.
const RANGES: usize = 1000;

/// The running thread.
pub(super) struct Trimmer {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Trimmer {
    pub(super) fn start(queue: Sender<Message>, shared: Arc<Shared>, limits: &Limits) -> Result<Self, EngineError> {
        let (stop, stopped) = mpsc::channel();
        let (bytes, age) = (limits.change_log_bytes, limits.change_log_age);
        let run = move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let due = shared.changes.lock().due(bytes, age, shared.clock.now_micros() / 1000);
                for (table, floor) in due {
                    if let Err(error) = trim(&queue, &shared, table, floor) {
                        tracing::warn!(table = table.0, %error, "failed to trim a change log; it is tried again");
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("change-log".into()).spawn(run);
        let thread = thread
            .map_err(|error| EngineError::Unavailable(format!("failed to start the change log's thread: {error}")))?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread.
    pub(super) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the change log's thread had panicked");
        }
    }
}

/// Deletes a table's changes up to `floor`.
pub(super) fn trim(queue: &Sender<Message>, shared: &Shared, table: TableId, floor: Seq) -> Result<(), EngineError> {
    let catalog = shared.catalog.load();
    let Some(kind) = catalog.tables.values().find(|found| found.id == table).map(|found| found.kind) else {
        return Ok(());
    };
    let ranges = ranges(&shared.hot.snapshot(), table, kind, floor)?;
    for ranges in ranges.chunks(RANGES) {
        let record = CommitRecord::TrimChanges { table, floor, ranges: ranges.to_vec() };
        let (reply, answer) = oneshot::channel();
        let request = Request { record, bytes: 0, reply, permit: None };
        let closed = || EngineError::Unavailable("the committer has ended".into());
        queue.blocking_send(Message::Commit(request)).map_err(|_| closed())?;
        answer.blocking_recv().map_err(|_| closed())??;
    }
    shared.changes.lock().trimmed(table, floor);
    Ok(())
}

/// The ranges of stored changes up to `floor`: one for the table, or one for each of its users.
fn ranges(snapshot: &HotSnapshot, table: TableId, kind: TableKind, floor: Seq) -> Result<Vec<KeyRange>, EngineError> {
    let prefix = key::table_prefix(table);
    let beyond = Seq(floor.0 + 1);
    let mut ranges = Vec::new();
    let mut iterator = snapshot.iterator(Family::Changes, key::prefix_end(&prefix));
    iterator.seek(&prefix);
    while let Some((stored, _)) = iterator.item() {
        let (user, _) = changes::split_key(kind, &stored[prefix.len()..])?;
        let to = changes::storage_key(table, user, beyond);
        if *stored < to[..] {
            ranges.push((stored.to_vec(), to));
        }
        // On to the next user; a shared table has no other.
        let mut part = prefix.clone();
        part.extend_from_slice(user);
        let next = key::prefix_end(&part);
        iterator.seek(&next);
    }
    iterator.status().map_err(failed("read the change log"))?;
    Ok(ranges)
}
