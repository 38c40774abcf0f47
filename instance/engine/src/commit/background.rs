//! Threads that look at the volume now and then and send commits of their own: how they start, commit and end.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;

use crate::EngineError;
use crate::commit::queue::{Message, Request};
use crate::commit::record::CommitRecord;

/// A running thread.
pub(super) struct Background {
    name: &'static str,
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Background {
    /// Calls `look` on a thread of that name after each `interval`.
    pub(super) fn start(
        name: &'static str,
        interval: Duration,
        mut look: impl FnMut() + Send + 'static,
    ) -> Result<Self, EngineError> {
        let (stop, stopped) = mpsc::channel();
        let run = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                look();
            }
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(run);
        let thread =
            thread.map_err(|error| EngineError::Unavailable(format!("failed to start the thread {name}: {error}")))?;
        Ok(Self { name, stop, thread })
    }

    /// Ends the thread.
    pub(super) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!(thread = self.name, "a thread had panicked");
        }
    }
}

/// Hands a commit to the committer and waits for its end.
pub(super) fn submit(queue: &Sender<Message>, record: CommitRecord) -> Result<(), EngineError> {
    let (reply, answer) = oneshot::channel();
    let closed = || EngineError::Unavailable("the committer has ended".into());
    let request = Request { record, bytes: 0, reply, permit: None };
    queue.blocking_send(Message::Commit(request)).map_err(|_| closed())?;
    answer.blocking_recv().map_err(|_| closed())?.map(drop)
}
