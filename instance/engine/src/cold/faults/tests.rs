//! Each request to the object store fails, loses its answer, breaks off or hangs, while the process lives on: whatever was being done ends well or by a
//! clear error, what is read stays what was acknowledged, and the same thing done again succeeds.

use std::sync::Arc;
use std::time::Duration;

use kalamdb_api::flush::{FlushJob, FlushReason, FlushState};

use super::*;
use crate::EngineError;
use crate::engine::{Engine, LookUp};
use crate::flush::tests::{USERS, World};
use crate::schema::{Table, TableKind};
use crate::value::Value;

/// What is done while a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Flush,
    /// A new life claims its epoch, mirrors the catalog, fences the table and flushes it.
    FirstFlush,
    Compaction,
    Vacuum,
    /// The log's checkpoint.
    Checkpoint,
    /// An empty volume comes back.
    Recovery,
    /// Queries and look-ups for which nothing is cached.
    Reads,
}

/// How it ended: well, or by an error that callers see.
type End = Result<(), String>;

impl World {
    /// Gives the work something to do.
    async fn prepare(&mut self, work: Work, turn: i64) {
        let row = 10 + turn as i32 % 30;
        match work {
            Work::Compaction | Work::Vacuum => {
                for value in [turn, turn + 1] {
                    self.write("alice", &[(row, "a", Some(value)), (row + 1, "b", Some(value)), (3, "a", None)]).await;
                    assert_eq!(self.flush().await, FlushState::Completed);
                }
                if work == Work::Vacuum {
                    assert_eq!(self.compact().await, FlushState::Completed);
                }
            }
            Work::Recovery | Work::Checkpoint => {
                self.write("bob", &[(row, "a", Some(turn))]).await;
                assert_eq!(self.flush().await, FlushState::Completed);
                self.mirrored().await;
                if work == Work::Recovery {
                    return;
                }
            }
            Work::Flush | Work::FirstFlush | Work::Reads => {
                self.write("alice", &[(row, "a", None), (row + 1, "a", Some(turn))]).await;
            }
        }
        // It masks a flushed row, and is hot whatever comes.
        self.write("alice", &[(1, "a", Some(turn))]).await;
    }

    /// Does the work; writes and reads of hot rows go on while a request of it hangs.
    async fn do_work(&mut self, work: Work) -> End {
        match work {
            Work::Recovery => {
                let letting_go = let_go_soon(self.faults.clone());
                let flushed = self.model.clone();
                self.lose_volume(flushed).await;
                self.recovered().await;
                letting_go.abort();
                return Ok(());
            }
            Work::FirstFlush => self.restart().await,
            Work::Reads => self.forget_cold().await,
            Work::Flush | Work::Compaction | Work::Vacuum | Work::Checkpoint => {}
        }
        self.jobs += 1;
        let (engine, table) = (self.engine().clone(), self.table.clone());
        let task = tokio::spawn(perform(engine, table, work, format!("job-{}", self.jobs)));
        while !task.is_finished() && !self.faults.hangs() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if self.faults.hangs() {
            self.write("alice", &[(1, "a", Some(-1))]).await;
            assert_eq!(self.hot_value().await, Some(Value::BigInt(-1)), "{work:?}");
            assert!(!task.is_finished() || work == Work::FirstFlush, "{work:?} did not wait");
            self.faults.let_go();
        }
        task.await.expect("nothing panics")
    }

    /// The value of a row that is hot.
    async fn hot_value(&self) -> Option<Value> {
        let key = Engine::key_of(&self.table, &[Value::Int(1), Value::Text("a".into())]).unwrap();
        let (snapshot, user) = (self.engine().snapshot(), self.user("alice"));
        let found = snapshot.look_up(&self.table, user.as_ref(), &[key]).await.unwrap().remove(0);
        found.found().map(|found| found.row[2].clone())
    }

    /// Nothing of the cold tier is in memory any more.
    pub(crate) async fn forget_cold(&self) {
        let cold = &self.runner().cold;
        for file in &self.cold().await.files {
            cold.cache().forget(&cold.log(self.table.uuid).path_of(&file.path));
        }
        cold.forget(self.table.uuid);
    }

    /// A checkpoint that always fails would have one more entry of the log to read each time, and the fault would never overtake it.
    async fn checkpoint(&self) {
        let version = self.cold().await.version;
        self.runner().cold.log(self.table.uuid).checkpoint(version).await.unwrap();
    }

    /// Does the work until it ends well.
    async fn redo(&mut self, work: Work, when: &str) {
        for _ in 0..100 {
            let end = match work {
                Work::Recovery | Work::Reads => return,
                // A life goes on as it has begun.
                Work::FirstFlush => self.do_work(Work::Flush).await,
                work => self.do_work(work).await,
            };
            match end {
                Ok(()) => return,
                // The claim of the prefix is tried again after a while.
                Err(error) if work == Work::FirstFlush => {
                    println!("{when}: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{when}, once the fault is gone: {error}"),
            }
        }
        panic!("{when}: it never ends well again");
    }
}

fn let_go_soon(faults: Arc<Faults>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            faults.let_go();
        }
    })
}

async fn perform(engine: Engine, table: Arc<Table>, work: Work, id: String) -> End {
    match work {
        Work::Flush | Work::FirstFlush => {
            engine.start_flush(&id, &table.name, FlushReason::Statement).await.unwrap();
            end_of(&engine, &id).await
        }
        Work::Compaction => {
            engine.start_compaction(&id, &table.name, FlushReason::Statement).await.unwrap();
            end_of(&engine, &id).await
        }
        Work::Vacuum => told(engine.flusher().vacuum(&table, Duration::ZERO).await.map(drop)),
        Work::Checkpoint => {
            let runner = &engine.flusher().runner;
            let version = runner.hot.snapshot().tier(table.id).unwrap().cold_version;
            told(runner.cold.log(table.uuid).checkpoint(version).await)
        }
        Work::Reads => {
            let keys =
                (0..60).flat_map(|first| ["a", "b"].map(|second| [Value::Int(first), Value::Text(second.into())]));
            let keys: Vec<_> = keys.map(|key| Engine::key_of(&table, &key).unwrap()).collect();
            let (snapshot, user) = (engine.snapshot(), Some("alice".into()));
            let found = snapshot.look_up(&table, user.as_ref(), &keys).await;
            let scanned = scan(&engine, &table).await;
            let found = match found {
                Ok(found) => found.iter().filter(|found| matches!(found, LookUp::Read { found: Some(_), .. })).count(),
                Err(error) => return told(Err(error)),
            };
            assert_eq!(found, scanned?, "look-ups and scans agree");
            Ok(())
        }
        Work::Recovery => unreachable!("it needs the volume"),
    }
}

/// How many rows alice has, as a query sees them.
async fn scan(engine: &Engine, table: &Arc<Table>) -> Result<usize, String> {
    let session = datafusion::prelude::SessionContext::new();
    session.register_table("t", engine.snapshot().provider(table, Some(&"alice".into()))).unwrap();
    let query = session.sql("SELECT c1, c2, c3 FROM t WHERE c3 > -5").await.unwrap();
    match query.collect().await {
        Ok(batches) => Ok(batches.iter().map(|batch| batch.num_rows()).sum()),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("object store"), "{text}");
            Err(text)
        }
    }
}

/// An error says what does not answer, and that a later try may succeed.
fn told(end: Result<(), EngineError>) -> End {
    end.map_err(|error| {
        let is_clear = matches!(&error, EngineError::Unavailable(text) if text.contains("object store"));
        assert!(is_clear, "{error}");
        error.to_string()
    })
}

async fn end_of(engine: &Engine, id: &str) -> End {
    loop {
        let job = engine.jobs().into_iter().find(|job| job.job.id == id).unwrap().job;
        match job {
            FlushJob { state: FlushState::Failed, message: Some(message), .. } => {
                assert!(message.contains("object store"), "{message}");
                return Err(message);
            }
            FlushJob { state, .. } if state.is_final() => return Ok(()),
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

/// One database lives through that fault at each request of the work in turn; answers how many there are, and how often the work ended
/// by an error.
async fn live_through(work: Work, fault: Fault) -> (usize, usize) {
    let mut world = World::in_folder(TableKind::User).await.and_runs().await;
    let (mut errors, mut calls) = (0, 0);
    loop {
        let when = format!("{work:?}, {fault:?} at request {calls}");
        world.prepare(work, calls as i64 * 10).await;
        world.faults.strike_after(calls, fault);
        let end = world.do_work(work).await;
        let has_struck = world.faults.has_struck();
        world.faults.revive();
        match &end {
            Ok(()) => {}
            Err(error) if !has_struck => panic!("{when}: nothing failed but {error}"),
            Err(_) => errors += 1,
        }
        for user in USERS {
            // First of all: nothing but these keys is cached.
            world.select(user).await;
        }
        world.check(&when).await;
        if !has_struck {
            world.stop().await;
            return (calls, errors);
        }
        world.redo(work, &when).await;
        world.check(&format!("{when}, done again")).await;
        world.checkpoint().await;
        calls += 1;
    }
}

/// All kinds of work with that fault; each has at least so many requests in which it is struck.
async fn live_through_all(fault: Fault) {
    let all = [
        (Work::Flush, 4),
        (Work::FirstFlush, 12),
        (Work::Compaction, 10),
        (Work::Vacuum, 6),
        (Work::Checkpoint, 3),
        (Work::Recovery, 8),
        (Work::Reads, 4),
    ];
    let lived = all.map(|(work, fewest)| async move {
        let (requests, errors) = live_through(work, fault).await;
        println!("{work:?} lived through {fault:?} at each of {requests} requests, {errors} times by an error");
        assert!(requests >= fewest, "{work:?} has {requests} requests");
    });
    futures::future::join_all(lived).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_request_may_fail() {
    live_through_all(Fault::Fails).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_any_request_may_be_lost() {
    live_through_all(Fault::LosesAnswer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_answer_may_break_off() {
    live_through_all(Fault::BreaksOff).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_answer_may_end_early() {
    live_through_all(Fault::EndsEarly).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_request_may_hang_until_its_patience_ends() {
    live_through_all(Fault::Hangs).await;
}
