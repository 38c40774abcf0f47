//! CSV as RFC 4180 has it, with a header that names the columns or without. An empty field is NULL, a quoted empty one an empty text.

use std::sync::Arc;

use kalamdb_engine::schema::Table;
use kalamdb_engine::value::Value;

use super::place::{self, Place};
use super::{Given, GivenRow};
use crate::{ErrorCode, SqlError};

/// Where the reader stands within a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// At its beginning.
    Start,
    /// In one without quotes.
    Plain,
    /// Between quotes.
    Quoted,
    /// Behind a quote that ends the field, or is the first of two which are one.
    Quote,
}

/// A field's text; none where it is empty and not quoted.
type Field = Option<String>;

/// Records to rows.
pub(super) struct CsvRows {
    table: Arc<Table>,
    most_bytes: usize,
    header: Option<Vec<Place>>,
    within: Within,
    field: Vec<u8>,
    is_quoted: bool,
    record: Vec<Field>,
    record_bytes: usize,
    /// What is wrong with the record so far.
    fault: Option<String>,
    /// The line that the reader stands in, and the one that the record began in.
    line: u64,
    began: u64,
}

impl CsvRows {
    /// Without a header the columns are those of the table.
    pub(super) fn new(table: Arc<Table>, has_header: bool, most_bytes: usize) -> Self {
        let all = || (0..table.columns.len()).map(Place::Own).collect();
        Self {
            header: (!has_header).then(all),
            table,
            most_bytes,
            within: Within::Start,
            field: Vec::new(),
            is_quoted: false,
            record: Vec::new(),
            record_bytes: 0,
            fault: None,
            line: 1,
            began: 1,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8], rows: &mut Vec<Given>) -> Result<(), SqlError> {
        bytes.iter().try_for_each(|byte| self.take(*byte, rows))
    }

    pub(super) fn end(&mut self, rows: &mut Vec<Given>) -> Result<(), SqlError> {
        if self.within == Within::Quoted {
            self.fault = Some("a quoted field has no end".into());
        }
        self.end_record(rows)
    }

    fn take(&mut self, byte: u8, rows: &mut Vec<Given>) -> Result<(), SqlError> {
        self.record_bytes += 1;
        if self.record_bytes > self.most_bytes {
            let text = format!("the record of line {} is longer than {} bytes", self.began, self.most_bytes);
            return Err(SqlError::new(ErrorCode::TooLarge, text));
        }
        self.line += u64::from(byte == b'\n');
        match (self.within, byte) {
            (Within::Start, b'"') => (self.within, self.is_quoted) = (Within::Quoted, true),
            (Within::Quoted, b'"') => self.within = Within::Quote,
            (Within::Quote, b'"') => {
                self.field.push(b'"');
                self.within = Within::Quoted;
            }
            (Within::Quoted, _) => self.field.push(byte),
            (_, b',') => self.end_field(),
            (_, b'\n') => return self.end_record(rows),
            (Within::Quote, b'\r') => {}
            (Within::Quote, _) => self.fault = Some("text follows the end of a quoted field".into()),
            (Within::Start | Within::Plain, _) => {
                self.field.push(byte);
                self.within = Within::Plain;
            }
        }
        Ok(())
    }

    fn end_field(&mut self) {
        let bytes = std::mem::take(&mut self.field);
        let is_null = bytes.is_empty() && !self.is_quoted;
        match String::from_utf8(bytes) {
            Ok(text) => self.record.push((!is_null).then_some(text)),
            Err(_) => {
                self.record.push(None);
                self.fault = Some("a field is not UTF-8".into());
            }
        }
        (self.within, self.is_quoted) = (Within::Start, false);
    }

    /// Empty lines are no records.
    fn end_record(&mut self, rows: &mut Vec<Given>) -> Result<(), SqlError> {
        if !self.is_quoted && self.field.last() == Some(&b'\r') {
            self.field.pop();
        }
        self.end_field();
        let record = std::mem::take(&mut self.record);
        let (line, fault) = (std::mem::replace(&mut self.began, self.line), self.fault.take());
        self.record_bytes = 0;
        if record == [None] && fault.is_none() {
            return Ok(());
        }
        match &self.header {
            None => self.header = Some(header(&self.table, record, fault)?),
            Some(header) => rows.push(Given { line, row: row_of(&self.table, header, record, fault) }),
        }
        Ok(())
    }
}

fn header(table: &Table, names: Vec<Field>, fault: Option<String>) -> Result<Vec<Place>, SqlError> {
    if let Some(fault) = fault {
        return Err(SqlError::new(ErrorCode::InvalidBody, format!("the header can't be read: {fault}")));
    }
    let names = names.iter().map(|name| name.as_deref().unwrap_or_default().trim_start_matches('\u{feff}'));
    place::places_of(table, names)
}

fn row_of(table: &Table, header: &[Place], record: Vec<Field>, fault: Option<String>) -> Result<GivenRow, SqlError> {
    if let Some(fault) = fault {
        return Err(SqlError::new(ErrorCode::InvalidValue, fault));
    }
    if record.len() != header.len() {
        let text = format!("the line has {} field(s), the header {}", record.len(), header.len());
        return Err(SqlError::new(ErrorCode::InvalidValue, text));
    }
    let mut row = vec![None; table.columns.len()];
    for (place, field) in header.iter().zip(record) {
        if let Place::Own(at) = *place {
            row[at] = Some(match field {
                Some(text) => place::of_field(text, &table.columns[at])?,
                None => Value::Null,
            });
        }
    }
    Ok(row)
}
