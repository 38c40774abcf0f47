//! Whether bounds and bloom filters of one column leave room for a value. Pure.

use datafusion::common::ScalarValue;
use parquet::basic::Type as PhysicalType;
use parquet::bloom_filter::Sbbf;

use crate::cold::stats::ColumnStats;

/// Whether a value may lie within the bounds.
pub fn may_hold(stats: &ColumnStats, value: &ScalarValue) -> bool {
    let below = stats.min.as_ref().is_some_and(|min| order(value, min).is_some_and(|order| order.is_lt()));
    let above = stats.max.as_ref().is_some_and(|max| order(value, max).is_some_and(|order| order.is_gt()));
    !below && !above
}

/// How the value stands to a bound, whose integers have the width of their file.
fn order(value: &ScalarValue, bound: &ScalarValue) -> Option<std::cmp::Ordering> {
    match (value, bound) {
        (ScalarValue::Int64(Some(value)), ScalarValue::Int16(Some(bound))) => value.partial_cmp(&i64::from(*bound)),
        (ScalarValue::Int64(Some(value)), ScalarValue::Int32(Some(bound))) => value.partial_cmp(&i64::from(*bound)),
        // TIME stands in files as a number.
        (ScalarValue::Time64Microsecond(Some(value)), ScalarValue::Int64(Some(bound))) => value.partial_cmp(bound),
        _ => value.partial_cmp(bound),
    }
}

/// Whether the chunk may hold the value: its bytes as Parquet stores them.
pub fn bloom_may_hold(filter: &Sbbf, value: &ScalarValue, physical: PhysicalType) -> bool {
    match (value, physical) {
        (ScalarValue::Date32(Some(number)), PhysicalType::INT32) => filter.check(number),
        // A chunk of SMALLINT or INT, which a number beyond 32 bits can't be in.
        (ScalarValue::Int64(Some(number)), PhysicalType::INT32) => {
            i32::try_from(*number).is_ok_and(|number| filter.check(&number))
        }
        (ScalarValue::Int64(Some(number)), PhysicalType::INT64) => filter.check(number),
        (
            ScalarValue::TimestampMicrosecond(Some(number), _) | ScalarValue::Time64Microsecond(Some(number)),
            PhysicalType::INT64,
        ) => filter.check(number),
        (ScalarValue::Utf8(Some(text)), PhysicalType::BYTE_ARRAY) => filter.check(text.as_str()),
        (ScalarValue::Binary(Some(bytes)), PhysicalType::BYTE_ARRAY) => filter.check(bytes.as_slice()),
        (ScalarValue::Decimal128(Some(unscaled), ..), PhysicalType::INT32) => {
            i32::try_from(*unscaled).map_or(true, |unscaled| filter.check(&unscaled))
        }
        (ScalarValue::Decimal128(Some(unscaled), ..), PhysicalType::INT64) => {
            i64::try_from(*unscaled).map_or(true, |unscaled| filter.check(&unscaled))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_from_before_a_key_was_widened_are_left_out_as_well() {
        let key = |number| ScalarValue::Int64(Some(number));
        let bound = |number| Some(ScalarValue::Int32(Some(number)));
        let stats = ColumnStats { min: bound(10), max: bound(20), nulls: None };
        let held: Vec<_> =
            [9, 10, 20, 21, 1 << 40].into_iter().filter(|number| may_hold(&stats, &key(*number))).collect();
        assert_eq!(held, [10, 20]);

        let mut filter = Sbbf::new_with_ndv_fpp(1000, 0.001).unwrap();
        filter.insert(&15i32);
        let passes = |number| bloom_may_hold(&filter, &key(number), PhysicalType::INT32);
        assert!(passes(15) && !passes(16));
        assert!(!passes(15 + (1 << 32)), "no INT has that value, whatever its low bits are");
    }
}
