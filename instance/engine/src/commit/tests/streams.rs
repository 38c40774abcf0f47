//! Stream tables over the whole engine, with a clock that only the test moves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::*;
use super::world::{TestClock, config};
use crate::catalog::CatalogChange;
use crate::commit::expiry;
use crate::engine::{Committed, Engine, LookUp, RowWrite};
use crate::hot::changes::Operation;
use crate::hot::store::Family;
use crate::hot::stream::Buckets;
use crate::hot::{Key, key};
use crate::schema::testing::table;
use crate::schema::{SqlType, TableKind, UserId};
use crate::seq::Seq;
use crate::value::Value;

const TTL: Duration = Duration::from_secs(10);
const USERS: [&str; 2] = ["ann", "ben"];

struct World {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
    running: Option<Engine>,
    table: Arc<Table>,
    dropped: HashMap<TableId, u64>,
}

impl World {
    /// With the columns (id, value), both BIGINT, keyed by the first or by nothing.
    async fn new(key: &[usize]) -> Self {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::new()));
        let engine = Engine::open_with(config(folder.path()), clock.clone()).await.unwrap();
        let mut made = table(TableKind::Stream, &[SqlType::BigInt, SqlType::BigInt], key);
        made.ttl_seconds = Some(TTL.as_secs() as u32);
        let name = made.name.clone();
        engine.change_catalog(CatalogChange::CreateTable(Box::new(made))).await.unwrap();
        let table = engine.catalog().tables[&name].clone();
        Self { folder, clock, running: Some(engine), table, dropped: HashMap::new() }
    }

    fn engine(&self) -> &Engine {
        self.running.as_ref().expect("it runs")
    }

    async fn look_up(&self, user: &str, id: i64) -> (Key, LookUp) {
        let key = Engine::key_of(&self.table, &[Value::BigInt(id)]).unwrap();
        let snapshot = self.engine().snapshot();
        let mut found = snapshot.look_up(&self.table, Some(&user.into()), std::slice::from_ref(&key)).await.unwrap();
        (key, found.remove(0))
    }

    async fn write(&self, user: &str, found: (Key, LookUp), new: Option<(i64, i64)>) -> Result<Committed, EngineError> {
        let new = new.map(|(id, value)| vec![Value::BigInt(id), Value::BigInt(value)]);
        let (key, look_up) = found;
        let write = RowWrite { table: self.table.clone(), user: Some(user.into()), key, look_up, new };
        self.engine().commit(vec![write]).await
    }

    async fn put(&self, user: &str, id: i64, value: i64) -> Committed {
        self.write(user, self.look_up(user, id).await, Some((id, value))).await.unwrap()
    }

    async fn read(&self, user: &str, id: i64) -> Option<i64> {
        let (_, found) = self.look_up(user, id).await;
        found.found().map(|found| match found.row[1] {
            Value::BigInt(value) => value,
            _ => panic!("{found:?}"),
        })
    }

    async fn scan(&self, user: &str) -> Vec<(i64, i64, Seq)> {
        let session = SessionContext::new();
        let provider = self.engine().snapshot().provider(&self.table, Some(&UserId::from(user)));
        session.register_table("t", provider).unwrap();
        let query = session.sql("SELECT c1, c2, _seq FROM t ORDER BY c1").await.unwrap();
        let mut rows = Vec::new();
        for batch in query.collect().await.unwrap() {
            let [a, b, c] = [0, 1, 2].map(|at| batch.column(at).as_primitive::<Int64Type>().clone());
            rows.extend((0..batch.num_rows()).map(|at| (a.value(at), b.value(at), Seq(c.value(at)))));
        }
        rows
    }

    async fn values(&self, user: &str) -> Vec<(i64, i64)> {
        self.scan(user).await.into_iter().map(|(id, value, _)| (id, value)).collect()
    }

    /// Row versions that RocksDB holds.
    fn stored(&self) -> usize {
        let mut rows = 0;
        let count = |_: &[u8], _: &[u8]| {
            rows += 1;
            Ok(())
        };
        let prefix = key::table_prefix(self.table.id);
        self.engine().hot().snapshot().each(Family::StreamTable, &prefix, count).unwrap();
        rows
    }

    async fn drop_expired(&mut self) {
        let committer = self.engine().committer().clone();
        let (table, mut dropped) = (self.table.clone(), std::mem::take(&mut self.dropped));
        let work = move || {
            let buckets = Buckets::of(&table).unwrap();
            expiry::drop_expired(&committer.queue, &committer.shared, &table, buckets, &mut dropped).unwrap();
            dropped
        };
        self.dropped = tokio::task::spawn_blocking(work).await.unwrap();
    }

    async fn restart(&mut self) {
        self.running.take().expect("it runs").close().await;
        self.running = Some(Engine::open_with(config(self.folder.path()), self.clock.clone()).await.unwrap());
        self.dropped.clear();
    }

    async fn close(mut self) {
        self.running.take().expect("it runs").close().await;
    }
}

#[tokio::test]
async fn a_row_is_gone_at_its_ttl_and_its_bucket_is_dropped_soon_after() {
    let mut world = World::new(&[0]).await;
    world.put("ann", 1, 10).await;
    world.clock.advance(TTL / 2);
    world.put("ann", 2, 20).await;
    world.clock.advance(TTL / 2 - Duration::from_micros(1));
    assert_eq!(world.values("ann").await, [(1, 10), (2, 20)]);
    assert_eq!(world.read("ann", 1).await, Some(10));
    let begun = world.engine().snapshot();
    world.clock.advance(Duration::from_micros(1));
    assert_eq!((world.values("ann").await, world.read("ann", 1).await), (vec![(2, 20)], None));
    let key = Engine::key_of(&world.table, &[Value::BigInt(1)]).unwrap();
    let still = begun.look_up(&world.table, Some(&"ann".into()), &[key]).await.unwrap();
    assert!(still[0].found().is_some(), "a statement that began before reads its own moment");
    drop(begun);
    world.drop_expired().await;
    world.clock.advance(TTL / 8);
    world.drop_expired().await;
    assert_eq!(world.stored(), 1, "the bucket of row 1 went, that of row 2 did not");
    assert_eq!(world.values("ann").await, [(2, 20)]);
    assert!(world.engine().unflushed().is_empty(), "rows that are never flushed are not unflushed");
    let flush = world.engine().start_flush("f", &world.table.name, kalamdb_api::flush::FlushReason::Statement).await;
    assert!(flush.unwrap_err().to_string().contains("never flushed"));
    world.close().await;
}

#[tokio::test]
async fn a_key_has_one_version_wherever_its_bucket_is() {
    let world = World::new(&[0]).await;
    world.put("ann", 1, 10).await;
    world.put("ben", 1, 11).await;
    let before = world.look_up("ann", 1).await;
    world.clock.advance(TTL / 4);
    world.put("ann", 1, 20).await;
    assert_eq!((world.stored(), world.read("ann", 1).await, world.read("ben", 1).await), (2, Some(20), Some(11)));
    let late = world.write("ann", before.clone(), Some((1, 30))).await;
    assert!(matches!(late, Err(EngineError::Stale)), "{late:?}");
    let free = world.look_up("ann", 2).await;
    world.clock.advance(TTL / 4);
    world.put("ann", 2, 1).await;
    world.clock.advance(TTL / 4);
    let late = world.write("ann", free, Some((2, 2))).await;
    assert!(matches!(late, Err(EngineError::Stale)), "the key was taken in a bucket of its own: {late:?}");
    world.write("ann", world.look_up("ann", 1).await, None).await.unwrap();
    assert_eq!((world.stored(), world.values("ann").await), (2, vec![(2, 1)]));
    let late = world.write("ann", before, None).await;
    assert!(matches!(late, Err(EngineError::Stale)), "it is gone: {late:?}");
    let snapshot = world.engine().hot().snapshot();
    let changes = snapshot.changes(&world.table, Some(&"ann".into()), Seq::ZERO, 10).unwrap();
    let operations: Vec<_> = changes.iter().map(|change| change.operation).collect();
    assert_eq!(operations, [Operation::Insert, Operation::Update, Operation::Insert, Operation::Delete]);
    drop(snapshot);
    world.close().await;
}

#[tokio::test]
async fn what_expired_between_look_up_and_commit_is_stale_and_its_key_free() {
    let world = World::new(&[0]).await;
    world.put("ann", 1, 10).await;
    let found = world.look_up("ann", 1).await;
    world.clock.advance(TTL);
    let late = world.write("ann", found, Some((1, 11))).await;
    assert!(matches!(late, Err(EngineError::Stale)), "{late:?}");
    world.put("ann", 1, 12).await;
    assert_eq!(world.values("ann").await, [(1, 12)]);
    let snapshot = world.engine().hot().snapshot();
    let changes = snapshot.changes(&world.table, Some(&"ann".into()), Seq::ZERO, 10).unwrap();
    assert!(changes.iter().all(|change| change.operation == Operation::Insert), "{changes:?}");
    drop(snapshot);
    world.close().await;
}

#[tokio::test]
async fn a_clock_that_steps_back_brings_nothing_back() {
    let mut world = World::new(&[0]).await;
    world.put("ann", 1, 10).await;
    world.clock.advance(TTL);
    assert_eq!(world.values("ann").await, []);
    world.clock.set_back(TTL);
    assert_eq!((world.values("ann").await, world.read("ann", 1).await), (vec![], None));
    world.restart().await;
    assert_eq!((world.values("ann").await, world.read("ann", 1).await), (vec![], None), "after a restart");
    world.put("ann", 2, 20).await;
    assert_eq!(world.values("ann").await, [(2, 20)], "what is new lives by the time that was reached");
    world.clock.advance(TTL);
    assert_eq!(world.values("ann").await, [(2, 20)], "until which no time has passed");
    world.clock.advance(TTL);
    assert_eq!(world.values("ann").await, []);
    world.close().await;
}

#[tokio::test]
async fn rows_without_a_key_are_told_apart_by_their_seq() {
    let mut world = World::new(&[]).await;
    let row = |value: i64| RowWrite {
        table: world.table.clone(),
        user: Some("ann".into()),
        key: Key(Box::default()),
        look_up: LookUp::Generated,
        new: Some(vec![Value::BigInt(1), Value::BigInt(value)]),
    };
    let committed = world.engine().commit((0..5).map(row).collect()).await.unwrap();
    world.engine().commit((5..6).map(row).collect()).await.unwrap();
    let rows = world.scan("ann").await;
    assert_eq!(rows.len(), 6);
    let mut seqs: Vec<_> = rows.iter().map(|(_, _, seq)| *seq).collect();
    seqs.sort();
    assert_eq!(seqs[..5], committed.seqs(5));
    let (key, user) = (Engine::hidden_key(seqs[2]), UserId::from("ann"));
    let found = world.engine().snapshot().look_up(&world.table, Some(&user), std::slice::from_ref(&key)).await.unwrap();
    world.write("ann", (key, found[0].clone()), None).await.unwrap();
    let mut left: Vec<_> = world.values("ann").await.into_iter().map(|(_, value)| value).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 1, 3, 4, 5]);
    world.restart().await;
    assert_eq!(world.values("ann").await.len(), 5);
    world.clock.advance(TTL);
    assert_eq!(world.values("ann").await, []);
    world.close().await;
}

/// What was acknowledged: (user, id) -> value, `_updated`.
type Model = BTreeMap<(usize, i64), (i64, i64)>;

/// Random programs against a map: writes, deletes, time that goes on and back, drops and restarts.
#[tokio::test]
async fn programs_agree_with_a_map() {
    for seed in 0..6 {
        let mut world = World::new(&[0]).await;
        let (mut random, mut model) = (StdRng::seed_from_u64(seed), Model::new());
        for step in 0..150 {
            let (user, id) = (random.random_range(0..2), random.random_range(0..6));
            match random.random_range(0..20) {
                0..=8 => {
                    let committed = world.put(USERS[user], id, step).await;
                    model.insert((user, id), (step, committed.updated));
                }
                9..=11 => {
                    let found = world.look_up(USERS[user], id).await;
                    if found.1.found().is_some() {
                        world.write(USERS[user], found, None).await.unwrap();
                        model.remove(&(user, id));
                    }
                }
                12..=15 => world.clock.advance(Duration::from_millis(random.random_range(1..4000))),
                16 => world.clock.set_back(Duration::from_millis(random.random_range(1..8000))),
                17 | 18 => world.drop_expired().await,
                _ => world.restart().await,
            }
            let now = world.engine().snapshot().read_at();
            model.retain(|_, (_, updated)| now - *updated < TTL.as_micros() as i64);
            for (user, name) in USERS.into_iter().enumerate() {
                let wanted: Vec<_> =
                    model.iter().filter(|(key, _)| key.0 == user).map(|((_, id), (value, _))| (*id, *value)).collect();
                assert_eq!(world.values(name).await, wanted, "seed {seed}, step {step}: scan of {name}");
                for id in 0..6 {
                    let wanted = model.get(&(user, id)).map(|(value, _)| *value);
                    assert_eq!(world.read(name, id).await, wanted, "seed {seed}, step {step}: key {id} of {name}");
                }
            }
        }
        world.clock.advance(TTL * 3);
        world.drop_expired().await;
        assert_eq!(world.stored(), 0, "seed {seed}: everything was dropped");
        world.close().await;
    }
}
