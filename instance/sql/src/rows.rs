//! Values to Arrow arrays and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeListArray,
    FixedSizeListBuilder, Float32Array, Float32Builder, Float64Array, Int16Array, Int32Array, Int64Array, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;
use kalamdb_engine::schema::{Column, SqlType, embedding_item};
use kalamdb_engine::value::Value;
use uuid::Uuid;

use crate::bind::value;
use crate::{ErrorCode, SqlError, documents};

/// The values as an array of the type. A value of another type is a fault of ours and becomes NULL in no case.
pub fn array_of<'a>(sql_type: SqlType, values: impl Iterator<Item = &'a Value>) -> Result<ArrayRef, SqlError> {
    macro_rules! array {
        ($array:ty, $variant:ident, $take:expr) => {{
            let take = $take;
            let cells = values.map(|value| match value {
                Value::Null => Ok(None),
                Value::$variant(inner) => Ok(Some(take(inner))),
                other => Err(mismatch(sql_type, other)),
            });
            cells.collect::<Result<$array, SqlError>>()?
        }};
    }
    let array: ArrayRef = match sql_type {
        SqlType::Boolean => Arc::new(array!(BooleanArray, Boolean, |v: &bool| *v)),
        SqlType::SmallInt => Arc::new(array!(Int16Array, SmallInt, |v: &i16| *v)),
        SqlType::Int => Arc::new(array!(Int32Array, Int, |v: &i32| *v)),
        SqlType::BigInt => Arc::new(array!(Int64Array, BigInt, |v: &i64| *v)),
        SqlType::Float => Arc::new(array!(Float32Array, Float, |v: &f32| *v)),
        SqlType::Double => Arc::new(array!(Float64Array, Double, |v: &f64| *v)),
        SqlType::Decimal { precision, scale } => {
            let array = array!(Decimal128Array, Decimal, |v: &i128| *v);
            let typed = array.with_precision_and_scale(precision, scale as i8);
            Arc::new(typed.map_err(|error| SqlError::new(ErrorCode::Internal, error.to_string()))?)
        }
        SqlType::Text => Arc::new(array!(StringArray, Text, |v: &'a String| v.as_str())),
        SqlType::Json | SqlType::File => Arc::new(array!(StringArray, Json, |v: &'a String| v.as_str())),
        SqlType::Uuid => Arc::new(array!(StringArray, Uuid, |v: &Uuid| v.hyphenated().to_string())),
        SqlType::Time => Arc::new(array!(Time64MicrosecondArray, Time, |v: &i64| *v)),
        SqlType::Embedding { dimensions } => Arc::new(embeddings(dimensions, values)?),
        SqlType::Bytes => Arc::new(array!(BinaryArray, Bytes, |v: &'a Vec<u8>| v.as_slice())),
        SqlType::Timestamp | SqlType::DateTime => {
            Arc::new(array!(TimestampMicrosecondArray, Timestamp, |v: &i64| *v).with_timezone("UTC"))
        }
        SqlType::Date => Arc::new(array!(Date32Array, Date, |v: &i32| *v)),
    };
    Ok(array)
}

fn embeddings<'a>(dimensions: u16, values: impl Iterator<Item = &'a Value>) -> Result<FixedSizeListArray, SqlError> {
    let mut lists =
        FixedSizeListBuilder::new(Float32Builder::new(), i32::from(dimensions)).with_field(embedding_item());
    for value in values {
        match value {
            Value::Embedding(numbers) if numbers.len() == usize::from(dimensions) => {
                lists.values().append_slice(numbers);
            }
            Value::Null => lists.values().append_value_n(0.0, usize::from(dimensions)),
            other => return Err(mismatch(SqlType::Embedding { dimensions }, other)),
        }
        lists.append(!value.is_null());
    }
    Ok(lists.finish())
}

fn mismatch(sql_type: SqlType, value: &Value) -> SqlError {
    SqlError::new(ErrorCode::Internal, format!("a row holds {value:?} in a column of type {sql_type:?}"))
}

/// The array's cells as values of the column.
pub fn values_of(array: &ArrayRef, column: &Column) -> Result<Vec<Value>, SqlError> {
    // A text must prove first that it is a document or a UUID.
    let is_checked =
        !matches!(column.sql_type, SqlType::Json | SqlType::Uuid | SqlType::File | SqlType::Embedding { .. });
    if is_checked && *array.data_type() == column.sql_type.arrow() {
        return Ok((0..array.len()).map(|at| same_type(array, at, column.sql_type)).collect());
    }
    let cell = |at| value::from_scalar(&ScalarValue::try_from_array(array, at)?, column);
    (0..array.len()).map(cell).collect()
}

/// The cells of a column that a query computed. A part of a document stays JSON in a JSON column and is what it says in all others.
pub fn computed_values_of(field: &Field, array: &ArrayRef, column: &Column) -> Result<Vec<Value>, SqlError> {
    if column.sql_type == SqlType::Json || !documents::is_document(field) {
        return values_of(array, column);
    }
    let cell = |part: Option<&str>| {
        part.map_or(Ok(Value::Null), |part| value::from_literal(&documents::literal(part), column))
    };
    array.as_string::<i32>().iter().map(cell).collect()
}

/// The cells of a column as it was stored: JSON among them was checked when it was written.
pub fn stored_values_of(array: &ArrayRef, column: &Column) -> Result<Vec<Value>, SqlError> {
    if *array.data_type() != column.sql_type.arrow() {
        return values_of(array, column);
    }
    if column.sql_type == SqlType::Uuid {
        return values_of(array, column);
    }
    Ok((0..array.len()).map(|at| same_type(array, at, column.sql_type)).collect())
}

fn same_type(array: &ArrayRef, at: usize, sql_type: SqlType) -> Value {
    if array.is_null(at) {
        return Value::Null;
    }
    match sql_type {
        SqlType::Boolean => Value::Boolean(array.as_boolean().value(at)),
        SqlType::SmallInt => Value::SmallInt(array.as_primitive::<Int16Type>().value(at)),
        SqlType::Int => Value::Int(array.as_primitive::<Int32Type>().value(at)),
        SqlType::BigInt => Value::BigInt(array.as_primitive::<Int64Type>().value(at)),
        SqlType::Float => Value::Float(value::canonical_float(array.as_primitive::<Float32Type>().value(at))),
        SqlType::Double => Value::Double(value::canonical_double(array.as_primitive::<Float64Type>().value(at))),
        SqlType::Decimal { .. } => Value::Decimal(array.as_primitive::<Decimal128Type>().value(at)),
        SqlType::Text => Value::Text(array.as_string::<i32>().value(at).to_owned()),
        SqlType::Json | SqlType::File => Value::Json(array.as_string::<i32>().value(at).to_owned()),
        SqlType::Uuid => array.as_string::<i32>().value(at).parse().map_or(Value::Null, Value::Uuid),
        SqlType::Time => Value::Time(array.as_primitive::<Time64MicrosecondType>().value(at)),
        SqlType::Embedding { .. } => {
            let numbers = array.as_fixed_size_list().value(at);
            Value::Embedding(numbers.as_primitive::<Float32Type>().values().to_vec())
        }
        SqlType::Bytes => Value::Bytes(array.as_binary::<i32>().value(at).to_owned()),
        SqlType::Timestamp | SqlType::DateTime => {
            Value::Timestamp(array.as_primitive::<TimestampMicrosecondType>().value(at))
        }
        SqlType::Date => Value::Date(array.as_primitive::<Date32Type>().value(at)),
    }
}

/// Whether two values are the same to a reader: floats by their bits, so that NaN equals itself.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Double(a), Value::Double(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}
