//! Statistics of one file: rows, and per column the bounds and the count of NULLs, as the Delta log carries them.
//!
//! Bounds may be wider than the data (long texts and sub-millisecond times are rounded outwards), never narrower. Types whose
//! bounds JSON can't carry exactly (floats, bytes, long decimals) have none. NULLs are counted in every column that a file has, so that
//! the count tells which columns it lacks.

use std::collections::HashMap;

use arrow::array::Array;
use arrow_schema::{DataType, Schema};
use chrono::{DateTime, NaiveDate, SecondsFormat};
use datafusion::common::ScalarValue;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use serde_json::{Map, Value as Json, json};

/// Texts in bounds are cut to this many characters.
const TEXT_BOUND_CHARACTERS: usize = 32;
/// Up to this many digits a decimal survives the way through a JSON number.
const EXACT_DECIMAL_DIGITS: u8 = 15;
const MICROS_PER_MILLI: i64 = 1000;

/// Bounds and NULLs of one column in one file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ColumnStats {
    /// No value is below it.
    pub min: Option<ScalarValue>,
    /// No value is above it.
    pub max: Option<ScalarValue>,
    /// How many are NULL.
    pub nulls: Option<u64>,
}

/// Statistics of one file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FileStats {
    /// Rows in the file, hidden ones included.
    pub rows: u64,
    /// By physical name.
    pub columns: HashMap<String, ColumnStats>,
}

impl FileStats {
    /// Takes the statistics from a file's footer.
    pub fn from_footer(footer: &ParquetMetaData, schema: &Schema) -> Result<Self, ParquetError> {
        let rows = footer.file_metadata().num_rows().unsigned_abs();
        let mut columns = HashMap::new();
        for field in schema.fields() {
            let columns_of_file = footer.file_metadata().schema_descr();
            let converter = StatisticsConverter::try_new(field.name(), schema, columns_of_file)?
                .with_missing_null_counts_as_zero(false);
            let nulls = converter.row_group_null_counts(footer.row_groups())?;
            let all_known = nulls.null_count() == 0;
            let mut stats =
                ColumnStats { nulls: all_known.then(|| nulls.iter().flatten().sum()), ..ColumnStats::default() };
            if has_bounds(field.data_type()) {
                let all_null =
                    |group: usize| nulls.iter().nth(group).flatten() == Some(footer.row_group(group).num_rows() as u64);
                let mins = converter.row_group_mins(footer.row_groups())?;
                let maxes = converter.row_group_maxes(footer.row_groups())?;
                stats.min = bound(&mins, all_null, std::cmp::Ordering::Less);
                stats.max = bound(&maxes, all_null, std::cmp::Ordering::Greater);
            }
            columns.insert(field.name().clone(), stats);
        }
        Ok(Self { rows, columns })
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        let of_column = |(name, stats): (&String, &ColumnStats)| {
            let bounds = stats.min.iter().chain(&stats.max).map(ScalarValue::size).sum::<usize>();
            size_of::<(String, ColumnStats)>() + name.len() + bounds
        };
        size_of::<Self>() + self.columns.iter().map(of_column).sum::<usize>()
    }

    /// With the counts of NULLs, column by column, for those that the footer has none of.
    pub fn with_nulls(mut self, schema: &Schema, nulls: &[u64]) -> Self {
        for (field, nulls) in schema.fields().iter().zip(nulls) {
            self.columns.entry(field.name().clone()).or_default().nulls.get_or_insert(*nulls);
        }
        self
    }

    /// The JSON of an `add` action's `stats`. `tight` says that no row of the file is hidden.
    pub fn to_json(&self, tight: bool) -> String {
        let (mut mins, mut maxes, mut nulls) = (Map::new(), Map::new(), Map::new());
        for (name, column) in &self.columns {
            if let (Some(min), Some(max)) = (&column.min, &column.max)
                && let (Some(min), Some(max)) = (bound_to_json(min, Side::Min), bound_to_json(max, Side::Max))
            {
                mins.insert(name.clone(), min);
                maxes.insert(name.clone(), max);
            }
            if let Some(count) = column.nulls {
                nulls.insert(name.clone(), json!(count));
            }
        }
        json!({ "numRecords": self.rows, "tightBounds": tight, "minValues": mins, "maxValues": maxes, "nullCount": nulls })
            .to_string()
    }

    /// Reads what [`FileStats::to_json`] wrote; columns that it can't make sense of have no bounds.
    pub fn from_json(text: &str, schema: &Schema) -> Option<Self> {
        let json: Json = serde_json::from_str(text).ok()?;
        let rows = json.get("numRecords")?.as_u64()?;
        let mut columns = HashMap::new();
        for field in schema.fields() {
            let at = |side: &str| json.get(side).and_then(|values| values.get(field.name()));
            let parse = |side| at(side).and_then(|value| bound_from_json(value, field.data_type()));
            columns.insert(
                field.name().clone(),
                ColumnStats {
                    min: parse("minValues"),
                    max: parse("maxValues"),
                    nulls: at("nullCount").and_then(Json::as_u64),
                },
            );
        }
        Some(Self { rows, columns })
    }
}

fn has_bounds(data_type: &DataType) -> bool {
    match data_type {
        DataType::Decimal128(precision, _) => *precision <= EXACT_DECIMAL_DIGITS,
        DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Date32 => true,
        DataType::Utf8 | DataType::Timestamp(..) | DataType::Boolean => true,
        _ => false,
    }
}

/// The outermost bound of all row groups; none where a row group has values and no bound.
fn bound(
    values: &arrow::array::ArrayRef,
    all_null: impl Fn(usize) -> bool,
    outer: std::cmp::Ordering,
) -> Option<ScalarValue> {
    let mut found: Option<ScalarValue> = None;
    for group in 0..values.len() {
        let value = ScalarValue::try_from_array(values, group).ok()?;
        if value.is_null() {
            if all_null(group) {
                continue;
            }
            return None;
        }
        let replaces = found.as_ref().is_none_or(|found| value.partial_cmp(found) == Some(outer));
        if replaces {
            found = Some(value);
        }
    }
    found
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Min,
    Max,
}

fn bound_to_json(value: &ScalarValue, side: Side) -> Option<Json> {
    match value {
        ScalarValue::Int16(Some(number)) => Some(json!(number)),
        ScalarValue::Int32(Some(number)) => Some(json!(number)),
        ScalarValue::Int64(Some(number)) => Some(json!(number)),
        ScalarValue::Boolean(Some(flag)) => Some(json!(flag)),
        ScalarValue::Date32(Some(days)) => NaiveDate::from_epoch_days(*days).map(|date| json!(date.to_string())),
        ScalarValue::Utf8(Some(text)) => text_bound(text, side).map(Json::String),
        ScalarValue::TimestampMicrosecond(Some(micros), _) => time_bound(*micros, side),
        ScalarValue::Decimal128(Some(unscaled), precision, scale) if *precision <= EXACT_DECIMAL_DIGITS => {
            let number = *unscaled as f64 / 10f64.powi(i32::from(*scale));
            serde_json::Number::from_f64(number).map(Json::Number)
        }
        _ => None,
    }
}

/// A prefix is a lower bound of its text; with the highest character behind it, it is an upper one, unless the text goes on with that
/// very character: then there is none.
fn text_bound(text: &str, side: Side) -> Option<String> {
    let Some((cut, _)) = text.char_indices().nth(TEXT_BOUND_CHARACTERS) else { return Some(text.to_owned()) };
    let (prefix, rest) = text.split_at(cut);
    match side {
        Side::Min => Some(prefix.to_owned()),
        Side::Max if rest.starts_with(char::MAX) => None,
        Side::Max => Some(format!("{prefix}{}", char::MAX)),
    }
}

/// Other readers expect milliseconds: down for the lower bound, up for the upper one.
fn time_bound(micros: i64, side: Side) -> Option<Json> {
    let floor = micros.div_euclid(MICROS_PER_MILLI);
    let millis = if side == Side::Max && micros.rem_euclid(MICROS_PER_MILLI) != 0 { floor + 1 } else { floor };
    DateTime::from_timestamp_millis(millis).map(|time| json!(time.to_rfc3339_opts(SecondsFormat::Millis, true)))
}

fn bound_from_json(value: &Json, data_type: &DataType) -> Option<ScalarValue> {
    Some(match data_type {
        DataType::Int16 => ScalarValue::Int16(Some(value.as_i64()?.try_into().ok()?)),
        DataType::Int32 => ScalarValue::Int32(Some(value.as_i64()?.try_into().ok()?)),
        DataType::Int64 => ScalarValue::Int64(Some(value.as_i64()?)),
        DataType::Boolean => ScalarValue::Boolean(Some(value.as_bool()?)),
        DataType::Utf8 => ScalarValue::Utf8(Some(value.as_str()?.to_owned())),
        DataType::Date32 => {
            let date: NaiveDate = value.as_str()?.parse().ok()?;
            ScalarValue::Date32(Some(date.to_epoch_days()))
        }
        DataType::Timestamp(_, zone) => {
            let time = DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
            ScalarValue::TimestampMicrosecond(Some(time.timestamp_micros()), zone.clone())
        }
        DataType::Decimal128(precision, scale) if *precision <= EXACT_DECIMAL_DIGITS => {
            let unscaled = (value.as_f64()? * 10f64.powi(i32::from(*scale))).round();
            ScalarValue::Decimal128(Some(unscaled as i128), *precision, *scale)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::Field;

    proptest::proptest! {
        #[test]
        fn bounds_of_texts_enclose_them(text in "(a|é|\u{10FFFF}){28,40}") {
            let [min, max] = [Side::Min, Side::Max].map(|side| text_bound(&text, side));
            proptest::prop_assert!(min.is_none_or(|min| min <= text) && max.is_none_or(|max| max >= text));
        }
    }

    #[test]
    fn bounds_survive_the_log_and_are_never_narrower_than_the_data() {
        let zone = Some("UTC".into());
        let time = |micros| ScalarValue::TimestampMicrosecond(Some(micros), zone.clone());
        let long = "é".repeat(40);
        let cases = [
            (ScalarValue::Int64(Some(i64::MIN)), ScalarValue::Int64(Some(i64::MAX))),
            (ScalarValue::Date32(Some(-719_000)), ScalarValue::Date32(Some(20_000))),
            (time(-1), time(1_700_000_000_123_456)),
            (ScalarValue::Utf8(Some(long.clone())), ScalarValue::Utf8(Some(long))),
            (
                ScalarValue::Decimal128(Some(-123_456_789_012_345), 15, 2),
                ScalarValue::Decimal128(Some(999_999_999_999_999), 15, 2),
            ),
        ];
        for (min, max) in cases {
            let schema = Schema::new(vec![Field::new("c", min.data_type(), true)]);
            let column = ColumnStats { min: Some(min.clone()), max: Some(max.clone()), nulls: Some(3) };
            let stats = FileStats { rows: 9, columns: HashMap::from([("c".to_owned(), column)]) };
            let read = FileStats::from_json(&stats.to_json(true), &schema).unwrap();
            let bounds = &read.columns["c"];
            assert!(bounds.min.as_ref().unwrap() <= &min, "{min} became {:?}", bounds.min);
            assert!(bounds.max.as_ref().unwrap() >= &max, "{max} became {:?}", bounds.max);
            assert_eq!((read.rows, bounds.nulls), (9, Some(3)));
        }
    }
}
