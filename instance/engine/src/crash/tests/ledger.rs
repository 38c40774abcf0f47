//! What a database has acknowledged, on disk beside it, so that it outlives whoever wrote it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::flush::tests::Model;

/// One row of a statement: user, first key column, second, and its value; none deletes.
pub type RowOf = (String, i32, String, Option<i64>);

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// The database's folder from here on.
    Folder(PathBuf),
    /// A statement, or a transaction, is sent.
    Begun(Vec<RowOf>),
    /// The last one was acknowledged, or its rows were found after its process had died.
    Done,
    /// The last one was not acknowledged, and nothing of it was found.
    Undone,
    /// The process dies at this crash point.
    Hit(String),
}

/// All lines of a database.
#[derive(Debug, Default)]
pub struct History {
    /// Where it lies.
    pub folder: Option<PathBuf>,
    /// What it must hold.
    pub model: Model,
    /// The statement of which it is not known whether it holds it.
    pub doubt: Option<Vec<RowOf>>,
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
        for line in text.lines() {
            match serde_json::from_str(line).unwrap() {
                Entry::Folder(folder) => history.folder = Some(folder),
                Entry::Begun(rows) => assert_eq!(history.doubt.replace(rows), None, "one statement at a time"),
                Entry::Done => apply(&mut history.model, &history.doubt.take().unwrap()),
                Entry::Undone => drop(history.doubt.take().unwrap()),
                Entry::Hit(point) => history.hits.push(point),
            }
        }
        history
    }
}

/// What holds after the statement.
pub fn apply(model: &mut Model, rows: &[RowOf]) {
    for (user, first, second, value) in rows {
        let key = (user.clone(), *first, second.clone());
        match value {
            Some(value) => drop(model.insert(key, *value)),
            None => drop(model.remove(&key)),
        }
    }
}
