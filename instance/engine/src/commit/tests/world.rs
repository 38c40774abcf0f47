//! A committer with one table, a clock of its own and a cold tier in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::super::*;
use crate::catalog::CatalogChange;
use crate::commit::record::RowRecord;
use crate::config::{CompactionConfig, Durability, FlushConfig, Limits, ObjectStoreConfig, VacuumConfig};
use crate::engine::{Committed, FoundRow, LookUp, RowWrite};
use crate::hot::changes::Change;
use crate::hot::row::{RowReader, decode_row};
use crate::hot::{Key, Mask, key};
use crate::schema::testing::table;
use crate::schema::{SqlType, TableKind, TableName, UserId};
use crate::seq::{EPOCH_MS, Seq};
use crate::value::Value;

/// Runs a test on a runtime of its own.
pub fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// A clock that only a test moves.
pub struct TestClock(AtomicI64);

impl TestClock {
    pub fn new() -> Self {
        Self(AtomicI64::new((EPOCH_MS + 1_000_000) * 1000))
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as i64, Ordering::SeqCst);
    }

    pub fn set_back(&self, by: Duration) {
        self.0.fetch_sub(by.as_micros() as i64, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_micros(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A row of a cold file.
pub type ColdRow = (RowKey, i64, Seq);

/// One version of the cold table.
#[derive(Clone)]
pub struct ColdVersion {
    pub intent: Intent,
    /// File -> rows that its deletion vector hides.
    pub live: BTreeMap<Arc<str>, BTreeSet<u64>>,
}

/// What the object store holds.
#[derive(Default)]
pub struct FakeCold {
    pub files: HashMap<Arc<str>, Vec<ColdRow>>,
    pub log: Vec<ColdVersion>,
}

impl FakeCold {
    /// What an outside reader sees: files minus deletion vectors.
    pub fn rows(&self, version: i64) -> Vec<(Place, ColdRow)> {
        let Some(version) = usize::try_from(version).ok().map(|version| &self.log[version]) else { return Vec::new() };
        let mut rows = Vec::new();
        for (file, hidden) in &version.live {
            for (at, row) in self.files[file].iter().enumerate().filter(|(at, _)| !hidden.contains(&(*at as u64))) {
                rows.push((Place { file: file.clone(), row: at as u64 }, row.clone()));
            }
        }
        rows
    }
}

/// One process over one volume.
pub struct World {
    dir: tempfile::TempDir,
    clock: Arc<TestClock>,
    config: EngineConfig,
    running: Option<(Arc<Hot>, Committer)>,
    table: Arc<Table>,
    user: Option<UserId>,
    pub cold: FakeCold,
}

/// A key, and what was found there.
pub type Found = (i64, LookUp);

pub fn config(dir: &std::path::Path) -> EngineConfig {
    EngineConfig {
        data_dir: dir.into(),
        object_store: ObjectStoreConfig::Local { path: dir.join("cold") },
        durability: Durability::Os,
        flush: FlushConfig::default(),
        compaction: CompactionConfig::default(),
        vacuum: VacuumConfig::default(),
        limits: Limits { reserve_file_bytes: 0, memtable_bytes: 16 << 20, ..Limits::default() },
    }
}

pub async fn start(config: &EngineConfig, clock: Arc<dyn Clock>) -> Result<(Arc<Hot>, Committer), EngineError> {
    let hot = Arc::new(Hot::open(config, clock.now_micros() / 1000)?);
    let committer = Committer::start(hot.clone(), config, clock)?;
    Ok((hot, committer))
}

impl World {
    /// Does not wait for the disk where it need not: it tests the order of things, not the disk.
    pub async fn new(kind: TableKind) -> Self {
        Self::with_durability(kind, Durability::Os).await
    }

    pub async fn with_durability(kind: TableKind, durability: Durability) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock::new());
        let config = EngineConfig { durability, ..config(dir.path()) };
        let (hot, committer) = start(&config, clock.clone()).await.unwrap();
        let made = table(kind, &[SqlType::BigInt, SqlType::BigInt], &[0]);
        committer.catalog_change(CatalogChange::CreateTable(Box::new(made)), Vec::new()).await.unwrap();
        let table = committer.catalog().tables[&TableName::new("default", "t")].clone();
        let user = kind.is_per_user().then(|| "ann".into());
        Self { dir, clock, config, running: Some((hot, committer)), table, user, cold: FakeCold::default() }
    }

    pub fn hot(&self) -> &Arc<Hot> {
        &self.running.as_ref().unwrap().0
    }

    pub fn committer(&self) -> &Committer {
        &self.running.as_ref().unwrap().1
    }

    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub fn clock(&self) -> &TestClock {
        &self.clock
    }

    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub async fn stop(&mut self) {
        if let Some((hot, committer)) = self.running.take() {
            committer.close().await;
            drop(committer);
            assert_eq!(Arc::strong_count(&hot), 1, "nobody keeps the volume open");
        }
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.running = Some(start(&self.config, self.clock.clone()).await.unwrap());
    }

    pub async fn close(mut self) {
        self.stop().await;
    }

    pub fn key(&self, key: i64) -> Key {
        key::encode_key(&self.table, &[Value::BigInt(key)]).unwrap()
    }

    pub fn row_key(&self, key: i64) -> RowKey {
        RowKey { user: self.user.clone(), key: self.key(key) }
    }

    /// Reads a key in one snapshot, hot then cold.
    pub fn look_up(&self, key: i64) -> Found {
        let seen_through = self.committer().shared().committed();
        let snapshot = self.hot().snapshot();
        let cold_version = snapshot.tier(self.table.id).unwrap().cold_version;
        let hot = snapshot.rows_at(&self.table, self.user.as_ref(), &[self.key(key)]).unwrap().remove(0);
        let unwritten_through = hot.is_none().then_some(seen_through);
        let found = match hot {
            Some(hot) => hot.row.map(|row| FoundRow { seq: hot.seq, updated: hot.updated, row, place: None }),
            None => self.cold.rows(cold_version).into_iter().find(|(_, row)| row.0 == self.row_key(key)).map(
                |(place, (_, value, seq))| FoundRow {
                    seq,
                    updated: 0,
                    row: vec![Value::BigInt(key), Value::BigInt(value)],
                    place: Some(place),
                },
            ),
        };
        (key, LookUp::Read { found, cold_version, unwritten_through })
    }

    pub fn try_record(&self, found: &Found, new: Option<i64>) -> Result<RowRecord, EngineError> {
        let write = RowWrite {
            table: self.table.clone(),
            user: self.user.clone(),
            key: self.key(found.0),
            look_up: found.1.clone(),
            new: new.map(|value| vec![Value::BigInt(found.0), Value::BigInt(value)]),
        };
        RowRecord::new(write, self.config.limits.row_bytes)
    }

    pub fn record(&self, found: &Found, new: Option<i64>) -> RowRecord {
        self.try_record(found, new).unwrap()
    }

    pub async fn put(&self, found: &Found, value: i64) -> Result<Committed, EngineError> {
        self.committer().rows(vec![self.record(found, Some(value))]).await
    }

    pub async fn delete(&self, found: &Found) -> Result<Committed, EngineError> {
        self.committer().rows(vec![self.record(found, None)]).await
    }

    pub fn read(&self, key: i64) -> Option<i64> {
        value_of(&self.look_up(key))
    }

    pub fn changes(&self) -> Vec<Change> {
        self.hot().snapshot().changes(&self.table, self.user.as_ref(), Seq::ZERO, usize::MAX).unwrap()
    }

    pub fn old_value(&self, change: &Change) -> Option<i64> {
        let reader = RowReader::of_all(&self.table);
        let row = change.old.as_ref().map(|old| decode_row(&self.table, &reader, old).unwrap().1.unwrap());
        row.map(|row| integer(&row[1]))
    }

    /// (place, key, value) of every live row of one snapshot: cold minus masks, plus hot above `flushed_through`.
    pub fn live_rows(&self) -> Vec<(Option<Place>, RowKey, i64)> {
        let snapshot = self.hot().snapshot();
        let masked: BTreeSet<_> = self.masks().into_iter().map(|mask| (mask.file, mask.row)).collect();
        let cold = self.cold.rows(snapshot.tier(self.table.id).unwrap().cold_version).into_iter();
        let cold = cold.filter(|(place, _)| !masked.contains(&(place.file.clone(), place.row)));
        let cold = cold.map(|(place, (key, value, _))| (Some(place), key, value));
        let hot = snapshot.rows(&self.table, None).map(Result::unwrap);
        let hot = hot.filter_map(|hot| Some((None, hot.key, integer(&hot.row?[1]))));
        cold.chain(hot).collect()
    }

    pub fn masks(&self) -> Vec<Mask> {
        self.hot().snapshot().masks(&self.table).unwrap()
    }
}

pub fn value_of(found: &Found) -> Option<i64> {
    match &found.1 {
        LookUp::Read { found, .. } => found.as_ref().map(|found| integer(&found.row[1])),
        LookUp::Generated => None,
    }
}

pub fn integer(value: &Value) -> i64 {
    match value {
        Value::BigInt(value) => *value,
        other => panic!("{other:?} is no BIGINT"),
    }
}
