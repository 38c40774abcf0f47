//! Stored rows: a header of fixed width, then fields by column id.
//!
//! ```text
//! 0       format version
//! 1       flags: bit 0 = tombstone
//! 2..10   _seq, little endian
//! 10..18  _updated, little endian, microseconds since the Unix epoch
//! 18..22  schema version, little endian
//! 22..    fields in ascending order of column id: id (varint), length (varint), bytes
//! ```
//!
//! NULL is the absence of a field. Integers, dates and times are zigzag varints whatever their SQL type, so that a widened
//! column needs no rewrite. A column that is younger than the row's schema version reads its initial value; one that was dropped is
//! skipped; one whose type has changed since is converted. Writers encode rows before they have a `_seq`; the committer [stamps](stamp) it into the bytes.

use std::borrow::Cow;
use std::ops::Range;

use uuid::Uuid;

use crate::EngineError;
use crate::evolution::reading::{FormerField, former_fields};
use crate::evolution::types::convert;
use crate::schema::{Column, ColumnId, SchemaVersion, SqlType, Table};
use crate::seq::Seq;
use crate::value::{Row, Value};

/// The format that this build writes, and the only one that it reads.
pub const ROW_FORMAT: u8 = 1;
/// Bytes before the first field.
pub const HEADER_LENGTH: usize = 22;
const TOMBSTONE: u8 = 1;

/// What every stored row version says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowHeader {
    /// The version's commit sequence.
    pub seq: Seq,
    /// `_updated`, in microseconds since the Unix epoch.
    pub updated: i64,
    /// Whether the version says that the row was deleted.
    pub deleted: bool,
    /// The schema that it was written with.
    pub schema: SchemaVersion,
}

/// Encodes a row that has no `_seq` yet. Refuses values that do not fit their columns.
pub fn encode_row(table: &Table, row: &Row) -> Result<Vec<u8>, EngineError> {
    if row.len() != table.columns.len() {
        let (expected, found) = (table.columns.len(), row.len());
        return Err(EngineError::Invalid(format!("a row of table {} has {expected} values, not {found}", table.name)));
    }
    let mut bytes = header_bytes(table.version, 0, HEADER_LENGTH + row.len() * 16);
    if table.columns.is_sorted_by_key(|column| column.id) {
        table.columns.iter().zip(row).try_for_each(|(column, value)| put_field(&mut bytes, table, column, value))?;
        return Ok(bytes);
    }
    let mut columns: Vec<_> = table.columns.iter().zip(row).collect();
    columns.sort_by_key(|(column, _)| column.id);
    columns.into_iter().try_for_each(|(column, value)| put_field(&mut bytes, table, column, value))?;
    Ok(bytes)
}

/// Encodes the deletion of a row, without a `_seq` yet.
pub fn encode_tombstone(table: &Table) -> Vec<u8> {
    header_bytes(table.version, TOMBSTONE, HEADER_LENGTH)
}

/// Writes `_seq` and `_updated` into an encoded row.
pub fn stamp(bytes: &mut [u8], seq: Seq, updated: i64) {
    bytes[2..10].copy_from_slice(&seq.0.to_le_bytes());
    bytes[10..18].copy_from_slice(&updated.to_le_bytes());
}

/// Makes an encoded row say that it was deleted.
pub(crate) fn mark_deleted(bytes: &mut [u8]) {
    bytes[1] |= TOMBSTONE;
}

/// Reads the header of a stored row.
pub fn header(bytes: &[u8]) -> Result<RowHeader, EngineError> {
    let Some((fixed, _)) = bytes.split_first_chunk::<HEADER_LENGTH>() else {
        return Err(corrupt("it is shorter than its header"));
    };
    if fixed[0] != ROW_FORMAT {
        return Err(corrupt(&format!("format version {}, this build reads {ROW_FORMAT}", fixed[0])));
    }
    let number = |at: usize| i64::from_le_bytes(fixed[at..at + 8].try_into().expect("eight bytes"));
    Ok(RowHeader {
        seq: Seq(number(2)),
        updated: number(10),
        deleted: fixed[1] & TOMBSTONE != 0,
        schema: SchemaVersion(u32::from_le_bytes(fixed[18..22].try_into().expect("four bytes"))),
    })
}

/// Which columns of a table to take from stored rows. Made once, used for many rows.
#[derive(Debug)]
pub struct RowReader {
    /// In ascending order of column id, as fields are.
    wanted: Vec<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    id: ColumnId,
    position: usize,
    since: SchemaVersion,
    sql_type: SqlType,
    /// What rows older than the column read, as a field.
    initial: Option<Box<[u8]>>,
    /// Fields that must be converted, oldest schema versions first.
    former: Vec<FormerField>,
}

impl Wanted {
    /// What a row of that schema reads, of which this field is stored; none is NULL.
    fn read<'a>(
        &'a self,
        schema: SchemaVersion,
        stored: Option<&'a [u8]>,
    ) -> Result<Option<Cow<'a, [u8]>>, EngineError> {
        Ok(match stored {
            Some(field) => Some(self.converted(schema, field)?.map_or(Cow::Borrowed(field), Cow::Owned)),
            None => self.initial.as_deref().filter(|_| self.since > schema).map(Cow::Borrowed),
        })
    }

    /// The field as it reads in the column's present type, where its bytes do not.
    fn converted(&self, schema: SchemaVersion, field: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let written = self.former.iter().find(|former| schema < former.until).filter(|former| !former.casts.is_empty());
        let Some(former) = written else { return Ok(None) };
        let (mut value, mut from) = (decode_field(former.from, field)?, former.from);
        for to in &former.casts {
            value = convert(value, from, *to)?;
            from = *to;
        }
        let field =
            field_bytes(self.sql_type, &value).ok_or_else(|| corrupt("a field does not fit its altered column"))?;
        Ok(Some(field.to_vec()))
    }
}

impl RowReader {
    /// A reader of these columns, given as places in [`Table::columns`].
    pub fn new(table: &Table, positions: impl IntoIterator<Item = usize>) -> Self {
        let wanted = |position: usize| {
            let column = &table.columns[position];
            Wanted {
                id: column.id,
                position,
                since: column.since,
                sql_type: column.sql_type,
                initial: field_bytes(column.sql_type, &column.initial).map(Into::into),
                former: former_fields(column),
            }
        };
        let mut wanted: Vec<_> = positions.into_iter().map(wanted).collect();
        wanted.sort_by_key(|column| column.id);
        Self { wanted }
    }

    /// A reader of all columns.
    pub fn of_all(table: &Table) -> Self {
        Self::new(table, 0..table.columns.len())
    }

    /// How many columns it takes.
    pub(crate) fn columns(&self) -> usize {
        self.wanted.len()
    }

    /// The number, among the columns that it takes, of the one at that place in [`Table::columns`].
    pub(crate) fn number_of(&self, position: usize) -> usize {
        self.wanted.iter().position(|column| column.position == position).expect("the reader was made for this column")
    }

    /// Calls `each` once for every wanted column, with its number and where its field lies in `bytes`, of which the row is a part. What
    /// is not there as it reads today is put behind their end.
    pub(crate) fn locate(
        &self,
        bytes: &mut Vec<u8>,
        row: Range<usize>,
        mut each: impl FnMut(usize, Field),
    ) -> Result<RowHeader, EngineError> {
        let header = header(&bytes[row.clone()])?;
        let mut fields = Fields::begin(bytes, row)?;
        for (number, column) in self.wanted.iter().enumerate() {
            let stored = fields.find(bytes, column.id)?;
            let field = if column.former.is_empty() && (stored.is_some() || column.since <= header.schema) {
                stored.unwrap_or(Field::NULL)
            } else {
                match column.read(header.schema, stored.and_then(|field| field.of(bytes)))?.map(Cow::into_owned) {
                    Some(field) => {
                        let at = bytes.len();
                        bytes.extend_from_slice(&field);
                        Field::new(at, field.len())?
                    }
                    None => Field::NULL,
                }
            };
            each(number, field);
        }
        Ok(header)
    }
}

/// Where a field lies in a slice of bytes; or nowhere, which is NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    at: u32,
    length: u32,
}

impl Field {
    const NULL: Self = Self { at: u32::MAX, length: 0 };

    fn new(at: usize, length: usize) -> Result<Self, EngineError> {
        let narrow =
            |number: usize| u32::try_from(number).map_err(|_| corrupt("the rows of one batch are above 4 GiB"));
        Ok(Self { at: narrow(at)?, length: narrow(length)? })
    }

    /// Its bytes; none of NULL.
    pub(crate) fn of(self, bytes: &[u8]) -> Option<&[u8]> {
        (!self.is_null()).then(|| &bytes[self.at as usize..][..self.length as usize])
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether it is NULL.
    pub(crate) fn is_null(self) -> bool {
        self == Self::NULL
    }
}

/// Decodes a whole row; none for a tombstone.
pub fn decode_row(table: &Table, reader: &RowReader, bytes: &[u8]) -> Result<(RowHeader, Option<Row>), EngineError> {
    let header = header(bytes)?;
    if header.deleted {
        return Ok((header, None));
    }
    let mut row = vec![Value::Null; table.columns.len()];
    let mut fields = Fields::begin(bytes, 0..bytes.len())?;
    for column in &reader.wanted {
        let stored = fields.find(bytes, column.id)?.and_then(|field| field.of(bytes));
        if let Some(field) = column.read(header.schema, stored)? {
            row[column.position] = decode_field(column.sql_type, &field)?;
        }
    }
    Ok((header, Some(row)))
}

/// Steps through the fields of a row.
struct Fields {
    at: usize,
    end: usize,
    /// The field that comes next.
    next: Option<(ColumnId, Field)>,
}

impl Fields {
    fn begin(bytes: &[u8], row: Range<usize>) -> Result<Self, EngineError> {
        let mut fields = Self { at: row.start + HEADER_LENGTH, end: row.end, next: None };
        fields.next = fields.read(bytes)?;
        Ok(fields)
    }

    /// The field of that column, if the row has one. Columns are asked for in ascending order of their ids, as fields lie.
    fn find(&mut self, bytes: &[u8], column: ColumnId) -> Result<Option<Field>, EngineError> {
        while self.next.is_some_and(|(id, _)| id < column) {
            self.next = self.read(bytes)?;
        }
        Ok(self.next.filter(|(id, _)| *id == column).map(|(_, field)| field))
    }

    fn read(&mut self, bytes: &[u8]) -> Result<Option<(ColumnId, Field)>, EngineError> {
        let mut rest = &bytes[self.at..self.end];
        if rest.is_empty() {
            return Ok(None);
        }
        let id = u32::try_from(take_varint(&mut rest)?).map_err(|_| corrupt("a column id is out of range"))?;
        let length = take_varint(&mut rest)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
        let length = length.ok_or_else(|| corrupt("a field is longer than the row"))?;
        let at = self.end - rest.len();
        self.at = at + length;
        Ok(Some((ColumnId(id), Field::new(at, length)?)))
    }
}

fn header_bytes(schema: SchemaVersion, flags: u8, capacity: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(capacity);
    bytes.extend_from_slice(&[ROW_FORMAT, flags]);
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&schema.0.to_le_bytes());
    bytes
}

fn put_field(bytes: &mut Vec<u8>, table: &Table, column: &Column, value: &Value) -> Result<(), EngineError> {
    let misfit = |what: &str| {
        EngineError::Invalid(format!("column '{}' of table {} can't hold {what}", column.name, table.name))
    };
    if value.is_null() {
        return if column.nullable { Ok(()) } else { Err(misfit("NULL")) };
    }
    let field = field_bytes(column.sql_type, value).ok_or_else(|| misfit(value.type_name()))?;
    put_varint(bytes, column.id.0.into());
    put_varint(bytes, field.len() as u64);
    bytes.extend_from_slice(&field);
    Ok(())
}

/// A field's bytes; none where the value does not fit the type.
fn field_bytes(sql_type: SqlType, value: &Value) -> Option<FieldBytes<'_>> {
    let integer = |value: i64| Some(FieldBytes::integer(value));
    match (sql_type, value) {
        (SqlType::Boolean, Value::Boolean(value)) => Some(FieldBytes::inline(&[u8::from(*value)])),
        (SqlType::SmallInt | SqlType::Int | SqlType::BigInt, Value::SmallInt(value)) => integer((*value).into()),
        (SqlType::Int | SqlType::BigInt, Value::Int(value)) => integer((*value).into()),
        (SqlType::BigInt, Value::BigInt(value)) => integer(*value),
        (SqlType::Timestamp | SqlType::DateTime, Value::Timestamp(value)) => integer(*value),
        (SqlType::Time, Value::Time(value)) => integer(*value),
        (SqlType::Date, Value::Date(value)) => integer((*value).into()),
        (SqlType::Float | SqlType::Double, Value::Float(value)) => Some(FieldBytes::inline(&value.to_le_bytes())),
        (SqlType::Double, Value::Double(value)) => Some(FieldBytes::inline(&value.to_le_bytes())),
        (SqlType::Decimal { .. }, Value::Decimal(value)) => Some(FieldBytes::inline(&value.to_le_bytes())),
        (SqlType::Text, Value::Text(text)) | (SqlType::Json | SqlType::File, Value::Json(text)) => {
            Some(FieldBytes::Borrowed(text.as_bytes()))
        }
        (SqlType::Uuid, Value::Uuid(uuid)) => Some(FieldBytes::inline(uuid.as_bytes())),
        (SqlType::Embedding { dimensions }, Value::Embedding(numbers)) if numbers.len() == usize::from(dimensions) => {
            Some(FieldBytes::Owned(numbers.iter().flat_map(|number| number.to_le_bytes()).collect()))
        }
        (SqlType::Bytes, Value::Bytes(bytes)) => Some(FieldBytes::Borrowed(bytes)),
        _ => None,
    }
}

/// The bytes of one field: small ones in place, large ones where they are, or made.
enum FieldBytes<'a> {
    Inline([u8; 16], usize),
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

impl FieldBytes<'_> {
    fn inline(bytes: &[u8]) -> Self {
        let mut field = [0; 16];
        field[..bytes.len()].copy_from_slice(bytes);
        Self::Inline(field, bytes.len())
    }

    fn integer(value: i64) -> Self {
        let (mut field, mut length) = ([0; 16], 0);
        let mut rest = zigzag(value);
        loop {
            let last = rest < 0x80;
            field[length] = if last { rest as u8 } else { rest as u8 | 0x80 };
            length += 1;
            if last {
                return Self::Inline(field, length);
            }
            rest >>= 7;
        }
    }
}

impl std::ops::Deref for FieldBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline(bytes, length) => &bytes[..*length],
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl From<FieldBytes<'_>> for Box<[u8]> {
    fn from(field: FieldBytes<'_>) -> Self {
        Self::from(&*field)
    }
}

/// The value of a field of that type.
pub fn decode_field(sql_type: SqlType, field: &[u8]) -> Result<Value, EngineError> {
    Ok(match sql_type {
        SqlType::Boolean => Value::Boolean(boolean(field)?),
        SqlType::SmallInt => Value::SmallInt(integer(field)?),
        SqlType::Int => Value::Int(integer(field)?),
        SqlType::BigInt => Value::BigInt(integer(field)?),
        SqlType::Timestamp | SqlType::DateTime => Value::Timestamp(integer(field)?),
        SqlType::Time => Value::Time(integer(field)?),
        SqlType::Date => Value::Date(integer(field)?),
        SqlType::Float => Value::Float(float(field)?),
        SqlType::Double => Value::Double(double(field)?),
        SqlType::Decimal { .. } => Value::Decimal(decimal(field)?),
        SqlType::Text => Value::Text(text(field)?.to_owned()),
        SqlType::Json | SqlType::File => Value::Json(text(field)?.to_owned()),
        SqlType::Bytes => Value::Bytes(field.to_vec()),
        SqlType::Uuid => Value::Uuid(uuid(field)?),
        SqlType::Embedding { dimensions } => Value::Embedding(numbers(field, dimensions)?.collect()),
    })
}

/// A BOOLEAN field.
pub(crate) fn boolean(field: &[u8]) -> Result<bool, EngineError> {
    match field {
        [byte] => Ok(*byte != 0),
        _ => Err(corrupt("a BOOLEAN is not one byte")),
    }
}

/// An integer field of any width.
pub(crate) fn integer<T: TryFrom<i64>>(mut field: &[u8]) -> Result<T, EngineError> {
    let value = match short_varint(field) {
        Some(value) => value,
        None => take_varint(&mut field)?,
    };
    let value = (value >> 1) as i64 ^ -((value & 1) as i64);
    T::try_from(value).map_err(|_| corrupt("an integer is out of its column's range"))
}

/// What [`take_varint`] reads from a number of at most eight bytes, all at once: the high bit of each byte goes, and the seven others of
/// each move together in three steps.
fn short_varint(field: &[u8]) -> Option<u64> {
    const CONTINUED: u64 = 0x8080_8080_8080_8080;
    let last = field.len().checked_sub(1).filter(|last| *last < 8)?;
    let mut bytes = [0; 8];
    bytes[..field.len()].copy_from_slice(field);
    let word = u64::from_le_bytes(bytes);
    if word & CONTINUED != CONTINUED & ((1 << (8 * last)) - 1) {
        return None;
    }
    let word = word & !CONTINUED;
    let word = (word & 0x007F_007F_007F_007F) | ((word & 0x7F00_7F00_7F00_7F00) >> 1);
    let word = (word & 0x0000_3FFF_0000_3FFF) | ((word & 0x3FFF_0000_3FFF_0000) >> 2);
    Some((word & 0x0FFF_FFFF) | ((word & 0x0FFF_FFFF_0000_0000) >> 4))
}

/// A FLOAT field.
pub(crate) fn float(field: &[u8]) -> Result<f32, EngineError> {
    field.try_into().map(f32::from_le_bytes).map_err(|_| corrupt("a FLOAT is not four bytes"))
}

/// A DOUBLE field, or one of FLOAT in a column that was widened.
pub(crate) fn double(field: &[u8]) -> Result<f64, EngineError> {
    match field.len() {
        4 => float(field).map(f64::from),
        _ => field.try_into().map(f64::from_le_bytes).map_err(|_| corrupt("a DOUBLE is not eight bytes")),
    }
}

/// A DECIMAL field.
pub(crate) fn decimal(field: &[u8]) -> Result<i128, EngineError> {
    field.try_into().map(i128::from_le_bytes).map_err(|_| corrupt("a DECIMAL is not sixteen bytes"))
}

/// A TEXT or JSON field.
pub(crate) fn text(field: &[u8]) -> Result<&str, EngineError> {
    std::str::from_utf8(field).map_err(|_| corrupt("a text is not UTF-8"))
}

/// A UUID field.
pub(crate) fn uuid(field: &[u8]) -> Result<Uuid, EngineError> {
    Uuid::from_slice(field).map_err(|_| corrupt("a UUID is not sixteen bytes"))
}

/// The numbers of an EMBEDDING field.
pub(crate) fn numbers(field: &[u8], dimensions: u16) -> Result<impl Iterator<Item = f32> + '_, EngineError> {
    let (numbers, rest) = field.as_chunks::<4>();
    if numbers.len() != usize::from(dimensions) || !rest.is_empty() {
        return Err(corrupt(&format!("an EMBEDDING is not {dimensions} times four bytes")));
    }
    Ok(numbers.iter().map(|number| f32::from_le_bytes(*number)))
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Appends an unsigned number, seven bits a byte, the low ones first.
pub(crate) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Reads what [`put_varint`] wrote.
pub(crate) fn take_varint(rest: &mut &[u8]) -> Result<u64, EngineError> {
    // Ids, lengths and small numbers.
    if let Some((byte, tail)) = rest.split_first().filter(|(byte, _)| **byte < 0x80) {
        *rest = tail;
        return Ok(u64::from(*byte));
    }
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or_else(|| corrupt("a number in it does not end"))?;
        *rest = tail;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(corrupt("a number in it is too long"))
}

fn corrupt(reason: &str) -> EngineError {
    EngineError::Corrupt { what: "row".into(), reason: reason.into() }
}

#[cfg(test)]
#[path = "row/tests.rs"]
mod tests;
