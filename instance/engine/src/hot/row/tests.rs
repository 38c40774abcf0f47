//! Rows come back as they went in, also through other versions of their table; their bytes do not change unseen.

use proptest::prelude::*;

use datafusion::common::ScalarValue;

use super::*;
use crate::cold::scalar::value_of;
use crate::hot::batch::RowDecoder;
use crate::hot::stored::StoredRows;
use crate::schema::TableKind;
use crate::schema::testing::table;

/// [`example`] as format 1 writes it: header, then fields.
const GOLDEN: &str = concat!(
    "01000403020100000000050000000000000001000000",
    "0101050201010303feff030405ffffffff0f05040000c03f060800000000000002c00710c01dfeffffffff",
    "ffffffffffffffffff080b6772c3bcc39f0064696368090200ff0a088080f281838985060b01010c097b2261223a5b315d7d",
);

const TYPES: [SqlType; 12] = [
    SqlType::BigInt,
    SqlType::Boolean,
    SqlType::SmallInt,
    SqlType::Int,
    SqlType::Float,
    SqlType::Double,
    SqlType::Decimal { precision: 20, scale: 4 },
    SqlType::Text,
    SqlType::Bytes,
    SqlType::Timestamp,
    SqlType::Date,
    SqlType::Json,
];

fn example() -> Row {
    vec![
        Value::BigInt(-3),
        Value::Boolean(true),
        Value::SmallInt(i16::MAX),
        Value::Int(i32::MIN),
        Value::Float(1.5),
        Value::Double(-2.25),
        Value::Decimal(-12_3456),
        Value::Text("grüß\0dich".into()),
        Value::Bytes(vec![0, 255]),
        Value::Timestamp(1_700_000_000_000_000),
        Value::Date(-1),
        Value::Json("{\"a\":[1]}".into()),
    ]
}

/// Types that came after format 1 was first written, and a row of them as it stands on disk.
const LATER_TYPES: [SqlType; 6] = [
    SqlType::BigInt,
    SqlType::DateTime,
    SqlType::Time,
    SqlType::Uuid,
    SqlType::Embedding { dimensions: 2 },
    SqlType::File,
];
const LATER_GOLDEN: &str = concat!(
    "01000403020100000000050000000000000001000000",
    "0101050203afde0b030580c083880b041001920000000070008000000000000000050800000040000080bf060a7b22696422",
    "3a2266227d",
);

fn later_example() -> Row {
    vec![
        Value::BigInt(-3),
        Value::Timestamp(-96_152),
        Value::Time(1_484_812_288),
        Value::Uuid(uuid::Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000)),
        Value::Embedding(vec![2.0, -1.0]),
        Value::Json("{\"id\":\"f\"}".into()),
    ]
}

#[test]
fn the_bytes_of_later_types_do_not_change() {
    let table = table(TableKind::Shared, &LATER_TYPES, &[0]);
    let row = later_example();
    let mut bytes = encode_row(&table, &row).unwrap();
    stamp(&mut bytes, Seq(0x0102_0304), 5);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, LATER_GOLDEN, "rows that were written with format 1 must stay readable");
    assert_eq!(decode_row(&table, &RowReader::of_all(&table), &bytes).unwrap().1.unwrap(), row);
    let short = vec![Value::BigInt(1), Value::Null, Value::Null, Value::Null, Value::Embedding(vec![1.0]), Value::Null];
    assert!(encode_row(&table, &short).unwrap_err().to_string().contains("column 'c5'"), "one number of two");
}

fn round_trip(writer: &Table, reader: &Table, row: &Row) -> Row {
    let bytes = encode_row(writer, row).unwrap();
    let decoded = decode_row(reader, &RowReader::of_all(reader), &bytes).unwrap().1.unwrap();
    assert_eq!(in_batches(reader, &[&bytes, &bytes]).unwrap(), [decoded.clone(), decoded.clone()]);
    decoded
}

/// The rows as a batch has them.
fn in_batches(table: &Table, rows: &[&[u8]]) -> Result<Vec<Row>, EngineError> {
    let mut stored = StoredRows::default();
    rows.iter().for_each(|row| stored.push(row));
    let batch = RowDecoder::new(table, None, false).decode(stored)?;
    let value = |column: usize, row: usize| {
        let scalar = ScalarValue::try_from_array(batch.column(column), row).unwrap();
        value_of(scalar, table.columns[column].sql_type).unwrap()
    };
    Ok((0..rows.len()).map(|row| (0..table.columns.len()).map(|column| value(column, row)).collect()).collect())
}

#[test]
fn a_batch_has_what_its_rows_have() {
    for types in [&TYPES[..], &LATER_TYPES[..]] {
        let table = table(TableKind::Shared, types, &[0]);
        let full = if types.len() == TYPES.len() { example() } else { later_example() };
        let mut empty = vec![Value::Null; types.len()];
        empty[0] = Value::BigInt(i64::MIN);
        let rows = [full.clone(), empty, full];
        let encoded: Vec<_> = rows.iter().map(|row| encode_row(&table, row).unwrap()).collect();
        assert_eq!(in_batches(&table, &encoded.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap(), rows);
    }
}

#[test]
fn the_bytes_of_format_1_do_not_change() {
    let table = table(TableKind::Shared, &TYPES, &[0]);
    let mut bytes = encode_row(&table, &example()).unwrap();
    stamp(&mut bytes, Seq(0x0102_0304), 5);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN, "rows that were written with format 1 must stay readable");
    let (header, row) = decode_row(&table, &RowReader::of_all(&table), &bytes).unwrap();
    assert_eq!(
        (header.seq, header.updated, header.deleted, header.schema),
        (Seq(0x0102_0304), 5, false, SchemaVersion(1))
    );
    assert_eq!(row.unwrap(), example());
}

#[test]
fn a_tombstone_has_no_row() {
    let table = table(TableKind::Shared, &TYPES, &[0]);
    let (header, row) = decode_row(&table, &RowReader::of_all(&table), &encode_tombstone(&table)).unwrap();
    assert!(header.deleted && row.is_none());
}

#[test]
fn an_altered_table_reads_old_rows() {
    let old = table(TableKind::Shared, &[SqlType::Int, SqlType::Text, SqlType::Float], &[0]);
    let mut new = old.clone();
    new.version = SchemaVersion(2);
    new.columns[0].sql_type = SqlType::BigInt;
    new.columns[2].sql_type = SqlType::Double;
    new.columns.remove(1);
    let mut added = new.columns[1].clone();
    (added.id, added.sql_type, added.since) = (ColumnId(4), SqlType::Text, SchemaVersion(2));
    added.initial = Value::Text("fresh".into());
    new.columns.insert(0, added);

    let row = vec![Value::Int(7), Value::Text("dropped".into()), Value::Float(0.5)];
    assert_eq!(
        round_trip(&old, &new, &row),
        vec![Value::Text("fresh".into()), Value::BigInt(7), Value::Double(0.5)],
        "widened, dropped and added columns"
    );
    let row = vec![Value::Null, Value::BigInt(1), Value::Null];
    assert_eq!(round_trip(&new, &new, &row), row, "NULL in a row of the same version is not the default");
    assert_eq!(
        round_trip(&new, &old, &row),
        vec![Value::Int(1), Value::Null, Value::Null],
        "a snapshot that still has the old table skips what it does not know"
    );
}

#[test]
fn misfits_are_refused_by_name() {
    let table = table(TableKind::Shared, &[SqlType::Int, SqlType::Text], &[0]);
    let refused = |row: &Row| encode_row(&table, row).unwrap_err().to_string();
    assert_eq!(refused(&vec![Value::Null, Value::Null]), "column 'c1' of table default.t can't hold NULL");
    assert_eq!(refused(&vec![Value::Int(1), Value::Int(2)]), "column 'c2' of table default.t can't hold INT");
    assert_eq!(refused(&vec![Value::Int(1)]), "a row of table default.t has 2 values, not 1");
}

proptest! {
    #[test]
    fn integers_come_back(value in any::<i64>()) {
        prop_assert_eq!(integer::<i64>(&FieldBytes::integer(value))?, value);
    }

    #[test]
    fn short_numbers_read_the_same_at_once(field in prop::collection::vec(any::<u8>(), 0..9)) {
        let mut rest = &field[..];
        let slowly = take_varint(&mut rest).ok().filter(|_| rest.is_empty());
        prop_assert_eq!(short_varint(&field), slowly.filter(|_| field.len() <= 8));
    }

    #[test]
    fn damaged_rows_never_panic(at in 0usize..200, byte in any::<u8>(), length in 0usize..200) {
        let table = table(TableKind::Shared, &TYPES, &[0]);
        let mut bytes = encode_row(&table, &example())?;
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(length);
        let decoded = decode_row(&table, &RowReader::of_all(&table), &bytes);
        if let (Ok((_, Some(row))), Ok(batch)) = (decoded, in_batches(&table, &[&bytes])) {
            // NaN is not itself.
            prop_assert_eq!(format!("{row:?}"), format!("{:?}", batch[0]));
        }
    }
}
