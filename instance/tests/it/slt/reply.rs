//! Whether a reply is what the protocol says, and what a file sees of it.

use reqwest::StatusCode;
use serde_json::Value;
use sqllogictest::{ColumnType, DBOutput};

use super::client::Failure;

/// Words that clients react to: in no error but those that mean it.
const WORDS: [&str; 7] =
    ["token expired", "invalid token", "jwt", "not leader", "too many requests", "timed out", "connection refused"];

/// A column's type, as a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter(char);

impl ColumnType for Letter {
    fn from_char(value: char) -> Option<Self> {
        "BILRDTPJYUVF?".contains(value).then_some(Self(value))
    }

    fn to_char(&self) -> char {
        self.0
    }
}

fn broken(text: String) -> Failure {
    Failure(format!("BROKEN: {text}"))
}

/// What a file sees: the last result's rows, or its count.
pub fn read(status: StatusCode, reply: &Value) -> Result<DBOutput<Letter>, Failure> {
    check(reply["took"].as_f64().is_some_and(|took| took >= 0.001), reply, "took is at least 0.001")?;
    if status != StatusCode::OK {
        return Err(failure(status, reply));
    }
    check(reply["status"] == "success" && reply["error"].is_null(), reply, "a 200 is a success")?;
    let results = reply["results"].as_array().filter(|results| !results.is_empty());
    let results = results.ok_or_else(|| broken(format!("no results: {reply}")))?;
    results.iter().try_for_each(check_result)?;
    let last = &results[results.len() - 1];
    match last["rows"].as_array() {
        Some(rows) => rows_of(&last["schema"], rows),
        None => Ok(DBOutput::StatementComplete(last["row_count"].as_u64().unwrap_or_default())),
    }
}

/// Whether any of its statements wrote rows.
pub fn wrote_rows(reply: &Value) -> bool {
    let mut results = reply["results"].as_array().into_iter().flatten();
    results.any(|result| result["message"].as_str().is_some_and(is_of_rows) || is_returning(result))
}

/// `Inserted 3 row(s)` and its like.
fn is_of_rows(message: &str) -> bool {
    let verb = ["Inserted ", "Updated ", "Deleted "].iter().find_map(|verb| message.strip_prefix(verb));
    verb.is_some_and(|rest| rest.strip_suffix(" row(s)").is_some_and(|count| count.parse::<u64>().is_ok_and(|n| n > 0)))
}

/// Rows that INSERT … RETURNING answered look like those of a query: the file is flushed once too often for a query that names `_seq`.
fn is_returning(result: &Value) -> bool {
    result["schema"].as_array().is_some_and(|columns| columns.iter().any(|column| column["name"] == "_seq"))
}

fn check(holds: bool, reply: &Value, what: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(broken(format!("{what}: {reply}"))) }
}

fn check_result(result: &Value) -> Result<(), Failure> {
    check(result["row_count"].is_u64(), result, "row_count is an integer")?;
    check(result["as_user"].is_string(), result, "as_user is there")?;
    if let Some(rows) = result["rows"].as_array() {
        check(result["message"].is_null(), result, "rows come without a message")?;
        return check(result["row_count"] == rows.len(), result, "row_count counts the rows");
    }
    let message = result["message"].as_str().unwrap_or_default();
    check(!message.is_empty(), result, "what has no rows has a message")?;
    let count = result["row_count"].as_u64().unwrap_or_default();
    let is_dml = ["Inserted", "Updated", "Deleted"].iter().any(|verb| message.starts_with(verb));
    check(!is_dml || message.ends_with(&format!("ed {count} row(s)")), result, "the message tells the count")
}

/// The refusal as `CODE: message`; anything that is not as the protocol says breaks the file.
fn failure(status: StatusCode, reply: &Value) -> Failure {
    let error = &reply["error"];
    let (Some(code), Some(message)) = (error["code"].as_str(), error["message"].as_str()) else {
        return broken(format!("{status} without code and message: {reply}"));
    };
    let expected = match code {
        "PERMISSION_DENIED" => 403,
        "MISSING_AUTHORIZATION" | "INVALID_CREDENTIALS" | "TOKEN_EXPIRED" => 401,
        "CONFLICT" | "TRANSACTION_CONFLICT" => 409,
        "REQUEST_TOO_LARGE" => 413,
        "RATE_LIMIT_EXCEEDED" => 429,
        "UNAVAILABLE" | "DISK_FULL" | "NOT_LEADER" => 503,
        "INTERNAL_ERROR" => 500,
        _ => 400,
    };
    let text = message.to_lowercase();
    let word = WORDS.iter().find(|word| text.contains(**word));
    if status.as_u16() != expected || reply["status"] != "error" || reply["results"] != Value::Array(Vec::new()) {
        return broken(format!("{status} is no reply for {code}: {reply}"));
    }
    match word {
        Some(word) => broken(format!("an error holds '{word}': {message}")),
        None => Failure(format!("{code}: {message}")),
    }
}

fn rows_of(schema: &Value, rows: &[Value]) -> Result<DBOutput<Letter>, Failure> {
    let columns = schema.as_array().ok_or_else(|| broken(format!("rows without schema: {schema}")))?;
    let letters = columns.iter().map(|column| letter_of(&column["data_type"])).collect::<Result<Vec<_>, _>>()?;
    for (place, column) in columns.iter().enumerate() {
        let has_flags = column["flags"].is_array() || column.get("flags").is_none();
        check(column["index"] == place && has_flags && column["name"].is_string(), column, "a column")?;
    }
    let row = |cells: &Value| {
        let cells = cells.as_array().filter(|cells| cells.len() == letters.len());
        let cells = cells.ok_or_else(|| broken("a row is as wide as its schema".into()))?;
        cells.iter().zip(&letters).map(|(cell, letter)| shown(cell, letter)).collect::<Result<Vec<_>, _>>()
    };
    let rows = rows.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    Ok(DBOutput::Rows { types: letters, rows })
}

fn letter_of(data_type: &Value) -> Result<Letter, Failure> {
    let letter = match data_type.as_str() {
        Some("Boolean") => 'B',
        Some("SmallInt" | "Int") => 'I',
        Some("BigInt") => 'L',
        Some("Float" | "Double") => 'R',
        Some("Text") => 'T',
        Some("Timestamp" | "DateTime" | "Date" | "Time") => 'P',
        Some("Json") => 'J',
        Some("Bytes") => 'Y',
        Some("Uuid") => 'U',
        Some("File") => 'F',
        None if data_type["Decimal"]["precision"].is_u64() && data_type["Decimal"]["scale"].is_u64() => 'D',
        None if data_type["Embedding"].is_u64() => 'V',
        _ => return Err(broken(format!("no type of the protocol: {data_type}"))),
    };
    Ok(Letter(letter))
}

/// The cell's text, if it has its type's form on the wire.
fn shown(cell: &Value, letter: &Letter) -> Result<String, Failure> {
    let text = cell.as_str();
    let holds = cell.is_null()
        || match letter.0 {
            'B' => cell.is_boolean(),
            'I' | 'P' => cell.is_i64(),
            'L' => text.is_some_and(|text| text.parse::<i128>().is_ok()),
            'D' => text.is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte))),
            'R' => cell.is_number() || text.is_some_and(|text| ["NaN", "Infinity", "-Infinity"].contains(&text)),
            'Y' => cell.as_array().is_some_and(|bytes| bytes.iter().all(|byte| byte.as_u64().is_some_and(|n| n < 256))),
            'V' => cell.is_array(),
            _ => text.is_some(),
        };
    check(holds, cell, &format!("a cell of type {}", letter.0))?;
    Ok(match (cell, text) {
        (Value::Null, _) => "NULL".into(),
        (_, Some("")) => "(empty)".into(),
        (_, Some(text)) => text.replace('\n', "\\n"),
        (cell, None) => cell.to_string(),
    })
}
