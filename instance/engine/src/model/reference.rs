//! The plain model: what one history of a database has acknowledged, table by table. It knows no tiers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::EngineError;
use crate::engine::Engine;
use crate::hot::Key;
use crate::schema::{Column, SqlType, Table, UserId};
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
/// Every column but the key; one that is NULL is not there.
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
    let cell = |column: &Column| match column.name.as_str() {
        KEY => Some(i64::from(row.1)),
        name => cells.get(name).copied(),
    };
    let value = |column: &Column| cell(column).map_or(Value::Null, |cell| integer(column.sql_type, cell));
    table.columns.iter().map(value).collect()
}

/// A number as the value of a column of that type.
pub fn integer(sql_type: SqlType, number: i64) -> Value {
    match sql_type {
        SqlType::SmallInt => Value::SmallInt(i16::try_from(number).expect("nobody writes what does not fit")),
        SqlType::Int => Value::Int(i32::try_from(number).expect("nobody writes what does not fit")),
        _ => Value::BigInt(number),
    }
}

/// The number that a value of whatever integer type is; none is NULL.
pub fn number_of(value: &Value) -> Option<i64> {
    match value {
        Value::SmallInt(number) => Some(i64::from(*number)),
        Value::Int(number) => Some(i64::from(*number)),
        Value::BigInt(number) => Some(*number),
        _ => None,
    }
}

/// Whether a column of that type holds the number.
pub fn fits(sql_type: SqlType, number: i64) -> bool {
    match sql_type {
        SqlType::SmallInt => i16::try_from(number).is_ok(),
        SqlType::Int => i32::try_from(number).is_ok(),
        _ => true,
    }
}

/// The rows that a table of that schema can't hold.
pub fn misfits<'a>(table: &Table, state: &'a State) -> Vec<&'a RowId> {
    let holds = |row: &RowId, cells: &Cells, column: &Column| match column.name.as_str() {
        KEY => fits(column.sql_type, row.1.into()),
        name => cells.get(name).map_or(column.nullable, |cell| fits(column.sql_type, *cell)),
    };
    let is_misfit = |(row, cells): &(&RowId, &Cells)| !table.columns.iter().all(|column| holds(row, cells, column));
    state.iter().filter(is_misfit).map(|(row, _)| row).collect()
}

/// The encoded key of a row.
pub fn key_of(table: &Table, row: RowId) -> Result<Key, EngineError> {
    let sql_type = table.column(KEY).expect("every table has its key").sql_type;
    Engine::key_of(table, &[integer(sql_type, i64::from(row.1))])
}

/// What a write puts into a row beside its key: [`VALUE`], and in the other columns that, NULL, or a number that only a wider type holds.
pub fn cells_to_write(table: &Table, value: i64) -> Cells {
    let cell = |column: &Column| match (value + i64::from(column.id.0)) % 4 {
        _ if column.name == VALUE => Some(value),
        0 if column.nullable => None,
        1 if column.sql_type == SqlType::BigInt => Some(value + (1 << 40)),
        2 if column.sql_type != SqlType::SmallInt => Some(value + (1 << 20)),
        _ => Some(value),
    };
    let columns = table.columns.iter().filter(|column| column.name != KEY);
    columns.filter_map(|column| Some((column.name.clone(), cell(column)?))).collect()
}

/// The cells of a row that the engine has read.
pub fn to_cells(table: &Table, row: &[Value]) -> Cells {
    let cells = table.columns.iter().map(|column| &column.name).zip(row).filter(|(name, _)| *name != KEY);
    cells.filter_map(|(name, value)| Some((name.clone(), number_of(value)?))).collect()
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
    Added(String, Option<i64>),
    /// A column went.
    Dropped(String),
    /// A column has another name.
    Renamed(String, String),
    /// A column has another type of integers.
    Modified(String, SqlType),
    /// A column takes no NULL any more.
    NotNull(String),
    /// A column takes NULL.
    Nullable(String),
    /// A recovery took back what had been asked of rows that are lost.
    AsFlushed,
}

impl Alteration {
    /// What a table holds after it.
    pub fn apply(&self, state: &State) -> State {
        let mut state = state.clone();
        for cells in state.values_mut() {
            match self {
                Self::Added(name, Some(default)) => drop(cells.insert(name.clone(), *default)),
                Self::Added(_, None) | Self::Modified(..) | Self::NotNull(_) | Self::Nullable(_) | Self::AsFlushed => {}
                Self::Dropped(name) => drop(cells.remove(name)),
                Self::Renamed(from, to) => {
                    if let Some(cell) = cells.remove(from) {
                        cells.insert(to.clone(), cell);
                    }
                }
            }
        }
        state
    }

    /// Whether a row does not hold to it, so that it must be refused.
    pub fn is_broken_by(&self, state: &State) -> bool {
        state.values().any(|cells| match self {
            Self::NotNull(name) => !cells.contains_key(name),
            Self::Modified(name, sql_type) => cells.get(name).is_some_and(|cell| !fits(*sql_type, *cell)),
            _ => false,
        })
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
    /// `_updated` of the rows' versions, by which those of stream tables expire.
    born: BTreeMap<RowId, i64>,
}

/// By how much the moment at which a commit is judged may be before its `_updated`, in microseconds.
const JUDGED_BEFORE: i64 = 50_000;

impl TableHistory {
    /// A history that begins with these rows.
    pub fn begin(table: Arc<Table>, seq: Seq, state: Arc<State>) -> Self {
        Self { table, now: At { seq, state }, changes: Vec::new(), born: BTreeMap::new() }
    }

    /// [`VALUE`] of the row now.
    pub fn value(&self, row: RowId) -> Option<i64> {
        self.now.state.get(&row).map(|cells| cells[VALUE])
    }

    /// How long rows of a stream table are seen, in microseconds; none in others.
    pub fn ttl(&self) -> Option<i64> {
        self.table.ttl_seconds.map(|seconds| i64::from(seconds) * 1_000_000)
    }

    /// When each row of a stream table expires.
    pub fn expiries(&self) -> impl Iterator<Item = (RowId, i64)> {
        let rows = self.ttl().map(|ttl| self.now.state.keys().map(move |row| (*row, self.born[row] + ttl)));
        rows.into_iter().flatten()
    }

    /// What of it is seen at a moment.
    pub fn seen_at(&self, moment: i64) -> Arc<State> {
        if self.ttl().is_none() {
            return self.now.state.clone();
        }
        let mut state = State::clone(&self.now.state);
        self.expiries().filter(|(_, expires)| *expires <= moment).for_each(|(row, _)| drop(state.remove(&row)));
        Arc::new(state)
    }

    /// [`VALUE`] of the row before a commit of that moment, which took it for `read`.
    pub fn value_before(&self, row: RowId, moment: i64, read: Option<i64>) -> Option<i64> {
        let value = self.value(row);
        let expires = self.expiries().find(|expiry| expiry.0 == row).map_or(i64::MAX, |expiry| expiry.1);
        match moment - expires {
            JUDGED_BEFORE.. => None,
            0.. => value.filter(|_| value == read),
            _ => value,
        }
    }

    /// A row was written that was `old` before.
    pub fn acknowledge(&mut self, seq: Seq, updated: i64, row: RowId, old: Option<i64>, new: Option<Cells>) {
        let new_value = new.as_ref().map(|cells| cells[VALUE]);
        self.born.insert(row, updated);
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
