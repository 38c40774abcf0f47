//! Order-preserving keys: table id, the user in per-user tables, then the primary key.
//!
//! The order of the encoded bytes is the order of the values, and no key is a prefix of another, so that ranges of keys are
//! ranges of bytes. Integers, dates and times take eight bytes whatever their SQL type: widening a column keeps its keys.

use std::ops::Bound;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::EngineError;
use crate::schema::{Column, SqlType, Table, TableId, TableKind, UserId};
use crate::value::Value;

/// An encoded primary key: order-preserving bytes, without table and user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub Box<[u8]>);

/// A key within a table: whose row, and which.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowKey {
    /// Whose row it is, in per-user tables.
    pub user: Option<UserId>,
    /// The primary key.
    pub key: Key,
}

impl RowKey {
    /// The key's bytes within its table: the user's, if any, then the primary key's.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.key.0.len() + 16);
        if let Some(user) = &self.user {
            put_text(&mut bytes, user.as_str().as_bytes());
        }
        bytes.extend_from_slice(&self.key.0);
        bytes
    }

    /// Reads what [`RowKey::bytes`] wrote.
    pub fn from_bytes(kind: TableKind, bytes: &[u8]) -> Result<Self, EngineError> {
        let (user, key) = split_user(kind, bytes)?;
        Ok(Self { user, key: Key(key.into()) })
    }
}

/// A part of the keys of a table, or of one user of it. Each bound names the first bytes of keys: included, all keys that begin so belong
/// to the part, and excluded, none of them.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyBounds {
    /// Where the part begins.
    pub from: Bound<Vec<u8>>,
    /// Where it ends.
    pub to: Bound<Vec<u8>>,
}

impl KeyBounds {
    /// All keys.
    pub const ALL: Self = Self { from: Bound::Unbounded, to: Bound::Unbounded };

    /// As stored keys that begin with `prefix`: the first of the part, and the first behind it.
    pub fn below(&self, prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let stored = |bytes: &[u8]| [prefix, bytes].concat();
        let from = match &self.from {
            Bound::Included(bytes) => stored(bytes),
            Bound::Excluded(bytes) => prefix_end(&stored(bytes)),
            Bound::Unbounded => prefix.to_vec(),
        };
        let to = match &self.to {
            Bound::Included(bytes) => prefix_end(&stored(bytes)),
            Bound::Excluded(bytes) => stored(bytes),
            Bound::Unbounded => prefix_end(prefix),
        };
        (from, to)
    }
}

/// Encodes a primary key from its values, in key order.
pub fn encode_key(table: &Table, values: &[Value]) -> Result<Key, EngineError> {
    if values.len() != table.primary_key.len() {
        let (expected, found) = (table.primary_key.len(), values.len());
        return Err(EngineError::Invalid(format!(
            "the key of table {} has {expected} columns, not {found}",
            table.name
        )));
    }
    let mut bytes = Vec::with_capacity(16);
    for (position, value) in table.key_positions().into_iter().zip(values) {
        put_value(&mut bytes, table, &table.columns[position], value)?;
    }
    Ok(Key(bytes.into()))
}

/// Encodes the primary key of a whole row.
pub fn key_of_row(table: &Table, row: &[Value]) -> Result<Key, EngineError> {
    // As long as a key of integers is.
    let mut bytes = Vec::with_capacity(8 * table.primary_key.len());
    for id in &table.primary_key {
        // A key has few columns, and they mostly stand in front: looking for them costs less than a list of their places for each row.
        let found = table.columns.iter().zip(0..).find(|(column, _)| column.id == *id);
        let (column, position): (_, usize) = found.expect("key columns are columns");
        let value = row.get(position).ok_or_else(|| misfit(table, column, "nothing"))?;
        put_value(&mut bytes, table, column, value)?;
    }
    Ok(Key(bytes.into()))
}

/// The values of a key, in key order.
pub fn decode_key(table: &Table, key: &Key) -> Result<Vec<Value>, EngineError> {
    let mut rest = &key.0[..];
    let positions = table.key_positions();
    let values: Result<Vec<_>, _> =
        positions.into_iter().map(|at| take_value(&mut rest, table.columns[at].sql_type)).collect();
    let values = values?;
    if rest.is_empty() { Ok(values) } else { Err(corrupt("bytes are left after its last column")) }
}

/// The first bytes of every key of the table.
pub fn table_prefix(table: TableId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend_from_slice(&table.0.to_be_bytes());
    bytes
}

/// The first bytes of every key of the table, or of one user's part of it.
pub fn part_prefix(table: TableId, user: Option<&UserId>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    put_part_prefix(&mut bytes, table, user);
    bytes
}

/// Appends what [`part_prefix`] makes.
pub fn put_part_prefix(bytes: &mut Vec<u8>, table: TableId, user: Option<&UserId>) {
    bytes.extend_from_slice(&table.0.to_be_bytes());
    if let Some(user) = user {
        put_text(bytes, user.as_str().as_bytes());
    }
}

/// The whole key as RocksDB stores it.
pub fn storage_key(table: TableId, user: Option<&UserId>, key: &Key) -> Vec<u8> {
    let mut bytes = part_prefix(table, user);
    bytes.extend_from_slice(&key.0);
    bytes
}

/// The smallest bytes above everything that begins with `prefix`. A table id of 0xFFFFFFFF is never given out.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xFF {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// The table id of a stored key, and the rest.
pub fn split_table(stored: &[u8]) -> Result<(TableId, &[u8]), EngineError> {
    let (id, rest) = stored.split_first_chunk::<4>().ok_or_else(|| corrupt("it is shorter than a table id"))?;
    Ok((TableId(u32::from_be_bytes(*id)), rest))
}

/// The user of a key within a table, and its primary key.
pub fn split_user(kind: TableKind, bytes: &[u8]) -> Result<(Option<UserId>, &[u8]), EngineError> {
    let mut rest = bytes;
    if !kind.is_per_user() {
        return Ok((None, rest));
    }
    let user = take_string(&mut rest)?;
    Ok((Some(UserId(user.into())), rest))
}

/// How many bytes the user part of a key within a table takes.
pub fn user_length(kind: TableKind, bytes: &[u8]) -> Result<usize, EngineError> {
    if !kind.is_per_user() {
        return Ok(0);
    }
    let end = bytes.windows(2).position(|pair| pair == [0, TERMINATOR]);
    end.map(|at| at + 2).ok_or_else(|| corrupt("its user does not end"))
}

/// Follows an escaped zero byte: sorts after the terminator, so that `a` stands before `a\0`.
const ESCAPED: u8 = 0xFF;
/// Follows a zero byte at the end of a text.
const TERMINATOR: u8 = 0x01;
const SIGN: u64 = 1 << 63;
const WIDE_SIGN: u128 = 1 << 127;

/// Appends one value of a key. Fails for NULL, and where the column's type can't hold the value.
pub(crate) fn put_value(bytes: &mut Vec<u8>, table: &Table, column: &Column, value: &Value) -> Result<(), EngineError> {
    match (column.sql_type, value) {
        (SqlType::Boolean, Value::Boolean(value)) => bytes.push(u8::from(*value)),
        (SqlType::SmallInt | SqlType::Int | SqlType::BigInt, Value::SmallInt(value)) => {
            put_integer(bytes, (*value).into())
        }
        (SqlType::Int | SqlType::BigInt, Value::Int(value)) => put_integer(bytes, (*value).into()),
        (SqlType::BigInt, Value::BigInt(value)) => put_integer(bytes, *value),
        (SqlType::Timestamp | SqlType::DateTime, Value::Timestamp(value)) => put_integer(bytes, *value),
        (SqlType::Time, Value::Time(value)) => put_integer(bytes, *value),
        (SqlType::Uuid, Value::Uuid(value)) => bytes.extend_from_slice(value.as_bytes()),
        (SqlType::Date, Value::Date(value)) => put_integer(bytes, (*value).into()),
        (SqlType::Decimal { .. }, Value::Decimal(value)) => {
            bytes.extend_from_slice(&(*value as u128 ^ WIDE_SIGN).to_be_bytes());
        }
        (SqlType::Text, Value::Text(value)) => put_text(bytes, value.as_bytes()),
        (SqlType::Bytes, Value::Bytes(value)) => put_text(bytes, value),
        (_, Value::Null) => return Err(misfit(table, column, "NULL")),
        (_, other) => return Err(misfit(table, column, other.type_name())),
    }
    Ok(())
}

fn take_value(rest: &mut &[u8], sql_type: SqlType) -> Result<Value, EngineError> {
    let range = |_| corrupt("an integer is out of its column's range");
    Ok(match sql_type {
        SqlType::Boolean => Value::Boolean(take::<1>(rest)?[0] != 0),
        SqlType::SmallInt => Value::SmallInt(take_integer(rest)?.try_into().map_err(range)?),
        SqlType::Int => Value::Int(take_integer(rest)?.try_into().map_err(range)?),
        SqlType::BigInt => Value::BigInt(take_integer(rest)?),
        SqlType::Timestamp | SqlType::DateTime => Value::Timestamp(take_integer(rest)?),
        SqlType::Time => Value::Time(take_integer(rest)?),
        SqlType::Uuid => Value::Uuid(Uuid::from_bytes(take::<16>(rest)?)),
        SqlType::Date => Value::Date(take_integer(rest)?.try_into().map_err(range)?),
        SqlType::Decimal { .. } => Value::Decimal((u128::from_be_bytes(take::<16>(rest)?) ^ WIDE_SIGN) as i128),
        SqlType::Text => Value::Text(take_string(rest)?),
        SqlType::Bytes => Value::Bytes(take_text(rest)?),
        SqlType::Float | SqlType::Double | SqlType::Json | SqlType::Embedding { .. } | SqlType::File => {
            return Err(corrupt("its type can't be a key"));
        }
    })
}

fn put_integer(bytes: &mut Vec<u8>, value: i64) {
    bytes.extend_from_slice(&(value as u64 ^ SIGN).to_be_bytes());
}

fn take_integer(rest: &mut &[u8]) -> Result<i64, EngineError> {
    Ok((u64::from_be_bytes(take::<8>(rest)?) ^ SIGN) as i64)
}

fn put_text(bytes: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        bytes.push(*byte);
        if *byte == 0 {
            bytes.push(ESCAPED);
        }
    }
    bytes.extend_from_slice(&[0, TERMINATOR]);
}

fn take_text(rest: &mut &[u8]) -> Result<Vec<u8>, EngineError> {
    let mut text = Vec::new();
    loop {
        match rest {
            [0, ESCAPED, tail @ ..] => {
                text.push(0);
                *rest = tail;
            }
            [0, TERMINATOR, tail @ ..] => {
                *rest = tail;
                return Ok(text);
            }
            [byte, tail @ ..] if *byte != 0 => {
                text.push(*byte);
                *rest = tail;
            }
            _ => return Err(corrupt("a text in it does not end")),
        }
    }
}

fn take_string(rest: &mut &[u8]) -> Result<String, EngineError> {
    String::from_utf8(take_text(rest)?).map_err(|_| corrupt("a text in it is not UTF-8"))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], EngineError> {
    let (taken, tail) = rest.split_first_chunk::<N>().ok_or_else(|| corrupt("it ends early"))?;
    *rest = tail;
    Ok(*taken)
}

/// Escapes and terminates a text as keys do, for families of other records.
pub(crate) fn put_name(bytes: &mut Vec<u8>, name: &str) {
    put_text(bytes, name.as_bytes());
}

/// Reads what [`put_name`] wrote.
pub(crate) fn take_name(rest: &mut &[u8]) -> Result<String, EngineError> {
    take_string(rest)
}

fn misfit(table: &Table, column: &Column, found: &str) -> EngineError {
    EngineError::Invalid(format!("key column '{}' of table {} can't hold {found}", column.name, table.name))
}

fn corrupt(reason: &str) -> EngineError {
    EngineError::Corrupt { what: "key".into(), reason: reason.into() }
}

#[cfg(test)]
#[path = "key/tests.rs"]
mod tests;
