//! Which type a column can get by MODIFY, and what its values become. Pure.
//!
//! A column reads after MODIFY as `CAST(column AS type)` read before it; a change under which a value would lose anything is refused.

use datafusion::common::ScalarValue;

use crate::EngineError;
use crate::cold::scalar::{scalar_of, value_of};
use crate::schema::SqlType;
use crate::value::Value;

/// What a change of type asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeChange {
    /// Every value has its equal in the new type.
    Widens,
    /// Some values may have none: the rows are looked through first.
    Narrows,
    /// Every value has a text.
    IntoText,
    /// A value would have to be guessed.
    Refused,
}

/// What it takes to get from one type to the other.
pub fn type_change(from: SqlType, to: SqlType) -> TypeChange {
    use SqlType::*;
    match (from, to) {
        _ if from == to => TypeChange::Widens,
        (Json | File | Uuid, Text) | (File, Json) => TypeChange::Widens,
        (Timestamp, DateTime) | (DateTime, Timestamp) => TypeChange::Widens,
        (Bytes | Embedding { .. }, _) => TypeChange::Refused,
        (_, Text) => TypeChange::IntoText,
        (Float | SmallInt | Int, Double) => TypeChange::Widens,
        (Double, Float) => TypeChange::Narrows,
        (Decimal { precision, scale }, Decimal { precision: digits, scale: behind }) => {
            let holds = behind >= scale && digits - behind >= precision - scale;
            if holds { TypeChange::Widens } else { TypeChange::Narrows }
        }
        _ if from.is_integer() && to.is_integer() => {
            if integer_digits(from) < integer_digits(to) {
                TypeChange::Widens
            } else {
                TypeChange::Narrows
            }
        }
        (_, Decimal { precision, scale }) if from.is_integer() => {
            if precision - scale >= integer_digits(from) {
                TypeChange::Widens
            } else {
                TypeChange::Refused
            }
        }
        _ => TypeChange::Refused,
    }
}

/// The type of files in which a column keeps its physical name; none where it needs a new one. Engines that read old and new files as one
/// column compare a filter with the old file's values and statistics before they cast them: among integers alone nothing is lost by that.
pub fn common_type(stored: SqlType, new: SqlType) -> Option<SqlType> {
    use SqlType::*;
    match (stored, new) {
        (Text | Json | File | Uuid, Text | Json | File | Uuid) => Some(new),
        (Timestamp | DateTime, Timestamp | DateTime) => Some(new),
        _ if stored.is_integer() && new.is_integer() => {
            Some(if integer_digits(stored) < integer_digits(new) { new } else { stored })
        }
        // Files stay as wide as they are.
        (Double, Float) => Some(Double),
        (Decimal { precision, scale }, Decimal { precision: digits, scale: behind }) => {
            let holds = scale >= behind && precision - scale >= digits - behind;
            holds.then_some(stored)
        }
        _ => (stored == new).then_some(new),
    }
}

fn integer_digits(sql_type: SqlType) -> u8 {
    match sql_type {
        SqlType::SmallInt => 5,
        SqlType::Int => 10,
        _ => 19,
    }
}

/// Whether fields of stored rows have the same bytes in both types, as far as a reader of `to` can tell.
pub fn same_field(from: SqlType, to: SqlType) -> bool {
    use SqlType::*;
    match (from, to) {
        (Decimal { scale, .. }, Decimal { scale: behind, .. }) => scale == behind,
        (Text | Json | File, Text | Json | File) | (Float, Double) => true,
        (Timestamp | DateTime, Timestamp | DateTime) => true,
        _ => from == to || (from.is_integer() && to.is_integer()),
    }
}

/// The value as one of another type, as CAST makes it; NULL stays NULL.
pub fn convert(value: Value, from: SqlType, to: SqlType) -> Result<Value, EngineError> {
    if value.is_null() || from == to {
        return Ok(value);
    }
    value_of(cast(scalar_of(value, from)?, to)?, to)
}

/// The value as one of another type, if it comes back from there unchanged.
pub fn convert_exactly(value: Value, from: SqlType, to: SqlType) -> Option<Value> {
    let converted = convert(value.clone(), from, to).ok()?;
    if to == SqlType::Text {
        return Some(converted);
    }
    let back = convert(converted.clone(), to, from).ok()?;
    (same(&back, &value)).then_some(converted)
}

/// A scalar as one of that type.
pub fn cast(scalar: ScalarValue, to: SqlType) -> Result<ScalarValue, EngineError> {
    let arrow = to.arrow();
    if scalar.data_type() == arrow {
        return Ok(scalar);
    }
    scalar.cast_to(&arrow).map_err(|error| EngineError::Cold {
        action: format!("read {scalar} as {to}, which its column was altered to"),
        source: error.into(),
    })
}

/// NaN equals itself here.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Double(a), Value::Double(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}
