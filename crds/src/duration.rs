//! Lengths of time as people write them: `10m`, `1h30m`, `90s`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// The text that the API server accepts; [`Duration::from_str`] accepts the same.
const PATTERN: &str = r"^([0-9]{1,6}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$";

/// Units in the order in which they are written, with their seconds.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// A length of time of at least a second, in the words of the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Duration(String);

/// The text is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to read {0:?} as a duration: write at least one second in days, hours, minutes and seconds, such as 90s, 10m or 1h30m"
)]
pub struct DurationError(String);

impl Duration {
    /// The whole of it in seconds.
    pub fn seconds(&self) -> u64 {
        parse(&self.0).expect("a duration is parsed when it is made")
    }
}

impl From<&Duration> for std::time::Duration {
    fn from(duration: &Duration) -> Self {
        Self::from_secs(duration.seconds())
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(|_| Self(text.to_owned())).ok_or_else(|| DurationError(text.to_owned()))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "minLength": 2, "maxLength": 28 })
    }
}

fn parse(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut seconds = 0;
    for (unit, factor) in UNITS {
        let Some((number, tail)) = rest.split_once(unit) else { continue };
        // A number of another unit before this one is out of order, and no number is an empty part.
        if number.is_empty() || number.len() > 6 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        seconds += number.parse::<u64>().ok()? * factor;
        rest = tail;
    }
    (rest.is_empty() && seconds > 0).then_some(seconds)
}
