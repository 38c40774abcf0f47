//! What one process does beside others, as futures over the real engine that wait for turns at its points.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use kalamdb_api::flush::{FlushJob, FlushReason};
use uuid::Uuid;

use super::reference::{
    Alteration, Cells, KEY, RowId, State, VALUE, cells_to_write, key_of, row_ids, to_cells, to_row, user_of,
};
use crate::engine::{Committed, Engine, LookUp, ReadSnapshot, RowWrite};
use crate::evolution::TableChange;
use crate::flush::JobKind;
use crate::point::point;
use crate::schema::{Table, TableName};
use crate::seq::Seq;
use crate::transaction::TransactionLimits;
use crate::{EngineError, vacuum::Vacuumed};

/// How often a reader reads what it holds.
const LOOKS: usize = 3;
/// How often a start tries to claim the object store.
const CLAIMS: usize = 6;

/// What a task is, for whoever schedules it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Claims the store and settles what earlier lives left.
    Start,
    /// Rows in one commit.
    Write,
    /// Rows in a transaction.
    Transaction,
    /// A flush job.
    Flush,
    /// A compaction job.
    Compact,
    /// A vacuum.
    Vacuum,
    /// A reader with a snapshot.
    Read,
    /// An ALTER TABLE that looks through the rows.
    Alter,
}

/// A reader that has looked into every table when it took its snapshot, and so holds their files however long it takes.
pub const HELD: &str = "of everything, which it holds";

/// A task's name tag.
#[derive(Debug, Clone)]
pub struct Kind {
    /// The process that it belongs to.
    pub owner: u32,
    /// What it does.
    pub work: Work,
    /// For people: to what.
    pub about: String,
    /// Commits that its process had sent when that lost its volume; none while it holds it.
    pub stale_since: Option<usize>,
}

/// A row that is to be written.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Of which table, as its writer sees it.
    pub table: Arc<Table>,
    /// Which.
    pub row: RowId,
    /// Whether it goes, if it is there.
    pub deletes: bool,
}

/// A row that was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// Of which table.
    pub table: TableName,
    /// Which.
    pub row: RowId,
    /// What was read before.
    pub old: Option<i64>,
    /// What is there from then on.
    pub new: Option<Cells>,
}

/// How a task ended.
#[derive(Debug)]
pub enum Ended {
    /// The start.
    Started,
    /// A write: its rows, and their sequences where the engine tells them.
    Wrote(Vec<Written>, Result<Option<Stamps>, EngineError>),
    /// A job.
    Job(FlushJob),
    /// A vacuum.
    Vacuumed(Result<Vacuumed, EngineError>),
    /// A vacuum of dropped tables: whose folder went.
    VacuumedDropped(Result<Vec<Uuid>, EngineError>),
    /// A reader: what it found wrong.
    Read(Vec<String>),
    /// A change of a table.
    Altered(Arc<Table>, Alteration, Result<(), EngineError>),
}

/// What a commit gave its rows.
#[derive(Debug)]
pub struct Stamps {
    /// Their sequences.
    pub seqs: Vec<Seq>,
    /// Their `_updated`.
    pub updated: i64,
}

/// Claims, and settles.
pub async fn start(engine: Engine) -> Ended {
    let flusher = engine.flusher();
    let dead = flusher.jobs.unended();
    for _ in 0..CLAIMS {
        point!("start.claims");
        flusher.runner.owner.try_claim().await;
        if flusher.runner.owner.epoch().is_ok() {
            flusher.settle_earlier(&dead).await;
            break;
        }
    }
    Ended::Started
}

/// Looks up, waits, and commits.
pub async fn write(engine: Engine, wishes: Vec<Wish>) -> Ended {
    let (writes, written) = match looked_up(&engine.snapshot(), wishes).await {
        Ok(found) => found,
        Err(error) => return Ended::Wrote(Vec::new(), Err(error)),
    };
    point!("write.looked");
    let rows = writes.len();
    let committed = engine.commit(writes).await;
    let stamps = |committed: Committed| Stamps { seqs: committed.seqs(rows), updated: committed.updated };
    Ended::Wrote(written, committed.map(|committed| Some(stamps(committed))))
}

/// The same in a transaction, which looks up again by itself where rows have moved.
pub async fn transact(engine: Engine, wishes: Vec<Wish>) -> Ended {
    let transaction = engine.begin(TransactionLimits { rows: 100, bytes: 1 << 20 });
    let (writes, written) = match looked_up(transaction.snapshot(), wishes).await {
        Ok(found) => found,
        Err(error) => return Ended::Wrote(Vec::new(), Err(error)),
    };
    if let Err(error) = transaction.write(writes) {
        return Ended::Wrote(Vec::new(), Err(error));
    }
    point!("write.looked");
    Ended::Wrote(written, transaction.commit().await.map(|_| None))
}

async fn looked_up(snapshot: &ReadSnapshot, wishes: Vec<Wish>) -> Result<(Vec<RowWrite>, Vec<Written>), EngineError> {
    let (mut writes, mut written) = (Vec::new(), Vec::new());
    for Wish { table, row, deletes } in wishes {
        let (user, key) = (user_of(row), key_of(&table, row)?);
        let look_up = snapshot.look_up(&table, user.as_ref(), std::slice::from_ref(&key)).await?.remove(0);
        let old = look_up.found().map(|found| to_cells(&table, &found.row)[VALUE]);
        let cells = cells_to_write(&table, old.unwrap_or(0) + 1);
        let new = Some(cells).filter(|_| !(deletes && old.is_some()));
        written.push(Written { table: table.name.clone(), row, old, new: new.clone() });
        let new = new.map(|cells| to_row(&table, row, &cells));
        writes.push(RowWrite { table, user, key, look_up, new });
    }
    Ok((writes, written))
}

/// A job from its begin to its end.
pub async fn job(engine: Engine, kind: JobKind, id: String, table: TableName) -> Ended {
    let flusher = engine.flusher();
    let added = flusher.jobs.add(kind, &id, &table, FlushReason::Statement, flusher.runner.now_ms());
    added.expect("the id is new");
    flusher.clone().run(kind, id.clone(), table).await;
    Ended::Job(flusher.jobs.get(&id).expect("jobs are remembered"))
}

/// Deletes what may go of a table.
pub async fn vacuum(engine: Engine, table: Arc<Table>) -> Ended {
    point!("vacuum.begins");
    let retention = engine.config().vacuum.retention;
    Ended::Vacuumed(engine.flusher().vacuum(&table, retention).await)
}

/// Deletes the folders of dropped tables that may go.
pub async fn vacuum_dropped(engine: Engine, retention: Duration) -> Ended {
    point!("vacuum.begins");
    let runner = &engine.flusher().runner;
    let mut gone = Vec::new();
    for table in runner.hot.snapshot().dropped_tables().expect("the volume can be read") {
        match runner.vacuum_dropped(&table, retention).await {
            Ok(deleted) => gone.extend(deleted.map(|_| table.uuid)),
            Err(error) => return Ended::VacuumedDropped(Err(error)),
        }
    }
    Ended::VacuumedDropped(Ok(gone))
}

/// Changes a table.
pub async fn alter(engine: Engine, table: Arc<Table>, change: TableChange, alteration: Alteration) -> Ended {
    let altered = engine.alter_table(&table, &change, 5).await;
    Ended::Altered(table, alteration, altered)
}

/// A reader that took its snapshot before, and reads later: all that it finds must be what was acknowledged then.
pub async fn read(snapshot: ReadSnapshot, expected: Vec<(Arc<Table>, Arc<State>)>) -> Ended {
    point!("read.begun");
    Ended::Read(faults_of(&snapshot, &expected).await)
}

/// One that holds what it will read.
pub async fn hold(snapshot: ReadSnapshot, expected: Vec<(Arc<Table>, Arc<State>)>) -> Ended {
    let mut held = Vec::new();
    for (table, _) in &expected {
        match snapshot.cold_version(table).await {
            Ok(version) => held.push(version),
            Err(error) => return Ended::Read(vec![format!("{} can't be held: {error}", table.name)]),
        }
    }
    let mut faults = Vec::new();
    for _ in 0..LOOKS {
        point!("read.holds");
        faults.extend(faults_of(&snapshot, &expected).await);
    }
    Ended::Read(faults)
}

/// What both ways of reading find wrong in a snapshot.
pub async fn faults_of(snapshot: &ReadSnapshot, expected: &[(Arc<Table>, Arc<State>)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (table, state) in expected {
        match scanned(snapshot, table).await {
            Ok(found) if found == **state => {}
            found => faults.push(format!("a scan of {} gives {found:?}, and not {state:?}", table.name)),
        }
        match looked(snapshot, table).await {
            Ok(found) if found == **state => {}
            found => faults.push(format!("look-ups in {} give {found:?}, and not {state:?}", table.name)),
        }
    }
    faults
}

async fn looked(snapshot: &ReadSnapshot, table: &Arc<Table>) -> Result<State, EngineError> {
    let mut state = State::new();
    let rows = row_ids(table);
    for part in rows.chunk_by(|one, next| one.0 == next.0) {
        let keys: Result<Vec<_>, _> = part.iter().map(|row| key_of(table, *row)).collect();
        let found = snapshot.look_up(table, user_of(part[0]).as_ref(), &keys?).await?;
        let found = part.iter().zip(&found).filter_map(|(row, found): (_, &LookUp)| Some((*row, found.found()?)));
        state.extend(found.map(|(row, found)| (row, to_cells(table, &found.row))));
    }
    Ok(state)
}

thread_local! {
    static SESSION: SessionContext = SessionContext::new();
}

async fn scanned(snapshot: &ReadSnapshot, table: &Arc<Table>) -> Result<State, String> {
    let session = SESSION.with(SessionContext::clone);
    let mut state = State::new();
    let rows = row_ids(table);
    for part in rows.chunk_by(|one, next| one.0 == next.0) {
        let provider = snapshot.provider(table, user_of(part[0]).as_ref());
        let plan = provider.scan(&session.state(), None, &[], None).await.map_err(|error| error.to_string())?;
        for batch in collect(plan, session.task_ctx()).await.map_err(|error| error.to_string())? {
            add(&mut state, table, part[0].0, &batch)?;
        }
    }
    Ok(state)
}

fn add(state: &mut State, table: &Table, user: Option<&'static str>, batch: &RecordBatch) -> Result<(), String> {
    let keys = numbers(batch, KEY)?;
    for at in 0..batch.num_rows() {
        let mut cells = Cells::new();
        for name in table.columns.iter().map(|column| &column.name).filter(|name| *name != KEY) {
            let values = numbers(batch, name)?;
            if !values.is_null(at) {
                cells.insert(name.clone(), values.value(at));
            }
        }
        let key = i32::try_from(keys.value(at)).expect("keys are small");
        if state.insert((user, key), cells).is_some() {
            return Err(format!("key {} stands there twice", keys.value(at)));
        }
    }
    Ok(())
}

/// A column of whatever integer type.
pub fn numbers(batch: &RecordBatch, name: &str) -> Result<Int64Array, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("no column {name}"))?;
    let numbers = cast(column, &DataType::Int64).map_err(|error| error.to_string())?;
    Ok(numbers.as_primitive::<Int64Type>().clone())
}
