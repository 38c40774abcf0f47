//! The plain model: every ALTER rewrites each row at once. Its conversions are its own, so that it can't share a fault with the engine's.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

use crate::evolution::TableChange;
use crate::schema::SqlType;
use crate::value::Value;

const fn decimal(precision: u8, scale: u8) -> SqlType {
    SqlType::Decimal { precision, scale }
}

/// What columns are added with and modified to.
pub const TYPES: [SqlType; 11] = [
    SqlType::SmallInt,
    SqlType::Int,
    SqlType::BigInt,
    SqlType::Float,
    SqlType::Double,
    decimal(6, 2),
    decimal(10, 4),
    decimal(25, 4),
    SqlType::Text,
    SqlType::Boolean,
    SqlType::Date,
];

/// What the table must hold: its columns beside the key, and each row with the values of all of them.
#[derive(Clone, Default)]
pub struct Model {
    pub columns: Vec<(String, SqlType, bool)>,
    pub rows: BTreeMap<(String, i64), BTreeMap<String, Value>>,
}

impl Model {
    /// The model after the change; none where it must be refused.
    pub fn after(&self, change: &TableChange) -> Option<Self> {
        let mut after = self.clone();
        let has = |name: &str| name == "c1" || self.columns.iter().any(|(known, ..)| known == name);
        match change {
            TableChange::AddColumn(new) => {
                let is_impossible = !new.nullable && new.initial.is_null() && !self.rows.is_empty();
                if has(&new.name) || is_impossible {
                    return None;
                }
                after.columns.push((new.name.clone(), new.sql_type, new.nullable));
                after.rows.values_mut().for_each(|row| drop(row.insert(new.name.clone(), new.initial.clone())));
            }
            TableChange::DropColumn(name) => {
                after.columns.remove(self.place(name)?);
                after.rows.values_mut().for_each(|row| drop(row.remove(name)));
            }
            TableChange::RenameColumn { from, to } => {
                let place = self.place(from)?;
                if has(to) {
                    return None;
                }
                after.columns[place].0.clone_from(to);
                for row in after.rows.values_mut() {
                    let value = row.remove(from).expect("each row has each column");
                    row.insert(to.clone(), value);
                }
            }
            TableChange::ModifyColumn { name, sql_type, .. } if name == "c1" => {
                let fits = |key: &i64| range(*sql_type).contains(&i128::from(*key));
                return self.rows.keys().all(|(_, key)| fits(key)).then_some(after);
            }
            TableChange::ModifyColumn { name, sql_type, .. } => {
                let place = self.place(name)?;
                let from = self.columns[place].1;
                if !is_possible(from, *sql_type) {
                    return None;
                }
                for row in after.rows.values_mut() {
                    let value = row.get_mut(name).expect("each row has each column");
                    *value = converted(value, from, *sql_type)?;
                }
                after.columns[place].1 = *sql_type;
            }
            TableChange::SetNullable { name, nullable } => {
                let place = self.place(name)?;
                if !nullable && self.rows.values().any(|row| row[name].is_null()) {
                    return None;
                }
                after.columns[place].2 = *nullable;
            }
            TableChange::SetDefault { name, .. } => drop(self.place(name)?),
            TableChange::SetAccessLevel(_) => {}
        }
        Some(after)
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(known, ..)| known == name)
    }
}

pub fn integer(number: i64, of: SqlType) -> Value {
    match of {
        SqlType::SmallInt => Value::SmallInt(number as i16),
        SqlType::Int => Value::Int(number as i32),
        _ => Value::BigInt(number),
    }
}

fn range(of: SqlType) -> std::ops::RangeInclusive<i128> {
    match of {
        SqlType::SmallInt => i16::MIN.into()..=i16::MAX.into(),
        SqlType::Int => i32::MIN.into()..=i32::MAX.into(),
        SqlType::Decimal { precision, .. } => 1 - 10i128.pow(precision.into())..=10i128.pow(precision.into()) - 1,
        _ => i64::MIN.into()..=i64::MAX.into(),
    }
}

fn number_of(value: &Value) -> Option<i128> {
    match value {
        Value::SmallInt(number) => Some((*number).into()),
        Value::Int(number) => Some((*number).into()),
        Value::BigInt(number) => Some((*number).into()),
        Value::Decimal(number) => Some(*number),
        _ => None,
    }
}

/// What MODIFY can do, as the documentation says it.
fn is_possible(from: SqlType, to: SqlType) -> bool {
    match (from, to) {
        (_, SqlType::Text) => true,
        (SqlType::SmallInt | SqlType::Int | SqlType::Float | SqlType::Double, SqlType::Double) => true,
        (SqlType::Float | SqlType::Double, SqlType::Float) => true,
        (SqlType::Decimal { .. }, SqlType::Decimal { .. }) => true,
        (SqlType::SmallInt, SqlType::Decimal { precision, scale }) => precision - scale >= 5,
        (SqlType::Int, SqlType::Decimal { precision, scale }) => precision - scale >= 10,
        (SqlType::BigInt, SqlType::Decimal { precision, scale }) => precision - scale >= 19,
        _ => from == to || (from.is_integer() && to.is_integer()),
    }
}

/// The value in the new type; none where it does not fit.
fn converted(value: &Value, from: SqlType, to: SqlType) -> Option<Value> {
    let scale_of = |of| if let SqlType::Decimal { scale, .. } = of { u32::from(scale) } else { 0 };
    match (value, to) {
        (Value::Null, _) => Some(Value::Null),
        (value, SqlType::Text) => Some(Value::Text(text_of(value, from))),
        (Value::Float(number), SqlType::Double) => Some(Value::Double((*number).into())),
        (Value::Double(number), SqlType::Float) => {
            let narrow = *number as f32;
            (f64::from(narrow) == *number).then_some(Value::Float(narrow))
        }
        (value, SqlType::Double) if from.is_integer() => number_of(value).map(|number| Value::Double(number as f64)),
        (value, _) if number_of(value).is_some() => {
            let (before, after) = (scale_of(from), scale_of(to));
            let number = number_of(value)? * 10i128.pow(after.saturating_sub(before));
            let divisor = 10i128.pow(before.saturating_sub(after));
            let exact = number % divisor == 0 && range(to).contains(&(number / divisor));
            let number = number / divisor;
            exact.then(|| if to.is_integer() { integer(number as i64, to) } else { Value::Decimal(number) })
        }
        (value, _) => (from == to).then(|| value.clone()),
    }
}

fn text_of(value: &Value, of: SqlType) -> String {
    match (value, of) {
        (Value::Boolean(value), _) => value.to_string(),
        (Value::Float(value), _) => format!("{value:?}"),
        (Value::Double(value), _) => format!("{value:?}"),
        (Value::Date(days), _) => chrono::NaiveDate::from_epoch_days(*days).unwrap().to_string(),
        (Value::Text(text), _) => text.clone(),
        (Value::Decimal(number), SqlType::Decimal { scale, .. }) => {
            let one = 10i128.pow(scale.into());
            let sign = if *number < 0 { "-" } else { "" };
            let (whole, rest) = (number.abs() / one, number.abs() % one);
            format!("{sign}{whole}.{rest:0width$}", width = usize::from(scale))
        }
        (value, _) => number_of(value).unwrap().to_string(),
    }
}

pub fn some_value(random: &mut StdRng, of: SqlType) -> Value {
    let small = random.random_range(-90i64..90);
    let is_large = random.random_bool(0.1);
    match of {
        SqlType::SmallInt => Value::SmallInt(small as i16),
        SqlType::Int => Value::Int(if is_large { 40_000 + small as i32 } else { small as i32 }),
        SqlType::BigInt => Value::BigInt(if is_large { 5_000_000_000 + small } else { small }),
        SqlType::Float => Value::Float(small as f32 / 4.0),
        SqlType::Double => Value::Double(if is_large { small as f64 / 10.0 } else { small as f64 / 4.0 }),
        SqlType::Decimal { precision, scale } => {
            let one = 10i128.pow(scale.into());
            let wide = i128::from(is_large && precision > 9) * 1_000_000 * one;
            let fine = i128::from(is_large && scale > 2) * 7;
            Value::Decimal((i128::from(small) * one / 4 + wide + fine) % 10i128.pow(precision.into()))
        }
        SqlType::Text => Value::Text(format!("text {small}")),
        SqlType::Boolean => Value::Boolean(small % 2 == 0),
        _ => Value::Date(small as i32 * 100),
    }
}
