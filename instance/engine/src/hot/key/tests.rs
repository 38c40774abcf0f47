//! Keys sort as their values do, come back as they went in, and none is a prefix of another.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;
use crate::schema::testing::table;

/// A composite key over every type that a key may have.
fn key_types() -> Vec<SqlType> {
    vec![
        SqlType::Boolean,
        SqlType::Text,
        SqlType::SmallInt,
        SqlType::Bytes,
        SqlType::Int,
        SqlType::BigInt,
        SqlType::Timestamp,
        SqlType::Date,
        SqlType::Decimal { precision: 38, scale: 3 },
        SqlType::Uuid,
        SqlType::Time,
    ]
}

/// Few different values, so that keys share prefixes, with the extremes among them.
fn values() -> impl Strategy<Value = Vec<Value>> {
    (
        any::<bool>(),
        "[\\x00\\x01a\u{ff}]{0,3}",
        prop_oneof![Just(i16::MIN), Just(-1), Just(0), any::<i16>()],
        prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 0..4),
        prop_oneof![Just(i32::MIN), Just(-1), Just(0), any::<i32>()],
        prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(-1), any::<i64>()],
        any::<i64>(),
        any::<i32>(),
        prop_oneof![Just(i128::MIN), Just(-1), any::<i128>()],
        (prop_oneof![Just(0u128), Just(u128::MAX), any::<u128>()], 0..86_400_000_000i64),
    )
        .prop_map(|(boolean, text, small, bytes, int, big, timestamp, date, decimal, (uuid, time))| {
            vec![
                Value::Boolean(boolean),
                Value::Text(text),
                Value::SmallInt(small),
                Value::Bytes(bytes),
                Value::Int(int),
                Value::BigInt(big),
                Value::Timestamp(timestamp),
                Value::Date(date),
                Value::Decimal(decimal),
                Value::Uuid(Uuid::from_u128(uuid)),
                Value::Time(time),
            ]
        })
}

fn compare(a: &[Value], b: &[Value]) -> Ordering {
    let one = |(a, b): (&Value, &Value)| match (a, b) {
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::SmallInt(a), Value::SmallInt(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) | (Value::Date(a), Value::Date(b)) => a.cmp(b),
        (Value::BigInt(a), Value::BigInt(b)) | (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
        (Value::Uuid(a), Value::Uuid(b)) => a.cmp(b),
        (Value::Time(a), Value::Time(b)) => a.cmp(b),
        _ => panic!("the columns have different types"),
    };
    a.iter().zip(b).map(one).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn keys_sort_as_their_values_and_come_back(first in values(), mut second in values(), shared in 0usize..11) {
        second[..shared].clone_from_slice(&first[..shared]);
        let types = key_types();
        let places: Vec<_> = (0..types.len()).collect();
        let table = table(TableKind::User, &types, &places);
        let (a, b) = (encode_key(&table, &first)?, encode_key(&table, &second)?);
        prop_assert_eq!(a.cmp(&b), compare(&first, &second));
        prop_assert!(a == b || !a.0.starts_with(&b.0), "a key is a prefix of another");
        prop_assert_eq!(&decode_key(&table, &a)?, &first);
        let row_key = RowKey { user: Some("al\0ice".into()), key: a };
        prop_assert_eq!(&RowKey::from_bytes(TableKind::User, &row_key.bytes())?, &row_key);
        prop_assert_eq!(user_length(TableKind::User, &row_key.bytes())?, "al\0ice".len() + 3);
    }
}

#[test]
fn a_widened_column_keeps_its_keys() {
    let (int, big) =
        (table(TableKind::Shared, &[SqlType::Int], &[0]), table(TableKind::Shared, &[SqlType::BigInt], &[0]));
    let old = encode_key(&int, &[Value::Int(-7)]).unwrap();
    assert_eq!(old, encode_key(&big, &[Value::BigInt(-7)]).unwrap());
    assert_eq!(old.0.as_ref(), [0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xF9], "the format may not change");
}

#[test]
fn null_and_wrong_types_are_refused_by_name() {
    let table = table(TableKind::Shared, &[SqlType::Int], &[0]);
    for (value, found) in [(Value::Null, "NULL"), (Value::Text("x".into()), "TEXT"), (Value::BigInt(1), "BIGINT")] {
        let error = encode_key(&table, &[value]).unwrap_err().to_string();
        assert_eq!(error, format!("key column 'c1' of table default.t can't hold {found}"));
    }
}

#[test]
fn damaged_keys_are_errors() {
    let table = table(TableKind::Shared, &[SqlType::Text, SqlType::Int], &[0, 1]);
    for bytes in
        [&b""[..], b"a", b"a\0", b"a\0\x01\x80", b"\xff\0\x01\x80\0\0\0\0\0\0\0", b"a\0\x01\x80\0\0\0\0\0\0\0\0"]
    {
        assert!(matches!(decode_key(&table, &Key(bytes.into())), Err(EngineError::Corrupt { .. })), "{bytes:?}");
    }
}

#[test]
fn a_prefix_ends_where_the_next_begins() {
    assert_eq!(prefix_end(&[1, 2]), [1, 3]);
    assert_eq!(prefix_end(&[1, 0xFF]), [2]);
}
