//! How many row groups a look-up reads.

use std::collections::BTreeSet;

use arrow::array::{BooleanArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use parking_lot::Mutex;

use super::*;
use crate::cold::ColdStore;
use crate::cold::faults::{Faults, FaultyStore};
use crate::cold::file::{FilePlan, Layout, write_files};
use crate::config::ObjectStoreConfig;
use crate::engine::Engine;
use crate::schema::TableKind;
use crate::schema::testing::table;

/// Each number has so many letters, so that the bounds of a row group's ends overlap those of its neighbours.
const NUMBERS: i32 = 30;
const LETTERS: i32 = 70;
const LAYOUT: Layout = Layout { row_group_rows: 200, page_rows: 50 };

fn letter(n: i32) -> String {
    format!("letter {n:03}")
}

/// The rows, in the order of the key, of which a file has every second one.
fn rows(table: &Table, file: i32) -> RecordBatch {
    let keys = (0..NUMBERS).flat_map(|number| (0..LETTERS).map(move |n| (number, n)));
    let (numbers, letters): (Vec<i32>, Vec<String>) =
        keys.filter(|(number, n)| (number + n) % 2 == file).map(|(number, n)| (number, letter(n))).unzip();
    let count = numbers.len() as i64;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(numbers)),
        Arc::new(StringArray::from_iter_values(letters)),
        Arc::new(Int64Array::from_iter_values(0..count)),
        Arc::new(TimestampMicrosecondArray::from_iter_values(0..count).with_timezone("UTC")),
        Arc::new(BooleanArray::from(vec![false; count as usize])),
    ];
    RecordBatch::try_new(schema::file_schema(table), columns).unwrap()
}

/// The row groups that the ranges touch, of all files.
async fn touched(tier: &ColdTier, table: &Table, files: &[Arc<ColdFile>], faults: &Faults) -> BTreeSet<(usize, usize)> {
    let asked: Vec<_> = std::iter::zip(take(&faults.ranged), take(&faults.ranges)).collect();
    let mut touched = BTreeSet::new();
    for (number, file) in files.iter().enumerate() {
        let path = tier.log(table.uuid).path_of(&file.path);
        let footer = tier.cache().footer(&path, file).await.unwrap();
        for (group, of) in footer.row_groups().iter().enumerate() {
            let chunks: Vec<_> = of.columns().iter().map(|chunk| chunk.byte_range()).collect();
            let holds = |range: &Range<u64>| {
                chunks.iter().any(|(start, bytes)| range.start < start + bytes && *start < range.end)
            };
            if asked.iter().any(|(of, range)| *of == path && holds(range)) {
                touched.insert((number, group));
            }
        }
    }
    touched
}

fn take<T: Default>(what: &Mutex<T>) -> T {
    std::mem::take(&mut *what.lock())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_two_columns_is_read_from_one_row_group() {
    let (folder, faults) = (tempfile::tempdir().unwrap(), Arc::new(Faults::default()));
    let local = ColdStore::open(&ObjectStoreConfig::Local { path: folder.path().into() }).unwrap();
    let store = local.wrapped(|inner| Arc::new(FaultyStore::new(inner, faults.clone())));
    let tier = ColdTier::over(store, 64 << 20);
    let table = Arc::new(table(TableKind::Shared, &[SqlType::Int, SqlType::Text], &[0, 1]));
    let mut files = Vec::new();
    for file in 0..2 {
        let plan = FilePlan {
            schema: schema::file_schema(&table),
            looked_up: schema::looked_up_columns(&table),
            name_prefix: format!("part-{file}"),
            target_bytes: 1 << 30,
            layout: LAYOUT,
        };
        let batch = rows(&table, file);
        let written = write_files(tier.store(), &tier.log(table.uuid), plan, [Ok(batch)].into_iter()).await.unwrap();
        files.extend(written.into_iter().map(|written| {
            Arc::new(ColdFile {
                path: written.name.as_str().into(),
                size: written.size,
                modified: 0,
                stats: written.stats.into(),
                vector: None,
            })
        }));
    }
    for file in &files {
        tier.cache().footer(&tier.log(table.uuid).path_of(&file.path), file).await.unwrap();
    }
    let (mut reads, mut groups) = (0, 0);
    for (number, n) in (0..NUMBERS).flat_map(|number| (number % 7..LETTERS).step_by(7).map(move |n| (number, n))) {
        let key = Engine::key_of(&table, &[Value::Int(number), Value::Text(letter(n))]).unwrap();
        let key = RowKey { user: None, key };
        take(&faults.ranged);
        take(&faults.ranges);
        let found = look_up_in(&tier, &files, &table, std::slice::from_ref(&key)).await.unwrap().remove(0);
        assert_eq!(found.unwrap().row, [Value::Int(number), Value::Text(letter(n))]);
        let touched = touched(&tier, &table, &files, &faults).await;
        assert!(touched.len() <= 2, "{number} {n}: {touched:?}");
        (reads, groups) = (reads + 1, groups + touched.len());
    }
    // A filter errs once in a thousand.
    assert!(groups >= reads && groups <= reads + 2, "{reads} reads of {groups} row groups");
}
