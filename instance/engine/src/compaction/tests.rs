//! Compactions over the whole engine: what is read stays what was acknowledged, and what outside readers see stays what was flushed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use kalamdb_api::flush::{FlushReason, FlushState};

use super::*;
use crate::engine::{Engine, LookUp, RowWrite};
use crate::flush::JobKind;
use crate::flush::tests::deaths::Step;
use crate::flush::tests::{USERS, World};
use crate::schema::{Column, ColumnId, DefaultValue, FormerType, SchemaVersion, SqlType};
use crate::value::Value;

impl World {
    pub(crate) async fn start_compaction(&mut self) -> String {
        self.jobs += 1;
        let id = format!("job-{}", self.jobs);
        let started = self.engine().start_compaction(&id, &self.table.name, FlushReason::Statement).await;
        assert!(started.unwrap().1);
        id
    }

    pub(crate) async fn compact(&mut self) -> FlushState {
        let id = self.start_compaction().await;
        let job = self.end_of(&id).await;
        assert_eq!(self.engine().jobs()[0].kind, JobKind::Compact);
        if let Some(message) = job.message {
            println!("{id}: {message}");
        }
        job.state
    }

    pub(crate) fn runner(&self) -> &Runner {
        &self.engine().flusher().runner
    }

    pub(crate) async fn cold(&self) -> Arc<ColdSnapshot> {
        let version = self.runner().hot.snapshot().tier(self.table.id).unwrap().cold_version;
        self.runner().cold.at(&self.table, version).await.unwrap()
    }

    /// Rows that a reader outside sees.
    pub(crate) async fn flushed_rows(&self) -> u64 {
        self.cold().await.files.iter().map(|file| file.stats.rows - file.deleted_rows()).sum()
    }

    /// Four runs that overlap, with deleted rows; some rows are masked.
    pub(crate) async fn with_runs(kind: TableKind) -> Self {
        Self::new(kind).await.and_runs().await
    }

    /// Four runs that overlap, with rows that hide others in them.
    pub(crate) async fn and_runs(self) -> Self {
        let mut world = self;
        for round in 0..4 {
            let rows: Vec<_> = (0..12).map(|row| (row * 4 + round, "a", Some(i64::from(round)))).collect();
            world.write("alice", &rows).await;
            world.write("bob", &[(round, "b", Some(1)), (round - 1, "b", None)]).await;
            assert_eq!(world.flush().await, FlushState::Completed);
        }
        world.write("alice", &[(1, "a", Some(70)), (5, "a", None), (2, "a", Some(71))]).await;
        world
    }
}

fn job(attempt: Uuid, config: &CompactionConfig) -> CompactionJob<'_> {
    CompactionJob { attempt, extent: Extent::All, config }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_says_what_many_said() {
    for kind in [TableKind::Shared, TableKind::User] {
        let mut world = World::with_runs(kind).await;
        let (files, rows) = (world.cold().await.files.len(), world.flushed_rows().await);
        assert!(files >= 4);
        assert_eq!(world.compact().await, FlushState::Completed);
        let after = world.cold().await;
        assert_eq!((after.files.len(), after.files[0].deleted_rows()), (1, 0), "{after:?}");
        assert_eq!(world.flushed_rows().await, rows, "masks are not applied: their rows are what a lost volume leaves");
        world.check("compacted").await;
        assert_eq!(world.compact().await, FlushState::Skipped, "nothing is left to merge");
        world.write("alice", &[(2, "a", Some(72)), (3, "a", None), (100, "a", Some(5))]).await;
        world.check("written to after it").await;
        assert_eq!(world.flush().await, FlushState::Completed);
        world.check("flushed after it").await;
        world.restart().await;
        world.check("in a new life").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_dies_after_any_step_is_settled_by_the_next_life() {
    let steps = [
        (Step::Written, FlushState::Failed),
        (Step::Begun, FlushState::Failed),
        (Step::Committed, FlushState::Completed),
        (Step::Ended, FlushState::Completed),
    ];
    for (step, ends) in steps {
        let mut world = World::with_runs(TableKind::User).await;
        let rows = world.flushed_rows().await;
        world.die_in_compaction(step).await;
        world.write("alice", &[(6, "a", Some(60)), (1, "a", None), (9, "a", None)]).await;
        world.check(&format!("dead after {step:?}")).await;
        world.restart().await;
        world.write("bob", &[(3, "b", Some(33)), (0, "a", Some(9))]).await;
        let id = format!("job-{}", world.jobs);
        assert_eq!(world.end_of(&id).await.state, ends, "{step:?}");
        world.check(&format!("after a death at {step:?}")).await;
        assert_eq!(world.flushed_rows().await, rows, "{step:?}");
        world.compact().await;
        world.check(&format!("compacted after a death at {step:?}")).await;
        assert_eq!(world.flush().await, FlushState::Completed, "{step:?}");
        world.vacuum(Duration::ZERO).await;
        world.check(&format!("flushed after a death at {step:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_a_compaction_is_found_in_the_log() {
    let mut world = World::with_runs(TableKind::Shared).await;
    world.faults.loses_commit_answers.store(true, Ordering::SeqCst);
    assert_eq!(world.compact().await, FlushState::Failed);
    world.write("", &[(200, "a", Some(77))]).await;
    world.faults.away.store(false, Ordering::SeqCst);
    world.vacuum(Duration::ZERO).await;
    world.check("lost").await;
    assert_eq!(world.flush().await, FlushState::Completed);
    world.vacuum(Duration::ZERO).await;
    world.check("found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_whose_version_is_no_longer_the_newest_is_given_up() {
    let mut world = World::with_runs(TableKind::User).await;
    let config = CompactionConfig::default();
    let (lane, attempt) = (world.engine().flusher().lane(&world.table), Uuid::new_v4());
    let name = JobName { epoch: world.runner().owner.epoch().unwrap(), job: attempt };
    let built = world.runner().build(&world.table, name, &job(attempt, &config)).await.unwrap().unwrap();
    world.write("alice", &[(8, "a", None), (9, "a", Some(99))]).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    let before = world.cold().await;
    let ended = world.runner().commit_compaction(&built, &mut *lane.lock().await, name, |_| Ok(())).await.unwrap();
    assert_eq!((ended, world.cold().await.version), (Attempt::GivenUp, before.version));
    world.check("given up").await;
    // With the table's turn from the beginning nothing can come between.
    assert_eq!(world.compact().await, FlushState::Completed);
    world.check("compacted then").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_snapshot_and_a_running_query_are_read_right_whatever_a_vacuum_does() {
    let mut world = World::with_runs(TableKind::Shared).await;
    let (wanted, snapshot) = (world.select("").await, world.engine().snapshot());
    let session = SessionContext::new();
    session.register_table("t", world.engine().snapshot().provider(&world.table, None)).unwrap();
    let frame = session.sql("SELECT count(*), sum(c3) FROM t").await.unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    let context = session.task_ctx();
    drop(session);
    world.write("", &[(3, "a", Some(1000)), (100, "a", Some(1))]).await;
    assert_eq!(world.compact().await, FlushState::Completed);
    let done = world.vacuum(Duration::ZERO).await;
    assert_eq!(done.expired, 0, "all is still read");
    let read = collect(plan, context).await.unwrap();
    let sums: Vec<i64> = read.iter().map(|batch| batch.column(1).as_primitive::<Int64Type>().value(0)).collect();
    assert_eq!(sums, [wanted.iter().map(|row| row.2).sum::<i64>()], "the query that was planned before");
    let session = SessionContext::new();
    session.register_table("t", snapshot.provider(&world.table, None)).unwrap();
    let read = session.sql("SELECT count(*) FROM t").await.unwrap().collect().await.unwrap();
    assert_eq!(read[0].column(0).as_primitive::<Int64Type>().value(0), wanted.len() as i64, "the old snapshot");
    world.check("the new one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_files_lack_get_what_their_rows_read_and_dropped_ones_are_left_out() {
    let world = World::with_runs(TableKind::Shared).await;
    let mut altered = Table::clone(&world.table);
    altered.version = SchemaVersion(2);
    altered.columns.pop();
    altered.columns.push(Column {
        default: Some(DefaultValue::Literal(Value::BigInt(8))),
        initial: Value::BigInt(7),
        since: SchemaVersion(2),
        ..Column::new(ColumnId(4), "c4", SqlType::BigInt)
    });
    let (until, from) = (SchemaVersion(2), SqlType::Int);
    altered.columns[0].former.push(FormerType { until, sql_type: from, stored_type: from, physical_name: "c1".into() });
    (altered.columns[0].sql_type, altered.columns[0].stored_type) = (SqlType::BigInt, SqlType::BigInt);
    let runs = policy::runs(&altered, &world.cold().await.files);
    let merge = Merge::new(Shape::new(world.runner().cold.clone(), altered.into()).unwrap(), &runs).unwrap();
    let batches = tokio::task::spawn_blocking(move || merge.collect::<Result<Vec<_>, _>>()).await.unwrap().unwrap();
    let schema = batches[0].schema();
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["c1", "c2", "c4", "_seq", "_updated", "_deleted"]);
    let keys: Vec<_> =
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    assert!(keys.is_sorted() && keys.len() as u64 == world.flushed_rows().await, "{keys:?}");
    let initial = batches.iter().flat_map(|batch| batch.column(2).as_primitive::<Int64Type>().values().to_vec());
    assert!(initial.eq(vec![7; keys.len()]), "and not the DEFAULT of today");
}

/// Transfers between accounts while the table is flushed and compacted: every reader sees the same sum.
#[tokio::test(flavor = "multi_thread")]
async fn writers_readers_flushes_and_compactions_run_side_by_side() {
    let mut world = World::new(TableKind::Shared).await;
    let accounts: Vec<_> = (0..40).map(|account| (account, "a", Some(100))).collect();
    world.write("", &accounts).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for writer in 0..3u64 {
        let (engine, table, stop) = (world.engine().clone(), world.table.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            let mut seed = writer + 1;
            while !stop.load(Ordering::SeqCst) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (from, to) = ((seed >> 33) % 40, (seed >> 43) % 40);
                if from != to {
                    while !transfer(&engine, &table, from as i32, to as i32).await {}
                }
            }
        }));
    }
    let (engine, table, reading) = (world.engine().clone(), world.table.clone(), stop.clone());
    tasks.push(tokio::spawn(async move {
        while !reading.load(Ordering::SeqCst) {
            let session = SessionContext::new();
            session.register_table("t", engine.snapshot().provider(&table, None)).unwrap();
            let read = session.sql("SELECT sum(c3), count(*) FROM t").await.unwrap().collect().await.unwrap();
            let value = |column: usize| read[0].column(column).as_primitive::<Int64Type>().value(0);
            assert_eq!((value(0), value(1)), (4000, 40));
        }
    }));
    for round in 0..12 {
        world.flush().await;
        if round % 2 == 1 {
            let id = world.start_compaction().await;
            world.flush().await;
            let ended = world.end_of(&id).await;
            assert_ne!(ended.state, FlushState::Failed, "{ended:?}");
            world.vacuum(Duration::ZERO).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    world.restart().await;
    let rows = world.select("").await;
    assert_eq!((rows.len(), rows.iter().map(|row| row.2).sum::<i64>()), (40, 4000));
}

/// Moves one from account to account; false where what was read has changed.
async fn transfer(engine: &Engine, table: &Arc<Table>, from: i32, to: i32) -> bool {
    let values = |account: i32| vec![Value::Int(account), Value::Text("a".into())];
    let keys = [from, to].map(|account| Engine::key_of(table, &values(account)).unwrap());
    let read = engine.snapshot().look_up(table, None, &keys).await.unwrap();
    let mut writes = Vec::new();
    for (((account, key), look_up), change) in [from, to].into_iter().zip(keys).zip(read).zip([-1, 1]) {
        let LookUp::Read { found: Some(found), .. } = &look_up else { panic!("account {account} is gone") };
        let Value::BigInt(balance) = &found.row[2] else { panic!("a balance is a number") };
        let new = [values(account), vec![Value::BigInt(balance + change)]].concat();
        writes.push(RowWrite { table: table.clone(), user: None, key, look_up, new: Some(new) });
    }
    match engine.commit(writes).await {
        Ok(_) => true,
        Err(EngineError::Stale) => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instance_compacts_by_itself_what_flushes_made_due() {
    let mut world = World::new(TableKind::User).await;
    world.automatic().await;
    for round in 0..4 {
        world.write(USERS[round as usize % 2], &[(round, "a", Some(1)), (20, "b", Some(i64::from(round)))]).await;
        assert_eq!(world.flush().await, FlushState::Completed);
    }
    for _ in 0..400 {
        if world.cold().await.files.len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let jobs = world.engine().jobs();
    let compacted = jobs.iter().find(|job| job.kind == JobKind::Compact).expect("a job was started");
    assert_eq!(compacted.job.reason, FlushReason::Safety);
    assert_eq!(world.cold().await.files.len(), 1, "{jobs:?}");
    assert!(world.engine().flush_jobs().iter().all(|job| job.id.starts_with("job-")), "a scheduler sees flushes only");
    world.check("compacted by itself").await;
}
