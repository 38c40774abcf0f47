//! Flush jobs over the whole engine: what is read stays what was acknowledged, whatever ends a job.

mod cold_reads;
pub(crate) mod deaths;
mod evolution;
mod log;
mod names;
mod places;
mod progress;
mod vectors;

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use datafusion::prelude::SessionContext;
use kalamdb_api::flush::{FlushReason, FlushState};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::deaths::Step;
use super::JobKind;
use crate::EngineError;
use crate::catalog::CatalogChange;
use crate::cold::faults::{Faults, FaultyStore};
use crate::cold::{ColdStore, ColdTier};
use crate::commit::clock::{Clock, SystemClock};
use crate::config::{
    CompactionConfig, Durability, EngineConfig, FlushConfig, Limits, ObjectStoreConfig, Patience, VacuumConfig,
};
use crate::engine::{Engine, LookUp, Readiness, RowWrite};
use crate::schema::testing::table;
use crate::schema::{SqlType, Table, TableKind, UserId};
use crate::value::{Row, Value};

/// What the table holds, as acknowledged: (user, first key column, second) -> value.
pub(crate) type Model = BTreeMap<(String, i32, String), i64>;

pub(crate) const USERS: [&str; 2] = ["alice", "bob"];

/// A database in a folder, and what it must hold.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) faults: Arc<Faults>,
    pub(crate) clock: Arc<Ahead>,
    /// None only while it is restarted: the volume is free once nobody holds the engine.
    pub(crate) running: Option<Engine>,
    pub(crate) table: Arc<Table>,
    pub(crate) model: Model,
    pub(crate) jobs: u32,
}

pub(crate) fn config(folder: &FilePath) -> EngineConfig {
    EngineConfig {
        data_dir: folder.join("data"),
        object_store: object_store(folder),
        durability: Durability::Os,
        flush: FlushConfig { scheduler_timeout: Duration::from_secs(3600), ..FlushConfig::default() },
        compaction: CompactionConfig { automatic: false, ..CompactionConfig::default() },
        vacuum: VacuumConfig::default(),
        limits: Limits { disk_reserve_bytes: 1 << 20, reserve_file_bytes: 1 << 20, ..Limits::default() },
    }
}

/// In a folder of this name is where the store is a folder too, whatever the environment says.
const LOCAL: &str = "local";

/// A folder, or the S3 server that the environment names.
fn object_store(folder: &FilePath) -> ObjectStoreConfig {
    let local = ObjectStoreConfig::Local { path: folder.join("cold") };
    if folder.join(LOCAL).exists() {
        return local;
    }
    let Ok(endpoint) = std::env::var("KALAMDB_TEST_S3_ENDPOINT") else { return local };
    let name = folder.file_name().map(|name| name.to_string_lossy().replace('.', "")).unwrap_or_default();
    ObjectStoreConfig::S3 {
        bucket: std::env::var("KALAMDB_TEST_S3_BUCKET").unwrap_or_else(|_| "kalamdb-test".into()),
        prefix: format!("engine/{name}-{}", std::process::id()),
        endpoint: Some(endpoint),
        region: "us-east-1".into(),
        access_key_id: std::env::var("KALAMDB_TEST_S3_ACCESS_KEY").ok(),
        secret_access_key: std::env::var("KALAMDB_TEST_S3_SECRET_KEY").ok(),
        patience: Patience::default(),
    }
}

pub(crate) async fn open(config: EngineConfig, faults: &Arc<Faults>) -> Result<Engine, EngineError> {
    open_at(config, faults, &Arc::default()).await
}

pub(crate) async fn open_at(
    config: EngineConfig,
    faults: &Arc<Faults>,
    clock: &Arc<Ahead>,
) -> Result<Engine, EngineError> {
    let store =
        ColdStore::open(&config.object_store)?.wrapped(|inner| Arc::new(FaultyStore::new(inner, faults.clone())));
    Engine::open_over(config, clock.clone(), ColdTier::over(store, 8 << 20)).await
}

/// The computer's clock, and so many microseconds on.
#[derive(Debug, Default)]
pub(crate) struct Ahead(pub(crate) AtomicI64);

impl Clock for Ahead {
    fn now_micros(&self) -> i64 {
        SystemClock.now_micros() + self.0.load(Ordering::SeqCst)
    }
}

/// Returns once the engine takes rows.
pub(crate) async fn ready(engine: &Engine) {
    for _ in 0..2000 {
        if engine.readiness() == Readiness::Ready {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it stays {:?}", engine.readiness());
}

impl World {
    pub(crate) async fn new(kind: TableKind) -> Self {
        Self::over(tempfile::tempdir().unwrap(), kind).await
    }

    /// Where so many requests are made that a server would take minutes for them.
    pub(crate) async fn in_folder(kind: TableKind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(LOCAL)).unwrap();
        Self::over(folder, kind).await
    }

    /// What that folder holds; the table is made where there is none yet.
    pub(crate) async fn over(folder: tempfile::TempDir, kind: TableKind) -> Self {
        Self::over_at(folder, kind, Arc::default()).await
    }

    pub(crate) async fn over_at(folder: tempfile::TempDir, kind: TableKind, clock: Arc<Ahead>) -> Self {
        let faults = Arc::new(Faults::default());
        let engine = open_at(config(folder.path()), &faults, &clock).await.unwrap();
        ready(&engine).await;
        let mut sample = table(kind, &[SqlType::Int, SqlType::Text, SqlType::BigInt], &[0, 1]);
        sample.uuid = uuid::Uuid::new_v4();
        let name = sample.name.clone();
        if !engine.catalog().tables.contains_key(&name) {
            engine.change_catalog(CatalogChange::CreateTable(Box::new(sample))).await.unwrap();
        }
        let table = engine.catalog().tables[&name].clone();
        Self { folder, faults, clock, running: Some(engine), table, model: Model::new(), jobs: 0 }
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.running.as_ref().expect("the engine runs")
    }

    pub(crate) fn user(&self, user: &str) -> Option<UserId> {
        self.table.kind.is_per_user().then(|| UserId::from(user))
    }

    /// Puts (or deletes, with none) in one commit, and remembers what was acknowledged.
    pub(crate) async fn write(&mut self, user: &str, rows: &[(i32, &str, Option<i64>)]) {
        let owner = self.user(user);
        // A flush that ends between look-up and commit makes the look-up stale: whoever writes looks up again.
        while !self.try_write(owner.as_ref(), rows).await {}
        for (first, second, value) in rows {
            let key = (owner.as_ref().map_or(String::new(), |user| user.to_string()), *first, (*second).to_owned());
            match value {
                Some(value) => drop(self.model.insert(key, *value)),
                None => drop(self.model.remove(&key)),
            }
        }
    }

    async fn try_write(&self, owner: Option<&UserId>, rows: &[(i32, &str, Option<i64>)]) -> bool {
        let values = |row: &(i32, &str, Option<i64>)| vec![Value::Int(row.0), Value::Text(row.1.into())];
        let keys: Vec<_> = rows.iter().map(|row| Engine::key_of(&self.table, &values(row)).unwrap()).collect();
        let read = self.engine().snapshot().look_up(&self.table, owner, &keys).await.unwrap();
        let mut writes = Vec::new();
        for ((row, key), look_up) in rows.iter().zip(keys).zip(read) {
            let exists = matches!(&look_up, LookUp::Read { found: Some(_), .. });
            let new: Option<Row> = row.2.map(|value| values(row).into_iter().chain([Value::BigInt(value)]).collect());
            if new.is_some() || exists {
                writes.push(RowWrite { table: self.table.clone(), user: owner.cloned(), key, look_up, new });
            }
        }
        if writes.is_empty() {
            return true;
        }
        match self.engine().commit(writes).await {
            Ok(_) => true,
            Err(EngineError::Stale) => false,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn start_flush(&mut self) -> String {
        self.jobs += 1;
        let id = format!("job-{}", self.jobs);
        let (_, new) = self.engine().start_flush(&id, &self.table.name, FlushReason::Statement).await.unwrap();
        assert!(new);
        id
    }

    pub(crate) async fn end_of(&self, id: &str) -> kalamdb_api::flush::FlushJob {
        for _ in 0..2000 {
            let job = self.engine().flush_job(id).unwrap();
            if job.state.is_final() {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} does not end: {:?}", self.engine().flush_job(id));
    }

    pub(crate) async fn flush(&mut self) -> FlushState {
        let id = self.start_flush().await;
        let job = self.end_of(&id).await;
        if let Some(message) = job.message {
            println!("{id}: {message}");
        }
        job.state
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(engine) = self.running.take() {
            engine.close().await;
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.running = Some(open_at(config(self.folder.path()), &self.faults, &self.clock).await.unwrap());
        if let Some(table) = self.engine().catalog().tables.get(&self.table.name) {
            self.table = table.clone();
        }
    }

    /// Another database of the same content; this one must have been stopped. None where the store is no folder.
    pub(crate) async fn copy(&self) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let ObjectStoreConfig::Local { .. } = object_store(folder.path()) else { return None };
        copy_folder(self.folder.path(), folder.path());
        let faults = Arc::new(Faults::default());
        let engine = open(config(folder.path()), &faults).await.unwrap();
        engine.flusher().runner.owner.first_try().await;
        let (table, model, clock) = (self.table.clone(), self.model.clone(), Arc::default());
        Some(Self { folder, faults, clock, running: Some(engine), table, model, jobs: self.jobs })
    }

    /// A new life that compacts by itself.
    pub(crate) async fn automatic(&mut self) {
        self.stop().await;
        let config = EngineConfig { compaction: CompactionConfig::default(), ..config(self.folder.path()) };
        self.running = Some(open(config, &self.faults).await.unwrap());
    }

    /// Both ways of reading agree with what was acknowledged.
    pub(crate) async fn check(&self, when: &str) {
        let users: &[&str] = if self.table.kind.is_per_user() { &USERS } else { &[""] };
        for user in users {
            let wanted: Vec<_> = self.model.iter().filter(|(key, _)| key.0 == *user).collect();
            assert_eq!(
                self.select(user).await,
                wanted.iter().map(|(key, value)| (key.1, key.2.clone(), **value)).collect::<Vec<_>>(),
                "select of {user} {when}"
            );
            let keys: Vec<_> = (0..60).flat_map(|first| ["a", "b"].map(|second| (first, second))).collect();
            let encoded: Vec<_> = keys
                .iter()
                .map(|(first, second)| {
                    Engine::key_of(&self.table, &[Value::Int(*first), Value::Text((*second).into())]).unwrap()
                })
                .collect();
            let found =
                self.engine().snapshot().look_up(&self.table, self.user(user).as_ref(), &encoded).await.unwrap();
            for ((first, second), found) in keys.iter().zip(found) {
                let LookUp::Read { found, .. } = found else { panic!("a look-up that read nothing") };
                let found = found.map(|found| found.row[2].clone());
                let wanted = self
                    .model
                    .get(&((*user).to_owned(), *first, (*second).to_owned()))
                    .map(|value| Value::BigInt(*value));
                assert_eq!(found, wanted, "look-up of {user} {first} {second} {when}");
            }
        }
    }

    pub(crate) async fn select(&self, user: &str) -> Vec<(i32, String, i64)> {
        let session = SessionContext::new();
        let provider = self.engine().snapshot().provider(&self.table, self.user(user).as_ref());
        session.register_table("t", provider).unwrap();
        let batches = session.sql("SELECT c1, c2, c3 FROM t ORDER BY c1, c2").await.unwrap().collect().await.unwrap();
        let mut rows = Vec::new();
        for batch in batches {
            let (first, second, value) = (
                batch.column(0).as_primitive::<Int32Type>(),
                batch.column(1).as_string::<i32>(),
                batch.column(2).as_primitive::<Int64Type>(),
            );
            rows.extend(
                (0..batch.num_rows()).map(|row| (first.value(row), second.value(row).to_owned(), value.value(row))),
            );
        }
        rows
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_read_after_any_mix_of_writes_flushes_and_restarts() {
    for kind in [TableKind::Shared, TableKind::User] {
        let mut world = World::new(kind).await;
        world.write("alice", &[(1, "a", Some(10)), (1, "b", Some(11)), (2, "a", Some(20))]).await;
        world.write("bob", &[(1, "a", Some(100)), (3, "a", Some(300))]).await;
        world.check("hot").await;
        assert_eq!(world.flush().await, FlushState::Completed);
        world.check("flushed").await;
        world.write("alice", &[(1, "a", Some(12)), (2, "a", None), (4, "a", Some(40))]).await;
        world.check("masked").await;
        assert_eq!(world.flush().await, FlushState::Completed);
        world.check("flushed twice").await;
        world.write("alice", &[(2, "a", Some(21)), (1, "b", None)]).await;
        world.restart().await;
        world.check("restarted").await;
        assert_eq!(world.flush().await, FlushState::Completed);
        world.check("flushed in a new life").await;
        assert_eq!(world.flush().await, FlushState::Skipped, "nothing is left to flush");
        world.restart().await;
        world.check("restarted again").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_dies_after_any_step_is_settled_by_the_next_life() {
    let steps = [
        (Step::Begun, FlushState::Failed),
        (Step::Written, FlushState::Failed),
        (Step::Committed, FlushState::Completed),
        (Step::Ended, FlushState::Completed),
    ];
    for (step, ends) in steps {
        let mut world = World::new(TableKind::User).await;
        world.write("alice", &[(1, "a", Some(1)), (2, "a", Some(2)), (3, "a", Some(3))]).await;
        world.flush().await;
        world.write("alice", &[(1, "a", Some(10)), (4, "a", Some(4))]).await;
        world.die_in_flush(step).await;
        world.write("alice", &[(4, "a", Some(40)), (2, "a", None)]).await;
        world.restart().await;
        // Superseded while the intent of a dead job is still stored: dirty in the new life too.
        world.write("alice", &[(1, "a", Some(11))]).await;
        let job = world.end_of("job-2").await;
        assert_eq!(job.state, ends, "{step:?}: {job:?}");
        world.check(&format!("after a death at {step:?}")).await;
        assert_eq!(world.flush().await, FlushState::Completed, "{step:?}");
        world.check(&format!("flushed after a death at {step:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_whose_answer_is_lost_is_found_in_the_log() {
    let mut world = World::new(TableKind::Shared).await;
    world.write("", &[(1, "a", Some(1)), (2, "a", Some(2))]).await;
    world.flush().await;
    world.write("", &[(1, "a", Some(3)), (3, "a", Some(3))]).await;
    world.faults.loses_commit_answers.store(true, Ordering::SeqCst);
    assert_eq!(world.flush().await, FlushState::Failed);
    world.write("", &[(3, "a", Some(30))]).await;
    world.faults.away.store(false, Ordering::SeqCst);
    world.check("lost").await;
    assert_eq!(world.flush().await, FlushState::Completed);
    world.check("found").await;
    world.write("", &[(4, "a", Some(4)), (1, "a", None)]).await;
    world.faults.loses_commit_answers.store(true, Ordering::SeqCst);
    assert_eq!(world.flush().await, FlushState::Failed);
    world.faults.away.store(false, Ordering::SeqCst);
    assert_eq!(world.flush().await, FlushState::Completed, "the lost put had moved everything");
    assert_eq!(world.engine().unflushed(), []);
    world.check("found again").await;
    world.restart().await;
    world.check("restarted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_store_away_writes_go_on_and_the_job_fails_visibly() {
    let mut world = World::new(TableKind::Shared).await;
    world.write("", &[(1, "a", Some(1))]).await;
    world.flush().await;
    world.faults.away.store(true, Ordering::SeqCst);
    world.write("", &[(2, "a", Some(2))]).await;
    let id = world.start_flush().await;
    let job = world.end_of(&id).await;
    assert_eq!(job.state, FlushState::Failed);
    assert!(job.message.as_deref().unwrap_or_default().contains("object store"), "{job:?}");
    world.write("", &[(3, "a", Some(3))]).await;
    // A known volume starts and serves while the store is away.
    world.restart().await;
    assert_eq!(world.engine().readiness(), Readiness::Ready);
    world.write("", &[(3, "a", Some(4))]).await;
    world.faults.away.store(false, Ordering::SeqCst);
    world.restart().await;
    assert_eq!(world.flush().await, FlushState::Completed);
    world.check("back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_behind_its_log_stops_the_table_and_overwrites_nothing() {
    let mut world = World::new(TableKind::Shared).await;
    world.write("", &[(1, "a", Some(1))]).await;
    world.flush().await;
    world.stop().await;
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&world.folder.path().join("data"), copy.path());
    world.restart().await;
    world.write("", &[(2, "a", Some(2))]).await;
    world.flush().await;
    world.stop().await;
    let restored = open(EngineConfig { data_dir: copy.path().into(), ..config(world.folder.path()) }, &world.faults)
        .await
        .unwrap();
    let mut behind = World {
        running: Some(restored),
        jobs: 100,
        model: Model::from([((String::new(), 1, "a".into()), 1)]),
        table: world.table.clone(),
        faults: world.faults.clone(),
        clock: Arc::default(),
        folder: copy,
    };
    behind.write("", &[(5, "a", Some(5))]).await;
    let id = behind.start_flush().await;
    let job = behind.end_of(&id).await;
    assert_eq!(job.state, FlushState::Failed);
    assert!(job.message.as_deref().unwrap_or_default().contains("table default.t is stopped"), "{job:?}");
    let key = Engine::key_of(&behind.table, &[Value::Int(5), Value::Text("a".into())]).unwrap();
    let look_up =
        behind.engine().snapshot().look_up(&behind.table, None, std::slice::from_ref(&key)).await.unwrap().remove(0);
    let write = RowWrite { table: behind.table.clone(), user: None, key, look_up, new: None };
    let refused = behind.engine().commit(vec![write]).await;
    assert!(matches!(refused, Err(EngineError::TableStopped { .. })), "{refused:?}");
    behind.stop().await;
    world.restart().await;
    world.check("after the restored volume").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_programs_read_what_was_acknowledged() {
    let seeds = std::env::var("KALAMDB_TEST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(6);
    for seed in 0..seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::new(if seed % 2 == 0 { TableKind::User } else { TableKind::Shared }).await;
        for step in 0..30 {
            let when = format!("seed {seed} step {step}");
            match random.random_range(0..17) {
                0..7 => random_write(&mut world, &mut random).await,
                7 | 8 => assert!(matches!(world.flush().await, FlushState::Completed | FlushState::Skipped), "{when}"),
                9 => world.restart().await,
                10 => {
                    // Writes while a flush runs.
                    let id = world.start_flush().await;
                    random_write(&mut world, &mut random).await;
                    random_write(&mut world, &mut random).await;
                    world.end_of(&id).await;
                }
                11 | 12 => {
                    assert!(matches!(world.compact().await, FlushState::Completed | FlushState::Skipped), "{when}")
                }
                13 => {
                    // Writes and a flush while a compaction runs.
                    let id = world.start_compaction().await;
                    random_write(&mut world, &mut random).await;
                    world.flush().await;
                    random_write(&mut world, &mut random).await;
                    assert_ne!(world.end_of(&id).await.state, FlushState::Failed, "{when}");
                }
                14 => {
                    world.die_after(JobKind::Compact, Step::ALL[random.random_range(0..4)]).await;
                    random_write(&mut world, &mut random).await;
                    world.restart().await;
                }
                15 => drop(world.vacuum(Duration::ZERO).await),
                _ => {
                    world.die_after(JobKind::Flush, Step::ALL[random.random_range(0..4)]).await;
                    random_write(&mut world, &mut random).await;
                    world.restart().await;
                }
            }
            world.check(&when).await;
        }
    }
}

/// Enough versions for a checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_life_loads_the_log_from_its_checkpoint() {
    let mut world = World::new(TableKind::User).await;
    for round in 0..13i64 {
        let first = round as i32 * 2;
        let rows: Vec<_> = (first..first + 10).map(|row| (row, "a", (row % 7 != 3).then_some(round * 100))).collect();
        world.write(USERS[round as usize % 2], &rows).await;
        assert_eq!(world.flush().await, FlushState::Completed);
        if round % 5 == 4 {
            assert_eq!(world.compact().await, FlushState::Completed);
            world.vacuum(Duration::ZERO).await;
        }
    }
    world.restart().await;
    world.check("loaded from a checkpoint").await;
}

pub(crate) async fn random_write(world: &mut World, random: &mut StdRng) {
    let user = USERS[random.random_range(0..2)];
    let first = random.random_range(0..40);
    let rows: Vec<_> = (0..random.random_range(1..12))
        .map(|row| {
            (
                first + row,
                if random.random() { "a" } else { "b" },
                random.random_bool(0.7).then(|| random.random_range(0..1000)),
            )
        })
        .collect();
    world.write(user, &rows).await;
}

pub(crate) fn copy_folder(from: &FilePath, to: &FilePath) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target)
        } else {
            std::fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}
