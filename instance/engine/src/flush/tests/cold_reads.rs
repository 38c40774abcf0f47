//! What a read of one row of the cold tier costs, once the footers are in memory.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use kalamdb_api::flush::FlushState;

use super::World;
use crate::cold::ColdFile;
use crate::engine::{Engine, LookUp};
use crate::schema::TableKind;
use crate::value::Value;

/// Two row groups and the begin of a third.
const ROWS: i32 = 210_000;
const BATCH: i32 = 10_000;

async fn flushed_world() -> (World, Arc<ColdFile>) {
    let mut world = World::new(TableKind::Shared).await;
    let texts: Vec<String> = (0..BATCH).map(|n| format!("text {}", n % 97)).collect();
    for first in (0..ROWS).step_by(BATCH as usize) {
        let row = |n: i32| (first + n, texts[n as usize].as_str(), Some(i64::from(first + n).pow(2)));
        let rows: Vec<_> = (0..BATCH).map(row).collect();
        world.write("", &rows).await;
    }
    world.flush().await;
    let cold = &world.engine().flusher().runner.cold;
    let version = world.engine().hot().snapshot().tier(world.table.id).unwrap().cold_version;
    let file = cold.at(&world.table, version).await.unwrap().files[0].clone();
    (world, file)
}

/// Reads a row, and tells which bytes the object store was asked for.
async fn read(world: &World, id: i32) -> Vec<Range<u64>> {
    world.faults.ranges.lock().clear();
    let key = [Value::Int(id), Value::Text(format!("text {}", id % BATCH % 97))];
    let key = Engine::key_of(&world.table, &key).unwrap();
    let found = world.engine().snapshot().look_up(&world.table, None, &[key]).await.unwrap().remove(0);
    let LookUp::Read { found: Some(row), .. } = found else { panic!("row {id} is gone") };
    assert_eq!(row.row[2], Value::BigInt(i64::from(id).pow(2)));
    world.faults.ranges.lock().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_row_takes_two_requests_within_one_row_group() {
    let (world, file) = flushed_world().await;
    let runner = &world.engine().flusher().runner;
    let path = runner.cold.log(world.table.uuid).path_of(&file.path);
    let footer = runner.cold.cache().footer(&path, &file).await.unwrap();
    let groups: Vec<Range<u64>> = footer
        .row_groups()
        .iter()
        .map(|group| {
            let chunks = group.columns().iter().map(|chunk| chunk.byte_range());
            let (starts, ends): (Vec<_>, Vec<_>) = chunks.map(|(start, length)| (start, start + length)).unzip();
            starts.into_iter().min().unwrap()..ends.into_iter().max().unwrap()
        })
        .collect();
    assert_eq!(groups.len(), 3);
    // These bring the bloom filters.
    for id in [1, 100_001, 200_001] {
        read(&world, id).await;
    }
    for id in [0, 6_999, 7_000, 50_000, 99_999, 100_000, 123_456, 199_999, 200_000, ROWS - 1] {
        let ranges = read(&world, id).await;
        assert!((1..=2).contains(&ranges.len()), "row {id}: {ranges:?}");
        let group = &groups[(id / 100_000) as usize];
        let is_within = |range: &Range<u64>| group.start <= range.start && range.end <= group.end;
        assert!(ranges.iter().all(is_within), "row {id}: {ranges:?} are not all within {group:?}");
    }
}

#[tokio::test]
async fn a_key_that_is_asked_for_twice_is_found_twice() {
    let mut world = World::new(TableKind::Shared).await;
    world.write("", &[(1, "a", Some(10)), (2, "a", Some(20))]).await;
    world.flush().await;
    let key = |id: i32| Engine::key_of(&world.table, &[Value::Int(id), Value::Text("a".into())]).unwrap();
    let keys = [key(2), key(1), key(3), key(2), key(3), key(1)];
    let found = world.engine().snapshot().look_up(&world.table, None, &keys).await.unwrap();
    let values: Vec<_> = found.iter().map(|read| read.found().map(|row| row.row[2].clone())).collect();
    let (one, two) = (Some(Value::BigInt(10)), Some(Value::BigInt(20)));
    assert_eq!(values, [two.clone(), one.clone(), None, two, None, one]);
}

/// Reads a row by its key alone, and tells how many requests that took, and of which files.
async fn files_of(world: &World, user: &str, first: i32, second: &str) -> (usize, BTreeSet<String>) {
    world.faults.ranged.lock().clear();
    let key = Engine::key_of(&world.table, &[Value::Int(first), Value::Text(second.into())]).unwrap();
    let found = world.engine().snapshot().look_up(&world.table, world.user(user).as_ref(), &[key]).await.unwrap();
    let known = world.model.get(&(if world.table.kind.is_per_user() { user } else { "" }.into(), first, second.into()));
    let found = found[0].found().map(|row| row.row[2].clone());
    assert_eq!(found, known.map(|value| Value::BigInt(*value)), "{user} {first} {second}");
    let paths = world.faults.ranged.lock().clone();
    (paths.len(), paths.into_iter().map(|path| path.to_string()).collect())
}

/// Every file has all users, all numbers and all letters, and the keys are divided among them.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_read_from_the_one_file_that_has_it() {
    for kind in [TableKind::User, TableKind::Shared] {
        let mut world = World::new(kind).await;
        for file in 0..2 {
            for (place, user) in ["alice", "bob"].into_iter().enumerate() {
                for (letter, second) in ["a", "b"].into_iter().enumerate() {
                    let is_here = |n: &i32| (*n / 10 + place as i32 + letter as i32 + file) % 2 == 0;
                    let rows: Vec<_> = (0..40)
                        .filter(is_here)
                        .map(|n| (n, second, Some(i64::from(n) + 100 * letter as i64)))
                        .collect();
                    if kind.is_per_user() || place == 0 {
                        world.write(user, &rows).await;
                    }
                }
            }
            assert_eq!(world.flush().await, FlushState::Completed);
        }
        // These bring footers and bloom filters.
        for first in 0..40 {
            files_of(&world, "alice", first, "a").await;
        }
        for user in ["alice", "bob"] {
            for (first, second) in (0..40).flat_map(|first| [(first, "a"), (first, "b")]) {
                let (requests, files) = files_of(&world, user, first, second).await;
                assert!((1..=2).contains(&requests) && files.len() == 1, "{user} {first} {second}: {files:?}");
            }
        }
        assert_eq!(files_of(&world, "alice", 7, "c").await.0, 0, "no file has that letter");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_file_is_searched_first_in_a_new_life_and_after_a_compaction_too() {
    let mut world = World::new(TableKind::Shared).await;
    for turn in 0..6 {
        world.write("", &[(1, "a", Some(turn)), (50, "a", Some(turn)), (10 + turn as i32, "b", Some(turn))]).await;
        assert_eq!(world.flush().await, FlushState::Completed);
    }
    let paths =
        async |world: &World| -> Vec<_> { world.cold().await.files.iter().map(|file| file.path.clone()).collect() };
    let before = paths(&world).await;
    world.restart().await;
    assert_eq!(paths(&world).await, before);
    world.forget_cold().await;
    let (_, read) = files_of(&world, "", 1, "a").await;
    let newest = |files: &BTreeSet<String>, path: &str| files.iter().all(|file| file.ends_with(path));
    let files: BTreeSet<_> = read.into_iter().filter(|path| path.ends_with(".parquet")).collect();
    assert!(files.len() == 1 && newest(&files, &before[5]), "{files:?}");

    // What a compaction writes is new, and its rows are old.
    assert_eq!(world.compact().await, FlushState::Completed);
    let compacted = paths(&world).await.pop();
    world.write("", &[(1, "a", Some(9)), (50, "a", Some(9))]).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    let both = paths(&world).await;
    assert!(both.len() == 2 && both.first() == compacted.as_ref(), "{both:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bloom_filter_is_asked_for_once_by_scans_and_look_ups_together() {
    let mut world = World::new(TableKind::Shared).await;
    world.write("", &(0..50).map(|n| (n * 2, "a", Some(i64::from(n)))).collect::<Vec<_>>()).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    let file = world.cold().await.files[0].clone();
    let path = world.runner().cold.log(world.table.uuid).path_of(&file.path);
    let footer = world.runner().cold.cache().footer(&path, &file).await.unwrap();
    let filters: BTreeSet<u64> = footer.row_groups()[0]
        .columns()
        .iter()
        .filter_map(|column| column.bloom_filter_offset().map(i64::unsigned_abs))
        .collect();
    let mut asked = Vec::new();
    for _ in 0..3 {
        world.faults.ranges.lock().clear();
        let session = SessionContext::new();
        session.register_table("t", world.engine().snapshot().provider(&world.table, None)).unwrap();
        // The number lies within the bounds, and in no row.
        for (first, rows) in [(40, 1), (41, 0)] {
            let query = format!("SELECT c3 FROM t WHERE c1 = {first} AND c2 = 'a'");
            let found = session.sql(&query).await.unwrap().collect().await.unwrap();
            assert_eq!(found.iter().map(|batch| batch.num_rows()).sum::<usize>(), rows, "{query}");
        }
        asked.push(world.faults.ranges.lock().iter().filter(|range| filters.contains(&range.start)).count());
    }
    assert_eq!(asked, [2, 0, 0], "those of both columns, once");
}
