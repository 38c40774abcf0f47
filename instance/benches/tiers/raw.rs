//! What each part is measured against: RocksDB alone with the bytes that the engine stored, and arrow's Parquet writer alone.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use datafusion::arrow::array::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::WriterProperties;
use kalamdb_engine::cold::file::{Layout, writer_properties};
use kalamdb_engine::cold::schema::{file_schema, looked_up_columns};
use kalamdb_engine::hot::row::{RowReader, decode_row};
use kalamdb_engine::schema::Table;
use rocksdb::{ColumnFamilyDescriptor, DB, IteratorMode, Options, WriteBatch, WriteOptions};

/// A stored key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// What the engine stored for its commits, family by family.
pub struct Stored {
    /// Rows, in key order.
    pub rows: Vec<Pair>,
    /// The change log, in the order of the commits.
    pub changes: Vec<Pair>,
}

impl Stored {
    /// Reads the volume of an engine that was closed.
    pub fn read(hot: &Path) -> anyhow::Result<Self> {
        let families = DB::list_cf(&Options::default(), hot)?;
        let db = DB::open_cf_for_read_only(&Options::default(), hot, families, false)?;
        let pairs = |name: &str| -> anyhow::Result<Vec<Pair>> {
            let family = db.cf_handle(name).with_context(|| format!("no family {name}"))?;
            let pairs = db.iterator_cf(family, IteratorMode::Start);
            Ok(pairs.map(|pair| pair.map(|(key, value)| (key.into(), value.into()))).collect::<Result<_, _>>()?)
        };
        Ok(Self { rows: pairs("shared_table")?, changes: pairs("changes")? })
    }
}

/// RocksDB with its defaults, and two families.
pub struct RawRocks {
    db: DB,
    _folder: tempfile::TempDir,
}

impl RawRocks {
    /// Opens an empty database.
    pub fn open() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let family = |name| ColumnFamilyDescriptor::new(name, Options::default());
        let db = DB::open_cf_descriptors(&options, folder.path(), [family("rows"), family("changes")])?;
        Ok(Self { db, _folder: folder })
    }

    /// Writes them in one batch, with one fsync.
    pub fn write(&self, rows: &[Pair], changes: &[Pair]) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut batch = WriteBatch::default();
        for (family, pairs) in [("rows", rows), ("changes", changes)] {
            let family = self.db.cf_handle(family).context("the family is gone")?;
            pairs.iter().for_each(|(key, value)| batch.put_cf(family, key, value));
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options)?;
        Ok(began.elapsed())
    }

    /// Gets a row and decodes it.
    pub fn read(&self, table: &Table, reader: &RowReader, key: &[u8]) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let family = self.db.cf_handle("rows").context("the family is gone")?;
        let bytes = self.db.get_pinned_cf(family, key)?.context("the row is gone")?;
        let (_, row) = decode_row(table, reader, &bytes)?;
        anyhow::ensure!(row.is_some(), "the row is a tombstone");
        Ok(began.elapsed())
    }
}

/// The rows of some Parquet files.
pub fn rows_of(files: &[PathBuf]) -> anyhow::Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    for file in files {
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file)?)?.with_batch_size(8192).build()?;
        batches.extend(reader.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(batches)
}

/// How arrow's writer is set up.
#[derive(Debug, Clone, Copy)]
pub enum Settings {
    /// Its own defaults, and SNAPPY.
    Bare,
    /// Those of a flush: bloom filters, page statistics, size of pages and row groups.
    Same,
}

/// Writes rows that are in memory already with arrow's writer, on one thread, into a file that is synced.
pub fn write_parquet(table: &Table, batches: &[RecordBatch], settings: Settings) -> anyhow::Result<Duration> {
    let schema = file_schema(table);
    let properties = match settings {
        Settings::Bare => WriterProperties::builder().set_compression(Compression::SNAPPY).build(),
        Settings::Same => writer_properties(&schema, &looked_up_columns(table), Layout::default()),
    };
    let began = Instant::now();
    let target = tempfile::tempfile()?;
    let mut writer = ArrowWriter::try_new(&target, batches[0].schema(), Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.close()?;
    target.sync_all()?;
    Ok(began.elapsed())
}
