//! Bloom filters over whole keys: the user and all columns of the primary key at once.
//!
//! The filters of single columns tell that a user is there, and that a number is, but not that one row has both. Where more than one column
//! is looked up, a file holds one filter more for each row group, behind its columns, and its footer says where. Other engines skip both.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use arrow_schema::{ArrowError, Schema};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData};

/// Where the footer says where the filters lie: for each row group the first byte and how many. Another way to hash takes another name.
const METADATA_KEY: &str = "kalamdb.keyFilters";
/// False positives.
const FPP: f64 = 0.001;
/// FNV-1a of 64 bits.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The keys of a row group that is being written.
#[derive(Debug)]
pub struct GroupKeys {
    /// The places of the looked-up columns.
    columns: Vec<usize>,
    hashes: Vec<u64>,
}

impl GroupKeys {
    /// None where the filter of the one column says as much, or where a column's type is none of a key.
    pub fn of(schema: &Schema, looked_up: &[String]) -> Option<Self> {
        let places = looked_up.iter().map(|name| schema.index_of(name).ok());
        let columns: Vec<usize> = places.collect::<Option<_>>()?;
        let all_hashable = columns.iter().all(|place| is_hashable(schema.field(*place).data_type()));
        (columns.len() > 1 && all_hashable).then_some(Self { columns, hashes: Vec::new() })
    }

    /// Adds the rows of a batch.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let columns: Vec<_> = self.columns.iter().map(|place| batch.column(*place).clone()).collect();
        self.hashes.extend(hashes(&columns)?);
        Ok(())
    }

    /// The filter over what was added, as it stands in the file; the next row group begins.
    pub fn take_filter(&mut self) -> Result<Vec<u8>, ParquetError> {
        let mut filter = Sbbf::new_with_ndv_fpp(self.hashes.len().max(1) as u64, FPP)?;
        self.hashes.drain(..).for_each(|hash| filter.insert(&hash.cast_signed()));
        let mut bytes = Vec::new();
        filter.write(&mut bytes)?;
        Ok(bytes)
    }
}

/// Whether the row group may hold the key of that hash.
pub fn may_hold(filter: &Sbbf, hash: u64) -> bool {
    filter.check(&hash.cast_signed())
}

/// What the footer says of the filters, which lie there row group by row group.
pub fn to_metadata(filters: &[Range<u64>]) -> KeyValue {
    let places: Vec<_> = filters.iter().map(|filter| (filter.start, filter.end - filter.start)).collect();
    KeyValue::new(METADATA_KEY.to_owned(), serde_json::json!(places).to_string())
}

/// Where the filters of the row groups lie; none where the file has none, as those that were written before there were any.
pub fn from_metadata(footer: &ParquetMetaData) -> Option<Vec<Range<u64>>> {
    let entries = footer.file_metadata().key_value_metadata()?;
    let text = entries.iter().find(|entry| entry.key == METADATA_KEY)?.value.as_deref()?;
    let places: Vec<(u64, u64)> = serde_json::from_str(text).ok()?;
    let range = |(start, bytes): (u64, u64)| Some(start..start.checked_add(bytes)?);
    let filters = places.into_iter().map(range).collect::<Option<Vec<_>>>()?;
    (filters.len() == footer.num_row_groups()).then_some(filters)
}

fn is_hashable(data_type: &DataType) -> bool {
    is_number(data_type)
        || matches!(data_type, DataType::Utf8 | DataType::Binary | DataType::Boolean | DataType::Decimal128(..))
}

fn is_number(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(data_type, Int16 | Int32 | Int64 | Date32 | Time64(_) | Timestamp(..))
}

/// The hash of each row of these columns. A number has the same in whatever width its file has it.
pub fn hashes(columns: &[ArrayRef]) -> Result<Vec<u64>, ArrowError> {
    let mut hashes = vec![FNV_BASIS; columns.first().map_or(0, |column| column.len())];
    for column in columns {
        let rows = hashes.iter_mut().zip(0..);
        match column.data_type() {
            of if is_number(of) => {
                let numbers = cast(column, &DataType::Int64)?;
                let numbers = numbers.as_primitive::<Int64Type>();
                rows.for_each(|(hash, row)| mix(hash, &numbers.value(row).to_le_bytes()));
            }
            DataType::Decimal128(..) => {
                let numbers = column.as_primitive::<Decimal128Type>();
                rows.for_each(|(hash, row)| mix(hash, &numbers.value(row).to_le_bytes()));
            }
            DataType::Boolean => {
                let flags = column.as_boolean();
                rows.for_each(|(hash, row)| mix(hash, &[flags.value(row).into()]));
            }
            DataType::Utf8 => {
                let texts = column.as_string::<i32>();
                rows.for_each(|(hash, row)| mix_text(hash, texts.value(row).as_bytes()));
            }
            DataType::Binary => {
                let texts = column.as_binary::<i32>();
                rows.for_each(|(hash, row)| mix_text(hash, texts.value(row)));
            }
            other => return Err(ArrowError::InvalidArgumentError(format!("{other} is no type of a key"))),
        }
    }
    Ok(hashes)
}

fn mix(hash: &mut u64, bytes: &[u8]) {
    for byte in bytes {
        *hash = (*hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    }
}

/// With its length, so that no two keys are the same bytes.
fn mix_text(hash: &mut u64, text: &[u8]) {
    mix(hash, &(text.len() as u64).to_le_bytes());
    mix(hash, text);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int16Array, Int32Array, Int64Array, StringArray};

    use super::*;

    fn texts(texts: [&str; 2]) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(texts))
    }

    #[test]
    fn a_number_has_one_hash_in_every_width_and_texts_do_not_run_together() {
        let numbers: [ArrayRef; 3] = [
            Arc::new(Int16Array::from(vec![-7, 300])),
            Arc::new(Int32Array::from(vec![-7, 300])),
            Arc::new(Int64Array::from(vec![-7, 300])),
        ];
        let [narrow, middle, wide] = numbers.map(|numbers| hashes(&[texts(["a", "b"]), numbers]).unwrap());
        assert!(narrow == middle && middle == wide);
        let run_together = hashes(&[texts(["ab", "a"]), texts(["c", "bc"])]).unwrap();
        assert_ne!(run_together[0], run_together[1]);
    }

    /// It is stored: another hash would hide rows of files that are there already.
    #[test]
    fn hashes_never_change() {
        let keys: [ArrayRef; 2] = [texts(["root", ""]), Arc::new(Int64Array::from(vec![12, -1]))];
        assert_eq!(hashes(&keys).unwrap(), [0x5214_342c_fd7b_c345, 0x821e_6557_3bef_f6dd]);
    }
}
