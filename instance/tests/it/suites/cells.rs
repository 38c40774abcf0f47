//! Our cells as DataFusion's tests write them, and what kind of difference there is between two answers.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta};
use serde_json::Value;
use sqllogictest::Normalizer;

use super::tally::Class;

/// Decimal places that floating point numbers are compared by.
const PLACES: usize = 12;
/// What a test writes for a part that is not compared.
const IGNORED: &str = "<slt:ignore>";

/// A cell of that type.
pub fn shown(cell: &Value, data_type: &Value) -> String {
    match (data_type.as_str(), cell) {
        (_, Value::Null) => "NULL".into(),
        (Some("Date"), _) => date(cell).unwrap_or_else(|| cell.to_string()),
        (Some("Timestamp" | "DateTime"), _) => timestamp(cell).unwrap_or_else(|| cell.to_string()),
        (Some("Time"), _) => time(cell).unwrap_or_else(|| cell.to_string()),
        (Some("Float" | "Double"), Value::Number(number)) => number.as_f64().map_or_else(|| number.to_string(), double),
        (Some("Bytes"), Value::Array(bytes)) => {
            bytes.iter().filter_map(Value::as_u64).map(|byte| format!("{byte:02x}")).collect()
        }
        (None, Value::String(text)) if data_type["Decimal"].is_object() => trimmed(text),
        (_, Value::String(text)) if text.is_empty() => "(empty)".into(),
        (_, Value::String(text)) => text.trim_end_matches('\n').replace('\0', "\\0"),
        (_, other) => other.to_string(),
    }
}

fn date(cell: &Value) -> Option<String> {
    let day = NaiveDate::from_ymd_opt(1970, 1, 1)?.checked_add_signed(TimeDelta::try_days(cell.as_i64()?)?)?;
    Some(day.to_string())
}

fn timestamp(cell: &Value) -> Option<String> {
    Some(format!("{:?}", DateTime::from_timestamp_micros(cell.as_i64()?)?.naive_utc()))
}

fn time(cell: &Value) -> Option<String> {
    let micros = cell.as_i64()?;
    let seconds = u32::try_from(micros.div_euclid(1_000_000)).ok()?;
    let nanos = u32::try_from(micros.rem_euclid(1_000_000) * 1000).ok()?;
    Some(format!("{:?}", NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos)?))
}

/// Plain, without an exponent, to so many places.
fn double(value: f64) -> String {
    let shortest = value.to_string();
    match shortest.split_once('.') {
        Some((_, fraction)) if fraction.len() > PLACES => trimmed(&format!("{value:.PLACES$}")),
        _ => trimmed(&shortest),
    }
}

/// Without zeros that end a fraction.
fn trimmed(text: &str) -> String {
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    };
    if text == "-0" { "0".into() } else { text.into() }
}

/// Whether the rows are those that the test expects, which may leave parts open.
pub fn are_equal(normalizer: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let actual: Vec<String> = actual.iter().map(|row| row.join(" ").trim_end().to_owned()).collect();
    let expected: Vec<String> = expected.iter().map(normalizer).collect();
    if !expected.iter().any(|line| line.contains(IGNORED)) {
        return actual == expected;
    }
    let (actual, expected) = (actual.join("\n"), expected.join("\n"));
    let mut rest = actual.as_str();
    expected.split(IGNORED).all(|part| {
        let found = rest.find(part);
        rest = found.map_or("", |at| &rest[at + part.len()..]);
        found.is_some()
    })
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    lines
}

/// What kind of difference there is.
pub fn class_of_difference(expected: &str, actual: &str) -> Class {
    let plain = |text: &str| {
        let words = text.split_whitespace().map(|word| {
            let is_time = word.len() >= 19 && word.as_bytes()[10] == b'T';
            let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            if is_time { word.chars().take(19).collect() } else { word.to_owned() }
        });
        words.collect::<Vec<_>>().join(" ")
    };
    if sorted(expected) == sorted(actual) {
        return Class::Order;
    }
    if plain(expected) == plain(actual) { Class::Times } else { Class::Different }
}
