//! Values into columns: what a literal or a computed scalar becomes in a column of some type, or why it can't.
//!
//! Literals and computed values take the same way, so that both routes of a statement store the same. A number with a fraction
//! rounds to the nearest integer or decimal, half away from zero; whatever else would lose something is refused.

use arrow::compute::CastOptions;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::FormatOptions;
use chrono::{DateTime, NaiveDate, Utc};
use datafusion::common::ScalarValue;
use kalamdb_engine::schema::{Column, SqlType};
use kalamdb_engine::value::Value;
use uuid::Uuid;

use super::literal::{Literal, hex};
use super::sql_type::sql_name;
use super::{embedding, time};
use crate::{ErrorCode, SqlError};

const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: FormatOptions::new() };

/// The literal as a value of the column; NULL is judged by [`check_null`].
pub fn from_literal(literal: &Literal, column: &Column) -> Result<Value, SqlError> {
    convert(literal, column.sql_type).map_err(|reason| does_not_fit(column, &reason))
}

/// The scalar as a value of the column.
pub fn from_scalar(scalar: &ScalarValue, column: &Column) -> Result<Value, SqlError> {
    of_scalar(scalar, column.sql_type).map_err(|reason| does_not_fit(column, &reason))
}

/// The scalar as a value of that type; the reason where it is none.
pub fn of_scalar(scalar: &ScalarValue, sql_type: SqlType) -> Result<Value, String> {
    if scalar.is_null() {
        return Ok(Value::Null);
    }
    moment(scalar, sql_type)
        .or_else(|| embedding::of_list(scalar, sql_type))
        .or_else(|| json_value(scalar, sql_type))
        .or_else(|| plain(scalar).map(|literal| convert(&literal, sql_type)))
        .unwrap_or_else(|| Err(format!("a value of type {} was given", scalar.data_type())))
}

/// The literal as a value of that type; the reason where it is none.
pub fn convert(literal: &Literal, sql_type: SqlType) -> Result<Value, String> {
    if *literal == Literal::Null {
        return Ok(Value::Null);
    }
    match sql_type {
        SqlType::Boolean => boolean(literal).map(Value::Boolean),
        SqlType::SmallInt => integer(literal).and_then(narrow).map(Value::SmallInt),
        SqlType::Int => integer(literal).and_then(narrow).map(Value::Int),
        SqlType::BigInt => integer(literal).and_then(narrow).map(Value::BigInt),
        SqlType::Float => float(literal).and_then(single).map(Value::Float),
        SqlType::Double => float(literal).map(Value::Double),
        SqlType::Decimal { precision, scale } => decimal(&text(literal)?, precision, scale).map(Value::Decimal),
        SqlType::Text => text(literal).map(Value::Text),
        SqlType::Bytes => bytes(literal).map(Value::Bytes),
        SqlType::Timestamp | SqlType::DateTime => timestamp(literal).map(Value::Timestamp),
        SqlType::Time => time::of_day(literal).map(Value::Time),
        SqlType::Uuid => uuid(literal).map(Value::Uuid),
        SqlType::Embedding { dimensions } => embedding::of_text(&text(literal)?, dimensions).map(Value::Embedding),
        SqlType::File => file(literal).map(Value::Json),
        SqlType::Date => date(literal).map(Value::Date),
        SqlType::Json => json(literal).map(Value::Json),
    }
}

/// Refuses NULL where the column takes none.
pub fn check_null(value: &Value, column: &Column, table: &impl std::fmt::Display) -> Result<(), SqlError> {
    if !value.is_null() || column.nullable {
        return Ok(());
    }
    let text = format!("column '{}' of table '{table}' is NOT NULL, and the row has no value for it", column.name);
    Err(SqlError::new(ErrorCode::NotNullViolation, text))
}

fn does_not_fit(column: &Column, reason: &str) -> SqlError {
    let text = format!("column '{}' of type {}: {reason}", column.name, sql_name(column.sql_type));
    SqlError::new(ErrorCode::InvalidValue, text)
}

fn boolean(literal: &Literal) -> Result<bool, String> {
    match literal {
        Literal::Boolean(value) => Ok(*value),
        Literal::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "on" | "1" => Ok(true),
            "false" | "f" | "no" | "off" | "0" => Ok(false),
            _ => Err(format!("{} is neither true nor false", shown(literal))),
        },
        _ => Err(format!("{} is neither true nor false", shown(literal))),
    }
}

pub(super) fn integer(literal: &Literal) -> Result<i128, String> {
    let text = match literal {
        Literal::Number(text) | Literal::Text(text) => text.trim(),
        _ => return Err(format!("{} is not a number", shown(literal))),
    };
    if let Ok(whole) = text.parse::<i128>() {
        return Ok(whole);
    }
    decimal(text, 38, 0).map_err(|_| match text.parse::<f64>() {
        Ok(_) => "the value is out of range".to_owned(),
        Err(_) => format!("{} is not a number", shown(literal)),
    })
}

fn narrow<T: TryFrom<i128>>(whole: i128) -> Result<T, String> {
    T::try_from(whole).map_err(|_| format!("{whole} is out of range"))
}

fn float(literal: &Literal) -> Result<f64, String> {
    let text = match literal {
        Literal::Number(text) | Literal::Text(text) => text.trim(),
        _ => return Err(format!("{} is not a number", shown(literal))),
    };
    let value: f64 = text.parse().map_err(|_| format!("{} is not a number", shown(literal)))?;
    let says_infinite = text.to_ascii_lowercase().contains("inf");
    if value.is_infinite() && !says_infinite {
        Err(format!("{text} is out of range"))
    } else {
        Ok(canonical_double(value))
    }
}

/// The number as it is stored: of the many bits of NaN one, so that all of them are one group.
pub fn canonical_double(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value }
}

fn single(value: f64) -> Result<f32, String> {
    let narrowed = value as f32;
    if narrowed.is_infinite() && value.is_finite() {
        Err(format!("{value} is out of range"))
    } else {
        Ok(canonical_float(narrowed))
    }
}

/// As [`canonical_double`].
pub fn canonical_float(value: f32) -> f32 {
    if value.is_nan() { f32::NAN } else { value }
}

/// The unscaled integer of a decimal text, rounded half away from zero at the scale.
fn decimal(text: &str, precision: u8, scale: u8) -> Result<i128, String> {
    let bad = || format!("'{text}' is not a number");
    let (mantissa, exponent) = match text.trim().split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| bad())?),
        None => (text.trim(), 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    if all.is_empty() || !all.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let out_of_range = || format!("{text} has more than {} digits before the point", precision - scale);
    // The number of leading digits that stand before the place at which the scale ends.
    let kept = whole.len() as i64 + i64::from(exponent) + i64::from(scale);
    let mut unscaled: i128 = 0;
    for at in 0..kept.max(0) {
        let digit = all.get(at as usize).map_or(0, |digit| i128::from(digit - b'0'));
        unscaled = unscaled.checked_mul(10).and_then(|value| value.checked_add(digit)).ok_or_else(out_of_range)?;
        if unscaled == 0 && at as usize >= all.len() {
            break;
        }
    }
    let rounds_up = usize::try_from(kept).ok().and_then(|at| all.get(at)).is_some_and(|digit| *digit >= b'5');
    unscaled += i128::from(rounds_up);
    if unscaled >= 10i128.pow(u32::from(precision)) {
        return Err(out_of_range());
    }
    Ok(if negative { -unscaled } else { unscaled })
}

fn text(literal: &Literal) -> Result<String, String> {
    match literal {
        Literal::Text(text) | Literal::Number(text) => Ok(text.clone()),
        Literal::Boolean(value) => Ok(value.to_string()),
        Literal::Bytes(bytes) => String::from_utf8(bytes.clone()).map_err(|_| "the bytes are not UTF-8".into()),
        Literal::Null => Err("NULL".into()),
    }
}

fn bytes(literal: &Literal) -> Result<Vec<u8>, String> {
    match literal {
        Literal::Bytes(bytes) => Ok(bytes.clone()),
        Literal::Text(text) => match text.strip_prefix("\\x") {
            Some(digits) => hex(digits).map_err(|error| error.message),
            None => Ok(text.clone().into_bytes()),
        },
        _ => Err(format!("{} is not a string of bytes", shown(literal))),
    }
}

fn timestamp(literal: &Literal) -> Result<i64, String> {
    match literal {
        Literal::Number(_) => integer(literal).and_then(narrow),
        Literal::Text(text) => moment_of(text).map(|moment| moment.timestamp_micros()),
        _ => Err(format!("{} is not a timestamp", shown(literal))),
    }
}

fn date(literal: &Literal) -> Result<i32, String> {
    match literal {
        Literal::Number(_) => integer(literal).and_then(narrow),
        Literal::Text(text) => {
            let day = match NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d") {
                Ok(day) => day,
                Err(_) => moment_of(text)?.date_naive(),
            };
            Ok(day.signed_duration_since(NaiveDate::default()).num_days() as i32)
        }
        _ => Err(format!("{} is not a date", shown(literal))),
    }
}

fn moment_of(text: &str) -> Result<DateTime<Utc>, String> {
    string_to_datetime(&Utc, text.trim()).map_err(|_| format!("'{text}' is not a time such as '2024-01-31 10:00:00'"))
}

fn uuid(literal: &Literal) -> Result<Uuid, String> {
    match literal {
        Literal::Text(text) => Uuid::try_parse(text.trim()).map_err(|_| format!("{} is not a UUID", shown(literal))),
        Literal::Bytes(bytes) => Uuid::from_slice(bytes).map_err(|_| "the bytes are not sixteen".into()),
        _ => Err(format!("{} is not a UUID", shown(literal))),
    }
}

/// A reference to a file: a JSON object that has at least an `id`.
fn file(literal: &Literal) -> Result<String, String> {
    let text = text(literal)?;
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(|error| format!("the text is not a JSON object: {error}"))?;
    match object.get("id").and_then(serde_json::Value::as_str) {
        Some(id) if !id.is_empty() => Ok(text),
        _ => Err("a FILE is a JSON object with an \"id\", such as {\"id\": \"…\", \"name\": \"a.png\"}".into()),
    }
}

fn json(literal: &Literal) -> Result<String, String> {
    let text = text(literal)?;
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) if has_lone_surrogate(&text) => Err("the text is not JSON: half a surrogate pair stands alone".into()),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("the text is not JSON: {error}")),
    }
}

/// Whether the JSON text writes half of a character as `\ud83d`: it has the form of JSON and is no text.
fn has_lone_surrogate(json: &str) -> bool {
    let mut rest = json.as_bytes();
    while let Some(at) = next_escape(rest) {
        let escape = &rest[at..];
        match code_unit(escape) {
            Some(0xD800..=0xDBFF) if matches!(escape.get(6..).and_then(code_unit), Some(0xDC00..=0xDFFF)) => {
                rest = &escape[12..];
            }
            Some(0xD800..=0xDFFF) => return true,
            _ => rest = escape.get(2..).unwrap_or_default(),
        }
    }
    false
}

fn next_escape(json: &[u8]) -> Option<usize> {
    json.iter().position(|byte| *byte == b'\\')
}

/// The number of `\u00fc`, if it begins so.
fn code_unit(escape: &[u8]) -> Option<u16> {
    let digits = escape.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

pub(super) fn shown(literal: &Literal) -> String {
    match literal {
        Literal::Text(text) if text.chars().count() > 40 => "a long string".into(),
        Literal::Text(text) => format!("'{text}'"),
        Literal::Number(text) => text.clone(),
        Literal::Boolean(value) => value.to_string(),
        Literal::Bytes(_) => "a string of bytes".into(),
        Literal::Null => "NULL".into(),
    }
}

/// Times and dates that were computed: they convert as times, not by their text.
fn moment(scalar: &ScalarValue, sql_type: SqlType) -> Option<Result<Value, String>> {
    let from = scalar.data_type();
    let is_time = matches!(from, DataType::Time32(_) | DataType::Time64(_));
    if !is_time && !matches!(from, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) {
        return None;
    }
    let target = match sql_type {
        SqlType::Time => DataType::Time64(TimeUnit::Microsecond),
        SqlType::Timestamp | SqlType::DateTime if !is_time => DataType::Timestamp(TimeUnit::Microsecond, None),
        SqlType::Date if !is_time => DataType::Date32,
        SqlType::Text => DataType::Utf8,
        _ => return Some(Err(format!("a value of type {from} was given"))),
    };
    let cast = scalar.cast_to_with_options(&target, &STRICT).map_err(|error| error.strip_backtrace());
    Some(cast.and_then(|cast| match cast {
        ScalarValue::TimestampMicrosecond(Some(micros), _) => Ok(Value::Timestamp(micros)),
        ScalarValue::Date32(Some(days)) => Ok(Value::Date(days)),
        ScalarValue::Time64Microsecond(Some(micros)) => Ok(Value::Time(micros)),
        ScalarValue::Utf8(Some(text)) => Ok(Value::Text(text)),
        other => Err(format!("a value of type {} was given", other.data_type())),
    }))
}

/// What `json_from_scalar` gives: a value of JSON, which stays JSON in a JSON column and is what it holds in all others.
fn json_value(scalar: &ScalarValue, sql_type: SqlType) -> Option<Result<Value, String>> {
    let ScalarValue::Union(Some((kind, inner)), fields, _) = scalar else { return None };
    if inner.is_null() {
        return Some(Ok(Value::Null));
    }
    let is_text = fields.iter().any(|(id, field)| id == *kind && field.name() == "str");
    let literal = plain(inner)?;
    match (sql_type, &literal) {
        (SqlType::Json, Literal::Text(text)) if is_text => Some(Ok(Value::Json(serde_json::json!(text).to_string()))),
        _ => Some(convert(&literal, sql_type)),
    }
}

/// Scalars that are what a literal can say.
fn plain(scalar: &ScalarValue) -> Option<Literal> {
    use ScalarValue as S;
    Some(match scalar {
        S::Boolean(Some(value)) => Literal::Boolean(*value),
        S::Int8(Some(value)) => Literal::Number(value.to_string()),
        S::Int16(Some(value)) => Literal::Number(value.to_string()),
        S::Int32(Some(value)) => Literal::Number(value.to_string()),
        S::Int64(Some(value)) => Literal::Number(value.to_string()),
        S::UInt8(Some(value)) => Literal::Number(value.to_string()),
        S::UInt16(Some(value)) => Literal::Number(value.to_string()),
        S::UInt32(Some(value)) => Literal::Number(value.to_string()),
        S::UInt64(Some(value)) => Literal::Number(value.to_string()),
        S::Float32(Some(value)) => Literal::Number(value.to_string()),
        S::Float64(Some(value)) => Literal::Number(value.to_string()),
        S::Decimal32(..) | S::Decimal64(..) | S::Decimal128(..) | S::Decimal256(..) => {
            match scalar.cast_to_with_options(&DataType::Utf8, &STRICT) {
                Ok(S::Utf8(Some(text))) => Literal::Number(text),
                _ => return None,
            }
        }
        S::Utf8(Some(text)) | S::LargeUtf8(Some(text)) | S::Utf8View(Some(text)) => Literal::Text(text.clone()),
        S::Binary(Some(bytes)) | S::LargeBinary(Some(bytes)) | S::BinaryView(Some(bytes)) => {
            Literal::Bytes(bytes.clone())
        }
        S::FixedSizeBinary(_, Some(bytes)) => Literal::Bytes(bytes.clone()),
        S::Dictionary(_, inner) => return plain(inner),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(literal: &str, sql_type: SqlType, expected: Result<Value, &str>) {
        let literal = match literal.strip_prefix('\'') {
            Some(text) => Literal::Text(text.trim_end_matches('\'').into()),
            None => Literal::Number(literal.into()),
        };
        let found = convert(&literal, sql_type);
        match expected {
            Ok(value) => assert_eq!(found, Ok(value), "{literal:?}"),
            Err(part) => {
                let error = found.expect_err("it does not fit");
                assert!(error.contains(part), "{literal:?}: {error}");
            }
        }
    }

    #[test]
    fn decimals_lose_no_digit_and_round_half_away_from_zero() {
        let money = SqlType::Decimal { precision: 10, scale: 2 };
        check("12.345", money, Ok(Value::Decimal(1235)));
        check("-12.345", money, Ok(Value::Decimal(-1235)));
        check("1e3", money, Ok(Value::Decimal(100_000)));
        check("0.001", money, Ok(Value::Decimal(0)));
        check("0.005", money, Ok(Value::Decimal(1)));
        check("5e-3", money, Ok(Value::Decimal(1)));
        check("0e999999999", money, Ok(Value::Decimal(0)));
        check("99999999.99", money, Ok(Value::Decimal(9_999_999_999)));
        check("100000000", money, Err("digits before the point"));
        check("1e999999999", money, Err("digits before the point"));
        check("'12,5'", money, Err("not a number"));
        let widest = SqlType::Decimal { precision: 38, scale: 0 };
        check(&"9".repeat(38), widest, Ok(Value::Decimal(10i128.pow(38) - 1)));
        check(&"9".repeat(39), widest, Err("digits"));
    }

    #[test]
    fn integers_keep_their_range() {
        check("32767", SqlType::SmallInt, Ok(Value::SmallInt(i16::MAX)));
        check("32768", SqlType::SmallInt, Err("out of range"));
        check("-9223372036854775808", SqlType::BigInt, Ok(Value::BigInt(i64::MIN)));
        check("9223372036854775808", SqlType::BigInt, Err("out of range"));
        check("2.5", SqlType::Int, Ok(Value::Int(3)));
        check("'7'", SqlType::Int, Ok(Value::Int(7)));
        check("'seven'", SqlType::Int, Err("'seven' is not a number"));
        check("1e300", SqlType::Int, Err("out of range"));
    }

    #[test]
    fn times_come_as_text_or_numbers() {
        check("'1970-01-01 00:00:01'", SqlType::Timestamp, Ok(Value::Timestamp(1_000_000)));
        check("'1970-01-01T01:00:00.000001+01:00'", SqlType::Timestamp, Ok(Value::Timestamp(1)));
        check("'1970-01-02'", SqlType::Timestamp, Ok(Value::Timestamp(86_400_000_000)));
        check("42", SqlType::Timestamp, Ok(Value::Timestamp(42)));
        check("'1970-01-03'", SqlType::Date, Ok(Value::Date(2)));
        check("'yesterday'", SqlType::Date, Err("'yesterday' is not a time"));
        check("'1970-01-01 02:00:00+02:00'", SqlType::DateTime, Ok(Value::Timestamp(0)));
        check("'10:00:00.5'", SqlType::Time, Ok(Value::Time(36_000_500_000)));
        check("'10:30'", SqlType::Time, Ok(Value::Time(37_800_000_000)));
        check("86399999999", SqlType::Time, Ok(Value::Time(86_399_999_999)));
        check("86400000000", SqlType::Time, Err("out of range"));
        check("'24:00:00'", SqlType::Time, Err("'24:00:00' is not a time of day"));
    }

    #[test]
    fn floats_json_and_bytes_are_checked() {
        let nan = convert(&Literal::Text("NaN".into()), SqlType::Double);
        assert!(matches!(nan, Ok(Value::Double(value)) if value.is_nan()));
        check("1e39", SqlType::Float, Err("out of range"));
        check("1e309", SqlType::Double, Err("out of range"));
        check("'Infinity'", SqlType::Double, Ok(Value::Double(f64::INFINITY)));
        check("'{\"a\":[1]}'", SqlType::Json, Ok(Value::Json("{\"a\":[1]}".into())));
        check("'{a}'", SqlType::Json, Err("not JSON"));
        for text in ["\"\\ud83d\\ude00\"", "\"\\\\ud800\"", "{\"\\u00e4\":1}"] {
            check(&format!("'{text}'"), SqlType::Json, Ok(Value::Json(text.into())));
        }
        for text in
            ["\"\\ud800\"", "{\"\\ude00\":1}", "\"\\ud83d\\u0041\"", "[\"\\ud83d\\ud83d\\ude00\"]", "\"\\\\\\uD800\""]
        {
            check(&format!("'{text}'"), SqlType::Json, Err("surrogate"));
        }
        let negative = convert(&Literal::Text("-NaN".into()), SqlType::Double);
        assert!(matches!(negative, Ok(Value::Double(value)) if value.to_bits() == f64::NAN.to_bits()));
        let negative = convert(&Literal::Text("-NaN".into()), SqlType::Float);
        assert!(matches!(negative, Ok(Value::Float(value)) if value.to_bits() == f32::NAN.to_bits()));
        check("'\\x00ff'", SqlType::Bytes, Ok(Value::Bytes(vec![0, 255])));
        check("'\\x0'", SqlType::Bytes, Err("hexadecimal"));
        let uuid = Value::Uuid(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_00ff));
        check("'01920000-0000-7000-8000-0000000000FF'", SqlType::Uuid, Ok(uuid));
        check("'01920000'", SqlType::Uuid, Err("'01920000' is not a UUID"));
        let three = SqlType::Embedding { dimensions: 3 };
        check("'[0.5, -1, 2e3]'", three, Ok(Value::Embedding(vec![0.5, -1.0, 2000.0])));
        check("'[0.5, -1]'", three, Err("3 numbers, not 2"));
        check("'[0.5, -1, null]'", three, Err("not a JSON array of numbers"));
        check("'[0.5, -1, 1e300]'", three, Err("1e300 is out of range"));
        check("'{\"id\":\"f1\"}'", SqlType::File, Ok(Value::Json("{\"id\":\"f1\"}".into())));
        check("'{\"name\":\"f1\"}'", SqlType::File, Err("with an \"id\""));
    }
}
