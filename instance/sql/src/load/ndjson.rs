//! A JSON object a line.

use std::fmt;
use std::sync::Arc;

use kalamdb_engine::schema::Table;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
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
    let Members(members) = serde_json::from_slice(line)
        .map_err(|error| SqlError::new(ErrorCode::InvalidValue, format!("the line is no JSON object: {error}")))?;
    let mut row = vec![None; table.columns.len()];
    for (name, json) in members {
        if let Place::Own(at) = place::place_of(table, &name)? {
            if row[at].is_some() {
                return Err(place::named_twice(&name, ErrorCode::InvalidValue));
            }
            row[at] = Some(place::of_json(json, &table.columns[at])?);
        }
    }
    Ok(row)
}

/// The members of an object as they stand there: a map would keep the last of each name.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}
