//! Types as written, with PostgreSQL's and MySQL's aliases, to the types that columns have.

use arrow::datatypes::FieldRef;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{DataType, ExactNumberInfo, TimezoneInfo};
use kalamdb_engine::schema::{MAX_DIMENSIONS, SqlType};
use serde_json::{Value as Json, json};

use crate::{ErrorCode, SqlError, conversions};

const MAX_PRECISION: u64 = 38;
/// DECIMAL without precision and scale.
const PLAIN_DECIMAL: SqlType = SqlType::Decimal { precision: 38, scale: 10 };
/// `FLOAT(p)` with more binary digits than this is DOUBLE.
const FLOAT_DIGITS: u64 = 24;

/// The column type that is meant.
pub fn bind(written: &DataType) -> Result<SqlType, SqlError> {
    Ok(match written {
        DataType::Bool | DataType::Boolean => SqlType::Boolean,
        DataType::TinyInt(_) | DataType::SmallInt(_) | DataType::Int2(_) | DataType::Int16 => SqlType::SmallInt,
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) | DataType::MediumInt(_) | DataType::Int32 => {
            SqlType::Int
        }
        DataType::BigInt(_) | DataType::Int8(_) | DataType::Int64 => SqlType::BigInt,
        DataType::Float(ExactNumberInfo::Precision(digits)) if *digits > FLOAT_DIGITS => SqlType::Double,
        DataType::Float(_) | DataType::Real | DataType::Float4 | DataType::Float32 => SqlType::Float,
        DataType::Double(_) | DataType::DoublePrecision | DataType::Float8 | DataType::Float64 => SqlType::Double,
        DataType::Decimal(info) | DataType::Numeric(info) | DataType::Dec(info) => decimal(written, info)?,
        DataType::Text
        | DataType::TinyText
        | DataType::MediumText
        | DataType::LongText
        | DataType::String(_)
        | DataType::Varchar(_)
        | DataType::Nvarchar(_)
        | DataType::Char(_)
        | DataType::Character(_)
        | DataType::CharVarying(_)
        | DataType::CharacterVarying(_)
        | DataType::Clob(_) => SqlType::Text,
        DataType::Bytes(_)
        | DataType::Bytea
        | DataType::Binary(_)
        | DataType::Varbinary(_)
        | DataType::Blob(_)
        | DataType::TinyBlob
        | DataType::MediumBlob
        | DataType::LongBlob => SqlType::Bytes,
        DataType::Timestamp(..) | DataType::TimestampNtz(_) => SqlType::Timestamp,
        DataType::Datetime(_) | DataType::Datetime64(..) => SqlType::DateTime,
        DataType::Date | DataType::Date32 => SqlType::Date,
        // A time of day with a zone names no moment, and no zone is kept.
        DataType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Time,
        DataType::JSON | DataType::JSONB => SqlType::Json,
        DataType::Uuid => SqlType::Uuid,
        DataType::Custom(name, arguments) => return custom(written, &name.to_string(), arguments),
        other => return Err(SqlError::not_available(format!("the type {other}"))),
    })
}

/// Types that standard SQL does not know.
fn custom(written: &DataType, name: &str, arguments: &[String]) -> Result<SqlType, SqlError> {
    match (name.to_ascii_uppercase().as_str(), arguments) {
        ("EMBEDDING" | "VECTOR", [dimensions]) => {
            let dimensions = dimensions.parse().ok().filter(|dimensions| (1..=MAX_DIMENSIONS).contains(dimensions));
            let bad = || format!("{written}: an EMBEDDING has 1 to {MAX_DIMENSIONS} numbers");
            let dimensions = dimensions.ok_or_else(|| SqlError::new(ErrorCode::InvalidValue, bad()))?;
            Ok(SqlType::Embedding { dimensions })
        }
        ("EMBEDDING" | "VECTOR", _) => {
            let text = format!("{written} says how many numbers it has: EMBEDDING(384)");
            Err(SqlError::new(ErrorCode::InvalidValue, text))
        }
        ("FILE", []) => Ok(SqlType::File),
        ("DATETIME2" | "SMALLDATETIME", _) => Ok(SqlType::DateTime),
        _ => Err(SqlError::not_available(format!("the type {written}"))),
    }
}

/// Types in expressions, `CAST(x AS UUID)`, which DataFusion does not know by itself, or knows as another: its TIMESTAMP has nanoseconds, and
/// ends in 2262.
#[derive(Debug)]
pub struct ColumnTypes;

impl TypePlanner for ColumnTypes {
    fn plan_type_field(&self, written: &DataType) -> datafusion::error::Result<Option<FieldRef>> {
        let own = matches!(
            written,
            DataType::Datetime(_) | DataType::Datetime64(..) | DataType::Timestamp(..) | DataType::TimestampNtz(_)
        ) || matches!(written, DataType::Uuid | DataType::JSON | DataType::JSONB)
            || matches!(
                written,
                DataType::Bytes(_)
                    | DataType::Blob(_)
                    | DataType::Binary(_)
                    | DataType::Varbinary(_)
                    | DataType::Clob(_)
            )
            || matches!(written, DataType::MediumInt(_) | DataType::Dec(_) | DataType::Time(..) | DataType::Custom(..));
        let bound = own.then(|| bind(written).ok()).flatten();
        Ok(bound.map(conversions::target))
    }
}

fn decimal(written: &DataType, info: &ExactNumberInfo) -> Result<SqlType, SqlError> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => return Ok(PLAIN_DECIMAL),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    match (u8::try_from(precision), u8::try_from(scale)) {
        (Ok(p), Ok(s)) if (1..=MAX_PRECISION).contains(&precision) && s <= p => {
            Ok(SqlType::Decimal { precision: p, scale: s })
        }
        _ => Err(SqlError::new(
            ErrorCode::InvalidValue,
            format!(
                "{written} has no such precision and scale: 1 to {MAX_PRECISION} digits, at most all behind the point"
            ),
        )),
    }
}

/// The type's name in replies and system tables.
pub fn wire_name(sql_type: SqlType) -> Json {
    let name = match sql_type {
        SqlType::Boolean => "Boolean",
        SqlType::SmallInt => "SmallInt",
        SqlType::Int => "Int",
        SqlType::BigInt => "BigInt",
        SqlType::Float => "Float",
        SqlType::Double => "Double",
        SqlType::Decimal { precision, scale } => return json!({"Decimal": {"precision": precision, "scale": scale}}),
        SqlType::Text => "Text",
        SqlType::Bytes => "Bytes",
        SqlType::Timestamp => "Timestamp",
        SqlType::Date => "Date",
        SqlType::Json => "Json",
        SqlType::DateTime => "DateTime",
        SqlType::Time => "Time",
        SqlType::Uuid => "Uuid",
        SqlType::Embedding { dimensions } => return json!({"Embedding": dimensions}),
        SqlType::File => "File",
    };
    Json::from(name)
}

/// The type as SQL writes it.
pub fn sql_name(sql_type: SqlType) -> String {
    sql_type.to_string()
}
