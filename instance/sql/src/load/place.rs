//! Which column a name of the stream means, and what its values become there.

use ::arrow::array::ArrayRef;
use ::arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use kalamdb_engine::schema::{Column, DELETED, SEQ, SqlType, Table, UPDATED};
use kalamdb_engine::value::Value;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::{Given, GivenRow};
use crate::bind::literal::{self, JsonValue, Literal};
use crate::bind::value;
use crate::{ErrorCode, SqlError, rows};

/// Where values of a name go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Into the column of that place.
    Own(usize),
    /// Nowhere: the database keeps that column itself, and shows it in what was perhaps exported.
    Nowhere,
}

/// The place of a name: of the column that is written so, or else in lower case, as in SQL without quotes.
pub(super) fn place_of(table: &Table, name: &str) -> Result<Place, SqlError> {
    let find = |name: &str| {
        let is_system = [SEQ, UPDATED, DELETED].contains(&name);
        let own = || table.columns.iter().position(|column| column.name == name).map(Place::Own);
        if is_system { Some(Place::Nowhere) } else { own() }
    };
    find(name)
        .or_else(|| find(&name.to_lowercase()))
        .ok_or_else(|| SqlError::not_found("column", format_args!("{}.{name}", table.name)))
}

/// The places of names, none of which may stand there twice.
pub(super) fn places_of<'a>(table: &Table, names: impl Iterator<Item = &'a str>) -> Result<Vec<Place>, SqlError> {
    let mut places = Vec::new();
    for name in names {
        let place = place_of(table, name)?;
        if place != Place::Nowhere && places.contains(&place) {
            return Err(named_twice(name, ErrorCode::InvalidBody));
        }
        places.push(place);
    }
    Ok(places)
}

/// One of the two values would have been lost.
pub(super) fn named_twice(name: &str, code: ErrorCode) -> SqlError {
    SqlError::new(code, format!("column '{name}' stands there twice: name it once"))
}

/// What a JSON value is in a column: as in replies, so that what was read can be loaded again.
pub(super) fn of_json(json: &RawValue, column: &Column) -> Result<Value, SqlError> {
    let refused =
        |error| SqlError::new(ErrorCode::InvalidValue, format!("column '{}': no JSON value: {error}", column.name));
    let literal = match literal::of_json(json).map_err(refused)? {
        JsonValue::Scalar(literal) => literal,
        JsonValue::Array(text) if column.sql_type == SqlType::Bytes => {
            let items: Vec<Json> = serde_json::from_str(text).map_err(refused)?;
            Literal::Bytes(bytes(&items, column)?)
        }
        JsonValue::Array(text) | JsonValue::Object(text) => Literal::Text(text.to_owned()),
    };
    value::from_literal(&literal, column)
}

/// What a field of CSV is in a column.
pub(super) fn of_field(text: String, column: &Column) -> Result<Value, SqlError> {
    let is_text = matches!(column.sql_type, SqlType::Text | SqlType::Json | SqlType::Bytes);
    if column.sql_type == SqlType::Bytes
        && let Ok(Json::Array(items)) = serde_json::from_str(&text)
    {
        return value::from_literal(&Literal::Bytes(bytes(&items, column)?), column);
    }
    // Times are written as numbers too.
    let literal = if !is_text && text.parse::<i64>().is_ok() { Literal::Number(text) } else { Literal::Text(text) };
    value::from_literal(&literal, column)
}

fn bytes(items: &[Json], column: &Column) -> Result<Vec<u8>, SqlError> {
    let byte = |item: &Json| item.as_u64().and_then(|number| u8::try_from(number).ok());
    items.iter().map(byte).collect::<Option<_>>().ok_or_else(|| {
        let text = format!("column '{}': an array of bytes has numbers from 0 to 255", column.name);
        SqlError::new(ErrorCode::InvalidValue, text)
    })
}

/// Numbers the rows of batches as they come.
#[derive(Default)]
pub(super) struct Numbered {
    before: u64,
}

impl Numbered {
    /// Adds the batch's rows.
    pub(super) fn take(&mut self, batch: &RecordBatch, table: &Table, rows: &mut Vec<Given>) -> Result<(), SqlError> {
        let schema = batch.schema();
        let known = schema.fields().iter().map(|field| field.name().as_str());
        places_of(table, known.filter(|name| place_of(table, name).is_ok()))?;
        let first = rows.len();
        let empty = |at: usize| Given { line: self.before + at as u64 + 1, row: Ok(vec![None; table.columns.len()]) };
        rows.extend((0..batch.num_rows()).map(empty));
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            match place_of(table, field.name()) {
                Ok(Place::Own(place)) => put(&mut rows[first..], place, array, &table.columns[place]),
                Ok(Place::Nowhere) => {}
                Err(error) => rows[first..].iter_mut().for_each(|given| given.row = Err(error.clone())),
            }
        }
        self.before += batch.num_rows() as u64;
        Ok(())
    }
}

fn put(rows: &mut [Given], place: usize, array: &ArrayRef, column: &Column) {
    let set = |given: &mut Given, cell: Result<Value, SqlError>| match (&mut given.row, cell) {
        (Ok(row), Ok(value)) => set_cell(row, place, value),
        (row @ Ok(_), Err(error)) => *row = Err(error),
        (Err(_), _) => {}
    };
    if let Ok(values) = rows::values_of(array, column) {
        rows.iter_mut().zip(values).for_each(|(given, value)| set(given, Ok(value)));
        return;
    }
    // One of them does not fit: which, is found out one by one.
    for (at, given) in rows.iter_mut().enumerate() {
        let scalar = ScalarValue::try_from_array(array, at).map_err(SqlError::from);
        set(given, scalar.and_then(|scalar| value::from_scalar(&scalar, column)));
    }
}

fn set_cell(row: &mut GivenRow, place: usize, value: Value) {
    row[place] = Some(value);
}
