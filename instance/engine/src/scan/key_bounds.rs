//! The keys that a query's filters leave: hot rows lie in key order, so that only these need to be read.
//!
//! Bounds are never narrower than the filters, which stay in the plan: what is not understood here narrows nothing.

use std::cmp::Ordering;
use std::ops::Bound;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};

use crate::cold::scalar;
use crate::hot::KeyBounds;
use crate::hot::key::put_value;
use crate::schema::{Column, Table};
use crate::value::Value;

/// The bounds of all keys whose rows can pass the filters, of which all must hold.
pub fn key_bounds(table: &Table, filters: &[Expr]) -> KeyBounds {
    // Columns of which one value is left, encoded one behind the other.
    let mut begin = Vec::new();
    for position in table.key_positions() {
        let column = KeyColumn { table, column: &table.columns[position] };
        let left = filters.iter().fold(Interval::ALL, |left, filter| left.and(column.interval(filter)));
        match (&left.from, &left.to) {
            (Bound::Included(from), Bound::Included(to)) if from == to => begin.extend_from_slice(from),
            _ => return left.behind(&begin),
        }
    }
    Interval::ALL.behind(&begin)
}

/// A column of the primary key.
struct KeyColumn<'a> {
    table: &'a Table,
    column: &'a Column,
}

impl KeyColumn<'_> {
    /// The values of the column, encoded, with which the expression can be true.
    fn interval(&self, expr: &Expr) -> Interval {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.interval(left).and(self.interval(right))
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                self.interval(left).or(self.interval(right))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if self.is_meant(left) => self.compared(*op, right),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if self.is_meant(right) => {
                op.swap().map_or(Interval::ALL, |op| self.compared(op, left))
            }
            Expr::Between(Between { expr, negated: false, low, high }) if self.is_meant(expr) => {
                self.compared(Operator::GtEq, low).and(self.compared(Operator::LtEq, high))
            }
            Expr::InList(InList { expr, list, negated: false }) if self.is_meant(expr) => {
                let values = list.iter().map(|value| self.compared(Operator::Eq, value));
                values.reduce(Interval::or).unwrap_or(Interval::ALL)
            }
            _ => Interval::ALL,
        }
    }

    fn is_meant(&self, expr: &Expr) -> bool {
        matches!(expr, Expr::Column(column) if column.name == self.column.name)
    }

    fn compared(&self, operator: Operator, value: &Expr) -> Interval {
        let Some(value) = self.encoded(value) else { return Interval::ALL };
        let (from, to) = match operator {
            Operator::Eq => (Bound::Included(value.clone()), Bound::Included(value)),
            Operator::Gt => (Bound::Excluded(value), Bound::Unbounded),
            Operator::GtEq => (Bound::Included(value), Bound::Unbounded),
            Operator::Lt => (Bound::Unbounded, Bound::Excluded(value)),
            Operator::LtEq => (Bound::Unbounded, Bound::Included(value)),
            _ => (Bound::Unbounded, Bound::Unbounded),
        };
        Interval { from, to }
    }

    /// A literal of exactly the column's type, as keys hold it.
    fn encoded(&self, expr: &Expr) -> Option<Vec<u8>> {
        let Expr::Literal(literal, _) = expr else { return None };
        let sql_type = self.column.sql_type;
        if literal.data_type() != sql_type.arrow() || literal.is_null() {
            return None;
        }
        let value = scalar::value_of(literal.clone(), sql_type).ok()?;
        if !is_in_order(&value, literal) {
            return None;
        }
        let mut bytes = Vec::new();
        put_value(&mut bytes, self.table, self.column, &value).ok()?;
        Some(bytes)
    }
}

/// Whether the value stands among others of its type where the literal does: queries compare UUIDs as texts.
fn is_in_order(value: &Value, literal: &ScalarValue) -> bool {
    match (value, literal) {
        (Value::Uuid(uuid), ScalarValue::Utf8(Some(text))) => *text == uuid.hyphenated().to_string(),
        _ => true,
    }
}

/// Encoded values of one column.
#[derive(Debug, Clone, PartialEq)]
struct Interval {
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
}

impl Interval {
    const ALL: Self = Self { from: Bound::Unbounded, to: Bound::Unbounded };

    /// What lies in both.
    fn and(self, other: Self) -> Self {
        let from = if order_of_starts(&self.from, &other.from).is_ge() { self.from } else { other.from };
        let to = if order_of_ends(&self.to, &other.to).is_le() { self.to } else { other.to };
        Self { from, to }
    }

    /// What lies in one of them, and all between.
    fn or(self, other: Self) -> Self {
        let from = if order_of_starts(&self.from, &other.from).is_le() { self.from } else { other.from };
        let to = if order_of_ends(&self.to, &other.to).is_ge() { self.to } else { other.to };
        Self { from, to }
    }

    /// As bounds of keys that begin with these bytes.
    fn behind(self, begin: &[u8]) -> KeyBounds {
        let whole = |bound: Bound<Vec<u8>>| match bound {
            Bound::Unbounded if begin.is_empty() => Bound::Unbounded,
            Bound::Unbounded => Bound::Included(begin.to_vec()),
            bound => bound.map(|value| [begin, &value].concat()),
        };
        KeyBounds { from: whole(self.from), to: whole(self.to) }
    }
}

fn order_of_starts(one: &Bound<Vec<u8>>, other: &Bound<Vec<u8>>) -> Ordering {
    let place = |bound| match bound {
        &Bound::Unbounded => None,
        Bound::Included(value) => Some((value, false)),
        Bound::Excluded(value) => Some((value, true)),
    };
    place(one).cmp(&place(other))
}

fn order_of_ends(one: &Bound<Vec<u8>>, other: &Bound<Vec<u8>>) -> Ordering {
    // None sorts before all values, and no end lies behind them.
    let place = |bound| match bound {
        &Bound::Unbounded => (true, None),
        Bound::Included(value) => (false, Some((value, true))),
        Bound::Excluded(value) => (false, Some((value, false))),
    };
    place(one).cmp(&place(other))
}

#[cfg(test)]
#[path = "key_bounds/tests.rs"]
mod tests;
