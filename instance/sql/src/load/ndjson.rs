//! A JSON object a line.

use std::collections::BTreeMap;
use std::sync::Arc;

use kalamdb_engine::schema::Table;
use serde_json::value::RawValue;

use super::place::{self, Place};
use super::{Given, GivenRow};
use crate::{ErrorCode, SqlError};

/// Lines to rows.
pub(super) struct JsonRows {
    table: Arc<Table>,
    most_bytes: usize,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    line: u64,
}

impl JsonRows {
    pub(super) fn new(table: Arc<Table>, most_bytes: usize) -> Self {
        Self { table, most_bytes, begun: Vec::new(), line: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8], rows: &mut Vec<Given>) -> Result<(), SqlError> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.extend(&rest[..end])?;
            self.end_line(rows);
            rest = &rest[end + 1..];
        }
        self.extend(rest)
    }

    pub(super) fn end(&mut self, rows: &mut Vec<Given>) -> Result<(), SqlError> {
        self.end_line(rows);
        Ok(())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), SqlError> {
        if self.begun.len() + bytes.len() > self.most_bytes {
            let (line, most) = (self.line + 1, self.most_bytes);
            return Err(SqlError::new(ErrorCode::TooLarge, format!("line {line} is longer than {most} bytes")));
        }
        self.begun.extend_from_slice(bytes);
        Ok(())
    }

    /// Empty lines are no rows.
    fn end_line(&mut self, rows: &mut Vec<Given>) {
        self.line += 1;
        if !self.begun.trim_ascii().is_empty() {
            rows.push(Given { line: self.line, row: row_of(&self.begun, &self.table) });
        }
        self.begun.clear();
    }
}

fn row_of(line: &[u8], table: &Table) -> Result<GivenRow, SqlError> {
    let object: BTreeMap<String, &RawValue> = serde_json::from_slice(line)
        .map_err(|error| SqlError::new(ErrorCode::InvalidValue, format!("the line is no JSON object: {error}")))?;
    let mut row = vec![None; table.columns.len()];
    for (name, json) in object {
        if let Place::Own(at) = place::place_of(table, &name)? {
            row[at] = Some(place::of_json(json, &table.columns[at])?);
        }
    }
    Ok(row)
}
