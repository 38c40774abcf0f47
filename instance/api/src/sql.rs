//! SQL over `POST /v1/api/sql`: request and reply as public clients read them.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;
use serde_json::value::RawValue;

/// The path of the SQL endpoint.
pub const SQL_PATH: &str = "/v1/api/sql";
/// The path of the login endpoint.
pub const LOGIN_PATH: &str = "/v1/api/auth/login";

/// One statement, or several separated by `;`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SqlRequest {
    /// The text.
    pub sql: String,
    /// Values of `$1`, `$2`, …: scalars only, none where it is null. By their text, so that numbers keep all their digits.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Box<RawValue>>,
    /// The namespace of unqualified names; `default` where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_id: Option<String>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Box<RawValue>>, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// `status` of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every statement succeeded.
    Success,
    /// A statement failed; `error` says which and why.
    Error,
}

/// The whole reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SqlReply {
    /// Success or error.
    pub status: Status,
    /// One element a statement; empty on error.
    pub results: Vec<StatementResult>,
    /// Milliseconds, at least 0.001.
    pub took: f64,
    /// Present where `status` is `error`.
    pub error: Option<SqlError>,
}

/// What one statement answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatementResult {
    /// Columns; absent without a row set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Vec<ColumnSchema>>,
    /// Rows of cells; absent without a row set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<Vec<Json>>>,
    /// Rows returned or changed; 0 for DDL.
    pub row_count: u64,
    /// For statements without a row set: what was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The user as whom the statement ran.
    pub as_user: String,
}

/// One column of a row set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnSchema {
    /// Its name.
    pub name: String,
    /// One of the protocol's names: `"BigInt"`, `{"Decimal":{"precision":10,"scale":2}}`, …
    pub data_type: Json,
    /// Its place, from 0.
    pub index: usize,
    /// `pk`, `nn`, `uq`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlError {
    /// Stable code, such as `SQL_EXECUTION_ERROR`.
    pub code: String,
    /// For people.
    pub message: String,
    /// The statement's text, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_nothing_are_no_parameters() {
        let count = |body: &str| serde_json::from_str::<SqlRequest>(body).map(|request| request.params.len());
        for none in [r#"{"sql":"","params":null}"#, r#"{"sql":"","params":[]}"#, r#"{"sql":""}"#] {
            assert_eq!(count(none).unwrap(), 0, "{none}");
        }
        assert_eq!(count(r#"{"sql":"","params":[null, 1]}"#).unwrap(), 2);
        assert!(count(r#"{"sql":"","params":{}}"#).is_err());
    }
}
