//! Random programs of ALTER TABLE, writes, flushes, compactions, deaths and restarts, against a plain model that rewrites each row at once.

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ident, lit};
use datafusion::prelude::SessionContext;
use kalamdb_api::flush::{FlushReason, FlushState};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::model::{Model, TYPES, integer, some_value};
use super::deaths::{Step, die};
use super::{Faults, config, open};
use crate::EngineError;
use crate::catalog::CatalogChange;
use crate::cold::scalar::{scalar_of, value_at};
use crate::engine::{Engine, LookUp, RowWrite};
use crate::evolution::{NewColumn, TableChange};
use crate::flush::JobKind;
use crate::schema::testing::table;
use crate::schema::{ColumnId, DefaultValue, SchemaVersion, SqlType, Table, TableKind, TableName, UserId};
use crate::value::{Row, Value};

const USERS: [&str; 2] = ["alice", "bob"];
const KEYS: i64 = 30;
/// How often a writer tries NULL where it may: rarely enough that a change of the schema can come in between.
const NULL_PERIOD: Duration = Duration::from_millis(40);
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

struct World {
    folder: tempfile::TempDir,
    running: Option<Engine>,
    name: TableName,
    kind: TableKind,
    model: Model,
    jobs: u32,
}

impl World {
    /// A table with the key `c1` INT alone; every other column is added later.
    async fn new(kind: TableKind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = open(config(folder.path()), &Arc::new(Faults::default())).await.unwrap();
        let mut sample = table(kind, &[SqlType::Int], &[0]);
        sample.uuid = uuid::Uuid::new_v4();
        let name = sample.name.clone();
        engine.change_catalog(CatalogChange::CreateTable(Box::new(sample))).await.unwrap();
        Self { folder, running: Some(engine), name, kind, model: Model::default(), jobs: 0 }
    }

    fn engine(&self) -> &Engine {
        self.running.as_ref().expect("the engine runs")
    }

    fn table(&self) -> Arc<Table> {
        self.engine().catalog().tables[&self.name].clone()
    }

    fn users(&self) -> &'static [&'static str] {
        if self.kind.is_per_user() { &USERS } else { &[""] }
    }

    fn owner(&self, user: &str) -> Option<UserId> {
        self.kind.is_per_user().then(|| UserId::from(user))
    }

    async fn restart(&mut self) {
        self.running.take().expect("the engine runs").close().await;
        self.running = Some(open(config(self.folder.path()), &Arc::new(Faults::default())).await.unwrap());
    }

    async fn start_flush(&mut self) -> String {
        self.jobs += 1;
        let id = format!("job-{}", self.jobs);
        self.engine().start_flush(&id, &self.name, FlushReason::Statement).await.unwrap();
        id
    }

    async fn end_of(&self, id: &str) -> FlushState {
        for _ in 0..2000 {
            let job = self.engine().flush_job(id).unwrap();
            if job.state.is_final() {
                println!("{id}: {:?} {:?}", job.state, job.message);
                return job.state;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{id} does not end");
    }

    async fn flush(&mut self) {
        let id = self.start_flush().await;
        let state = self.end_of(&id).await;
        assert!(matches!(state, FlushState::Completed | FlushState::Skipped), "{state:?}");
    }

    /// Lets a job die after a step, as with its process; `false` where it ended before.
    async fn die_after(&mut self, kind: JobKind, step: Step) -> bool {
        self.jobs += 1;
        die(self.engine(), kind, format!("job-{}", self.jobs), &self.name, step).await
    }

    async fn start_compaction(&mut self) -> String {
        self.jobs += 1;
        let id = format!("job-{}", self.jobs);
        self.engine().start_compaction(&id, &self.name, FlushReason::Statement).await.unwrap();
        id
    }

    async fn compact(&mut self) -> FlushState {
        let id = self.start_compaction().await;
        self.end_of(&id).await
    }

    async fn vacuum(&self) {
        self.engine().flusher().vacuum(&self.table(), Duration::ZERO).await.unwrap();
    }

    /// Puts a row, or deletes it with none.
    async fn write(&mut self, user: &str, key: i64, row: Option<BTreeMap<String, Value>>) {
        let owner = self.owner(user);
        loop {
            let (catalog, snapshot) = self.engine().read();
            let table = &catalog.tables[&self.name];
            let key_value = integer(key, table.columns[table.key_positions()[0]].sql_type);
            let encoded = Engine::key_of(table, std::slice::from_ref(&key_value)).unwrap();
            let look_up =
                snapshot.look_up(table, owner.as_ref(), std::slice::from_ref(&encoded)).await.unwrap().remove(0);
            let exists = matches!(&look_up, LookUp::Read { found: Some(_), .. });
            let new: Option<Row> = row.as_ref().map(|row| {
                let value = |column: &crate::schema::Column| match row.get(&column.name) {
                    Some(value) => value.clone(),
                    None => key_value.clone(),
                };
                table.columns.iter().map(value).collect()
            });
            if new.is_none() && !exists {
                break;
            }
            let write = RowWrite { table: table.clone(), user: owner.clone(), key: encoded, look_up, new };
            match self.engine().commit(vec![write]).await {
                Ok(_) => break,
                Err(EngineError::Stale) => continue,
                Err(error) => panic!("{error}"),
            }
        }
        let key = (user.to_owned(), key);
        match row {
            Some(row) => drop(self.model.rows.insert(key, row)),
            None => drop(self.model.rows.remove(&key)),
        }
    }

    async fn write_some(&mut self, random: &mut StdRng) {
        for _ in 0..random.random_range(1..6) {
            let user = self.users()[random.random_range(0..self.users().len())];
            let key = random.random_range(0..KEYS);
            let columns = self.model.columns.clone();
            let value = |random: &mut StdRng, of: SqlType, nullable: bool| match nullable && random.random_bool(0.3) {
                true => Value::Null,
                false => some_value(random, of),
            };
            let row = random.random_bool(0.8).then(|| {
                columns.iter().map(|(name, of, nullable)| (name.clone(), value(random, *of, *nullable))).collect()
            });
            self.write(user, key, row).await;
        }
    }

    /// The engine takes a change where the model does, and only there.
    async fn alter(&mut self, change: TableChange, when: &str) {
        let expected = self.model.after(&change);
        let result = self.engine().alter_table(&self.table(), &change, 0).await;
        match (expected, result) {
            (Some(model), Ok(())) => self.model = model,
            (
                None,
                Err(
                    EngineError::Invalid(_)
                    | EngineError::Contradicted { .. }
                    | EngineError::NotFound { .. }
                    | EngineError::AlreadyExists { .. },
                ),
            ) => {}
            (expected, result) => panic!("{when}: {change:?} ended in {result:?}, fits: {}", expected.is_some()),
        }
    }

    /// Scans, look-ups and filters of every user agree with the model.
    async fn check(&self, random: &mut StdRng, when: &str) {
        let (catalog, snapshot) = self.engine().read();
        let table = &catalog.tables[&self.name];
        let key_place = table.key_positions()[0];
        for user in self.users() {
            let mut wanted: BTreeMap<i64, Vec<Value>> = BTreeMap::new();
            for ((_, key), row) in self.model.rows.iter().filter(|((owner, _), _)| owner == user) {
                let values = table.columns.iter().enumerate().map(|(place, column)| match place == key_place {
                    true => integer(*key, column.sql_type),
                    false => row[&column.name].clone(),
                });
                wanted.insert(*key, values.collect());
            }
            let owner = self.owner(user);
            let scanned = scan(&snapshot, table, owner.as_ref(), None).await;
            let all: Vec<_> = wanted.values().cloned().collect();
            assert_eq!(scanned, all, "scan of '{user}' {when}");

            let keys: Vec<_> = (0..KEYS)
                .map(|key| Engine::key_of(table, &[integer(key, table.columns[key_place].sql_type)]).unwrap())
                .collect();
            let found = snapshot.look_up(table, owner.as_ref(), &keys).await.unwrap();
            for (key, found) in (0..KEYS).zip(found) {
                let LookUp::Read { found, .. } = found else { panic!("a look-up that read nothing") };
                assert_eq!(found.map(|found| found.row), wanted.get(&key).cloned(), "look-up of '{user}' {key} {when}");
            }
            self.check_filter(random, &snapshot, table, owner.as_ref(), &all, when).await;
        }
    }

    /// `WHERE column = value`, for a value that stands there.
    async fn check_filter(
        &self,
        random: &mut StdRng,
        snapshot: &crate::ReadSnapshot,
        table: &Arc<Table>,
        owner: Option<&UserId>,
        all: &[Vec<Value>],
        when: &str,
    ) {
        if all.is_empty() {
            return;
        }
        let place = random.random_range(0..table.columns.len());
        let value = &all[random.random_range(0..all.len())][place];
        if value.is_null() {
            return;
        }
        let found = scan(snapshot, table, owner, Some((place, value))).await;
        let wanted: Vec<_> = all.iter().filter(|row| row[place] == *value).cloned().collect();
        assert_eq!(found, wanted, "{} = {value:?} {when}", table.columns[place].name);
    }
}

/// The rows of a user by key, as DataFusion sees them.
async fn scan(
    snapshot: &crate::ReadSnapshot,
    table: &Arc<Table>,
    owner: Option<&UserId>,
    filter: Option<(usize, &Value)>,
) -> Vec<Vec<Value>> {
    let rows = SessionContext::new().read_table(snapshot.provider(table, owner)).unwrap();
    let rows = match filter {
        Some((place, value)) => {
            let column = &table.columns[place];
            rows.filter(ident(&column.name).eq(lit(scalar_of(value.clone(), column.sql_type).unwrap()))).unwrap()
        }
        None => rows,
    };
    let key = &table.columns[table.key_positions()[0]].name;
    let columns: Vec<_> = table.columns.iter().map(|column| ident(&column.name)).collect();
    let rows = rows.select(columns).unwrap().sort(vec![ident(key).sort(true, true)]).unwrap();
    let batches = rows.collect().await.unwrap_or_else(|error| panic!("{error}"));
    let mut found = Vec::new();
    for batch in batches {
        for at in 0..batch.num_rows() {
            let cells = batch.columns().iter().zip(&table.columns);
            found.push(cells.map(|(array, column)| value_at(array, at, &[column.sql_type]).unwrap()).collect());
        }
    }
    found
}

fn some_change(random: &mut StdRng, model: &Model) -> TableChange {
    let name = |random: &mut StdRng| NAMES[random.random_range(0..NAMES.len())].to_owned();
    let known = |random: &mut StdRng| match model.columns.len() {
        0 => "a".to_owned(),
        columns => model.columns[random.random_range(0..columns)].0.clone(),
    };
    match random.random_range(0..12) {
        0..4 => {
            let sql_type = TYPES[random.random_range(0..TYPES.len())];
            let initial = if random.random_bool(0.6) { some_value(random, sql_type) } else { Value::Null };
            // Its DEFAULT goes on to change; what old rows read must not.
            TableChange::AddColumn(NewColumn {
                name: name(random),
                sql_type,
                nullable: random.random_bool(0.7),
                default: None,
                initial,
            })
        }
        4 => TableChange::DropColumn(known(random)),
        5 => TableChange::RenameColumn { from: known(random), to: name(random) },
        6 => {
            let integers = [SqlType::SmallInt, SqlType::Int, SqlType::BigInt];
            modify("c1".into(), integers[random.random_range(0..3)])
        }
        7..10 => modify(known(random), TYPES[random.random_range(0..TYPES.len())]),
        _ => TableChange::SetNullable { name: known(random), nullable: random.random() },
    }
}

fn modify(name: String, sql_type: SqlType) -> TableChange {
    TableChange::ModifyColumn { name, sql_type, nullable: None, default: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_alters_read_as_if_every_row_had_been_rewritten() {
    let seeds = std::env::var("KALAMDB_TEST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10);
    for seed in 0..seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::new(if seed % 2 == 0 { TableKind::User } else { TableKind::Shared }).await;
        for step in 0..45 {
            let when = format!("seed {seed} step {step}");
            match random.random_range(0..21) {
                0..5 => world.write_some(&mut random).await,
                5..11 => world.alter(some_change(&mut random, &world.model), &when).await,
                11 | 12 => world.flush().await,
                13 => world.restart().await,
                14 => {
                    // A schema that changes while a flush runs.
                    let id = world.start_flush().await;
                    world.alter(some_change(&mut random, &world.model), &when).await;
                    world.write_some(&mut random).await;
                    world.end_of(&id).await;
                }
                15 | 16 => assert_ne!(world.compact().await, FlushState::Failed, "{when}"),
                17 => {
                    // A schema that changes while a compaction runs.
                    let id = world.start_compaction().await;
                    world.alter(some_change(&mut random, &world.model), &when).await;
                    world.write_some(&mut random).await;
                    assert_ne!(world.end_of(&id).await, FlushState::Failed, "{when}");
                }
                18 => {
                    world.die_after(JobKind::Compact, Step::ALL[random.random_range(0..4)]).await;
                    world.alter(some_change(&mut random, &world.model), &when).await;
                    world.write_some(&mut random).await;
                    world.restart().await;
                }
                19 => world.vacuum().await,
                _ => {
                    world.die_after(JobKind::Flush, Step::ALL[random.random_range(0..4)]).await;
                    world.alter(some_change(&mut random, &world.model), &when).await;
                    world.write_some(&mut random).await;
                    world.restart().await;
                }
            }
            world.check(&mut random, &when).await;
        }
        let table = world.table();
        let versions = world.engine().catalog().versions_of(table.id).to_vec();
        let numbers: Vec<_> = versions.iter().map(|version| version.version.0).collect();
        assert_eq!(numbers, (1..=table.version.0).collect::<Vec<_>>(), "every version is kept");
        let ids: BTreeSet<ColumnId> =
            versions.iter().flat_map(|of| of.columns.iter().map(|column| column.id)).collect();
        assert_eq!(table.next_column_id.0 as usize, ids.len() + 1, "ids are never used twice");
    }
}

/// Writers go on all the while; each row that they commit after SET NOT NULL was acknowledged is bound by it, and none before it slips
/// through.
#[tokio::test(flavor = "multi_thread")]
async fn no_null_slips_in_while_a_column_becomes_not_null() {
    let mut world = World::new(TableKind::Shared).await;
    world.alter(add("a", SqlType::Int, Value::Int(0)), "at first").await;
    let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let mut writers = Vec::new();
    for writer in 0..4 {
        let (engine, name) = (world.engine().clone(), world.name.clone());
        let (stop, next) = (stop.clone(), next.clone());
        writers.push(tokio::spawn(async move {
            let mut last_null = Instant::now();
            while !stop.load(Ordering::SeqCst) {
                let key = next.fetch_add(1, Ordering::SeqCst);
                let (catalog, snapshot) = engine.read();
                let table = &catalog.tables[&name];
                let may_be_null = table.columns[1].nullable && writer == 0 && last_null.elapsed() > NULL_PERIOD;
                if may_be_null {
                    last_null = Instant::now();
                }
                let row = vec![Value::Int(key as i32), if may_be_null { Value::Null } else { Value::Int(1) }];
                let encoded = Engine::key(table, &row).unwrap();
                let look_up = snapshot.look_up(table, None, std::slice::from_ref(&encoded)).await.unwrap().remove(0);
                let write = RowWrite { table: table.clone(), user: None, key: encoded, look_up, new: Some(row) };
                match engine.commit(vec![write]).await {
                    Ok(_) | Err(EngineError::Stale) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }));
    }
    let set = |nullable| TableChange::SetNullable { name: "a".into(), nullable };
    let (mut taken, mut refused) = (0, 0);
    for round in 0..1000 {
        if taken >= 5 && refused >= 5 {
            break;
        }
        match world.engine().alter_table(&world.table(), &set(false), 0).await {
            Ok(()) => {
                taken += 1;
                let (catalog, snapshot) = world.engine().read();
                let rows = scan(&snapshot, &catalog.tables[&world.name], None, None).await;
                assert!(rows.iter().all(|row| !row[1].is_null()), "round {round}");
                world.engine().alter_table(&world.table(), &set(true), 0).await.unwrap();
            }
            Err(EngineError::Contradicted { is_null: true, .. }) => {
                refused += 1;
                let (catalog, snapshot) = world.engine().read();
                let rows = scan(&snapshot, &catalog.tables[&world.name], None, None).await;
                for row in rows.into_iter().filter(|row| row[1].is_null()) {
                    let Value::Int(key) = row[0] else { panic!("keys are INT") };
                    world.write("", key.into(), None).await;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused: the race was run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_row_in_either_tier_but_nobodys_key() {
    for (flushed, kind) in
        [(false, TableKind::User), (true, TableKind::User), (false, TableKind::Shared), (true, TableKind::Shared)]
    {
        let mut world = World::new(kind).await;
        world.alter(add("a", SqlType::BigInt, Value::BigInt(1)), "at first").await;
        let row = |value| Some(BTreeMap::from([("a".to_owned(), value)]));
        world.write("alice", 4, row(Value::BigInt(7))).await;
        world.write("bob", 5, row(Value::BigInt(1 << 40))).await;
        world.write("bob", 6, row(Value::Null)).await;
        if flushed {
            world.flush().await;
        }
        let refused = |change| {
            let (engine, table) = (world.engine().clone(), world.table());
            async move { engine.alter_table(&table, &change, 0).await.unwrap_err().to_string() }
        };
        let row = |key: i64| match kind {
            TableKind::Shared => format!("the row with the key ({key})"),
            _ => "1 row(s)".to_owned(),
        };
        let text = refused(modify("a".into(), SqlType::Int)).await;
        assert!(text.contains(&format!("for its value in {} does not fit", row(5))), "{text}");
        let text = refused(TableChange::SetNullable { name: "a".into(), nullable: false }).await;
        assert!(text.contains(&format!("it is NULL in {};", row(6))), "{text}");
        assert!(kind == TableKind::Shared || !text.contains("bob"), "{text}");
        let new = NewColumn {
            name: "b".into(),
            sql_type: SqlType::Int,
            nullable: false,
            default: None,
            initial: Value::Null,
        };
        let text = refused(TableChange::AddColumn(new)).await;
        assert!(text.contains("give it a DEFAULT"), "{text}");
        assert!(kind == TableKind::Shared || text.contains("and 3 row(s) would have no value"), "{text}");
        assert_eq!(world.table().version, SchemaVersion(2), "nothing has changed");
    }
}

/// A compaction carries masked rows along, whatever their columns have become since: of a lost volume they are what is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_keeps_superseded_values_that_fit_their_column_no_more() {
    let mut world = World::new(TableKind::Shared).await;
    world.alter(modify("c1".into(), SqlType::BigInt), "at first").await;
    world.alter(add("a", SqlType::BigInt, Value::Null), "at first").await;
    let row = |value| Some(BTreeMap::from([("a".to_owned(), Value::BigInt(value))]));
    world.write("", 1, row(1)).await;
    world.write("", 2, row(1 << 40)).await;
    world.flush().await;
    world.write("", 1 << 40, row(1)).await;
    world.flush().await;
    world.write("", 1 << 40, None).await;
    world.write("", 2, row(2)).await;
    world.alter(modify("c1".into(), SqlType::SmallInt), "once it fits").await;
    world.alter(modify("a".into(), SqlType::Int), "once it fits").await;
    assert_eq!(world.compact().await, FlushState::Completed);
    world.check(&mut StdRng::seed_from_u64(0), "after the compaction").await;
    let (runner, table) = (&world.engine().flusher().runner, world.table());
    let cold = runner.cold.at(&table, runner.hot.snapshot().tier(table.id).unwrap().cold_version).await.unwrap();
    let bounds: Vec<_> = ["c1", "a"].map(|name| cold.files[0].stats.columns[name].max.clone()).into();
    assert_eq!((cold.files.len(), bounds), (1, vec![Some(ScalarValue::Int64(Some(1 << 40))); 2]));
    world.flush().await;
    world.check(&mut StdRng::seed_from_u64(0), "after the flush").await;
    assert_eq!(world.compact().await, FlushState::Completed);
    world.restart().await;
    world.check(&mut StdRng::seed_from_u64(0), "after the restart").await;
}

/// Columns of every type, those without statistics too: a file that has them all is not rewritten, one that lacks one is.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_rewritten_once_for_the_columns_that_it_lacks() {
    let mut world = World::new(TableKind::Shared).await;
    world.write("", 1, Some(BTreeMap::new())).await;
    world.flush().await;
    for (at, sql_type) in TYPES.into_iter().chain([SqlType::Bytes, SqlType::Json, SqlType::Timestamp]).enumerate() {
        world.alter(add(&format!("column{at}"), sql_type, Value::Null), "at first").await;
        assert_eq!(world.compact().await, FlushState::Completed, "{sql_type}: the file lacks it");
        assert_eq!(world.compact().await, FlushState::Skipped, "{sql_type}: it has it now");
        world.restart().await;
        assert_eq!(world.compact().await, FlushState::Skipped, "{sql_type}: the log says so too");
    }
    world.alter(modify("column0".into(), SqlType::Text), "a new physical name").await;
    assert_eq!(world.compact().await, FlushState::Completed);
    assert_eq!(world.compact().await, FlushState::Skipped);
    world.check(&mut StdRng::seed_from_u64(0), "at the end").await;
}

/// A deleted key, and a value that was overwritten, may lie outside of the type that their columns were narrowed to since: the flush
/// that carried them still ends.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_superseded_before_its_column_was_narrowed_hurts_nobody() {
    let mut world = World::new(TableKind::Shared).await;
    world.alter(modify("c1".into(), SqlType::BigInt), "at first").await;
    world.alter(add("a", SqlType::BigInt, Value::Null), "at first").await;
    let row = |value| Some(BTreeMap::from([("a".to_owned(), Value::BigInt(value))]));
    world.write("", 1, row(1)).await;
    world.write("", 2, row(1 << 40)).await;
    world.write("", 1 << 40, row(1)).await;
    assert!(world.die_after(JobKind::Flush, Step::Committed).await);
    world.write("", 1 << 40, None).await;
    world.write("", 2, row(2)).await;
    world.alter(modify("c1".into(), SqlType::SmallInt), "once it fits").await;
    world.alter(modify("a".into(), SqlType::Int), "once it fits").await;
    world.restart().await;
    world.check(&mut StdRng::seed_from_u64(0), "after the restart").await;
    world.flush().await;
    world.check(&mut StdRng::seed_from_u64(0), "after the flush").await;
}

/// The largest number of three digits behind the point has one of two that the old type can't hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_rounds_beyond_its_old_type_does_not_fit() {
    let decimal = |precision, scale| SqlType::Decimal { precision, scale };
    for flushes in [false, true] {
        let mut world = World::new(TableKind::Shared).await;
        world.alter(add("a", decimal(15, 3), Value::Null), "at first").await;
        world.write("", 7, Some(BTreeMap::from([("a".to_owned(), Value::Decimal(999_999_999_999_999))]))).await;
        if flushes {
            world.flush().await;
        }
        let refused = world.engine().alter_table(&world.table(), &modify("a".into(), decimal(22, 2)), 0).await;
        let Err(EngineError::Contradicted { reason, .. }) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("the row with the key (7)"), "{reason}");
    }
}

fn add(name: &str, sql_type: SqlType, initial: Value) -> TableChange {
    let default = Some(DefaultValue::Literal(initial.clone()));
    TableChange::AddColumn(NewColumn { name: name.into(), sql_type, nullable: true, default, initial })
}
