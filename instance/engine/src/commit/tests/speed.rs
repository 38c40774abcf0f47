//! How the committer and point reads stand against RocksDB alone: ratios of one run, printed. Run them by hand:
//! `cargo test --release -p kalamdb-engine -- --ignored --nocapture speed`.

use std::time::{Duration, Instant};

use rocksdb::{DB, Options, WriteBatch};

use super::world::{World, block_on};
use crate::config::Durability;
use crate::hot::store::{Family, synced};
use crate::hot::{key, row};
use crate::schema::TableKind;

const STATEMENTS: i64 = 100;
const ROWS: i64 = 1000;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Everything that the engine has stored in a family, in key order.
fn stored(world: &World, family: Family) -> Pairs {
    let mut pairs = Vec::new();
    let collect = |key: &[u8], value: &[u8]| {
        pairs.push((key.to_vec(), value.to_vec()));
        Ok(())
    };
    world.hot().snapshot().each(family, &[], collect).unwrap();
    pairs
}

/// The same bytes in as many synced batches, written straight to RocksDB.
fn raw_writes(rows: &Pairs, changes: &Pairs) -> (tempfile::TempDir, DB, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let db = DB::open_cf(&options, dir.path(), ["rows", "changes"]).unwrap();
    let (row_family, change_family) = (db.cf_handle("rows").unwrap(), db.cf_handle("changes").unwrap());
    let started = Instant::now();
    for (rows, changes) in rows.chunks(ROWS as usize).zip(changes.chunks(ROWS as usize)) {
        let mut batch = WriteBatch::default();
        rows.iter().for_each(|(key, value)| batch.put_cf(row_family, key, value));
        changes.iter().for_each(|(key, value)| batch.put_cf(change_family, key, value));
        db.write_opt(batch, &synced()).unwrap();
    }
    let took = started.elapsed();
    (dir, db, took)
}

#[test]
#[ignore = "prints ratios, and takes its time"]
fn speed_of_batched_inserts_and_point_reads() {
    block_on(async {
        let world = World::with_durability(TableKind::Shared, Durability::Sync).await;
        let (mut commits, mut whole) = (Duration::ZERO, Duration::ZERO);
        for statement in 0..STATEMENTS {
            let began = Instant::now();
            let keys: Vec<_> = (statement * ROWS..(statement + 1) * ROWS).collect();
            let found = world.look_up_hot(&keys);
            let records = found.iter().map(|found| world.record(found, Some(found.0 * 7))).collect();
            let started = Instant::now();
            world.committer().rows(records).await.unwrap();
            commits += started.elapsed();
            whole += began.elapsed();
        }
        let (rows, changes) = (stored(&world, Family::SharedTable), stored(&world, Family::Changes));
        let (_dir, db, raw) = raw_writes(&rows, &changes);
        println!(
            "{STATEMENTS} statements of {ROWS} rows: raw {raw:?}, committer {commits:?}, with look-up and encoding {whole:?}"
        );
        println!(
            "batched durable inserts: {:.2} of raw RocksDB, {:.2} with look-up and encoding",
            ratio(raw, commits),
            ratio(raw, whole)
        );

        let (snapshot, table) = (world.hot().snapshot(), world.table());
        let keys: Vec<_> = (0..20_000).map(|n| world.key(n * 5 % (STATEMENTS * ROWS))).collect();
        let started = Instant::now();
        for key in &keys {
            assert!(snapshot.rows_at(table, None, std::slice::from_ref(key)).unwrap()[0].is_some());
        }
        let reads = started.elapsed();
        let (family, reader) = (db.cf_handle("rows").unwrap(), row::RowReader::of_all(table));
        let started = Instant::now();
        for key in &keys {
            let bytes = db.get_pinned_cf(family, key::storage_key(table.id, None, key)).unwrap().unwrap();
            assert!(row::decode_row(table, &reader, &bytes).unwrap().1.is_some());
        }
        let raw = started.elapsed();
        println!("point read, hot: {:.2} times a raw get and decode ({reads:?}, {raw:?})", ratio(reads, raw));
        world.close().await;
    });
}

fn ratio(of: Duration, to: Duration) -> f64 {
    of.as_secs_f64() / to.as_secs_f64()
}
