use arrow::array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray};
use datafusion::common::{DFSchema, ToDFSchema};
use datafusion::logical_expr::{col, lit};
use datafusion::prelude::SessionContext;
use std::sync::Arc;

use super::*;
use crate::hot::key::encode_key;
use crate::schema::testing::table;
use crate::schema::{SqlType, TableKind};

const NUMBERS: [i32; 7] = [i32::MIN, -2, -1, 0, 1, 5, i32::MAX];
const TEXTS: [&str; 6] = ["", "a", "a\0", "a\0b", "ab", "b"];

/// All rows of a table with the key `(c1 INT, c2 TEXT)`, in key order.
fn rows() -> Vec<(i32, &'static str)> {
    NUMBERS.iter().flat_map(|number| TEXTS.iter().map(|text| (*number, *text))).collect()
}

/// Which of the rows pass, by DataFusion.
fn passes(filter: &Expr) -> Vec<bool> {
    let (numbers, texts): (Vec<i32>, Vec<&str>) = rows().into_iter().unzip();
    let columns: [(&str, ArrayRef); 2] =
        [("c1", Arc::new(Int32Array::from(numbers))), ("c2", Arc::new(StringArray::from(texts)))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let schema: DFSchema = batch.schema().to_dfschema().unwrap();
    let physical = SessionContext::new().create_physical_expr(filter.clone(), &schema).unwrap();
    let found = physical.evaluate(&batch).unwrap().into_array(batch.num_rows()).unwrap();
    let found = found.as_any().downcast_ref::<BooleanArray>().unwrap().clone();
    found.iter().map(|passes| passes == Some(true)).collect()
}

fn bounds(filters: &[Expr]) -> KeyBounds {
    key_bounds(&table(TableKind::Shared, &[SqlType::Int, SqlType::Text], &[0, 1]), filters)
}

/// Whether each row's key lies within the bounds.
fn within(bounds: &KeyBounds) -> Vec<bool> {
    let table = table(TableKind::Shared, &[SqlType::Int, SqlType::Text], &[0, 1]);
    let (from, to) = bounds.below(&[7]);
    let is_within = |(number, text): (i32, &str)| {
        let key = encode_key(&table, &[Value::Int(number), Value::Text(text.into())]).unwrap();
        let stored = [&[7], &key.0[..]].concat();
        from <= stored && stored < to
    };
    rows().into_iter().map(is_within).collect()
}

#[test]
fn bounds_leave_exactly_the_keys_between_the_first_and_the_last_that_pass() {
    let (number, text) = (|| col("c1"), || col("c2"));
    let filters = [
        number().eq(lit(1)),
        number().gt(lit(-1)),
        number().gt_eq(lit(-1)),
        number().lt(lit(1)),
        number().lt_eq(lit(1)),
        lit(1).lt(number()),
        number().lt_eq(lit(i32::MAX)),
        number().gt(lit(i32::MIN)),
        number().gt(lit(i32::MAX)),
        number().between(lit(-1), lit(1)),
        number().in_list(vec![lit(5), lit(-1)], false),
        number().eq(lit(5)).or(number().eq(lit(-2))),
        number().gt(lit(1)).or(number().eq(lit(0))),
        number().lt(lit(1)).or(number().lt_eq(lit(1))),
        number().gt_eq(lit(0)).and(number().gt(lit(0))),
        number().gt_eq(lit(0)).and(number().lt(lit(5))),
        number().eq(lit(1)).and(text().gt(lit("a"))),
        number().eq(lit(1)).and(text().gt_eq(lit("a"))),
        number().eq(lit(1)).and(text().lt(lit("ab"))),
        number().eq(lit(1)).and(text().lt_eq(lit("a\0"))),
        number().eq(lit(i32::MAX)).and(text().eq(lit("a"))),
        number().eq(lit(1)).and(number().eq(lit(5))),
    ];
    for filter in filters {
        let (passing, within) = (passes(&filter), within(&bounds(std::slice::from_ref(&filter))));
        let (first, last) = (passing.iter().position(|passes| *passes), passing.iter().rposition(|passes| *passes));
        let between = |at: usize| first.is_some_and(|first| at >= first) && last.is_some_and(|last| at <= last);
        let expected: Vec<bool> = (0..passing.len()).map(between).collect();
        assert_eq!(within, expected, "{filter}");
    }
}

#[test]
fn all_filters_hold_together() {
    let both = bounds(&[col("c2").eq(lit("b")), col("c1").eq(lit(1))]);
    assert_eq!(within(&both).iter().filter(|is_within| **is_within).count(), 1);
}

#[test]
fn what_is_not_understood_narrows_nothing() {
    let filters = [
        col("c1").not_eq(lit(1)),
        col("c1").eq(lit(1)).or(col("c2").eq(lit("a"))),
        col("c1").not_between(lit(0), lit(1)),
        col("c1").in_list(vec![lit(1)], true),
        col("c1").eq(lit(ScalarValue::Int32(None))),
        col("c1").eq(lit(1_i64)),
        (col("c1") + lit(1)).eq(lit(1)),
        col("c2").eq(lit("a")),
        Expr::IsNotNull(Box::new(col("c1"))),
    ];
    for filter in filters {
        assert_eq!(bounds(std::slice::from_ref(&filter)), KeyBounds::ALL, "{filter}");
    }
}

#[test]
fn uuids_are_compared_as_the_texts_that_queries_see() {
    let table = table(TableKind::Shared, &[SqlType::Uuid], &[0]);
    let of = |text: &str| key_bounds(&table, &[col("c1").eq(lit(text))]);
    assert_ne!(of("0192f0c1-2345-7abc-8def-0123456789ab"), KeyBounds::ALL);
    assert_eq!(of("0192F0C1-2345-7ABC-8DEF-0123456789AB"), KeyBounds::ALL);
}
