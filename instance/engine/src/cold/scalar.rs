//! Single values on their way between rows of the engine and Arrow.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array};
use arrow::datatypes::Float32Type;
use datafusion::common::ScalarValue;

use crate::EngineError;
use crate::evolution::types;
use crate::schema::{SqlType, embedding_item};
use crate::value::Value;

/// A value as a scalar of the column's type.
pub fn scalar_of(value: Value, sql_type: SqlType) -> Result<ScalarValue, EngineError> {
    let scalar = match value {
        Value::Null => ScalarValue::try_from(&sql_type.arrow()).map_err(|error| failed("type a NULL", error))?,
        Value::Boolean(flag) => ScalarValue::Boolean(Some(flag)),
        Value::SmallInt(number) => ScalarValue::Int16(Some(number)),
        Value::Int(number) => ScalarValue::Int32(Some(number)),
        Value::BigInt(number) => ScalarValue::Int64(Some(number)),
        Value::Float(number) => ScalarValue::Float32(Some(number)),
        Value::Double(number) => ScalarValue::Float64(Some(number)),
        Value::Decimal(unscaled) => match sql_type {
            SqlType::Decimal { precision, scale } => ScalarValue::Decimal128(Some(unscaled), precision, scale as i8),
            other => return Err(EngineError::Invalid(format!("a decimal value for a column of type {other:?}"))),
        },
        Value::Text(text) | Value::Json(text) => ScalarValue::Utf8(Some(text)),
        Value::Uuid(uuid) => ScalarValue::Utf8(Some(uuid.hyphenated().to_string())),
        Value::Time(micros) => ScalarValue::Time64Microsecond(Some(micros)),
        Value::Embedding(numbers) => embedding_scalar(numbers)?,
        Value::Bytes(bytes) => ScalarValue::Binary(Some(bytes)),
        Value::Timestamp(micros) => ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())),
        Value::Date(days) => ScalarValue::Date32(Some(days)),
    };
    Ok(scalar)
}

/// One cell, cast to these types one after the other, as a value of the last of them.
pub fn value_at(array: &ArrayRef, place: usize, casts: &[SqlType]) -> Result<Value, EngineError> {
    let mut scalar = ScalarValue::try_from_array(array, place).map_err(|error| failed("read a cell", error))?;
    for sql_type in casts {
        scalar = types::cast(scalar, *sql_type)?;
    }
    let sql_type = casts.last().expect("the column's own type is the last of them");
    value_of(scalar, *sql_type)
}

/// A scalar of the type's Arrow type as a value of that type.
pub fn value_of(scalar: ScalarValue, sql_type: SqlType) -> Result<Value, EngineError> {
    Ok(match scalar {
        ScalarValue::Boolean(Some(flag)) => Value::Boolean(flag),
        ScalarValue::Int16(Some(number)) => Value::SmallInt(number),
        ScalarValue::Int32(Some(number)) => Value::Int(number),
        ScalarValue::Int64(Some(number)) => Value::BigInt(number),
        ScalarValue::Float32(Some(number)) => Value::Float(number),
        ScalarValue::Float64(Some(number)) => Value::Double(number),
        ScalarValue::Decimal128(Some(unscaled), ..) => Value::Decimal(unscaled),
        ScalarValue::Utf8(Some(text)) if matches!(sql_type, SqlType::Json | SqlType::File) => Value::Json(text),
        ScalarValue::Utf8(Some(text)) if sql_type == SqlType::Uuid => {
            Value::Uuid(text.parse().map_err(|_| EngineError::Invalid(format!("'{text}' is no UUID")))?)
        }
        ScalarValue::Time64Microsecond(Some(micros)) => Value::Time(micros),
        ScalarValue::FixedSizeList(list) if list.is_valid(0) => {
            Value::Embedding(list.value(0).as_primitive::<Float32Type>().values().to_vec())
        }
        ScalarValue::Utf8(Some(text)) => Value::Text(text),
        ScalarValue::Binary(Some(bytes)) => Value::Bytes(bytes),
        ScalarValue::TimestampMicrosecond(Some(micros), _) => Value::Timestamp(micros),
        ScalarValue::Date32(Some(days)) => Value::Date(days),
        null if null.is_null() => Value::Null,
        other => return Err(EngineError::Invalid(format!("{other:?} is no value of type {sql_type}"))),
    })
}

fn embedding_scalar(numbers: Vec<f32>) -> Result<ScalarValue, EngineError> {
    let (length, values) = (numbers.len() as i32, Arc::new(Float32Array::from(numbers)));
    let list = FixedSizeListArray::try_new(embedding_item(), length, values, None);
    list.map(|list| ScalarValue::FixedSizeList(Arc::new(list))).map_err(|error| failed("type an EMBEDDING", error))
}

fn failed(action: &str, error: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    EngineError::Cold { action: action.into(), source: Box::new(error) }
}
