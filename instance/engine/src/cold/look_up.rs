//! Rows of the cold tier by key: where they lie, and what they hold.
//!
//! Files, row groups and pages that can't hold a key are left out by bounds and by a bloom filter over whole keys (over its one column, where
//! it has no more): so that a key is read from one row group at most, but for the filter's false positives, one in a thousand. Files
//! that were written before there was such a filter have those of single columns. Then the key columns of what is
//! left are read once for all keys, and the other columns of the rows that matched. A row that is hidden by a mask is never asked
//! for: its key has a hot version, and whoever looks up asks the hot tier first.

mod room;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, RowFilter, RowSelection, RowSelector,
};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask, RowNumber};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use self::room::{bloom_may_hold, may_hold};
use super::ranges;
use super::reader::RangeReader;
use super::scalar::{scalar_of, value_at};
use super::snapshot::{ColdFile, ColdSnapshot};
use super::stats::ColumnStats;
use super::{ColdTier, key_filter, schema};
use crate::EngineError;
use crate::engine::{FoundRow, Place};
use crate::evolution::reading::{FileSource, source_in};
use crate::hot::RowKey;
use crate::hot::key::decode_key;
use crate::schema::{Column, SEQ, SqlType, Table, UPDATED};
use crate::seq::Seq;
use crate::value::{Row, Value};

/// The name of the virtual column that numbers a file's rows.
const ROW_NUMBER: &str = "_row_number";
/// Up to this many keys of one row group are narrowed down to pages; beyond it most pages would be read anyway.
const KEYS_FOR_PAGES: usize = 64;

/// Looks the keys up in one version; answers in their order.
pub async fn look_up(
    tier: &ColdTier,
    snapshot: &ColdSnapshot,
    table: &Arc<Table>,
    keys: &[RowKey],
) -> Result<Vec<Option<FoundRow>>, EngineError> {
    look_up_in(tier, &snapshot.files, table, keys).await
}

/// Looks the keys up in some files; answers in their order.
pub async fn look_up_in(
    tier: &ColdTier,
    files: &[Arc<ColdFile>],
    table: &Arc<Table>,
    keys: &[RowKey],
) -> Result<Vec<Option<FoundRow>>, EngineError> {
    search(tier, files, table, &table.columns, keys).await
}

/// Where the keys lie in some files; answers in their order. Rows that were superseded are found too: nothing of them is decoded, for
/// they need not hold to what the table asks of its rows since.
pub async fn places_in(
    tier: &ColdTier,
    files: &[Arc<ColdFile>],
    table: &Arc<Table>,
    keys: &[RowKey],
) -> Result<Vec<Option<Place>>, EngineError> {
    let found = search(tier, files, table, &[], keys).await?;
    Ok(found.into_iter().map(|found| found.and_then(|row| row.place)).collect())
}

async fn search(
    tier: &ColdTier,
    files: &[Arc<ColdFile>],
    table: &Arc<Table>,
    columns: &[Column],
    keys: &[RowKey],
) -> Result<Vec<Option<FoundRow>>, EngineError> {
    let mut found: Vec<Option<FoundRow>> = vec![None; keys.len()];
    if files.is_empty() || keys.is_empty() {
        return Ok(found);
    }
    let shapes = Shapes::new(table, keys)?;
    let possible: Vec<usize> =
        (0..keys.len()).filter(|key| files.iter().any(|file| shapes.may_be_in(file, *key))).collect();
    // Most keys of an INSERT lie beyond all files.
    if possible.is_empty() {
        return Ok(found);
    }
    // A statement may name a key twice: it is searched for once.
    let mut firsts = HashMap::with_capacity(keys.len());
    let first: Vec<usize> = keys.iter().enumerate().map(|(at, key)| *firsts.entry(key).or_insert(at)).collect();
    let possible: Vec<usize> = possible.into_iter().filter(|key| first[*key] == *key).collect();
    let wanted = Wanted::new(shapes, &possible)?;
    // What is read most is what was written last, and a key has one live place: the newest rows first finds it soonest.
    for file in files.iter().rev() {
        let open: Vec<usize> = possible
            .iter()
            .copied()
            .filter(|key| found[*key].is_none() && wanted.shapes.may_be_in(file, *key))
            .collect();
        if !open.is_empty() {
            let searched =
                async { FileLookUp::open(tier, table, columns, file, &wanted).await?.run(open, &mut found).await };
            if let Err(error) = searched.await {
                let path = tier.log(table.uuid).path_of(&file.path);
                return Err(tier.store().blame(&path, Some(file.size), error).await);
            }
        }
    }
    for at in (0..keys.len()).filter(|at| first[*at] != *at) {
        found[at] = found[first[at]].clone();
    }
    Ok(found)
}

/// The keys as values of the looked-up columns.
struct Shapes {
    /// Physical names of the looked-up columns.
    columns: Vec<String>,
    /// Their types, integers all as BIGINT: files have them in the width that the column had when they were written.
    types: Vec<SqlType>,
    /// For each key one value a column.
    values: Vec<Vec<ScalarValue>>,
}

impl Shapes {
    fn new(table: &Table, keys: &[RowKey]) -> Result<Self, EngineError> {
        let wide = with_wide_keys(table);
        let types: Vec<SqlType> = table
            .kind
            .is_per_user()
            .then_some(SqlType::Text)
            .into_iter()
            .chain(wide.key_positions().into_iter().map(|place| wide.columns[place].sql_type))
            .collect();
        let values = keys.iter().map(|key| values_of(&wide, key, &types)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { columns: schema::looked_up_columns(table), types, values })
    }

    fn may_be_in(&self, file: &ColdFile, key: usize) -> bool {
        self.columns
            .iter()
            .zip(&self.values[key])
            .all(|(column, value)| file.stats.columns.get(column).is_none_or(|stats| may_hold(stats, value)))
    }
}

/// The keys in the shapes in which files are asked for them.
struct Wanted {
    shapes: Shapes,
    converter: Arc<RowConverter>,
    /// The keys as comparable rows.
    rows: Arc<HashMap<OwnedRow, usize>>,
    /// The keys as filters over whole keys know them, where they are of more than one column.
    hashes: HashMap<usize, u64>,
}

impl Wanted {
    /// The keys that some file may have.
    fn new(shapes: Shapes, possible: &[usize]) -> Result<Self, EngineError> {
        let column = |at: usize| ScalarValue::iter_to_array(possible.iter().map(|key| shapes.values[*key][at].clone()));
        let arrays = (0..shapes.types.len()).map(column).collect::<Result<Vec<_>, _>>();
        let arrays = arrays.map_err(|error| failed("compare keys", error))?;
        let hashes = if arrays.len() > 1 { key_filter::hashes(&arrays) } else { Ok(Vec::new()) };
        let hashes = hashes.map_err(|error| failed("hash keys", error))?;
        let hashes = possible.iter().copied().zip(hashes).collect();
        let fields = shapes.types.iter().map(|sql_type| SortField::new(sql_type.arrow())).collect();
        let converter = RowConverter::new(fields).map_err(|error| failed("compare keys", error))?;
        let rows = converter.convert_columns(&arrays).map_err(|error| failed("compare keys", error))?;
        let rows = rows.iter().zip(possible).map(|(row, key)| (row.owned(), *key)).collect();
        Ok(Self { shapes, converter: converter.into(), rows: Arc::new(rows), hashes })
    }
}

/// The table with all integers of its key as BIGINT. A key that was deleted may lie outside of a type that was narrowed since.
fn with_wide_keys(table: &Table) -> Table {
    let mut wide = table.clone();
    for place in table.key_positions() {
        let column = &mut wide.columns[place];
        if column.sql_type.is_integer() {
            column.sql_type = SqlType::BigInt;
        }
    }
    wide
}

fn values_of(table: &Table, key: &RowKey, types: &[SqlType]) -> Result<Vec<ScalarValue>, EngineError> {
    let user = key.user.iter().map(|user| Value::Text(user.as_str().to_owned()));
    let values = user.chain(decode_key(table, &key.key)?);
    values.zip(types).map(|(value, sql_type)| scalar_of(value, *sql_type)).collect()
}

/// A look-up in one file.
struct FileLookUp<'a> {
    tier: &'a ColdTier,
    table: &'a Arc<Table>,
    /// What is decoded of the rows that are found.
    columns: &'a [Column],
    file: &'a ColdFile,
    wanted: &'a Wanted,
    path: object_store::path::Path,
    metadata: ArrowReaderMetadata,
    /// Where the filters over whole keys lie, by row group.
    key_filters: Option<Vec<Range<u64>>>,
}

impl<'a> FileLookUp<'a> {
    async fn open(
        tier: &'a ColdTier,
        table: &'a Arc<Table>,
        columns: &'a [Column],
        file: &'a ColdFile,
        wanted: &'a Wanted,
    ) -> Result<Self, EngineError> {
        let path = tier.log(table.uuid).path_of(&file.path);
        let footer = tier.cache().footer(&path, file).await?;
        let number = Field::new(ROW_NUMBER, DataType::Int64, false).with_extension_type(RowNumber);
        let metadata = ArrowReaderOptions::new()
            .with_virtual_columns(vec![Arc::new(number)])
            .and_then(|options| ArrowReaderMetadata::try_new(footer, options))
            .map_err(|error| tier.store().read_failed(format!("read the schema of {path}"), error.into()))?;
        let key_filters = key_filter::from_metadata(metadata.metadata());
        Ok(Self { tier, table, columns, file, wanted, path, metadata, key_filters })
    }

    async fn run(&self, open: Vec<usize>, found: &mut [Option<FoundRow>]) -> Result<(), EngineError> {
        let bounds = self.row_group_bounds().map_err(|error| self.failed(error))?;
        for (group, bounds) in bounds.iter().enumerate() {
            let mut keys = Vec::new();
            for key in open.iter().copied().filter(|key| found[*key].is_none()) {
                let values = &self.wanted.shapes.values[key];
                if bounds.iter().zip(values).all(|(stats, value)| may_hold(stats, value))
                    && self.passes_filters(group, key).await?
                {
                    keys.push(key);
                }
            }
            if !keys.is_empty() {
                self.read(group, &keys, found).await?;
            }
        }
        Ok(())
    }

    fn footer(&self) -> &Arc<ParquetMetaData> {
        self.metadata.metadata()
    }

    fn converter(&self, column: &str) -> Result<StatisticsConverter<'_>, ParquetError> {
        StatisticsConverter::try_new(column, self.metadata.schema(), self.footer().file_metadata().schema_descr())
    }

    /// For each row group, the bounds of each looked-up column.
    fn row_group_bounds(&self) -> Result<Vec<Vec<ColumnStats>>, ParquetError> {
        let mut groups = vec![Vec::new(); self.footer().num_row_groups()];
        for column in &self.wanted.shapes.columns {
            let converter = self.converter(column)?;
            let (mins, maxes) = (
                converter.row_group_mins(self.footer().row_groups())?,
                converter.row_group_maxes(self.footer().row_groups())?,
            );
            for (group, bounds) in groups.iter_mut().enumerate() {
                bounds.push(ColumnStats { min: value_in(&mins, group), max: value_in(&maxes, group), nulls: None });
            }
        }
        Ok(groups)
    }

    async fn passes_filters(&self, group: usize, key: usize) -> Result<bool, EngineError> {
        if let (Some(filters), Some(hash)) = (&self.key_filters, self.wanted.hashes.get(&key)) {
            let filter = self.tier.cache().key_filter(&self.path, self.footer(), group, filters[group].clone()).await?;
            return Ok(key_filter::may_hold(&filter, *hash));
        }
        for (column, value) in self.wanted.shapes.columns.iter().zip(&self.wanted.shapes.values[key]) {
            let Some(index) = self.converter(column).map_err(|error| self.failed(error))?.parquet_column_index() else {
                continue;
            };
            let filter = self.tier.cache().bloom(&self.path, self.footer(), group, index).await?;
            let physical = self.footer().file_metadata().schema_descr().column(index).physical_type();
            if filter.is_some_and(|filter| !bloom_may_hold(&filter, value, physical)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the rows of the keys from one row group and keeps those that are not hidden.
    async fn read(&self, group: usize, keys: &[usize], found: &mut [Option<FoundRow>]) -> Result<(), EngineError> {
        let pages = self.pages(group, keys).map_err(|error| self.failed(error))?;
        let projection = self.projection().map_err(|error| self.failed(error.into()))?;
        let is_wanted = self.is_wanted().map_err(|error| self.failed(error.into()))?;
        let mut reader =
            RangeReader::new(self.tier.store().objects().clone(), self.path.clone(), self.footer().clone());
        if let Some(pages) = &pages {
            // All that the decoder will ask for, at once, rather than the key's pages first and then column by column.
            let ranges = ranges::of_pages(self.footer(), group, &projection, pages);
            reader.fetch(ranges::joined(ranges)).await.map_err(|error| self.failed(error))?;
        }
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, self.metadata.clone())
            .with_row_groups(vec![group])
            .with_projection(projection)
            // What it keeps of the key's pages is cut by its own batches: it would read more of them than was fetched.
            .with_max_predicate_cache_size(0)
            .with_row_filter(RowFilter::new(vec![Box::new(is_wanted)]));
        if let Some(pages) = pages {
            builder = builder.with_row_selection(pages);
        }
        let stream = builder.build().map_err(|error| self.failed(error))?;
        let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(|error| self.failed(error))?;
        if batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(());
        }
        let hidden = self.tier.hidden_rows(self.table.uuid, self.file).await?;
        for batch in batches {
            let numbers = column_of(&batch, ROW_NUMBER)?.as_primitive::<Int64Type>();
            let rows = self.keys_of(&batch).map_err(|error| failed("compare keys", error))?;
            for (place, key) in rows.into_iter().enumerate() {
                let number = numbers.value(place).unsigned_abs();
                if let Some(key) = key
                    && hidden.is_none_or(|hidden| !hidden.contains(number))
                {
                    found[key] = Some(self.row_at(&batch, place, number)?);
                }
            }
        }
        Ok(())
    }

    /// The columns that are read of the rows that are found: all, unless nothing of them is decoded.
    fn projection(&self) -> Result<ProjectionMask, ArrowError> {
        if !self.columns.is_empty() {
            return Ok(ProjectionMask::all());
        }
        self.mask(self.wanted.shapes.columns.iter().map(String::as_str).chain([SEQ, UPDATED]))
    }

    /// These columns, by their places: of names, Parquet's own masks split those that have a dot in them.
    fn mask<'b>(&self, columns: impl Iterator<Item = &'b str>) -> Result<ProjectionMask, ArrowError> {
        let places = columns.map(|column| self.metadata.schema().index_of(column)).collect::<Result<Vec<_>, _>>()?;
        Ok(ProjectionMask::roots(self.footer().file_metadata().schema_descr(), places))
    }

    /// The predicate that reads key columns only; other columns are read for the rows that pass.
    fn is_wanted(
        &self,
    ) -> Result<ArrowPredicateFn<impl FnMut(RecordBatch) -> Result<BooleanArray, ArrowError> + 'static>, ArrowError>
    {
        let mask = self.mask(self.wanted.shapes.columns.iter().map(String::as_str))?;
        let (converter, rows) = (self.wanted.converter.clone(), self.wanted.rows.clone());
        let (columns, types) = (self.wanted.shapes.columns.clone(), self.wanted.shapes.types.clone());
        Ok(ArrowPredicateFn::new(mask, move |batch| {
            let keys = comparable(&converter, &columns, &types, &batch)?;
            Ok(keys.iter().map(|row| Some(rows.contains_key(&row.owned()))).collect())
        }))
    }

    fn keys_of(&self, batch: &RecordBatch) -> Result<Vec<Option<usize>>, ArrowError> {
        let keys = comparable(&self.wanted.converter, &self.wanted.shapes.columns, &self.wanted.shapes.types, batch)?;
        Ok(keys.iter().map(|row| self.wanted.rows.get(&row.owned()).copied()).collect())
    }

    /// The pages that can hold one of the keys; none where all must be read.
    fn pages(&self, group: usize, keys: &[usize]) -> Result<Option<RowSelection>, ParquetError> {
        let (Some(columns), Some(offsets)) = (self.footer().column_index(), self.footer().offset_index()) else {
            return Ok(None);
        };
        if keys.len() > KEYS_FOR_PAGES {
            return Ok(None);
        }
        let mut selection: Option<RowSelection> = None;
        for (place, column) in self.wanted.shapes.columns.iter().enumerate() {
            let converter = self.converter(column)?;
            let mins = converter.data_page_mins(columns, offsets, [&group])?;
            let maxes = converter.data_page_maxes(columns, offsets, [&group])?;
            let Some(counts) = converter.data_page_row_counts(offsets, self.footer().row_groups(), [&group])? else {
                continue;
            };
            let pages = counts.iter().flatten().enumerate().map(|(page, rows)| {
                let stats = ColumnStats { min: value_in(&mins, page), max: value_in(&maxes, page), nulls: None };
                let needed = keys.iter().any(|key| may_hold(&stats, &self.wanted.shapes.values[*key][place]));
                let rows = usize::try_from(rows).expect("a page has fewer rows than memory has bytes");
                if needed { RowSelector::select(rows) } else { RowSelector::skip(rows) }
            });
            let pages = RowSelection::from(pages.collect::<Vec<_>>());
            selection = Some(selection.map_or(pages.clone(), |selection| selection.intersection(&pages)));
        }
        Ok(selection)
    }

    fn row_at(&self, batch: &RecordBatch, place: usize, number: u64) -> Result<FoundRow, EngineError> {
        let seq = column_of(batch, SEQ)?.as_primitive::<Int64Type>().value(place);
        let updated = column_of(batch, UPDATED)?.as_primitive::<TimestampMicrosecondType>().value(place);
        let mut row = Row::with_capacity(self.columns.len());
        for column in self.columns {
            row.push(match source_in(column, batch.schema_ref()) {
                FileSource::Present { index, casts } => value_at(batch.column(index), place, &casts)?,
                FileSource::Absent => column.initial.clone(),
            });
        }
        Ok(FoundRow { seq: Seq(seq), updated, row, place: Some(Place { file: self.file.path.clone(), row: number }) })
    }

    fn failed(&self, error: ParquetError) -> EngineError {
        self.tier.store().read_failed(format!("look up keys in {}", self.path), error.into())
    }
}

/// The key columns of a batch as comparable rows.
fn comparable(
    converter: &RowConverter,
    columns: &[String],
    types: &[SqlType],
    batch: &RecordBatch,
) -> Result<arrow::row::Rows, ArrowError> {
    let missing = |name: &String| ArrowError::SchemaError(format!("the file has no column {name}"));
    let arrays = columns
        .iter()
        .zip(types)
        .map(|(name, sql_type)| cast(batch.column_by_name(name).ok_or_else(|| missing(name))?, &sql_type.arrow()))
        .collect::<Result<Vec<_>, _>>()?;
    converter.convert_columns(&arrays)
}

fn column_of<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, EngineError> {
    batch
        .column_by_name(name)
        .ok_or_else(|| EngineError::Corrupt { what: "cold file".into(), reason: format!("it has no column {name}") })
}

fn value_in(array: &ArrayRef, place: usize) -> Option<ScalarValue> {
    ScalarValue::try_from_array(array, place).ok().filter(|value| !value.is_null())
}

fn failed(action: &str, error: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    EngineError::Cold { action: action.into(), source: Box::new(error) }
}

#[cfg(test)]
mod tests;
