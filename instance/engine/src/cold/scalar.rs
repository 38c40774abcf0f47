//! Single values on their way between rows of the engine and Arrow.

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use datafusion::common::ScalarValue;

use crate::EngineError;
use crate::schema::{DefaultValue, SqlType};
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
        Value::Bytes(bytes) => ScalarValue::Binary(Some(bytes)),
        Value::Timestamp(micros) => ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())),
        Value::Date(days) => ScalarValue::Date32(Some(days)),
    };
    Ok(scalar)
}

/// What a row older than the column reads in it, as a scalar of the column's type.
pub fn default_scalar(default: Option<&DefaultValue>, sql_type: SqlType) -> Result<ScalarValue, EngineError> {
    scalar_of(default_of(default), sql_type)
}

/// What a row older than the column reads in it.
pub fn default_of(default: Option<&DefaultValue>) -> Value {
    match default {
        Some(DefaultValue::Literal(value)) => value.clone(),
        _ => Value::Null,
    }
}

/// One cell as a value of that type; files older than a widened type are cast.
pub fn value_at(array: &ArrayRef, place: usize, sql_type: SqlType) -> Result<Value, EngineError> {
    let cell = array.slice(place, 1);
    let cell = if *cell.data_type() == sql_type.arrow() {
        cell
    } else {
        cast(&cell, &sql_type.arrow()).map_err(|error| failed("read a cell", error))?
    };
    let scalar = ScalarValue::try_from_array(&cell, 0).map_err(|error| failed("read a cell", error))?;
    Ok(match scalar {
        ScalarValue::Boolean(Some(flag)) => Value::Boolean(flag),
        ScalarValue::Int16(Some(number)) => Value::SmallInt(number),
        ScalarValue::Int32(Some(number)) => Value::Int(number),
        ScalarValue::Int64(Some(number)) => Value::BigInt(number),
        ScalarValue::Float32(Some(number)) => Value::Float(number),
        ScalarValue::Float64(Some(number)) => Value::Double(number),
        ScalarValue::Decimal128(Some(unscaled), ..) => Value::Decimal(unscaled),
        ScalarValue::Utf8(Some(text)) if sql_type == SqlType::Json => Value::Json(text),
        ScalarValue::Utf8(Some(text)) => Value::Text(text),
        ScalarValue::Binary(Some(bytes)) => Value::Bytes(bytes),
        ScalarValue::TimestampMicrosecond(Some(micros), _) => Value::Timestamp(micros),
        ScalarValue::Date32(Some(days)) => Value::Date(days),
        _ => Value::Null,
    })
}

fn failed(action: &str, error: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    EngineError::Cold { action: action.into(), source: Box::new(error) }
}
