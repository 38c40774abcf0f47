//! What a read of one row of the cold tier costs, once the footers are in memory.

use std::ops::Range;
use std::sync::Arc;

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
