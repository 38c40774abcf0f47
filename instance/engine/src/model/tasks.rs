//! What one process does beside others, as futures over the real engine that wait for turns at its points.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use kalamdb_api::flush::{FlushJob, FlushReason};

use super::reference::{Cells, KEY, RowId, State, VALUE, row_ids, to_cells, to_row, user_of};
use crate::engine::{Engine, LookUp, ReadSnapshot, RowWrite};
use crate::flush::JobKind;
use crate::point::point;
use crate::schema::{Table, TableName};
use crate::seq::Seq;
use crate::transaction::TransactionLimits;
use crate::value::Value;
use crate::{EngineError, vacuum::Vacuumed};

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
}

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
    Wrote(Vec<Written>, Result<Option<Vec<Seq>>, EngineError>),
    /// A job.
    Job(FlushJob),
    /// A vacuum.
    Vacuumed(Result<Vacuumed, EngineError>),
    /// A reader: what it found wrong.
    Read(Vec<String>),
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
    Ended::Wrote(written, committed.map(|committed| Some(committed.seqs(rows))))
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
        let (user, key) = (user_of(row), Engine::key_of(&table, &[Value::Int(row.1)])?);
        let look_up = snapshot.look_up(&table, user.as_ref(), std::slice::from_ref(&key)).await?.remove(0);
        let old = look_up.found().map(|found| to_cells(&table, &found.row)[VALUE]);
        let columns = table.columns.iter().map(|column| column.name.clone()).filter(|name| name != KEY);
        let cells: Cells = columns.map(|name| (name, old.unwrap_or(0) + 1)).collect();
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

/// A reader that took its snapshot before, and reads later: all that it finds must be what was acknowledged then.
pub async fn read(snapshot: ReadSnapshot, expected: Vec<(Arc<Table>, Arc<State>)>) -> Ended {
    point!("read.begun");
    Ended::Read(faults_of(&snapshot, &expected).await)
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
        let keys: Result<Vec<_>, _> = part.iter().map(|row| Engine::key_of(table, &[Value::Int(row.1)])).collect();
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
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("no column {name}"));
    let keys = column(KEY)?.as_primitive::<Int32Type>();
    for at in 0..batch.num_rows() {
        let mut cells = Cells::new();
        for name in table.columns.iter().map(|column| &column.name).filter(|name| *name != KEY) {
            let values = column(name)?.as_primitive::<Int64Type>();
            if !values.is_null(at) {
                cells.insert(name.clone(), values.value(at));
            }
        }
        if state.insert((user, keys.value(at)), cells).is_some() {
            return Err(format!("key {} stands there twice", keys.value(at)));
        }
    }
    Ok(())
}
