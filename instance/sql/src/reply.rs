//! Results as the public protocol writes them: column types by name, cells as JSON.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, UInt8Type, UInt16Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion_functions_json::{JsonUnionEncoder, JsonUnionValue};
use kalamdb_api::sql::{ColumnSchema, StatementResult};
use kalamdb_engine::schema::SqlType;
use serde_json::{Value as Json, json};

use crate::bind::sql_type::wire_name;
use crate::execute::{Outcome, RowSet};
use crate::{ErrorCode, Identity, SqlError};

/// Fails where a value does not fit.
const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: FormatOptions::new() };

/// The reply's element for one statement.
pub fn statement_result(outcome: Outcome, identity: &Identity) -> Result<StatementResult, SqlError> {
    let as_user = identity.user.to_string();
    Ok(match outcome {
        Outcome::As(user, outcome) => {
            StatementResult { as_user: user.to_string(), ..statement_result(*outcome, identity)? }
        }
        Outcome::Rows(rows) => {
            let (schema, cells) = (schema(&rows), cells(&rows)?);
            let row_count = cells.len() as u64;
            StatementResult { schema: Some(schema), rows: Some(cells), row_count, message: None, as_user }
        }
        Outcome::Done { row_count, message } => {
            StatementResult { schema: None, rows: None, row_count, message: Some(message), as_user }
        }
    })
}

fn schema(rows: &RowSet) -> Vec<ColumnSchema> {
    let column = |(index, column): (usize, &crate::execute::ResultColumn)| ColumnSchema {
        name: column.name.clone(),
        data_type: column.data_type.clone(),
        index,
        flags: column.flags.iter().map(|flag| (*flag).to_owned()).collect(),
    };
    rows.columns.iter().enumerate().map(column).collect()
}

/// The cells of each row.
pub(crate) fn cells(rows: &RowSet) -> Result<Vec<Vec<Json>>, SqlError> {
    let mut cells = Vec::with_capacity(rows.batches.iter().map(|batch| batch.num_rows()).sum());
    for batch in &rows.batches {
        let columns = batch.columns().iter().map(column_cells).collect::<Result<Vec<_>, _>>()?;
        let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
        for _ in 0..batch.num_rows() {
            cells.push(columns.iter_mut().map(|column| column.next().unwrap_or(Json::Null)).collect());
        }
    }
    Ok(cells)
}

/// The protocol's name for a column of that SQL type, where one is known and the Arrow type is one of its forms: those of texts are several.
pub fn type_name_of(sql_type: Option<SqlType>, arrow: &DataType) -> Json {
    let by_arrow = type_name(arrow);
    sql_type.filter(|sql_type| type_name(&sql_type.arrow()) == by_arrow).map_or(by_arrow, wire_name)
}

/// The protocol's name for an Arrow type that no table's column gave a SQL type.
pub fn type_name(of: &DataType) -> Json {
    let name = match of {
        DataType::Boolean => "Boolean",
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "SmallInt",
        DataType::Int32 | DataType::UInt16 => "Int",
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "BigInt",
        DataType::Float16 | DataType::Float32 => "Float",
        DataType::Float64 => "Double",
        DataType::Timestamp(..) => "Timestamp",
        DataType::Date32 | DataType::Date64 => "Date",
        DataType::Time32(_) | DataType::Time64(_) => "Time",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "Bytes",
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => {
            return json!({"Decimal": {"precision": precision, "scale": (*scale).max(0)}});
        }
        DataType::FixedSizeList(item, length) if *item.data_type() == DataType::Float32 => {
            return json!({"Embedding": length});
        }
        DataType::Dictionary(_, values) => return type_name(values),
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::Struct(_)
        | DataType::Map(..)
        | DataType::Union(..) => "Json",
        _ => "Text",
    };
    Json::from(name)
}

fn column_cells(array: &ArrayRef) -> Result<Vec<Json>, SqlError> {
    let as_type = |to: DataType| cast(array, &to).map_err(failed);
    match array.data_type() {
        DataType::Null => Ok(vec![Json::Null; array.len()]),
        DataType::Boolean => Ok(each(array, |at| Json::from(array.as_boolean().value(at)))),
        DataType::Int8 => Ok(each(array, |at| Json::from(array.as_primitive::<Int8Type>().value(at)))),
        DataType::Int16 => Ok(each(array, |at| Json::from(array.as_primitive::<Int16Type>().value(at)))),
        DataType::Int32 => Ok(each(array, |at| Json::from(array.as_primitive::<Int32Type>().value(at)))),
        DataType::UInt8 => Ok(each(array, |at| Json::from(array.as_primitive::<UInt8Type>().value(at)))),
        DataType::UInt16 => Ok(each(array, |at| Json::from(array.as_primitive::<UInt16Type>().value(at)))),
        DataType::Float16 => column_cells(&as_type(DataType::Float32)?),
        DataType::Float32 => Ok(each(array, |at| single(array.as_primitive::<Float32Type>().value(at)))),
        DataType::Float64 => Ok(each(array, |at| double(array.as_primitive::<Float64Type>().value(at)))),
        DataType::Utf8 => Ok(each(array, |at| Json::from(array.as_string::<i32>().value(at)))),
        DataType::LargeUtf8 | DataType::Utf8View => column_cells(&as_type(DataType::Utf8)?),
        DataType::Binary => Ok(each(array, |at| Json::from(array.as_binary::<i32>().value(at)))),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            column_cells(&as_type(DataType::Binary)?)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Ok(each(array, |at| Json::from(array.as_primitive::<TimestampMicrosecondType>().value(at))))
        }
        DataType::Timestamp(_, zone) => {
            let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
            column_cells(&cast_with_options(array, &micros, &STRICT).map_err(beyond)?)
        }
        DataType::Date32 => Ok(each(array, |at| Json::from(array.as_primitive::<Date32Type>().value(at)))),
        DataType::Date64 => column_cells(&cast_with_options(array, &DataType::Date32, &STRICT).map_err(beyond)?),
        DataType::Time64(TimeUnit::Microsecond) => {
            Ok(each(array, |at| Json::from(array.as_primitive::<Time64MicrosecondType>().value(at))))
        }
        DataType::Time32(_) | DataType::Time64(_) => column_cells(&as_type(DataType::Time64(TimeUnit::Microsecond))?),
        DataType::Decimal128(..) => {
            let decimals = array.as_primitive::<Decimal128Type>();
            Ok(each(array, |at| Json::from(decimals.value_as_string(at))))
        }
        DataType::Dictionary(_, values) => column_cells(&as_type(values.as_ref().clone())?),
        DataType::FixedSizeList(item, _) if *item.data_type() == DataType::Float32 => documents(array),
        nested if nested.is_nested() && !matches!(nested, DataType::Union(..)) => {
            let documents = documents(array)?.into_iter();
            Ok(documents.map(|cell| if cell.is_null() { cell } else { Json::from(cell.to_string()) }).collect())
        }
        DataType::Union(..) => json_texts(array),
        _ => displayed(array),
    }
}

/// Lists and structs as JSON of their cells.
fn documents(array: &ArrayRef) -> Result<Vec<Json>, SqlError> {
    let of_list = |list: ArrayRef| members(&list).map(Json::from);
    let cell = |at: usize| match array.data_type() {
        _ if array.is_null(at) => Ok(Json::Null),
        DataType::List(_) => of_list(array.as_list::<i32>().value(at)),
        DataType::LargeList(_) => of_list(array.as_list::<i64>().value(at)),
        DataType::FixedSizeList(..) => of_list(array.as_fixed_size_list().value(at)),
        DataType::Struct(_) => of_struct(array.as_struct(), at),
        // Entries of keys and values.
        DataType::Map(..) => documents(&(Arc::new(array.as_map().value(at)) as ArrayRef)).map(Json::from),
        _ => displayed(&array.slice(at, 1)).map(|texts| texts.into_iter().next().unwrap_or(Json::Null)),
    };
    (0..array.len()).map(cell).collect()
}

/// What stands within a list or a struct: lists and structs again, and not their text.
fn members(array: &ArrayRef) -> Result<Vec<Json>, SqlError> {
    match array.data_type() {
        nested if nested.is_nested() && !matches!(nested, DataType::Union(..)) => documents(array),
        _ => column_cells(array),
    }
}

fn of_struct(array: &StructArray, at: usize) -> Result<Json, SqlError> {
    let member = |(name, column): (&str, &ArrayRef)| {
        Ok((name.to_owned(), members(&column.slice(at, 1))?.pop().unwrap_or(Json::Null)))
    };
    let members = array.column_names().into_iter().zip(array.columns()).map(member);
    members.collect::<Result<serde_json::Map<_, _>, SqlError>>().map(Json::Object)
}

/// What `->` gives, as JSON text. Its NULL and the document's `null` are one.
fn json_texts(array: &ArrayRef) -> Result<Vec<Json>, SqlError> {
    let Some(values) = array.as_union_opt().cloned().and_then(JsonUnionEncoder::from_union) else {
        return displayed(array);
    };
    let text = |at: usize| match values.get_value(at) {
        JsonUnionValue::JsonNull => Json::Null,
        JsonUnionValue::Bool(value) => Json::from(value.to_string()),
        JsonUnionValue::Int(value) => Json::from(value.to_string()),
        JsonUnionValue::Float(value) => Json::from(Json::from(value).to_string()),
        JsonUnionValue::Str(text) => Json::from(Json::from(text).to_string()),
        JsonUnionValue::Array(text) | JsonUnionValue::Object(text) => Json::from(text),
    };
    Ok((0..values.len()).map(text).collect())
}

fn each(array: &ArrayRef, cell: impl Fn(usize) -> Json) -> Vec<Json> {
    (0..array.len()).map(|at| if array.is_null(at) { Json::Null } else { cell(at) }).collect()
}

/// 64-bit and wider integers as strings, since JavaScript's numbers end at 2^53; intervals as their text.
fn displayed(array: &ArrayRef) -> Result<Vec<Json>, SqlError> {
    let options = FormatOptions::new();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options).map_err(failed)?;
    Ok(each(array, |at| Json::from(formatter.value(at).to_string())))
}

fn single(value: f32) -> Json {
    // By its own shortest text: widened to f64 first, 0.1 would read 0.10000000149011612.
    match value.to_string().parse::<f64>() {
        Ok(number) if value.is_finite() => Json::from(number),
        _ => double(f64::from(value)),
    }
}

/// JSON has no NaN and no infinities: they are strings.
fn double(value: f64) -> Json {
    match value {
        value if value.is_nan() => Json::from("NaN"),
        f64::INFINITY => Json::from("Infinity"),
        f64::NEG_INFINITY => Json::from("-Infinity"),
        value => Json::from(value),
    }
}

/// A cell that would be NULL is no answer.
fn beyond(error: arrow::error::ArrowError) -> SqlError {
    let text = format!("a time is beyond those that a reply has, microseconds for moments and days for dates: {error}");
    SqlError::new(ErrorCode::InvalidValue, text)
}

fn failed(error: arrow::error::ArrowError) -> SqlError {
    SqlError::new(ErrorCode::Internal, format!("failed to write a result as JSON: {error}"))
}
