//! The choice of runs, case by case. A run is written as its size, and where it matters as its keys and deleted rows.

use std::collections::HashMap;

use deltalake_core::kernel::{DeletionVectorDescriptor, StorageType};
use uuid::Uuid;

use super::*;
use crate::cold::snapshot::Vector;
use crate::cold::stats::{ColumnStats, FileStats};
use crate::flush::Epoch;
use crate::schema::testing::table;
use crate::schema::{SqlType, TableKind};

const TARGET: u64 = 100;

fn config() -> CompactionConfig {
    CompactionConfig { min_runs: 4, max_runs: 8, merge_runs: 16, max_bytes: 10_000, ..CompactionConfig::default() }
}

/// The files of a job: sizes, key range, deleted rows of 100.
fn files(job: u128, sizes: &[u64], keys: (i64, i64), deleted: i64) -> Vec<Arc<ColdFile>> {
    let name = JobName { epoch: Epoch(1), job: Uuid::from_u128(1000 - job) };
    let bounds = |low: i64, high: i64| ColumnStats {
        min: Some(ScalarValue::Int64(Some(low))),
        max: Some(ScalarValue::Int64(Some(high))),
        nulls: Some(0),
    };
    let columns = HashMap::from([
        ("c1".to_owned(), bounds(keys.0, keys.1)),
        (SEQ.to_owned(), bounds(job as i64 * 10, job as i64 * 10 + 9)),
        ("_updated".to_owned(), ColumnStats { nulls: Some(0), ..ColumnStats::default() }),
        ("_deleted".to_owned(), ColumnStats { nulls: Some(0), ..ColumnStats::default() }),
    ]);
    let vector = (deleted > 0).then(|| {
        let descriptor = DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: name.vector_id(),
            offset: Some(1),
            size_in_bytes: 1,
            cardinality: deleted,
        };
        Arc::new(Vector::new(descriptor))
    });
    let file = |(number, size): (usize, &u64)| ColdFile {
        path: format!("{}-{number:05}.parquet", name.file_prefix()).into(),
        size: *size,
        modified: 0,
        stats: Arc::new(FileStats { rows: 100, columns: columns.clone() }),
        vector: vector.clone(),
    };
    sizes.iter().enumerate().map(file).map(Arc::new).collect()
}

fn sample(keys: impl Fn(i64) -> (i64, i64), sizes: &[u64]) -> Vec<Run> {
    let files: Vec<_> = (1..).zip(sizes).flat_map(|(job, size)| files(job, &[*size], keys(job as i64), 0)).collect();
    runs(&table(TableKind::Shared, &[SqlType::BigInt], &[0]), &files)
}

#[track_caller]
fn check(sizes: &[u64], due_runs: Option<Range<usize>>) {
    assert_eq!(due(&sample(|_| (0, 100), sizes), &config(), TARGET), due_runs, "{sizes:?}");
}

#[test]
fn neighbours_of_similar_size_are_merged_and_large_old_ones_are_left() {
    check(&[], None);
    check(&[10, 10, 10], None);
    check(&[10, 10, 10, 10], Some(0..4));
    check(&[1000, 10, 12, 9, 10], Some(1..5));
    check(&[1100, 300, 50, 50, 50, 50], Some(1..6));
    check(&[5000, 1000, 200, 40, 8], None);
    check(&[10, 10, 10, 10, 900], Some(0..5));
    check(&[4000, 4000, 4000, 4000], None);
}

#[test]
fn many_overlapping_runs_are_merged_where_it_costs_least() {
    let config = CompactionConfig { max_bytes: 1 << 40, ..config() };
    let geometric =
        |runs: usize| sample(|_| (0, 100), &(0..runs).map(|run| 4u64.pow(12 - run as u32)).collect::<Vec<_>>());
    assert_eq!(due(&geometric(8), &config, TARGET), None);
    assert_eq!(due(&geometric(9), &config, TARGET), Some(7..9));
    assert_eq!(due(&geometric(11), &config, TARGET), Some(7..11));
}

#[test]
fn large_runs_that_do_not_overlap_are_left() {
    let apart = |run: i64| (run * 100, run * 100 + 99);
    assert_eq!(due(&sample(apart, &[200; 12]), &config(), TARGET), None);
    assert_eq!(due(&sample(apart, &[20; 12]), &config(), TARGET), Some(0..12), "small files are merged");
}

#[test]
fn a_run_with_many_deleted_rows_is_rewritten() {
    let table = table(TableKind::Shared, &[SqlType::BigInt], &[0]);
    let sample = |deleted| runs(&table, &[files(1, &[100], (0, 9), 0), files(2, &[10], (0, 9), deleted)].concat());
    assert_eq!(due(&sample(19), &config(), TARGET), None);
    assert_eq!(due(&sample(20), &config(), TARGET), Some(1..2));
}

#[test]
fn a_job_is_bounded_in_runs_and_bytes() {
    let few = CompactionConfig { merge_runs: 5, ..config() };
    assert_eq!(due(&sample(|_| (0, 100), &[10; 12]), &few, TARGET), Some(7..12));
    let small = CompactionConfig { max_bytes: 45, ..config() };
    assert_eq!(due(&sample(|_| (0, 100), &[10; 12]), &small, TARGET), Some(8..12));
}

#[test]
fn files_of_a_job_are_one_run_and_runs_stand_in_the_order_of_seq() {
    let table = table(TableKind::Shared, &[SqlType::BigInt], &[0]);
    let files = [files(3, &[1], (0, 9), 0), files(1, &[100, 50], (0, 9), 3)].concat();
    let runs = runs(&table, &files);
    assert_eq!(
        runs.iter().map(|run| (run.bytes, run.rows, run.deleted)).collect::<Vec<_>>(),
        [(150, 200, 6), (1, 100, 0)]
    );
}

#[test]
fn a_statement_merges_all_that_a_job_may_take_and_nothing_twice() {
    assert_eq!(all(&sample(|_| (0, 9), &[5000, 10, 10]), &config()), Some(0..3));
    assert_eq!(all(&sample(|_| (0, 9), &[9000, 5000, 10]), &config()), Some(1..3));
    assert_eq!(all(&sample(|_| (0, 9), &[100]), &config()), None);
    let table = table(TableKind::Shared, &[SqlType::BigInt, SqlType::Int], &[0]);
    assert_eq!(
        all(&runs(&table, &files(1, &[10], (0, 9), 0)), &config()),
        Some(0..1),
        "the file is older than a column"
    );
}
