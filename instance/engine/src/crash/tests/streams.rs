//! Rows of a stream table: each is there until its TTL has passed, and never again after that.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use rand::Rng;

use super::ledger::{Entry, StreamRow};
use super::life::Life;
use crate::catalog::CatalogChange;
use crate::engine::{Engine, FoundRow, ReadSnapshot, RowWrite};
use crate::flush::tests::USERS;
use crate::hot::key;
use crate::hot::store::Family;
use crate::hot::stream::{self, Buckets};
use crate::schema::testing::table;
use crate::schema::{SqlType, Table, TableKind, TableName, UserId};
use crate::value::Value;

const TTL_SECONDS: u32 = 60;
const TTL_MICROS: i64 = TTL_SECONDS as i64 * 1_000_000;
/// The keys that are written of each user.
const KEYS: i64 = 6;

impl Life {
    /// The table is made where there is none yet, and the row whose answer never came is found or not.
    pub async fn settle_streams(&mut self) {
        let (engine, name) = (self.world.engine().clone(), name());
        if !engine.catalog().tables.contains_key(&name) {
            let mut made = table(TableKind::Stream, &[SqlType::BigInt, SqlType::BigInt], &[0]);
            (made.uuid, made.name, made.ttl_seconds) = (uuid::Uuid::new_v4(), name, Some(TTL_SECONDS));
            engine.change_catalog(CatalogChange::CreateTable(Box::new(made))).await.unwrap();
        }
        let Some((user, key, value)) = self.history.stream_doubt.clone() else { return };
        let snapshot = engine.snapshot();
        let found = self.find(&snapshot, &user, key).await;
        let entry = match (&found, value) {
            (Some(found), value) if Some(number(&found.row[1])) == value => Entry::StreamDone(found.updated),
            (None, None) => Entry::StreamDone(snapshot.read_at()),
            _ => Entry::StreamUndone,
        };
        self.note(entry);
    }

    /// Scans and look-ups see each row whose TTL has not passed, and no other.
    pub async fn check_streams(&self, when: &str) {
        let snapshot = self.world.engine().snapshot();
        let now = snapshot.read_at();
        for user in USERS {
            let known = self.history.stream.iter().filter(|((owner, _), _)| owner == user);
            let live = known.filter(|(_, (_, updated))| now - updated < TTL_MICROS);
            let wanted: Vec<_> = live.map(|((_, key), (value, _))| (*key, *value)).collect();
            assert_eq!(self.scan_stream(&snapshot, user).await, wanted, "the stream's rows of {user} {when}");
            for key in 0..KEYS {
                let found = self.find(&snapshot, user, key).await.map(|found| number(&found.row[1]));
                let wanted = wanted.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
                assert_eq!(found, wanted, "the stream's row {key} of {user} {when}");
            }
        }
    }

    /// Some rows come and go, time passes, and what has expired is dropped.
    pub async fn expire(&mut self) {
        self.write_stream().await;
        let first = self.random.random_range(TTL_MICROS / 4..TTL_MICROS);
        self.advance(first).await;
        self.write_stream().await;
        // Some buckets' more than what lets the first rows expire, and less than what the others live for.
        self.advance(TTL_MICROS + TTL_MICROS / 5 - first).await;
        let (engine, table) = (self.world.engine().clone(), self.stream());
        let oldest = Buckets::of(&table).unwrap().oldest_live(engine.snapshot().read_at());
        tokio::task::spawn_blocking(move || engine.committer().drop_expired(&table)).await.unwrap().unwrap();
        let stored = self.stored_buckets();
        assert!(stored.iter().all(|bucket| *bucket >= oldest), "{stored:?} are stored, {oldest} is the first to stay");
    }

    async fn advance(&mut self, micros: i64) {
        let ahead = self.history.ahead + micros;
        self.note(Entry::Clock(ahead));
        self.world.clock.0.store(ahead, Ordering::SeqCst);
        self.check_streams("as time passed").await;
    }

    /// At least one row that is new or changes.
    async fn write_stream(&mut self) {
        for turn in 0..3 {
            let user = USERS[self.random.random_range(0..2)];
            let value = (turn == 0 || self.random.random_bool(0.7)).then(|| self.random.random());
            let key = self.random.random_range(0..KEYS);
            self.put_in_stream((user.into(), key, value)).await;
        }
    }

    async fn put_in_stream(&mut self, row: StreamRow) {
        self.note(Entry::StreamBegun(row.clone()));
        let ((user, id, value), table) = (row, self.stream());
        let engine = self.world.engine().clone();
        let (key, snapshot) = (Engine::key_of(&table, &[Value::BigInt(id)]).unwrap(), engine.snapshot());
        let owner = UserId::from(user.as_str());
        let look_up = snapshot.look_up(&table, Some(&owner), std::slice::from_ref(&key)).await.unwrap().remove(0);
        if value.is_none() && look_up.found().is_none() {
            return self.note(Entry::StreamUndone);
        }
        let new = value.map(|value| vec![Value::BigInt(id), Value::BigInt(value)]);
        let committed = engine.commit(vec![RowWrite { table, user: Some(owner), key, look_up, new }]).await.unwrap();
        self.note(Entry::StreamDone(committed.updated));
    }

    fn stream(&self) -> Arc<Table> {
        self.world.engine().catalog().tables[&name()].clone()
    }

    async fn find(&self, snapshot: &ReadSnapshot, user: &str, id: i64) -> Option<FoundRow> {
        let table = self.stream();
        let key = Engine::key_of(&table, &[Value::BigInt(id)]).unwrap();
        snapshot.look_up(&table, Some(&user.into()), &[key]).await.unwrap().remove(0).found().cloned()
    }

    async fn scan_stream(&self, snapshot: &ReadSnapshot, user: &str) -> Vec<(i64, i64)> {
        let session = SessionContext::new();
        session.register_table("s", snapshot.provider(&self.stream(), Some(&user.into()))).unwrap();
        let mut rows = Vec::new();
        for batch in session.sql("SELECT c1, c2 FROM s ORDER BY c1").await.unwrap().collect().await.unwrap() {
            let [keys, values] = [0, 1].map(|at| batch.column(at).as_primitive::<Int64Type>().clone());
            rows.extend((0..batch.num_rows()).map(|at| (keys.value(at), values.value(at))));
        }
        rows
    }

    /// The time buckets of the row versions that RocksDB holds.
    fn stored_buckets(&self) -> Vec<u64> {
        let (mut buckets, table) = (Vec::new(), self.stream().id);
        let add = |stored: &[u8], _: &[u8]| {
            let stored = [&key::table_prefix(table), stored].concat();
            buckets.extend(stream::bucket_of(&stored));
            Ok(())
        };
        self.world.engine().hot().snapshot().each(Family::StreamTable, &key::table_prefix(table), add).unwrap();
        buckets
    }
}

fn name() -> TableName {
    TableName::new("default", "stream")
}

fn number(value: &Value) -> i64 {
    match value {
        Value::BigInt(number) => *number,
        other => panic!("{other:?}"),
    }
}
