//! What the writer's files look like to any Parquet reader.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};
use arrow_schema::{Field, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use uuid::Uuid;

use super::*;
use crate::config::ObjectStoreConfig;
use crate::schema::SqlType;

/// Rows `id`, `name` and, where asked for, `_updated`.
fn batch(rows: std::ops::Range<i64>, with_updated: bool) -> RecordBatch {
    let mut fields =
        vec![Field::new("id", SqlType::BigInt.arrow(), false), Field::new("name", SqlType::Text.arrow(), true)];
    let names = StringArray::from_iter(rows.clone().map(|row| (row % 7 != 0).then(|| format!("name {row}"))));
    let mut columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(Int64Array::from_iter(rows.clone())), Arc::new(names)];
    if with_updated {
        fields.push(Field::new(UPDATED, SqlType::Timestamp.arrow(), false));
        columns.push(Arc::new(TimestampMicrosecondArray::from_iter_values(rows).with_timezone("UTC")));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

struct Written {
    folder: tempfile::TempDir,
    table: Uuid,
    files: Vec<WrittenFile>,
}

impl Written {
    fn reader(&self, file: usize) -> SerializedFileReader<File> {
        SerializedFileReader::new(self.open(file)).unwrap()
    }

    fn open(&self, file: usize) -> File {
        let name = format!("tables/{}/{}", self.table, self.files[file].name);
        File::open(self.folder.path().join("not").join("there").join("yet").join(name)).unwrap()
    }
}

/// Incompressible rows of about so many bytes.
fn large(bytes: usize) -> RecordBatch {
    use rand::distr::{Alphanumeric, SampleString};
    const ROW: usize = 1 << 20;
    let rows = bytes.div_ceil(ROW);
    let fields =
        vec![Field::new("id", SqlType::BigInt.arrow(), false), Field::new("name", SqlType::Text.arrow(), true)];
    let names = StringArray::from_iter_values((0..rows).map(|_| Alphanumeric.sample_string(&mut rand::rng(), ROW)));
    let columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(Int64Array::from_iter(0..rows as i64)), Arc::new(names)];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// Whatever request of an upload in parts fails, the job fails by an error of the store, and no part is left behind; once the fault is gone
/// the same file is written.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_anywhere_between_its_parts_leaves_nothing_behind() {
    use crate::cold::faults::{Fault, Faults, FaultyStore};
    let (folder, faults, table) = (tempfile::tempdir().unwrap(), Arc::new(Faults::default()), Uuid::new_v4());
    let local = ColdStore::open(&ObjectStoreConfig::Local { path: folder.path().into() }).unwrap();
    let store = local.wrapped(|inner| Arc::new(FaultyStore::new(inner, faults.clone())));
    let (log, rows) = (DeltaLog::of(&store, table), large(2 * crate::cold::upload::PART_BYTES + 1));
    let write = async || {
        let (schema, layout) = (rows.schema(), Layout::default());
        let plan =
            FilePlan { schema, looked_up: Vec::new(), name_prefix: "part".into(), target_bytes: 1 << 30, layout };
        write_files(&store, &log, plan, [Ok(rows.clone())].into_iter()).await
    };
    let names = || {
        let entries = std::fs::read_dir(folder.path().join(log.folder().as_ref())).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    for fault in [Fault::Fails, Fault::LosesAnswer] {
        let mut calls = 0;
        loop {
            faults.strike_after(calls, fault);
            let written = write().await;
            if !faults.has_struck() {
                faults.revive();
                assert_eq!(written.unwrap().len(), 1);
                assert_eq!(names(), ["part-00000.parquet"]);
                break;
            }
            let error = written.unwrap_err();
            assert!(matches!(&error, EngineError::Unavailable(text) if text.contains("object store")), "{error}");
            let is_there = names() == ["part-00000.parquet"];
            // Its last request was done, and only the answer was lost.
            assert!(is_there || names().is_empty(), "{fault:?} {calls}: {:?}", names());
            // Where nothing came to be, there is no folder.
            let _ = std::fs::remove_dir_all(folder.path().join("tables"));
            calls += 1;
        }
        assert!(calls >= 5, "a begin, three parts and an end, and {calls} requests");
    }
}

async fn write(batches: Vec<RecordBatch>, target_bytes: u64) -> Written {
    let (folder, table) = (tempfile::tempdir().unwrap(), Uuid::new_v4());
    let path = folder.path().join("not").join("there").join("yet");
    let store = ColdStore::open(&ObjectStoreConfig::Local { path }).unwrap();
    let schema: SchemaRef = batches[0].schema();
    let plan = FilePlan {
        schema,
        looked_up: vec!["id".into()],
        name_prefix: "part".into(),
        target_bytes,
        layout: Layout::default(),
    };
    let log = DeltaLog::of(&store, table);
    let files = write_files(&store, &log, plan, batches.into_iter().map(Ok)).await.unwrap();
    Written { folder, table, files }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_back_as_they_were_written_and_folders_are_made() {
    let written = write(vec![batch(0..10_000, true), batch(10_000..12_345, true)], 1 << 30).await;
    assert_eq!(written.files.len(), 1);
    let read =
        ParquetRecordBatchReaderBuilder::try_new(written.open(0)).unwrap().with_batch_size(20_000).build().unwrap();
    let read: Vec<_> = read.map(Result::unwrap).collect();
    let all = arrow::compute::concat_batches(&read[0].schema(), &read).unwrap();
    assert_eq!(all.columns(), batch(0..12_345, true).columns());
    let stats = &written.files[0].stats;
    assert_eq!((stats.rows, stats.columns["name"].nulls), (12_345, Some(1764)));
    assert_eq!(written.files[0].size, written.open(0).metadata().unwrap().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn updated_has_a_bloom_filter_where_there_is_such_a_column() {
    for with_updated in [true, false] {
        let written = write(vec![batch(0..1000, with_updated)], 1 << 30).await;
        let reader = written.reader(0);
        for column in reader.metadata().row_group(0).columns() {
            let name = column.column_path().string();
            assert_eq!(column.bloom_filter_offset().is_some(), name == UPDATED || name == "id", "{name}");
        }
        assert_eq!(reader.metadata().row_group(0).num_columns(), 2 + usize::from(with_updated));
    }
}

#[test]
fn bloom_filters_are_sized_as_designed() {
    let properties = writer_properties(&batch(0..1, true).schema(), &["id".to_owned()], Layout::default());
    let bloom = |name: &str| {
        properties.bloom_filter_properties(&ColumnPath::from(name)).map(|bloom| (bloom.fpp(), bloom.ndv()))
    };
    assert_eq!(bloom(UPDATED), Some((0.01, 100_000)));
    assert_eq!(bloom("id"), Some((0.001, 100_000)));
    assert_eq!(bloom("name"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_column_has_statistics_a_page_index_and_snappy() {
    let written = write((0..25).map(|part| batch(part * 8192..(part + 1) * 8192, true)).collect(), 1 << 30).await;
    let metadata = ParquetRecordBatchReaderBuilder::try_new_with_options(
        written.open(0),
        parquet::arrow::arrow_reader::ArrowReaderOptions::new()
            .with_page_index_policy(parquet::file::metadata::PageIndexPolicy::Required),
    )
    .unwrap()
    .metadata()
    .clone();
    assert_eq!(
        metadata.row_groups().iter().map(|group| group.num_rows()).collect::<Vec<_>>(),
        [100_000, 100_000, 4800]
    );
    for (group, offsets) in metadata.row_groups().iter().zip(metadata.offset_index().unwrap()) {
        for (column, offsets) in group.columns().iter().zip(offsets) {
            assert_eq!(column.compression(), Compression::SNAPPY);
            let statistics = column.statistics().unwrap();
            assert!(statistics.min_bytes_opt().is_some() && statistics.max_bytes_opt().is_some());
            assert!(statistics.null_count_opt().is_some());
            let starts: Vec<_> = offsets.page_locations().iter().map(|page| page.first_row_index).collect();
            assert!(starts.windows(2).all(|pages| pages[1] - pages[0] <= 8_000), "{starts:?}");
            assert!(starts.len() <= 20, "{starts:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_end_at_their_target_size() {
    let written = write((0..40).map(|part| batch(part * 8192..(part + 1) * 8192, true)).collect(), 1 << 20).await;
    assert!(written.files.len() > 2, "{:?}", written.files.len());
    assert_eq!(written.files.iter().map(|file| file.stats.rows).sum::<u64>(), 40 * 8192);
}
