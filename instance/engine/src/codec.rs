//! The one place that knows bincode: stored records are a version byte, then the record.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::EngineError;

/// Encodes a record behind its format version.
pub fn encode<T: Serialize>(version: u8, record: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    bincode::serde::encode_into_std_write(record, &mut bytes, bincode::config::standard())
        .expect("memory takes every record");
    bytes
}

/// As [`decode`], also for records of the format `before`, which end where `rest` begins: new fields stand behind the old ones.
pub fn decode_grown<T: DeserializeOwned, R: Serialize>(
    before: u8,
    version: u8,
    bytes: &[u8],
    rest: &R,
    what: &str,
) -> Result<T, EngineError> {
    match bytes.split_first() {
        Some((found, old)) if *found == before => {
            let grown = [&[version], old, &encode(version, rest)[1..]].concat();
            decode(version, &grown, what)
        }
        _ => decode(version, bytes, what),
    }
}

/// Decodes a record of that format version; `what` names it in the error.
pub fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8], what: &str) -> Result<T, EngineError> {
    let (record, rest) = decode_front(version, bytes, what)?;
    if rest.is_empty() { Ok(record) } else { Err(corrupt(what, format!("{} bytes too many", rest.len()))) }
}

/// As [`decode`], of a record that other bytes follow, which are given back.
pub fn decode_front<'a, T: DeserializeOwned>(
    version: u8,
    bytes: &'a [u8],
    what: &str,
) -> Result<(T, &'a [u8]), EngineError> {
    match bytes.split_first() {
        Some((found, rest)) if *found == version => {
            let (record, read) = bincode::serde::decode_from_slice(rest, bincode::config::standard())
                .map_err(|error| corrupt(what, error.to_string()))?;
            Ok((record, &rest[read..]))
        }
        Some((found, _)) => Err(corrupt(what, format!("format version {found}, this build reads {version}"))),
        None => Err(corrupt(what, "it is empty".into())),
    }
}

fn corrupt(what: &str, reason: String) -> EngineError {
    EngineError::Corrupt { what: what.into(), reason }
}
