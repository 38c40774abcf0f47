//! Values that stand in a statement as they are: literals and `$n` parameters. They never become SQL text.

use arrow::datatypes::DECIMAL128_MAX_PRECISION;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{Expr, UnaryOperator, Value as AstValue};
use serde_json::value::RawValue;

use crate::{ErrorCode, SqlError};

/// At most so many parameters a statement.
pub const MAX_PARAMETERS: usize = 50;
/// At most so many bytes a parameter.
pub const MAX_PARAMETER_BYTES: usize = 512 << 10;

/// A value whose column is not known yet. Numbers keep their text, so that a DECIMAL loses no digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Literal {
    /// NULL.
    Null,
    /// TRUE or FALSE.
    Boolean(bool),
    /// A number's text.
    Number(String),
    /// A string.
    Text(String),
    /// `X'…'`.
    Bytes(Vec<u8>),
}

/// The request's parameters, bound as typed literals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Parameters(Vec<Literal>);

impl Parameters {
    /// Refuses arrays, objects, and more or larger ones than the protocol allows.
    pub fn new(values: &[Box<RawValue>]) -> Result<Self, SqlError> {
        let refused = |text: String| SqlError::new(ErrorCode::InvalidParameter, text);
        if values.len() > MAX_PARAMETERS {
            return Err(refused(format!("{} parameters: at most {MAX_PARAMETERS} are allowed", values.len())));
        }
        let bind = |(at, value): (usize, &RawValue)| match of_json(value) {
            Ok(JsonValue::Scalar(Literal::Text(text) | Literal::Number(text))) if text.len() > MAX_PARAMETER_BYTES => {
                Err(refused(format!("parameter ${} is longer than {MAX_PARAMETER_BYTES} bytes", at + 1)))
            }
            Ok(JsonValue::Scalar(Literal::Number(text))) if text.parse().is_ok_and(f64::is_infinite) => {
                Err(refused(format!("parameter ${} is out of range", at + 1)))
            }
            Ok(JsonValue::Scalar(literal)) => Ok(literal),
            Ok(JsonValue::Array(_)) => {
                Err(refused(format!("parameter ${} is an array: only scalars are allowed", at + 1)))
            }
            Ok(JsonValue::Object(_)) => {
                Err(refused(format!("parameter ${} is an object: only scalars are allowed", at + 1)))
            }
            Err(error) => Err(refused(format!("parameter ${}: {error}", at + 1))),
        };
        values.iter().map(AsRef::as_ref).enumerate().map(bind).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they take in memory.
    pub fn bytes(&self) -> usize {
        let content = |literal: &Literal| match literal {
            Literal::Null | Literal::Boolean(_) => 0,
            Literal::Number(text) | Literal::Text(text) => text.len(),
            Literal::Bytes(bytes) => bytes.len(),
        };
        self.0.iter().map(|literal| size_of::<Literal>() + content(literal)).sum()
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = &Literal> {
        self.0.iter()
    }

    /// As DataFusion binds them.
    pub fn scalars(&self) -> Vec<ScalarValue> {
        self.0.iter().map(Literal::scalar).collect()
    }

    /// The value of `$n`.
    pub fn get(&self, placeholder: &str) -> Result<&Literal, SqlError> {
        let number = placeholder.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
        number.and_then(|number| self.0.get(number.checked_sub(1)?)).ok_or_else(|| {
            let text = format!("the statement names {placeholder}, but {} parameter(s) came with it", self.0.len());
            SqlError::new(ErrorCode::InvalidParameter, text)
        })
    }
}

/// A value of JSON: numbers by their text, for a double has fewer digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonValue<'a> {
    /// NULL, a boolean, a number or a string.
    Scalar(Literal),
    /// The text of an array.
    Array(&'a str),
    /// The text of an object.
    Object(&'a str),
}

/// What stands there.
pub fn of_json(value: &RawValue) -> Result<JsonValue<'_>, serde_json::Error> {
    let text = value.get();
    Ok(match text.as_bytes().first() {
        Some(b'"') => JsonValue::Scalar(Literal::Text(serde_json::from_str(text)?)),
        Some(b'[') => JsonValue::Array(text),
        Some(b'{') => JsonValue::Object(text),
        Some(b't') => JsonValue::Scalar(Literal::Boolean(true)),
        Some(b'f') => JsonValue::Scalar(Literal::Boolean(false)),
        Some(b'n') => JsonValue::Scalar(Literal::Null),
        _ => JsonValue::Scalar(Literal::Number(text.to_owned())),
    })
}

impl Literal {
    /// The literal as DataFusion types it.
    pub fn scalar(&self) -> ScalarValue {
        match self {
            Self::Null => ScalarValue::Null,
            Self::Boolean(value) => ScalarValue::Boolean(Some(*value)),
            Self::Number(text) => number(text),
            Self::Text(text) => ScalarValue::Utf8(Some(text.clone())),
            Self::Bytes(bytes) => ScalarValue::Binary(Some(bytes.clone())),
        }
    }
}

/// Whole numbers are exact as long as a DECIMAL can hold them.
fn number(text: &str) -> ScalarValue {
    if let Ok(whole) = text.parse::<i64>() {
        return ScalarValue::Int64(Some(whole));
    }
    if let Ok(whole) = text.parse::<u64>() {
        return ScalarValue::UInt64(Some(whole));
    }
    match text.parse::<i128>() {
        Ok(whole) if whole.unsigned_abs() < 10u128.pow(u32::from(DECIMAL128_MAX_PRECISION)) => {
            ScalarValue::Decimal128(Some(whole), DECIMAL128_MAX_PRECISION, 0)
        }
        _ => ScalarValue::Float64(text.parse().ok()),
    }
}

/// The value of an expression that is a literal or a parameter; none where something has to be computed.
pub fn literal_of(expr: &Expr, parameters: &Parameters) -> Result<Option<Literal>, SqlError> {
    Ok(match expr {
        Expr::Nested(inner) => literal_of(inner, parameters)?,
        Expr::Value(value) => plain(&value.value, parameters)?,
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match literal_of(expr, parameters)? {
            Some(Literal::Number(text)) => Some(Literal::Number(negated(&text))),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => match literal_of(expr, parameters)? {
            number @ Some(Literal::Number(_)) => number,
            _ => None,
        },
        _ => None,
    })
}

fn negated(number: &str) -> String {
    number.strip_prefix('-').map_or_else(|| format!("-{number}"), str::to_owned)
}

fn plain(value: &AstValue, parameters: &Parameters) -> Result<Option<Literal>, SqlError> {
    Ok(match value {
        AstValue::Null => Some(Literal::Null),
        AstValue::Boolean(value) => Some(Literal::Boolean(*value)),
        AstValue::Number(text, _) => Some(Literal::Number(text.clone())),
        AstValue::SingleQuotedString(text) => Some(Literal::Text(text.clone())),
        AstValue::HexStringLiteral(digits) => Some(Literal::Bytes(hex(digits)?)),
        AstValue::Placeholder(name) => Some(parameters.get(name)?.clone()),
        _ => None,
    })
}

/// Bytes of hexadecimal digits.
pub fn hex(digits: &str) -> Result<Vec<u8>, SqlError> {
    let bad =
        || SqlError::new(ErrorCode::InvalidValue, format!("'{digits}' is not an even number of hexadecimal digits"));
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return Err(bad());
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| bad())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(json: &str) -> Result<Literal, String> {
        let values: Vec<Box<RawValue>> = serde_json::from_str(&format!("[ {json} ]")).unwrap();
        Parameters::new(&values).map(|bound| bound.0[0].clone()).map_err(|error| error.message)
    }

    #[test]
    fn whole_numbers_are_exact_beyond_64_bits() {
        let scalar = |text: &str| Literal::Number(text.into()).scalar();
        let decimal = |value| ScalarValue::Decimal128(Some(value), 38, 0);
        assert_eq!(scalar("-9223372036854775808"), ScalarValue::Int64(Some(i64::MIN)));
        assert_eq!(scalar("9223372036854775808"), ScalarValue::UInt64(Some(1 << 63)));
        assert_eq!(scalar("18446744073709551616"), decimal(1 << 64));
        assert_eq!(scalar("-9223372036854775809"), decimal(-9223372036854775809));
        let nines = "9".repeat(38);
        assert_eq!(scalar(&nines), decimal(nines.parse().unwrap()));
        assert_eq!(scalar(&"9".repeat(39)), ScalarValue::Float64(Some(1e39)));
        assert_eq!(scalar("1e3"), ScalarValue::Float64(Some(1000.0)));
    }

    #[test]
    fn numbers_of_json_keep_their_digits() {
        for number in ["9007199254740993", "-9223372036854775808", "12345678901234567890.1234567890", "1E-7", "0.10"] {
            assert_eq!(parameter(number), Ok(Literal::Number(number.into())));
        }
        assert_eq!(parameter("\"a\\u00fc\\\"\""), Ok(Literal::Text("aü\"".into())));
        assert_eq!(parameter("true"), Ok(Literal::Boolean(true)));
        assert_eq!(parameter("false"), Ok(Literal::Boolean(false)));
        assert_eq!(parameter("null"), Ok(Literal::Null));
        for (refused, why) in [("[1]", "array"), ("{}", "object"), ("1e999", "out of range"), ("\"\\ud800\"", "$1")] {
            assert!(parameter(refused).unwrap_err().contains(why), "{refused}");
        }
    }
}
