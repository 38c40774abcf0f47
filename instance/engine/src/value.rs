//! One typed value of a row, and rows as lists of them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A value. Which variant a column holds is decided by its [`crate::schema::SqlType`]; NULL fits all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// BOOLEAN.
    Boolean(bool),
    /// SMALLINT.
    SmallInt(i16),
    /// INT.
    Int(i32),
    /// BIGINT.
    BigInt(i64),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// DECIMAL: the unscaled integer; precision and scale are the column's.
    Decimal(i128),
    /// TEXT.
    Text(String),
    /// BYTES.
    Bytes(Vec<u8>),
    /// TIMESTAMP and DATETIME: microseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// DATE: days since 1970-01-01.
    Date(i32),
    /// JSON and FILE: the JSON text.
    Json(String),
    /// TIME: microseconds since midnight.
    Time(i64),
    /// UUID.
    Uuid(Uuid),
    /// EMBEDDING.
    Embedding(Vec<f32>),
}

impl Value {
    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The SQL name of its type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Boolean(_) => "BOOLEAN",
            Self::SmallInt(_) => "SMALLINT",
            Self::Int(_) => "INT",
            Self::BigInt(_) => "BIGINT",
            Self::Float(_) => "FLOAT",
            Self::Double(_) => "DOUBLE",
            Self::Decimal(_) => "DECIMAL",
            Self::Text(_) => "TEXT",
            Self::Bytes(_) => "BYTES",
            Self::Timestamp(_) => "TIMESTAMP",
            Self::Date(_) => "DATE",
            Self::Json(_) => "JSON",
            Self::Time(_) => "TIME",
            Self::Uuid(_) => "UUID",
            Self::Embedding(_) => "EMBEDDING",
        }
    }
}

/// The values of a row, one for each of the table's columns, in their order.
pub type Row = Vec<Value>;
