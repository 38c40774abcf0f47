//! The rules alone: types, names, DEFAULTs, and how former types are read.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};

use super::proof;
use super::reading::{FileSource, former_fields, source_in};
use super::types::{TypeChange, common_type, convert, convert_exactly, type_change};
use super::{Altered, NewColumn, Rule, TableChange, alter};
use crate::EngineError;
use crate::schema::testing::table;
use crate::schema::{AccessLevel, DefaultValue, SchemaVersion, SqlType, Table, TableKind};
use crate::value::Value;

const fn decimal(precision: u8, scale: u8) -> SqlType {
    SqlType::Decimal { precision, scale }
}

/// A table and all its versions.
struct History(Vec<Arc<Table>>);

impl History {
    /// Columns `c1` INT (the key), `c2` INT, `c3` DECIMAL(6,2).
    fn new() -> Self {
        Self(vec![Arc::new(table(TableKind::Shared, &[SqlType::Int, SqlType::Int, decimal(6, 2)], &[0]))])
    }

    fn newest(&self) -> &Table {
        self.0.last().expect("there is always one")
    }

    fn try_alter(&self, change: &TableChange) -> Result<Altered, EngineError> {
        alter(self.newest(), &self.0, change, 5)
    }

    fn alter(&mut self, change: TableChange) -> Vec<Rule> {
        let altered = self.try_alter(&change).expect("the change fits");
        self.0.push(Arc::new(altered.table));
        altered.rules
    }

    fn refused(&self, change: TableChange, part: &str) {
        let error = self.try_alter(&change).expect_err("the change does not fit").to_string();
        assert!(error.contains(part), "{error}");
    }
}

fn add(name: &str, sql_type: SqlType, initial: Value) -> TableChange {
    let default = (!initial.is_null()).then(|| DefaultValue::Literal(initial.clone()));
    TableChange::AddColumn(NewColumn { name: name.into(), sql_type, nullable: true, default, initial })
}

fn modify(name: &str, sql_type: SqlType) -> TableChange {
    TableChange::ModifyColumn { name: name.into(), sql_type, nullable: None, default: None }
}

#[test]
fn each_change_is_one_version_and_leaves_the_old_one_as_it_was() {
    let mut history = History::new();
    let before = history.newest().clone();
    history.alter(add("extra", SqlType::Text, Value::Text("x".into())));
    history.alter(TableChange::SetAccessLevel(AccessLevel::Public));
    assert_eq!((history.newest().version, history.newest().updated_at), (SchemaVersion(3), 5));
    assert_eq!(*history.0[0], before);
}

#[test]
fn a_name_that_is_used_again_is_another_column() {
    let mut history = History::new();
    let first = history.newest().column("c2").unwrap().clone();
    history.alter(TableChange::DropColumn("c2".into()));
    history.alter(add("c2", SqlType::Int, Value::Null));
    let second = history.newest().column("c2").unwrap().clone();
    assert!(second.id > first.id && second.physical_name != first.physical_name, "{second:?}");
    history.alter(TableChange::RenameColumn { from: "c2".into(), to: "other".into() });
    history.alter(add("C2", SqlType::Int, Value::Null));
    let third = history.newest().column("C2").unwrap().physical_name.to_lowercase();
    assert!(third != "c2" && third != second.physical_name, "engines that read files tell no case: {third}");
}

#[test]
fn names_that_differ_in_case_alone_are_refused() {
    let mut history = History::new();
    let rename = |from: &str, to: &str| TableChange::RenameColumn { from: from.into(), to: to.into() };
    history.refused(add("C2", SqlType::Int, Value::Null), "'C2' differs from column 'c2' in case alone");
    history.refused(rename("c3", "C2"), "'C2' differs from column 'c2' in case alone");
    history.alter(rename("c2", "C2"));
    history.refused(rename("C2", "C2"), "column 'default.t.C2' already exists");
    history.refused(add("c2", SqlType::Int, Value::Null), "'c2' differs from column 'C2' in case alone");

    // A table from before that rule can be mended.
    let mut table = history.newest().clone();
    (table.columns[1].name, table.columns[2].name) = ("a".into(), "A".into());
    let mut history = History(vec![Arc::new(table)]);
    history.alter(rename("A", "b"));
    history.alter(rename("a", "A"));
}

#[test]
fn a_version_is_proven_by_an_older_one_until_rows_were_asked() {
    let mut history = History::new();
    history.alter(modify("c2", SqlType::BigInt));
    history.alter(add("n", SqlType::Int, Value::Int(1)));
    history.alter(modify("n", SqlType::Text));
    let proven = |history: &History, held: u32| proof::proven(&history.0, SchemaVersion(held)).unwrap().version.0;
    assert_eq!((proven(&history, 1), proof::recovered(&history.0, SchemaVersion(1), 9)), (4, None));
    history.alter(TableChange::SetNullable { name: "n".into(), nullable: false });
    history.alter(add("later", SqlType::Int, Value::Null));
    assert_eq!((proven(&history, 1), proven(&history, 4), proven(&history, 5), proven(&history, 6)), (4, 4, 6, 6));
    history.alter(modify("c3", decimal(4, 2)));
    assert_eq!((proven(&history, 1), proven(&history, 5)), (4, 6));
    assert_eq!(proof::recovered(&history.0, SchemaVersion(7), 9), None);
}

#[test]
fn a_recovered_table_takes_back_what_lost_rows_were_asked_and_nothing_else() {
    let mut history = History::new();
    let seven = Some(DefaultValue::Literal(Value::Int(7)));
    history.alter(TableChange::SetDefault { name: "c2".into(), default: seven.clone() });
    let held = history.newest().version;
    let flushed = history.newest().clone();
    history.alter(modify("c1", SqlType::SmallInt));
    history.alter(modify("c2", SqlType::SmallInt));
    history.alter(TableChange::SetNullable { name: "c2".into(), nullable: false });
    history.alter(TableChange::RenameColumn { from: "c2".into(), to: "renamed".into() });
    history.alter(modify("c3", decimal(4, 2)));
    history.alter(modify("c3", SqlType::Text));
    history.alter(add("wide", SqlType::Int, Value::Int(100_000)));
    history.alter(TableChange::SetDefault { name: "wide".into(), default: None });
    history.alter(modify("wide", SqlType::SmallInt));
    history.alter(add("dense", SqlType::Int, Value::Int(1)));
    history.alter(TableChange::SetNullable { name: "dense".into(), nullable: false });
    let next = proof::recovered(&history.0, held, 9).expect("rows were asked");
    assert_eq!((next.version.0, next.updated_at), (history.newest().version.0 + 1, 9));
    let column = |name: &str| next.column(name).unwrap();
    assert_eq!(*column("c1"), flushed.columns[0]);
    let renamed = column("renamed");
    assert_eq!((renamed.sql_type, renamed.nullable, &renamed.default), (SqlType::Int, true, &seven));
    assert_eq!(column("c3").sql_type, decimal(6, 2), "a text would be read through the narrow type");
    assert_eq!((column("wide").sql_type, &column("wide").initial), (SqlType::Int, &Value::Int(100_000)));
    assert!(!column("dense").nullable, "old rows read its first DEFAULT");
    history.0.push(Arc::new(next));
    assert_eq!(proof::recovered(&history.0, held, 9), None, "once is enough");
    history.alter(modify("renamed", SqlType::BigInt));
    assert_eq!(proof::recovered(&history.0, held, 9), None, "and what comes then stays");
}

#[test]
fn a_later_default_does_not_change_what_old_rows_read() {
    let mut history = History::new();
    history.alter(add("n", SqlType::Int, Value::Int(7)));
    let default = Some(DefaultValue::Literal(Value::Int(8)));
    history.alter(TableChange::SetDefault { name: "n".into(), default: default.clone() });
    let column = history.newest().column("n").unwrap();
    assert_eq!((&column.default, &column.initial), (&default, &Value::Int(7)));
    history.alter(modify("n", SqlType::Text));
    let column = history.newest().column("n").unwrap();
    let text = |text: &str| Value::Text(text.into());
    assert_eq!((&column.default, &column.initial), (&Some(DefaultValue::Literal(text("8"))), &text("7")));
}

#[test]
fn keys_keep_their_columns_and_their_bytes() {
    let mut history = History::new();
    history.refused(TableChange::DropColumn("c1".into()), "part of the PRIMARY KEY and can't be dropped");
    history.refused(modify("c1", SqlType::Text), "among SMALLINT, INT and BIGINT only");
    history.refused(TableChange::SetNullable { name: "c1".into(), nullable: true }, "never NULL");
    assert_eq!(history.alter(modify("c1", SqlType::BigInt)), []);
    let narrows = Rule::Fits { column: "c1".into(), from: SqlType::BigInt, to: SqlType::SmallInt };
    assert_eq!(history.alter(modify("c1", SqlType::SmallInt)), [narrows]);
    assert_eq!(history.newest().columns[0].stored_type, SqlType::BigInt, "files stay as wide as they were");
    assert_eq!(history.newest().columns[0].physical_name, "c1");
}

#[test]
fn what_is_missing_taken_or_would_lose_something_is_refused() {
    let mut history = History::new();
    history.refused(TableChange::DropColumn("none".into()), "column 'default.t.none' does not exist");
    history.refused(add("c2", SqlType::Int, Value::Null), "column 'default.t.c2' already exists");
    history.refused(add("_seq", SqlType::Int, Value::Null), "kept by the database");
    history.refused(TableChange::RenameColumn { from: "c2".into(), to: "c3".into() }, "already exists");
    history.refused(modify("c2", SqlType::Boolean), "UPDATE default.t SET new_c2 = CAST(c2 AS BOOLEAN)");
    let default = Some(DefaultValue::Literal(Value::Int(70_000)));
    history.alter(TableChange::SetDefault { name: "c2".into(), default });
    history.refused(modify("c2", SqlType::SmallInt), "ALTER COLUMN c2 DROP DEFAULT");
    history.alter(modify("c2", SqlType::BigInt));
    history.alter(TableChange::SetDefault { name: "c2".into(), default: Some(DefaultValue::SnowflakeId) });
    history.refused(modify("c2", SqlType::Int), "DROP DEFAULT");
}

#[test]
fn rows_are_asked_for_what_the_schema_can_not_tell() {
    let mut history = History::new();
    let new =
        NewColumn { name: "n".into(), sql_type: SqlType::Int, nullable: false, default: None, initial: Value::Null };
    assert_eq!(history.alter(TableChange::AddColumn(new)), [Rule::NoRows("n".into())]);
    let set = |nullable| TableChange::SetNullable { name: "c2".into(), nullable };
    assert_eq!(history.alter(set(false)), [Rule::NotNull("c2".into())]);
    assert_eq!(history.alter(set(false)), [], "it holds already");
    assert!(history.newest().column("c2").unwrap().optional_in_files, "deleted rows in files may be NULL");
    assert_eq!(history.alter(set(true)), []);
    let both = TableChange::ModifyColumn {
        name: "c2".into(),
        sql_type: SqlType::SmallInt,
        nullable: Some(false),
        default: None,
    };
    assert_eq!(history.alter(both).len(), 2);
}

#[test]
fn types_widen_narrow_or_are_refused() {
    use SqlType::*;
    use TypeChange::*;
    for (from, to, expected, common) in [
        (SmallInt, BigInt, Widens, Some(BigInt)),
        (BigInt, SmallInt, Narrows, Some(BigInt)),
        (Float, Double, Widens, None),
        (Double, Float, Narrows, Some(Double)),
        (Int, Double, Widens, None),
        (BigInt, Double, Refused, None),
        (Int, decimal(12, 2), Widens, None),
        (Int, decimal(11, 2), Refused, None),
        (decimal(6, 2), decimal(8, 4), Widens, None),
        (decimal(6, 2), decimal(7, 4), Narrows, None),
        (decimal(8, 4), decimal(6, 2), Narrows, Some(decimal(8, 4))),
        (decimal(8, 4), decimal(8, 4), Widens, Some(decimal(8, 4))),
        (decimal(38, 0), decimal(38, 20), Narrows, None),
        (Json, Text, Widens, Some(Text)),
        (Text, Json, Refused, Some(Json)),
        (Int, Text, IntoText, None),
        (Bytes, Text, Refused, None),
        (Text, Int, Refused, None),
    ] {
        assert_eq!((type_change(from, to), common_type(from, to)), (expected, common), "{from} to {to}");
    }
}

#[test]
fn values_become_what_cast_makes_of_them() {
    let text = |text: &str| Value::Text(text.into());
    for (value, from, to, expected) in [
        (Value::Int(-5), SqlType::Int, SqlType::BigInt, Some(Value::BigInt(-5))),
        (Value::BigInt(40_000), SqlType::BigInt, SqlType::SmallInt, None),
        (Value::Double(0.5), SqlType::Double, SqlType::Float, Some(Value::Float(0.5))),
        (Value::Double(0.1), SqlType::Double, SqlType::Float, None),
        (Value::Double(f64::NAN), SqlType::Double, SqlType::Text, Some(text("NaN"))),
        (Value::Decimal(150), decimal(6, 2), decimal(8, 4), Some(Value::Decimal(15_000))),
        (Value::Decimal(155), decimal(6, 2), decimal(6, 1), None),
        (Value::Decimal(-150), decimal(6, 2), SqlType::Text, Some(text("-1.50"))),
        (Value::Boolean(true), SqlType::Boolean, SqlType::Text, Some(text("true"))),
        (Value::Date(0), SqlType::Date, SqlType::Text, Some(text("1970-01-01"))),
        (Value::Null, SqlType::Int, SqlType::Text, Some(Value::Null)),
    ] {
        assert_eq!(convert_exactly(value.clone(), from, to), expected, "{value:?} to {to}");
        if let Some(expected) = expected {
            assert_eq!(convert(value, from, to).unwrap(), expected);
        }
    }
}

#[test]
fn a_text_shows_the_type_that_it_was_written_from() {
    let mut history = History::new();
    history.alter(modify("c3", decimal(8, 4)));
    history.alter(modify("c3", SqlType::Text));
    let column = history.newest().column("c3").unwrap();
    let fields = former_fields(column);
    assert_eq!(fields.iter().map(|field| field.until.0).collect::<Vec<_>>(), [2, 3]);
    assert!(fields.iter().all(|field| field.casts == [decimal(8, 4), SqlType::Text]), "{fields:?}");
    assert_ne!(column.physical_name, "c3", "text and numbers are different columns to other engines");

    let file = |name: &str, data_type: DataType| Schema::new(vec![Field::new(name, data_type, true)]);
    let casts = vec![decimal(8, 4), SqlType::Text];
    let present = |casts: Vec<SqlType>| FileSource::Present { index: 0, casts };
    let widened = history.0[1].column("c3").unwrap().physical_name.clone();
    assert_ne!(widened, "c3", "and so are decimals of another scale");
    assert_eq!(source_in(column, &file("c3", decimal(6, 2).arrow())), present(casts.clone()));
    assert_eq!(source_in(column, &file(&widened, decimal(8, 4).arrow())), present(casts));
    assert_eq!(source_in(column, &file(&column.physical_name, DataType::Utf8)), present(vec![SqlType::Text]));
    assert_eq!(source_in(column, &file("c2", DataType::Int32)), FileSource::Absent);
}

#[test]
fn integers_of_any_width_are_read_as_they_are() {
    let mut history = History::new();
    for to in [SqlType::BigInt, SqlType::SmallInt, SqlType::Int] {
        history.alter(modify("c2", to));
    }
    let column = history.newest().column("c2").unwrap();
    assert_eq!(former_fields(column), [], "rows need no conversion");
    for width in [DataType::Int32, DataType::Int64] {
        let file = Schema::new(vec![Field::new("c2", width, true)]);
        assert_eq!(source_in(column, &file), FileSource::Present { index: 0, casts: vec![SqlType::Int] });
    }
}
