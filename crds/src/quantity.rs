//! Amounts as Kubernetes writes them: `20Gi`, `500m`, `1.5G`, `1000000`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// The text that the API server accepts; [`Quantity::from_str`] accepts the same.
const PATTERN: &str = r"^[0-9]+(\.[0-9]{1,3})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$";

/// Longer amounts are no amounts; the bound also lets the API server estimate the cost of its rules.
const MAX_LENGTH: usize = 20;

/// Suffixes with the number of thousandths that each stands for.
const SUFFIXES: [(&str, u128); 11] = [
    ("Ki", 1000 << 10),
    ("Mi", 1000 << 20),
    ("Gi", 1000 << 30),
    ("Ti", 1000 << 40),
    ("Pi", 1000 << 50),
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
];

/// An amount, in the words of the user. Two amounts are equal where their texts are; compare [`Quantity::thousandths`]
/// to compare what they mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(String);

/// The text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to read {0:?} as an amount: write a number with an optional unit, such as 512Mi, 20Gi or 500m")]
pub struct QuantityError(String);

impl Quantity {
    /// The amount in thousandths, so that `500m` is a whole number too.
    pub fn thousandths(&self) -> u128 {
        parse(&self.0).expect("a quantity is parsed when it is made")
    }

    /// The amount as a whole number, rounded up: bytes, for storage and memory.
    pub fn value(&self) -> u64 {
        u64::try_from(self.thousandths().div_ceil(1000)).unwrap_or(u64::MAX)
    }

    /// The text as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Bytes for people, cut to two significant digits in the largest binary unit: `12Mi`.
    ///
    /// The cut keeps a status that shows the amount from changing with every row.
    pub fn approximate_bytes(bytes: u64) -> Self {
        const UNITS: [&str; 6] = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
        let mut unit = 0;
        let mut value = bytes;
        while value >= 1024 && unit + 1 < UNITS.len() {
            value /= 1024;
            unit += 1;
        }
        let digits = if value >= 1000 {
            100
        } else if value >= 100 {
            10
        } else {
            1
        };
        Self(format!("{}{}", value / digits * digits, UNITS[unit]))
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(|_| Self(text.to_owned())).ok_or_else(|| QuantityError(text.to_owned()))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// YAML reads an amount without a unit as a number.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The definition's generator makes optional amounts nullable unless told otherwise; a null would not be readable.
        json_schema!({
            "x-kubernetes-int-or-string": true, "nullable": false,
            "pattern": PATTERN, "maxLength": MAX_LENGTH, "minimum": 0
        })
    }
}

fn parse(text: &str) -> Option<u128> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|number| (number, *factor)))
        .unwrap_or((text, 1000));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return None;
    }
    let whole = whole.parse::<u128>().ok()?.checked_mul(factor)?;
    // The fraction is padded to thousandths; what is smaller than a thousandth of the unit `m` rounds up.
    let fraction = format!("{fraction:0<3}").parse::<u128>().ok()?;
    whole.checked_add((fraction * factor).div_ceil(1000))
}
