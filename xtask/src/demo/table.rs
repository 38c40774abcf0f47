//! Answers as tables, and files as a list.

use kalamdb_e2e::bucket::Object;
use kalamdb_e2e::calendar;
use kalamdb_e2e::sql::{Answer, integer};
use serde_json::Value as Json;

/// More files than this are counted, not listed.
const LISTED_FILES: usize = 12;
/// Longer cells are cut.
const CELL_WIDTH: usize = 44;

/// The answer with its columns aligned: numbers to the right, all else to the left.
pub fn render(answer: &Answer) -> String {
    let kinds: Vec<&str> = answer.columns.iter().map(|(_, kind)| kind.as_str().unwrap_or("Decimal")).collect();
    let mut lines: Vec<Vec<String>> = vec![answer.columns.iter().map(|(name, _)| name.clone()).collect()];
    lines.extend(answer.rows.iter().map(|row| row.iter().zip(&kinds).map(|(value, kind)| cell(value, kind)).collect()));
    let widths: Vec<usize> = (0..kinds.len())
        .map(|column| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let lines = lines.iter().map(|line| {
        let cells = line.iter().zip(&widths).zip(&kinds).map(|((cell, width), kind)| match *kind {
            "Text" | "Date" | "Timestamp" | "DateTime" | "Json" | "Uuid" | "Boolean" => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Files with their sizes; of many, the first.
pub fn files(objects: &[Object]) -> String {
    let mut lines: Vec<String> =
        objects.iter().take(LISTED_FILES).map(|object| format!("{:>9}  {}", bytes(object.size), object.key)).collect();
    if objects.len() > LISTED_FILES {
        lines.push(format!("           … and {} more", objects.len() - LISTED_FILES));
    }
    lines.join("\n")
}

/// A number with its thousands apart: `336,776`.
pub fn number(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

fn bytes(size: u64) -> String {
    match size {
        0..1024 => format!("{size} B"),
        1024..1_048_576 => format!("{:.1} KiB", size as f64 / 1024.0),
        _ => format!("{:.1} MiB", size as f64 / 1_048_576.0),
    }
}

fn cell(value: &Json, kind: &str) -> String {
    let text = match (kind, integer(value)) {
        ("Date", Some(days)) => calendar::date(days),
        ("Timestamp" | "DateTime", Some(microseconds)) => calendar::time(microseconds),
        _ => match value {
            Json::Null => "-".to_owned(),
            Json::String(text) => text.replace('\n', " "),
            other => other.to_string(),
        },
    };
    if text.chars().count() > CELL_WIDTH { text.chars().take(CELL_WIDTH - 1).chain(['…']).collect() } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_becomes_an_aligned_table_with_dates() {
        let answer = Answer {
            columns: vec![("day".into(), json!("Date")), ("flights".into(), json!("BigInt"))],
            rows: vec![vec![json!(15_744), json!("28")], vec![json!(null), json!("7")]],
            ..Answer::default()
        };
        assert_eq!(render(&answer), "day         flights\n2013-02-08       28\n-                 7");
        assert_eq!((number(336_776), number(-1_000), number(12)), ("336,776".into(), "-1,000".into(), "12".into()));
    }
}
