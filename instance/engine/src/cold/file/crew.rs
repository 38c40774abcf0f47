//! The columns of a row group, encoded by several threads at once: each column by one thread at a time, in the order of its batches.
//!
//! Whoever hands columns out helps with what nobody has taken yet when it needs them back. So nothing ever waits for a thread that is
//! not there, and what comes out does not depend on who was faster.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::ArrayRef;
use arrow_schema::FieldRef;
use parking_lot::{Condvar, Mutex};
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, compute_leaves};
use parquet::errors::{ParquetError, Result};

/// What a column goes through.
pub enum Work {
    /// Takes the values of a batch.
    Write(FieldRef, ArrayRef),
    /// Ends with its row group.
    Close,
}

/// A column after its work.
#[expect(clippy::large_enum_variant, reason = "a few live at once, and for a moment")]
pub enum Column {
    /// It takes more.
    Open(ArrowColumnWriter),
    /// It is encoded to its end.
    Closed(ArrowColumnChunk),
}

impl Column {
    /// The writer of a column that takes more.
    pub fn open(self) -> Option<ArrowColumnWriter> {
        match self {
            Self::Open(writer) => Some(writer),
            Self::Closed(_) => None,
        }
    }

    /// What came of a column that is encoded to its end.
    pub fn closed(self) -> Option<ArrowColumnChunk> {
        match self {
            Self::Open(_) => None,
            Self::Closed(chunk) => Some(chunk),
        }
    }
}

/// What the threads share. One thread hands out and takes back; the others [help](Crew::help).
#[derive(Default)]
pub struct Crew {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Job>,
    running: usize,
    /// Columns whose work is done, by their place, in no order.
    done: Vec<(usize, Result<Column>)>,
    has_ended: bool,
}

struct Job {
    place: usize,
    column: ArrowColumnWriter,
    work: Work,
}

impl Crew {
    /// Hands columns out, the first one first.
    pub fn hand_out(&self, columns: impl DoubleEndedIterator<Item = (ArrowColumnWriter, Work)> + ExactSizeIterator) {
        let jobs = columns.enumerate().map(|(place, (column, work))| Job { place, column, work });
        self.state.lock().waiting.extend(jobs.rev());
        self.changed.notify_all();
    }

    /// Works on what nobody has taken yet, waits for the rest, and gives all columns back in their order.
    pub fn take_back(&self) -> Result<Vec<Column>> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.waiting.pop() {
                state.running += 1;
                drop(state);
                self.run(job);
                state = self.state.lock();
            } else if state.running > 0 {
                self.changed.wait(&mut state);
            } else {
                break;
            }
        }
        let mut done = std::mem::take(&mut state.done);
        done.sort_unstable_by_key(|(place, _)| *place);
        done.into_iter().map(|(_, column)| column).collect()
    }

    /// Works until the crew [ends](Crew::end).
    pub fn help(&self) {
        let mut state = self.state.lock();
        while !state.has_ended {
            match state.waiting.pop() {
                Some(job) => {
                    state.running += 1;
                    drop(state);
                    self.run(job);
                    state = self.state.lock();
                }
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Lets the helpers go.
    pub fn end(&self) {
        self.state.lock().has_ended = true;
        self.changed.notify_all();
    }

    fn run(&self, job: Job) {
        let place = job.place;
        // Whoever takes the columns back would wait for this one for ever.
        let done = catch_unwind(AssertUnwindSafe(|| job.run()))
            .unwrap_or_else(|_| Err(ParquetError::General("the encoder of a column panicked".into())));
        let mut state = self.state.lock();
        state.running -= 1;
        state.done.push((place, done));
        drop(state);
        self.changed.notify_all();
    }
}

impl Job {
    fn run(mut self) -> Result<Column> {
        match self.work {
            Work::Write(field, array) => {
                for leaf in compute_leaves(&field, &array)? {
                    self.column.write(&leaf)?;
                }
                Ok(Column::Open(self.column))
            }
            Work::Close => self.column.close().map(Column::Closed),
        }
    }
}

/// Lets the helpers go when it is dropped, however its owner ends.
pub struct Ending<'a>(pub &'a Crew);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
