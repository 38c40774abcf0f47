//! What a database has acknowledged, on disk beside it, so that it outlives whoever wrote it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::flush::tests::Model;
use crate::hot::changes::Operation;
use crate::seq::Seq;

/// One row of a statement: user, first key column, second, and its value; none deletes.
pub type RowOf = (String, i32, String, Option<i64>);
/// One row of the stream table: user, key, and its value; none deletes.
pub type StreamRow = (String, i64, Option<i64>);

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// The database's folder from here on.
    Folder(PathBuf),
    /// A statement, or a transaction, is sent.
    Begun(Vec<RowOf>),
    /// The last one was acknowledged, or its rows were found after its process had died. No sequence up to then is higher.
    Done(Seq),
    /// The last one was not acknowledged, and nothing of it was found.
    Undone,
    /// Changes up to there are to go.
    Trimming(Seq),
    /// The volume is to be lost, once everything was flushed.
    Losing,
    /// Where the change log begins now; and whether the volume was lost before that, with all rows of the stream table.
    Floor(Seq, bool),
    /// A row of the stream table is sent.
    StreamBegun(StreamRow),
    /// The last one was acknowledged, or found, with its `_updated`.
    StreamDone(i64),
    /// The last one was not acknowledged, and not found.
    StreamUndone,
    /// From here on the clock is so many microseconds ahead of the computer's.
    Clock(i64),
    /// The process dies at this crash point.
    Hit(String),
}

/// What a statement did to a row: what the change log says of it.
pub type Changed = (Operation, Option<i64>);

/// All lines of a database.
#[derive(Debug, Default)]
pub struct History {
    /// Where it lies.
    pub folder: Option<PathBuf>,
    /// What it must hold.
    pub model: Model,
    /// The statement of which it is not known whether it holds it.
    pub doubt: Option<Vec<RowOf>>,
    /// What each statement changed, by the last sequence up to its end.
    pub changes: BTreeMap<Seq, BTreeMap<(String, i32, String), Changed>>,
    /// Where the change log begins.
    pub floor: Seq,
    /// Where it may begin instead.
    pub trimming: Option<Seq>,
    /// Whether the volume may be lost.
    pub losing: bool,
    /// (user, key) -> value and `_updated` of the stream table's rows, the expired among them.
    pub stream: BTreeMap<(String, i64), (i64, i64)>,
    /// The row of which it is not known whether it was written.
    pub stream_doubt: Option<StreamRow>,
    /// How far the clock is ahead.
    pub ahead: i64,
    /// The points at which its processes died.
    pub hits: Vec<String>,
}

/// The file, to be continued.
#[derive(Debug, Clone)]
pub struct Ledger(PathBuf);

impl Ledger {
    /// The one in that folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self(folder.join("ledger"))
    }

    /// Adds a line: it is the operating system's once this returns.
    pub fn note(&self, entry: &Entry) {
        let mut line = serde_json::to_vec(entry).unwrap();
        line.push(b'\n');
        File::options().create(true).append(true).open(&self.0).unwrap().write_all(&line).unwrap();
    }

    /// What the lines of that folder's come to.
    pub fn history(folder: &Path) -> History {
        let mut history = History::default();
        let text = std::fs::read_to_string(Self::in_folder(folder).0).unwrap_or_default();
        text.lines().for_each(|line| history.add(serde_json::from_str(line).unwrap()));
        history
    }
}

impl History {
    /// What holds after one more line.
    pub fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Folder(folder) => self.folder = Some(folder),
            Entry::Begun(rows) => assert_eq!(self.doubt.replace(rows), None, "one statement at a time"),
            Entry::Done(last) => {
                let rows = self.doubt.take().unwrap();
                let changed = apply(&mut self.model, &rows);
                if !changed.is_empty() {
                    assert_eq!(self.changes.insert(last, changed), None, "sequences go on");
                }
            }
            Entry::Undone => drop(self.doubt.take().unwrap()),
            Entry::Trimming(floor) => self.trimming = Some(floor),
            Entry::Losing => self.losing = true,
            Entry::Floor(floor, is_new) => {
                (self.floor, self.trimming, self.losing) = (floor, None, false);
                if is_new {
                    self.stream.clear();
                }
            }
            Entry::StreamBegun(row) => assert_eq!(self.stream_doubt.replace(row), None, "one row at a time"),
            Entry::StreamDone(updated) => {
                let (user, key, value) = self.stream_doubt.take().unwrap();
                match value {
                    Some(value) => drop(self.stream.insert((user, key), (value, updated))),
                    None => drop(self.stream.remove(&(user, key))),
                }
            }
            Entry::StreamUndone => drop(self.stream_doubt.take().unwrap()),
            Entry::Clock(ahead) => self.ahead = ahead,
            Entry::Hit(point) => self.hits.push(point),
        }
    }

    /// The last sequence of a statement.
    pub fn last_seq(&self) -> Seq {
        self.changes.last_key_value().map_or(Seq::ZERO, |(last, _)| *last)
    }
}

/// Makes it hold what holds after the statement; answers what changed.
pub fn apply(model: &mut Model, rows: &[RowOf]) -> BTreeMap<(String, i32, String), Changed> {
    let mut changed = BTreeMap::new();
    for (user, first, second, value) in rows {
        let key = (user.clone(), *first, second.clone());
        let old = match value {
            Some(value) => model.insert(key.clone(), *value),
            None => model.remove(&key),
        };
        let operation = match (value, old) {
            (Some(_), None) => Operation::Insert,
            (Some(_), Some(_)) => Operation::Update,
            (None, Some(_)) => Operation::Delete,
            (None, None) => continue,
        };
        changed.insert(key, (operation, old));
    }
    changed
}
