//! Values that stand in a statement as they are: literals and `$n` parameters. They never become SQL text.

use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{Expr, UnaryOperator, Value as AstValue};
use serde_json::Value as Json;

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
    pub fn new(values: Vec<Json>) -> Result<Self, SqlError> {
        let refused = |text: String| SqlError::new(ErrorCode::InvalidParameter, text);
        if values.len() > MAX_PARAMETERS {
            return Err(refused(format!("{} parameters: at most {MAX_PARAMETERS} are allowed", values.len())));
        }
        let bind = |(at, value): (usize, Json)| match value {
            Json::Null => Ok(Literal::Null),
            Json::Bool(value) => Ok(Literal::Boolean(value)),
            Json::Number(number) => Ok(Literal::Number(number.to_string())),
            Json::String(text) if text.len() > MAX_PARAMETER_BYTES => {
                Err(refused(format!("parameter ${} is longer than {MAX_PARAMETER_BYTES} bytes", at + 1)))
            }
            Json::String(text) => Ok(Literal::Text(text)),
            Json::Array(_) => Err(refused(format!("parameter ${} is an array: only scalars are allowed", at + 1))),
            Json::Object(_) => Err(refused(format!("parameter ${} is an object: only scalars are allowed", at + 1))),
        };
        values.into_iter().enumerate().map(bind).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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

impl Literal {
    /// The literal as DataFusion types it.
    pub fn scalar(&self) -> ScalarValue {
        match self {
            Self::Null => ScalarValue::Null,
            Self::Boolean(value) => ScalarValue::Boolean(Some(*value)),
            Self::Number(text) => match text.parse::<i64>() {
                Ok(whole) => ScalarValue::Int64(Some(whole)),
                Err(_) => ScalarValue::Float64(text.parse().ok()),
            },
            Self::Text(text) => ScalarValue::Utf8(Some(text.clone())),
            Self::Bytes(bytes) => ScalarValue::Binary(Some(bytes.clone())),
        }
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
