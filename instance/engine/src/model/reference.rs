//! The plain model: what one history of a database has acknowledged, table by table. It knows no tiers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::schema::{Table, UserId};
use crate::seq::Seq;
use crate::value::{Row, Value};

/// Column 1 of every table: the key.
pub const KEY: &str = "c1";
/// Column 2 of every table, which is never altered: a write puts one more than it read, so that a lost update shows.
pub const VALUE: &str = "c2";
/// Keys of a shared table, and of one user's part of a user table.
pub const KEYS: i32 = 3;
/// Whose rows there are in user tables.
pub const USERS: [&str; 2] = ["alice", "bob"];

/// A row's identity: its user, in user tables, and its key.
pub type RowId = (Option<&'static str>, i32);
/// Every column but the key.
pub type Cells = BTreeMap<String, i64>;
/// What a table holds.
pub type State = BTreeMap<RowId, Cells>;

/// Every row that a table of that kind can hold.
pub fn row_ids(table: &Table) -> Vec<RowId> {
    let users: Vec<_> = if table.kind.is_per_user() { USERS.map(Some).to_vec() } else { vec![None] };
    users.into_iter().flat_map(|user| (1..=KEYS).map(move |key| (user, key))).collect()
}

/// The user of a row, as the engine names it.
pub fn user_of(row: RowId) -> Option<UserId> {
    row.0.map(UserId::from)
}

/// The one of [`USERS`] with that name.
pub fn known_user(name: &str) -> &'static str {
    USERS.into_iter().find(|user| *user == name).unwrap_or("a user that nobody is")
}

/// The row that the engine stores.
pub fn to_row(table: &Table, row: RowId, cells: &Cells) -> Row {
    let value = |name: &str| cells.get(name).map_or(Value::Null, |cell| Value::BigInt(*cell));
    let columns = table.columns.iter().map(|column| column.name.as_str());
    columns.map(|name| if name == KEY { Value::Int(row.1) } else { value(name) }).collect()
}

/// The cells of a row that the engine has read.
pub fn to_cells(table: &Table, row: &[Value]) -> Cells {
    let cell = |(name, value): (&str, &Value)| match value {
        Value::BigInt(cell) if name != KEY => Some((name.to_owned(), *cell)),
        _ => None,
    };
    table.columns.iter().map(|column| column.name.as_str()).zip(row).filter_map(cell).collect()
}

/// An acknowledged change of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Of the version that it made.
    pub seq: Seq,
    /// Which row.
    pub row: RowId,
    /// [`VALUE`] before; none where there was no row.
    pub old: Option<i64>,
    /// [`VALUE`] after; none where it was deleted.
    pub new: Option<i64>,
}

/// How a table's columns changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Alteration {
    /// A column came, which older rows read as this.
    Added(String, i64),
    /// A column went.
    Dropped(String),
    /// A column has another name.
    Renamed(String, String),
}

impl Alteration {
    /// What a table holds after it.
    pub fn apply(&self, state: &State) -> State {
        let mut state = state.clone();
        for cells in state.values_mut() {
            match self {
                Self::Added(name, default) => drop(cells.insert(name.clone(), *default)),
                Self::Dropped(name) => drop(cells.remove(name)),
                Self::Renamed(from, to) => {
                    let cell = cells.remove(from).expect("every row has every column");
                    cells.insert(to.clone(), cell);
                }
            }
        }
        state
    }
}

/// What is in a table at a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct At {
    /// The last sequence that it contains.
    pub seq: Seq,
    /// The rows.
    pub state: Arc<State>,
}

/// One table of one history.
#[derive(Debug, Clone)]
pub struct TableHistory {
    /// As the history has it now.
    pub table: Arc<Table>,
    /// What it holds now.
    pub now: At,
    /// The changes since the history began for this table.
    pub changes: Vec<Change>,
}

impl TableHistory {
    /// A history that begins with these rows.
    pub fn begin(table: Arc<Table>, seq: Seq, state: Arc<State>) -> Self {
        Self { table, now: At { seq, state }, changes: Vec::new() }
    }

    /// [`VALUE`] of the row now.
    pub fn value(&self, row: RowId) -> Option<i64> {
        self.now.state.get(&row).map(|cells| cells[VALUE])
    }

    /// A row was written.
    pub fn acknowledge(&mut self, seq: Seq, row: RowId, new: Option<Cells>) {
        let (old, new_value) = (self.value(row), new.as_ref().map(|cells| cells[VALUE]));
        let state = Arc::make_mut(&mut self.now.state);
        match new {
            Some(cells) => state.insert(row, cells),
            None => state.remove(&row),
        };
        self.now.seq = seq;
        self.changes.push(Change { seq, row, old, new: new_value });
    }

    /// The table was altered.
    pub fn alter(&mut self, table: Arc<Table>, alteration: &Alteration) {
        self.now.state = Arc::new(alteration.apply(&self.now.state));
        self.table = table;
    }
}

/// [`VALUE`] of every row of a state.
pub fn values(state: &State) -> BTreeMap<RowId, i64> {
    state.iter().map(|(row, cells)| (*row, cells[VALUE])).collect()
}
