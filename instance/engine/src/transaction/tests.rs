//! Transactions over the whole engine: what they read, what conflicts, and a bank.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use kalamdb_api::flush::FlushReason;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::catalog::CatalogChange;
use crate::config::{CompactionConfig, Durability, EngineConfig, FlushConfig, Limits, ObjectStoreConfig, VacuumConfig};
use crate::schema::testing::table;
use crate::schema::{SqlType, TableKind};
use crate::value::Value;

const LIMITS: TransactionLimits = TransactionLimits { rows: 1000, bytes: 1 << 20 };

/// A database with the tables `shared`, `own` (of user `ann`) and `stream`: (id, amount), both BIGINT.
struct World {
    _folder: tempfile::TempDir,
    engine: Engine,
    shared: Arc<Table>,
    own: Arc<Table>,
    stream: Arc<Table>,
    flushes: AtomicUsize,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = EngineConfig {
            data_dir: folder.path().join("data"),
            object_store: ObjectStoreConfig::Local { path: folder.path().join("cold") },
            durability: Durability::Os,
            flush: FlushConfig { scheduler_timeout: Duration::from_secs(3600), ..FlushConfig::default() },
            // By itself, after flushes: transactions meet compactions too.
            compaction: CompactionConfig::default(),
            vacuum: VacuumConfig::default(),
            limits: Limits { disk_reserve_bytes: 1 << 20, reserve_file_bytes: 1 << 20, ..Limits::default() },
        };
        let engine = Engine::open(config).await.unwrap();
        let mut tables = Vec::new();
        for (name, kind) in [("shared", TableKind::Shared), ("own", TableKind::User), ("stream", TableKind::Stream)] {
            let mut made = table(kind, &[SqlType::BigInt, SqlType::BigInt], &[0]);
            (made.name.name, made.uuid) = (name.into(), uuid::Uuid::new_v4());
            let name = made.name.clone();
            engine.change_catalog(CatalogChange::CreateTable(Box::new(made))).await.unwrap();
            tables.push(engine.catalog().tables[&name].clone());
        }
        let [shared, own, stream] = tables.try_into().unwrap();
        Self { _folder: folder, engine, shared, own, stream, flushes: AtomicUsize::new(0) }
    }

    async fn flush(&self, table: &Table) {
        let id = format!("flush-{}", self.flushes.fetch_add(1, Ordering::SeqCst));
        self.engine.start_flush(&id, &table.name, FlushReason::Statement).await.unwrap();
        while !self.engine.flush_job(&id).unwrap().state.is_final() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let job = self.engine.flush_job(&id).unwrap();
        assert!(job.message.is_none_or(|message| message.contains("nothing to flush")));
    }

    fn begin(&self) -> Transaction {
        self.engine.begin(LIMITS)
    }

    /// One commit by itself.
    async fn put(&self, table: &Arc<Table>, id: i64, amount: Option<i64>) {
        let transaction = self.begin();
        put(&transaction, table, id, amount).await.unwrap();
        transaction.commit().await.unwrap();
    }

    async fn all(&self, table: &Arc<Table>) -> Vec<(i64, i64)> {
        select(&self.engine.snapshot(), table, "SELECT c1, c2 FROM t ORDER BY c1").await
    }
}

fn user(table: &Table) -> Option<UserId> {
    table.kind.is_per_user().then(|| UserId::from("ann"))
}

async fn look_up(snapshot: &ReadSnapshot, table: &Arc<Table>, id: i64) -> (Key, LookUp) {
    let key = Engine::key_of(table, &[Value::BigInt(id)]).unwrap();
    let found = snapshot.look_up(table, user(table).as_ref(), std::slice::from_ref(&key)).await.unwrap();
    (key, found.into_iter().next().unwrap())
}

async fn amount(snapshot: &ReadSnapshot, table: &Arc<Table>, id: i64) -> Option<i64> {
    let (_, look_up) = look_up(snapshot, table, id).await;
    look_up.found().map(|found| match found.row[1] {
        Value::BigInt(amount) => amount,
        _ => panic!("{found:?}"),
    })
}

/// Puts a row, or deletes it with none, as a statement of the transaction does.
async fn put(transaction: &Transaction, table: &Arc<Table>, id: i64, amount: Option<i64>) -> Result<(), EngineError> {
    let (key, look_up) = look_up(transaction.snapshot(), table, id).await;
    let new = amount.map(|amount| vec![Value::BigInt(id), Value::BigInt(amount)]);
    transaction.write(vec![RowWrite { table: table.clone(), user: user(table), key, look_up, new }]).map(drop)
}

async fn select(snapshot: &ReadSnapshot, table: &Arc<Table>, sql: &str) -> Vec<(i64, i64)> {
    let session = SessionContext::new();
    session.register_table("t", snapshot.provider(table, user(table).as_ref())).unwrap();
    let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
    let pairs = |batch: &arrow::array::RecordBatch| {
        let [a, b] = [0, 1].map(|at| batch.column(at).as_primitive::<Int64Type>().clone());
        (0..batch.num_rows()).map(|at| (a.value(at), b.value(at))).collect::<Vec<_>>()
    };
    batches.iter().flat_map(pairs).collect()
}

fn is_conflict(ended: Result<usize, EngineError>) -> bool {
    matches!(ended, Err(EngineError::Conflict { .. }))
}

#[tokio::test]
async fn a_transaction_reads_its_own_writes_over_both_tiers_and_others_do_not() {
    let world = World::new().await;
    for table in [&world.shared, &world.own] {
        for id in 1..=6 {
            world.put(table, id, Some(id)).await;
        }
        world.flush(table).await;
        for id in 7..=10 {
            world.put(table, id, Some(id)).await;
        }
        world.put(table, 6, Some(60)).await;
        let before = world.all(table).await;
        let transaction = world.begin();
        let changes = [
            (1, Some(100)),
            (2, None),
            (3, None),
            (3, Some(300)),
            (6, None),
            (7, Some(700)),
            (8, None),
            (20, Some(20)),
            (21, Some(21)),
            (21, None),
        ];
        for (id, amount) in changes {
            put(&transaction, table, id, amount).await.unwrap();
        }
        let after = [(1, 100), (3, 300), (4, 4), (5, 5), (7, 700), (9, 9), (10, 10), (20, 20)];
        let snapshot = transaction.snapshot();
        assert_eq!(select(snapshot, table, "SELECT c1, c2 FROM t ORDER BY c1").await, after);
        assert_eq!(select(snapshot, table, "SELECT count(*), sum(c2) FROM t WHERE c1 > 3").await, [(6, 748)]);
        assert_eq!(
            select(snapshot, table, "SELECT c2, c1 FROM t ORDER BY c2 DESC LIMIT 2").await,
            [(700, 7), (300, 3)]
        );
        assert_eq!(select(snapshot, table, "SELECT count(*), 0 FROM t").await, [(8, 0)]);
        for id in 1..=21 {
            let wanted = after.iter().find(|(known, _)| *known == id).map(|(_, amount)| *amount);
            assert_eq!(amount(snapshot, table, id).await, wanted, "{id}");
        }
        assert_eq!(world.all(table).await, before, "others see nothing of it");
        assert_eq!(transaction.commit().await.unwrap(), 7, "the row that came and went is none");
        assert_eq!(world.all(table).await, after);
        world.flush(table).await;
        assert_eq!(world.all(table).await, after);
    }
    world.engine.close().await;
}

#[tokio::test]
async fn a_transaction_reads_one_moment_and_a_rollback_leaves_nothing() {
    let world = World::new().await;
    world.put(&world.shared, 1, Some(1)).await;
    let transaction = world.begin();
    world.put(&world.shared, 1, Some(2)).await;
    world.put(&world.shared, 2, Some(2)).await;
    world.put(&world.own, 1, Some(2)).await;
    assert_eq!(amount(transaction.snapshot(), &world.shared, 1).await, Some(1));
    assert_eq!(select(transaction.snapshot(), &world.shared, "SELECT c1, c2 FROM t").await, [(1, 1)]);
    assert_eq!(amount(transaction.snapshot(), &world.own, 1).await, None);
    put(&transaction, &world.own, 5, Some(5)).await.unwrap();
    drop(transaction);
    assert_eq!(world.all(&world.own).await, [(1, 2)]);
    assert_eq!(world.begin().commit().await.unwrap(), 0);
    world.engine.close().await;
}

#[tokio::test]
async fn of_two_that_write_one_row_the_first_to_commit_wins() {
    let world = World::new().await;
    world.put(&world.shared, 1, Some(10)).await;
    for flushed in [false, true] {
        if flushed {
            world.flush(&world.shared).await;
        }
        let [first, second] = [world.begin(), world.begin()];
        for transaction in [&first, &second] {
            let read = amount(transaction.snapshot(), &world.shared, 1).await.unwrap();
            put(transaction, &world.shared, 1, Some(read + 1)).await.unwrap();
            put(transaction, &world.own, 1, Some(read)).await.unwrap();
        }
        let before = amount(&world.engine.snapshot(), &world.shared, 1).await.unwrap();
        second.commit().await.unwrap();
        assert!(is_conflict(first.commit().await), "its read is of before: the update would be lost");
        assert_eq!(amount(&world.engine.snapshot(), &world.shared, 1).await, Some(before + 1));
    }
    let [first, second] = [world.begin(), world.begin()];
    put(&first, &world.shared, 7, Some(1)).await.unwrap();
    put(&second, &world.shared, 7, Some(2)).await.unwrap();
    first.commit().await.unwrap();
    assert!(is_conflict(second.commit().await), "both saw the key free");
    world.engine.close().await;
}

#[tokio::test]
async fn write_skew_is_possible_as_documented() {
    let world = World::new().await;
    world.put(&world.shared, 1, Some(1)).await;
    world.put(&world.shared, 2, Some(1)).await;
    let [first, second] = [world.begin(), world.begin()];
    for (transaction, other, mine) in [(&first, 1, 2), (&second, 2, 1)] {
        assert_eq!(amount(transaction.snapshot(), &world.shared, other).await, Some(1));
        put(transaction, &world.shared, mine, Some(0)).await.unwrap();
    }
    first.commit().await.unwrap();
    second.commit().await.unwrap();
    assert_eq!(world.all(&world.shared).await, [(1, 0), (2, 0)]);
    world.engine.close().await;
}

#[tokio::test]
async fn a_flush_in_between_is_no_conflict() {
    let world = World::new().await;
    world.put(&world.shared, 1, Some(1)).await;
    let transaction = world.begin();
    put(&transaction, &world.shared, 1, Some(2)).await.unwrap();
    put(&transaction, &world.shared, 2, Some(2)).await.unwrap();
    world.flush(&world.shared).await;
    transaction.commit().await.unwrap();
    assert_eq!(world.all(&world.shared).await, [(1, 2), (2, 2)]);
    let transaction = world.begin();
    put(&transaction, &world.shared, 1, Some(3)).await.unwrap();
    world.put(&world.shared, 1, Some(4)).await;
    world.flush(&world.shared).await;
    assert!(is_conflict(transaction.commit().await), "a flush hides no other commit");
    world.engine.close().await;
}

#[tokio::test]
async fn transactions_have_bounds() {
    let world = World::new().await;
    let transaction = world.engine.begin(TransactionLimits { rows: 2, bytes: 1 << 20 });
    for id in [1, 2] {
        put(&transaction, &world.shared, id, Some(id)).await.unwrap();
    }
    let error = put(&transaction, &world.own, 3, Some(3)).await.unwrap_err();
    assert!(matches!(&error, EngineError::TooLarge(text) if text.contains("at most 2 rows")), "{error}");
    let transaction = world.engine.begin(TransactionLimits { rows: 10, bytes: 700 });
    put(&transaction, &world.shared, 1, Some(1)).await.unwrap();
    put(&transaction, &world.shared, 2, Some(1)).await.unwrap();
    let error = put(&transaction, &world.shared, 3, Some(1)).await.unwrap_err();
    assert!(matches!(error, EngineError::TooLarge(_)), "{error}");

    let key = Engine::key_of(&world.stream, &[Value::BigInt(1)]).unwrap();
    let read = transaction.snapshot().look_up(&world.stream, user(&world.stream).as_ref(), &[key]).await;
    assert!(matches!(read, Err(EngineError::NotInTransaction(_))), "{read:?}");
    let dropped = world.begin();
    put(&dropped, &world.own, 1, Some(1)).await.unwrap();
    let (name, id) = (world.own.name.clone(), world.own.id);
    world.engine.change_catalog(CatalogChange::DropTable { name, id }).await.unwrap();
    assert!(is_conflict(dropped.commit().await));
    world.engine.close().await;
}

const ACCOUNTS: i64 = 12;

/// Transfers between a shared and a per-user table, in transactions, while flushes run; each reader's one SELECT finds all of the money.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_never_loses_money() {
    let world = Arc::new(World::new().await);
    for id in 0..ACCOUNTS {
        world.put(&world.shared, id, Some(100)).await;
        world.put(&world.own, id, Some(100)).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for seed in 0..3 {
        tasks.push(tokio::spawn(transfer(world.clone(), stop.clone(), seed)));
    }
    let (flushing, stopped) = (world.clone(), stop.clone());
    let flusher = tokio::spawn(async move {
        while !stopped.load(Ordering::SeqCst) {
            flushing.flush(&flushing.shared).await;
            flushing.flush(&flushing.own).await;
        }
    });
    let began = std::time::Instant::now();
    let mut read = 0;
    while began.elapsed() < Duration::from_secs(4) {
        assert_eq!(total(&world).await, 2 * ACCOUNTS * 100, "read {read}");
        read += 1;
    }
    stop.store(true, Ordering::SeqCst);
    let mut ended = (0, 0);
    for task in tasks {
        let (committed, conflicts) = task.await.unwrap();
        ended = (ended.0 + committed, ended.1 + conflicts);
    }
    flusher.await.unwrap();
    println!("{} transfers, {} conflicts, {read} reads", ended.0, ended.1);
    assert!(ended.0 > 20 && read > 10, "{ended:?}, {read} reads");
    assert_eq!(total(&world).await, 2 * ACCOUNTS * 100);
    world.engine.close().await;
}

async fn total(world: &World) -> i64 {
    let (snapshot, session) = (world.engine.snapshot(), SessionContext::new());
    for table in [&world.shared, &world.own] {
        let provider = snapshot.provider(table, user(table).as_ref());
        session.register_table(table.name.name.as_str(), provider).unwrap();
    }
    let sql = "SELECT sum(c2) FROM (SELECT c2 FROM shared UNION ALL SELECT c2 FROM own)";
    let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

async fn transfer(world: Arc<World>, stop: Arc<AtomicBool>, seed: u64) -> (u64, u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut committed, mut conflicts) = (0, 0);
    while !stop.load(Ordering::SeqCst) {
        let tables = [&world.shared, &world.own];
        let [from, to] = [0, 1].map(|_| (tables[random.random_range(0..2)], random.random_range(0..ACCOUNTS)));
        let sum = random.random_range(1..20);
        let transaction = world.begin();
        for ((table, id), sum) in [(from, -sum), (to, sum)] {
            let held = amount(transaction.snapshot(), table, id).await.unwrap();
            put(&transaction, table, id, Some(held + sum)).await.unwrap();
        }
        match transaction.commit().await {
            Ok(_) => committed += 1,
            Err(EngineError::Conflict { .. }) => conflicts += 1,
            Err(error) => panic!("{error}"),
        }
    }
    (committed, conflicts)
}
