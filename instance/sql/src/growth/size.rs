//! How large a result will be, by a look at the arguments: never less than it is, sometimes more.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::compute::kernels::length::length;
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;

/// A character of UTF-8, at its longest.
const CHARACTER: f64 = 4.0;
/// A number as text, at its longest, and what stands for NULL.
const NUMBER: f64 = 40.0;
/// What one character of a date's format becomes, at its longest: `%+` is 35.
const FORMATTED: f64 = 20.0;
/// Groups within groups of a regular expression.
const GROUPS: f64 = 250.0;
/// An entry of a list besides its content.
const ENTRY: f64 = 4.0;
const DAY: f64 = 86_400e9;

/// What the size of a function's result depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// A text, so many times.
    Repeat,
    /// A text, filled up to so many characters.
    Pad,
    /// Each place where one text stands in another becomes a third.
    Replace,
    /// The same by a regular expression.
    ReplaceMatches,
    /// What the groups of a regular expression match.
    Groups,
    /// All arguments together.
    Sum,
    /// All arguments but the first, which stands between them.
    Joined,
    /// A list as text, with a text between its entries.
    Rendered,
    /// A text as a list.
    Split,
    /// Numbers or times from one to another.
    Series,
    /// A value, so many times.
    Copies,
    /// A list of so many entries.
    Resized,
    /// A list whose entries may become another value.
    Exchanged,
    /// A time as text.
    Formatted,
    /// The result is small, but takes a step for each pair of what it is given.
    Steps,
}

impl Growth {
    /// None where a result is not much larger than its arguments.
    pub(super) fn of(function: &str) -> Option<Self> {
        Some(match function {
            "repeat" => Self::Repeat,
            "lpad" | "rpad" => Self::Pad,
            "replace" => Self::Replace,
            "regexp_replace" => Self::ReplaceMatches,
            "regexp_match" => Self::Groups,
            "||" | "concat" | "array_concat" | "make_array" => Self::Sum,
            "concat_ws" => Self::Joined,
            "array_to_string" => Self::Rendered,
            "string_to_array" => Self::Split,
            "range" | "generate_series" => Self::Series,
            "array_repeat" => Self::Copies,
            "array_resize" => Self::Resized,
            "array_replace" | "array_replace_n" | "array_replace_all" => Self::Exchanged,
            "to_char" => Self::Formatted,
            "levenshtein" | "array_has_all" | "array_has_any" => Self::Steps,
            _ => return None,
        })
    }

    /// For each row.
    pub(super) fn sizes(self, args: &[ColumnarValue], rows: usize) -> Result<Vec<f64>> {
        let args = args.iter().map(Argument::of).collect::<Result<Vec<_>>>()?;
        let bytes: Vec<Each> = args.iter().map(Argument::bytes).collect();
        let at = |place: usize, row: usize| bytes.get(place).map_or(0.0, |each| each.at(row));
        let number = |place: usize| args.get(place).map_or_else(|| Ok(Each::default()), Argument::numbers);
        let count = |place: usize| args.get(place).map(Argument::counts).unwrap_or_default();
        let every = |size: &dyn Fn(usize) -> f64| (0..rows).map(size).collect::<Vec<f64>>();
        Ok(match self {
            Self::Repeat => {
                let times = number(1)?;
                every(&|row| at(0, row) * times.at(row).max(0.0))
            }
            Self::Pad => {
                let (length, width) = (number(1)?, if args.len() > 2 { CHARACTER } else { 1.0 });
                every(&|row| at(0, row) + length.at(row).max(0.0) * width)
            }
            Self::Replace => every(&|row| match at(1, row) {
                0.0 => at(0, row) + (at(0, row) + 1.0) * at(2, row),
                length => at(0, row) + at(0, row) / length * at(2, row),
            }),
            Self::ReplaceMatches => every(&|row| at(0, row) + (at(0, row) + 1.0) * at(2, row)),
            Self::Groups => every(&|row| at(0, row) * (at(1, row) / 2.0 + 1.0).min(GROUPS)),
            Self::Sum => every(&|row| (0..args.len()).map(|place| at(place, row)).sum::<f64>()),
            Self::Joined => every(&|row| {
                let texts: f64 = (1..args.len()).map(|place| at(place, row)).sum();
                texts + at(0, row) * args.len().saturating_sub(2) as f64
            }),
            Self::Rendered => {
                let entries = count(0);
                every(&|row| at(0, row) + entries.at(row) * (at(1, row) + at(2, row) + NUMBER))
            }
            Self::Split => every(&|row| at(0, row) * (1.0 + ENTRY)),
            Self::Series => {
                let (numbers, is_one) = ((0..args.len()).map(number).collect::<Result<Vec<_>>>()?, args.len() == 1);
                every(&|row| {
                    let at = |place: usize, other: f64| numbers.get(place).map_or(other, |each| each.at(row));
                    let (from, to) = if is_one { (0.0, at(0, 0.0)) } else { (at(0, 0.0), at(1, 0.0)) };
                    entries(from, to, at(2, if args.iter().any(Argument::is_time) { DAY } else { 1.0 })) * 8.0
                })
            }
            Self::Copies => {
                let times = number(1)?;
                every(&|row| (at(0, row) + ENTRY) * times.at(row).max(0.0))
            }
            Self::Resized => {
                let (length, entries) = (number(1)?, count(0));
                every(&|row| {
                    let entry = at(0, row) / entries.at(row).max(1.0);
                    at(0, row) + length.at(row).max(0.0) * entry.max(at(2, row)).max(8.0)
                })
            }
            Self::Exchanged => {
                let entries = count(0);
                every(&|row| at(0, row) + entries.at(row) * at(2, row))
            }
            Self::Formatted => every(&|row| (at(1, row) + 1.0) * FORMATTED),
            Self::Steps => {
                let (left, right) = (count(0), count(1));
                every(&|row| left.at(row) * right.at(row))
            }
        })
    }
}

/// How many steps there are from one to the other.
fn entries(from: f64, to: f64, step: f64) -> f64 {
    if step == 0.0 {
        // The function itself says what is wrong.
        return 0.0;
    }
    ((to - from) / step + 1.0).max(0.0)
}

/// A number for each row, or one for all.
#[derive(Default)]
struct Each(Vec<f64>);

impl Each {
    fn at(&self, row: usize) -> f64 {
        self.0.get(row).or(self.0.last()).copied().unwrap_or_default()
    }
}

struct Argument(ArrayRef);

impl Argument {
    fn of(value: &ColumnarValue) -> Result<Self> {
        Ok(Self(match value {
            ColumnarValue::Array(array) => ArrayRef::clone(array),
            ColumnarValue::Scalar(scalar) => scalar.to_array()?,
        }))
    }

    fn is_time(&self) -> bool {
        self.0.data_type().is_temporal()
    }

    fn bytes(&self) -> Each {
        Each(bytes(&self.0))
    }

    /// Entries of lists, bytes of texts.
    fn counts(&self) -> Each {
        Each(lengths(&self.0).unwrap_or_else(|| bytes(&self.0)))
    }

    /// Numbers as they are, times in nanoseconds.
    fn numbers(&self) -> Result<Each> {
        let array = &self.0;
        let plain = |through: &DataType, unit: f64| -> Result<Each> {
            let numbers = cast(&cast(array, through)?, &DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>();
            Ok(Each(numbers.iter().map(|number| number.unwrap_or_default() * unit).collect()))
        };
        match array.data_type() {
            DataType::Date32 => plain(&DataType::Int32, DAY),
            DataType::Date64 => plain(&DataType::Int64, 1e6),
            DataType::Timestamp(unit, _) => plain(&DataType::Int64, nanoseconds(*unit)),
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
                let step = |interval: Option<arrow::datatypes::IntervalMonthDayNano>| {
                    interval.map_or(0.0, |step| {
                        least_step(f64::from(step.months), f64::from(step.days), step.nanoseconds as f64)
                    })
                };
                Ok(Each(intervals.iter().map(step).collect()))
            }
            other if other.is_numeric() => plain(other, 1.0),
            DataType::Null => Ok(Each(vec![0.0; array.len()])),
            // Whatever it is, the function takes it for no number either.
            _ => Ok(Each::default()),
        }
    }
}

fn nanoseconds(unit: TimeUnit) -> f64 {
    match unit {
        TimeUnit::Second => 1e9,
        TimeUnit::Millisecond => 1e6,
        TimeUnit::Microsecond => 1e3,
        TimeUnit::Nanosecond => 1.0,
    }
}

/// The least that a step makes good, in nanoseconds: where its parts go different ways it may come back to where it was.
fn least_step(months: f64, days: f64, nanoseconds: f64) -> f64 {
    let parts = [months * 28.0 * DAY, days * DAY, nanoseconds];
    let goes_both_ways = parts.iter().any(|part| *part > 0.0) && parts.iter().any(|part| *part < 0.0);
    if goes_both_ways { f64::MIN_POSITIVE } else { parts.iter().sum() }
}

/// Of each row.
fn bytes(array: &ArrayRef) -> Vec<f64> {
    let same = |bytes: f64| vec![bytes; array.len()];
    match array.data_type() {
        DataType::Null => same(0.0),
        DataType::Boolean => same(1.0),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            nested(list.values(), list.offsets().iter().map(|offset| *offset as usize))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            nested(list.values(), list.offsets().iter().map(|offset| *offset as usize))
        }
        DataType::FixedSizeList(item, length) if item.data_type().primitive_width().is_some() => {
            let width = item.data_type().primitive_width().unwrap_or_default();
            same(f64::from(*length) * width as f64)
        }
        DataType::Struct(_) => {
            let columns: Vec<Vec<f64>> = array.as_struct().columns().iter().map(bytes).collect();
            (0..array.len()).map(|row| columns.iter().map(|column| column[row]).sum()).collect()
        }
        other => match (other.primitive_width(), lengths(array)) {
            (Some(width), _) => same(width as f64),
            (None, Some(lengths)) => lengths,
            (None, None) => same(array.get_array_memory_size() as f64),
        },
    }
}

fn nested(values: &ArrayRef, offsets: impl Iterator<Item = usize>) -> Vec<f64> {
    let mut sum = 0.0;
    let mut sums = vec![0.0];
    sums.extend(bytes(values).into_iter().map(|bytes| {
        sum += bytes + ENTRY;
        sum
    }));
    let offsets: Vec<usize> = offsets.collect();
    offsets.windows(2).map(|ends| sums[ends[1]] - sums[ends[0]]).collect()
}

/// None for what has no length.
fn lengths(array: &ArrayRef) -> Option<Vec<f64>> {
    let lengths = cast(&length(array).ok()?, &DataType::Float64).ok()?;
    Some(lengths.as_primitive::<Float64Type>().iter().map(Option::unwrap_or_default).collect())
}
