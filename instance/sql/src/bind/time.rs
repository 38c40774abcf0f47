//! TIME: a time of day without a zone.

use chrono::{NaiveTime, Timelike};

use super::literal::Literal;
use super::value::{integer, shown};

/// Microseconds of a day.
const DAY: i64 = 24 * 3600 * 1_000_000;
/// How a time of day may be written.
const FORMS: [&str; 2] = ["%H:%M:%S%.f", "%H:%M"];

/// Microseconds since midnight.
pub fn of_day(literal: &Literal) -> Result<i64, String> {
    match literal {
        Literal::Number(_) => {
            let micros = i64::try_from(integer(literal)?).ok().filter(|micros| (0..DAY).contains(micros));
            micros.ok_or_else(|| format!("{} microseconds are out of range: a day has {DAY}", shown(literal)))
        }
        Literal::Text(text) => {
            let parsed = FORMS.iter().find_map(|form| NaiveTime::parse_from_str(text.trim(), form).ok());
            let time = parsed.ok_or_else(|| format!("{} is not a time of day such as '10:00:00'", shown(literal)))?;
            let micros = i64::from(time.num_seconds_from_midnight()) * 1_000_000 + i64::from(time.nanosecond() / 1000);
            // A leap second is told as more than a second's nanoseconds.
            Ok(micros.min(DAY - 1))
        }
        _ => Err(format!("{} is not a time of day", shown(literal))),
    }
}
