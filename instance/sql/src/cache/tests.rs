//! The caches alone, with a clock that is moved by hand. That statements use them rightly is told by the instance's tests.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use kalamdb_engine::catalog::Role;
use kalamdb_engine::schema::{
    AccessLevel, Column, ColumnId, FlushPolicy, SchemaVersion, SqlType, Table, TableId, TableKind, TableName, UserId,
};
use serde_json::json;
use serde_json::value::to_raw_value;
use uuid::Uuid;

use super::plan::{Kept, PlanCache, PlanKey};
use super::query::{Kind, QueryCache, QueryKey, TimesToLive};
use super::schema::{ResolvedTable, SchemaCache};
use super::store::{Clock, Statistics};
use crate::bind::literal::Parameters;
use crate::execute::{ResultColumn, RowSet};
use crate::parse::{Statement, parse_batch};
use crate::{ErrorCode, Identity, SqlError};

const MINUTE: Duration = Duration::from_secs(60);

/// A clock that stands still until it is moved.
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn clock(&self) -> Clock {
        let (begun, millis) = (Instant::now(), Arc::clone(&self.0));
        Arc::new(move || begun + Duration::from_millis(millis.load(Ordering::SeqCst)))
    }

    fn go_on(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }
}

fn table(namespace: &str, version: u32, id: u32) -> Table {
    Table {
        id: TableId(id),
        uuid: Uuid::from_u128(u128::from(id)),
        name: TableName::new(namespace, "t"),
        kind: TableKind::Shared,
        version: SchemaVersion(version),
        columns: (1..=version + 1).map(|at| Column::new(ColumnId(at), format!("c{at}"), SqlType::BigInt)).collect(),
        primary_key: vec![ColumnId(1)],
        next_column_id: ColumnId(version + 2),
        flush_policy: FlushPolicy::default(),
        access_level: AccessLevel::default(),
        ttl_seconds: None,
        storage: None,
        deleted_retention_hours: None,
        created_at: 0,
        updated_at: 0,
    }
}

struct Schemas {
    cache: SchemaCache,
    loads: AtomicUsize,
}

impl Schemas {
    fn new(hand: &Hand) -> Self {
        Self { cache: SchemaCache::new(100, 5 * MINUTE, hand.clock()), loads: AtomicUsize::new(0) }
    }

    fn get(&self, namespace: &str, version: u32, id: u32) -> Arc<ResolvedTable> {
        let load = || {
            self.loads.fetch_add(1, Ordering::SeqCst);
            Ok(table(namespace, version, id))
        };
        let found = self.cache.get_or_load(&TableName::new(namespace, "t"), SchemaVersion(version), TableId(id), load);
        found.unwrap()
    }

    #[track_caller]
    fn assert_loads(&self, expected: usize) {
        assert_eq!(self.loads.load(Ordering::SeqCst), expected);
    }
}

#[test]
fn a_schema_is_loaded_once_and_found_from_then_on() {
    let schemas = Schemas::new(&Hand::new());
    let first = schemas.get("a", 2, 7);
    assert!(Arc::ptr_eq(&first, &schemas.get("a", 2, 7)));
    schemas.assert_loads(1);
    assert_eq!((first.key.as_slice(), first.columns.len()), ([0].as_slice(), 3));
    assert_eq!(
        first.columns[0].flags,
        ["pk", "nn", "uq"].iter().filter(|flag| **flag != "nn").copied().collect::<Vec<_>>()
    );
    assert_eq!(first.schema, table("a", 2, 7).sql_schema());
    assert_eq!(schemas.cache.statistics(), Statistics { hits: 1, misses: 1, evictions: 0, entries: 1 });
}

#[test]
fn a_schema_is_loaded_again_after_five_minutes_and_not_before() {
    let hand = Hand::new();
    let schemas = Schemas::new(&hand);
    schemas.get("a", 1, 7);
    hand.go_on(5 * MINUTE - Duration::from_millis(1));
    schemas.get("a", 1, 7);
    schemas.assert_loads(1);
    hand.go_on(Duration::from_millis(1));
    schemas.get("a", 1, 7);
    schemas.assert_loads(2);
    hand.go_on(6 * MINUTE);
    schemas.cache.sweep();
    let found = schemas.cache.statistics();
    assert_eq!((found.entries, found.evictions), (0, 2), "what is too old goes though nobody asks for it: {found:?}");
}

#[test]
fn versions_and_namespaces_are_kept_apart() {
    let schemas = Schemas::new(&Hand::new());
    for (namespace, version, id) in [("a", 1, 7), ("a", 2, 7), ("b", 1, 8)] {
        let found = schemas.get(namespace, version, id);
        assert_eq!(*found.table, table(namespace, version, id));
    }
    schemas.assert_loads(3);
    schemas.cache.invalidate_namespace("a");
    schemas.get("b", 1, 8);
    schemas.assert_loads(3);
    schemas.get("a", 1, 7);
    schemas.get("a", 2, 7);
    schemas.assert_loads(5);
    assert_eq!(schemas.cache.statistics(), Statistics { hits: 1, misses: 5, evictions: 2, entries: 3 });
}

#[test]
fn a_table_made_again_under_the_same_name_is_never_answered_with_the_old_one() {
    let schemas = Schemas::new(&Hand::new());
    schemas.get("a", 1, 7);
    // No invalidation came: the number alone tells them apart.
    assert_eq!(schemas.get("a", 1, 8).table.id, TableId(8));
    assert_eq!(schemas.get("a", 1, 7).table.id, TableId(7), "a transaction from before still reads the old one");
    schemas.assert_loads(3);
}

#[test]
fn a_hundred_threads_wait_for_one_load() {
    let schemas = Schemas::new(&Hand::new());
    let barrier = Barrier::new(100);
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                barrier.wait();
                schemas.get("a", 1, 7)
            });
        }
    });
    schemas.assert_loads(1);
    let found = schemas.cache.statistics();
    assert_eq!((found.misses, found.hits), (1, 99));
}

#[test]
fn a_failed_load_is_told_and_not_kept() {
    let schemas = Schemas::new(&Hand::new());
    let failed = || Err(SqlError::new(ErrorCode::Unavailable, "not now"));
    let asked = schemas.cache.get_or_load(&TableName::new("a", "t"), SchemaVersion(1), TableId(7), failed);
    assert_eq!(asked.unwrap_err().code, ErrorCode::Unavailable);
    schemas.get("a", 1, 7);
    schemas.assert_loads(1);
    assert_eq!(schemas.cache.statistics().evictions, 0);
}

const TIMES: TimesToLive = TimesToLive {
    tables: Duration::from_secs(60),
    namespaces: Duration::from_secs(60),
    live_queries: Duration::from_secs(10),
    storage_locations: Duration::from_secs(300),
    jobs: Duration::from_secs(30),
};

fn queries(hand: &Hand) -> QueryCache {
    QueryCache::new(1 << 20, TIMES, hand.clock())
}

fn identity(user: &str) -> Identity {
    Identity { user: UserId::from(user), role: Role::Dba, address: None }
}

fn key(cache: &QueryCache, sql: &str, user: &str, kinds: &[Kind]) -> QueryKey {
    QueryKey::new(sql, &Parameters::default(), "default", &identity(user), kinds, &cache.epochs())
}

fn rows(number: i64) -> RowSet {
    let column = |name: &str, data_type: &str| ResultColumn {
        name: name.into(),
        data_type: json!(data_type),
        flags: vec!["pk", "nn"],
    };
    let cells: [(&str, ArrayRef); 2] = [
        ("n", Arc::new(Int64Array::from(vec![Some(number), None]))),
        ("t", Arc::new(StringArray::from(vec!["ü", ""]))),
    ];
    RowSet {
        columns: vec![column("n", "BigInt"), column("t", "Text")],
        batches: vec![
            RecordBatch::try_from_iter_with_nullable(cells.map(|(name, array)| (name, array, true))).unwrap(),
        ],
    }
}

fn found(cache: &QueryCache, key: &QueryKey) -> Option<Vec<RecordBatch>> {
    cache.get(key).unwrap().map(|rows| rows.batches)
}

#[test]
fn each_kind_of_result_is_kept_for_its_own_time() {
    for (kind, seconds) in Kind::ALL.into_iter().zip([60, 60, 10, 300, 30]) {
        let hand = Hand::new();
        let cache = queries(&hand);
        let key = key(&cache, "SELECT 1", "ann", &[kind]);
        assert_eq!(found(&cache, &key), None);
        cache.put(key.clone(), &rows(1)).unwrap();
        hand.go_on(Duration::from_millis(seconds * 1000 - 1));
        let kept = cache.get(&key).unwrap().unwrap();
        assert_eq!((kept.columns, kept.batches), (rows(1).columns, rows(1).batches), "{kind:?}");
        hand.go_on(Duration::from_millis(1));
        assert_eq!(found(&cache, &key), None, "{kind:?}");
        cache.sweep();
        assert_eq!(cache.statistics(), Statistics { hits: 1, misses: 2, evictions: 1, entries: 0 }, "{kind:?}");
    }
}

#[test]
fn each_invalidation_drops_its_kind_and_no_other() {
    let invalidations: [fn(&QueryCache); 5] = [
        QueryCache::invalidate_tables,
        QueryCache::invalidate_namespaces,
        QueryCache::invalidate_live_queries,
        QueryCache::invalidate_storage_locations,
        QueryCache::invalidate_jobs,
    ];
    for (dropped, invalidate) in Kind::ALL.into_iter().zip(invalidations) {
        let cache = queries(&Hand::new());
        let keys = |cache: &QueryCache| Kind::ALL.map(|kind| key(cache, "SELECT 1", "ann", &[kind]));
        keys(&cache).into_iter().for_each(|key| cache.put(key, &rows(1)).unwrap());
        invalidate(&cache);
        for (kind, key) in Kind::ALL.into_iter().zip(keys(&cache)) {
            assert_eq!(found(&cache, &key).is_none(), kind == dropped, "{kind:?} after {dropped:?} was invalidated");
        }
        assert_eq!(cache.statistics().entries, 4);
    }
}

#[test]
fn a_result_that_a_write_overtook_is_found_by_nobody_who_comes_after_the_write() {
    let cache = queries(&Hand::new());
    let both = [Kind::Tables, Kind::Jobs];
    let before = key(&cache, "SELECT 1", "ann", &both);
    cache.invalidate_jobs();
    cache.put(before.clone(), &rows(1)).unwrap();
    assert_eq!(found(&cache, &key(&cache, "SELECT 1", "ann", &both)), None);
}

#[test]
fn nobody_is_answered_with_what_another_user_or_text_asked_for() {
    let cache = queries(&Hand::new());
    let of = |sql: &str, user: &str| key(&cache, sql, user, &[Kind::Tables]);
    cache.put(of("SELECT 1", "ann"), &rows(1)).unwrap();
    assert!(found(&cache, &of("SELECT 1", "ann")).is_some());
    assert_eq!(found(&cache, &of("SELECT 1", "bob")), None);
    assert_eq!(found(&cache, &of("SELECT 2", "ann")), None);
}

#[test]
fn a_hundred_threads_never_see_less_than_what_was_written_before_they_asked() {
    let (cache, written) = (queries(&Hand::new()), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=200 {
                written.store(number, Ordering::SeqCst);
                cache.invalidate_tables();
            }
        });
        for _ in 0..100 {
            scope.spawn(|| {
                for _ in 0..50 {
                    // What is acknowledged now: the newest number whose invalidation is over is at least that of the epoch.
                    let acknowledged = key(&cache, "SELECT 1", "ann", &[Kind::Tables]);
                    let least = cache.epochs();
                    let batches = found(&cache, &acknowledged).unwrap_or_else(|| {
                        let number = written.load(Ordering::SeqCst);
                        cache.put(acknowledged.clone(), &rows(number as i64)).unwrap();
                        rows(number as i64).batches
                    });
                    let number = batches[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0);
                    assert!(key_epoch(&acknowledged) <= number as u64, "{number} under {acknowledged:?}, {least:?}");
                }
            });
        }
    });
}

/// The epoch of the one kind of the key: as many invalidations were over, and as many numbers written.
fn key_epoch(key: &QueryKey) -> u64 {
    key.reads()[0].1
}

#[test]
fn kinds_are_those_of_queries_over_system_tables_alone() {
    let kinds = |sql: &str| {
        let statement = parse_batch(sql).unwrap().remove(0).statement;
        let Statement::Query(query) = statement else { panic!("{sql} is a query") };
        Kind::all_of(&query, "default")
    };
    assert_eq!(kinds("SELECT * FROM system.tables"), Some(vec![Kind::Tables]));
    assert_eq!(
        kinds(
            "SELECT 1 FROM system.jobs j JOIN system.namespaces n ON true WHERE n.name IN (SELECT table_schema FROM information_schema.columns)"
        ),
        Some(vec![Kind::Tables, Kind::Namespaces, Kind::Jobs])
    );
    for other in ["SELECT 1", "SELECT * FROM t", "SELECT * FROM system.tables, t", "SELECT * FROM system.users"] {
        assert_eq!(kinds(other), None, "{other}");
    }
    assert_eq!(kinds("WITH tables AS (SELECT 1) SELECT * FROM tables"), None);
}

#[test]
fn what_is_asked_with_large_parameters_or_long_texts_takes_its_room() {
    let large = vec![to_raw_value(&"x".repeat(500_000)).unwrap(); 3];
    let (cache, parameters) = (queries(&Hand::new()), Parameters::new(&large).unwrap());
    let key = QueryKey::new("SELECT 1", &parameters, "default", &identity("ann"), &[Kind::Tables], &cache.epochs());
    cache.put(key, &rows(1)).unwrap();
    assert_eq!(cache.statistics().entries, 0, "1.5 MB of parameters do not fit in 1 MiB");

    let plans = PlanCache::new(64 << 20, Hand::new().clock());
    let plan = |length: usize| PlanKey::of(&"x".repeat(length), "default", &Parameters::default()).unwrap();
    plans.put(plan(2 << 20), Kept::Never);
    assert_eq!(plans.statistics().entries, 0, "large ones are not kept");
    (0..200).for_each(|at| plans.put(plan((900 << 10) + at), Kept::Never));
    assert!((1..=72).contains(&plans.statistics().entries), "{:?}", plans.statistics());
}
