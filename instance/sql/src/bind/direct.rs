//! The commonest literals as values of a column, with nothing in between. All others take the way of [`super::literal`] and
//! [`super::value`], which also has the errors; both ways give the same value.

use datafusion::sql::sqlparser::ast::{Expr, UnaryOperator, Value as AstValue};
use kalamdb_engine::schema::{Column, SqlType};
use kalamdb_engine::value::Value;

/// The value of an expression that plainly is one of the column; none where the long way must tell.
pub fn value_of(expr: &Expr, column: &Column) -> Option<Value> {
    match expr {
        Expr::Value(value) => plain(&value.value, column.sql_type),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(value) => negated(plain(&value.value, column.sql_type)?),
            _ => None,
        },
        _ => None,
    }
}

fn plain(value: &AstValue, sql_type: SqlType) -> Option<Value> {
    match (value, sql_type) {
        (AstValue::Null, _) => Some(Value::Null),
        (AstValue::Boolean(value), SqlType::Boolean) => Some(Value::Boolean(*value)),
        (AstValue::SingleQuotedString(text), SqlType::Text) => Some(Value::Text(text.clone())),
        (AstValue::Number(text, _), SqlType::SmallInt) => text.parse().ok().map(Value::SmallInt),
        (AstValue::Number(text, _), SqlType::Int) => text.parse().ok().map(Value::Int),
        (AstValue::Number(text, _), SqlType::BigInt) => text.parse().ok().map(Value::BigInt),
        (AstValue::Number(text, _), SqlType::Timestamp) => text.parse().ok().map(Value::Timestamp),
        (AstValue::Number(text, _), SqlType::Double) => {
            text.parse().ok().filter(|value: &f64| value.is_finite()).map(Value::Double)
        }
        _ => None,
    }
}

/// The number below zero. The least one of a type is not that of a greater one: it takes the long way.
fn negated(value: Value) -> Option<Value> {
    match value {
        Value::SmallInt(value) => Some(Value::SmallInt(-value)),
        Value::Int(value) => Some(Value::Int(-value)),
        Value::BigInt(value) => Some(Value::BigInt(-value)),
        Value::Timestamp(value) => Some(Value::Timestamp(-value)),
        Value::Double(value) => Some(Value::Double(-value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kalamdb_engine::schema::ColumnId;
    use proptest::prelude::*;

    use super::*;
    use crate::bind::literal::{Parameters, literal_of};
    use crate::bind::value::from_literal;

    const TYPES: [SqlType; 8] = [
        SqlType::Boolean,
        SqlType::SmallInt,
        SqlType::Int,
        SqlType::BigInt,
        SqlType::Timestamp,
        SqlType::Double,
        SqlType::Text,
        SqlType::Date,
    ];

    fn literal() -> impl Strategy<Value = AstValue> {
        prop_oneof![
            Just(AstValue::Null),
            any::<bool>().prop_map(AstValue::Boolean),
            "[0-9]{1,20}(\\.[0-9]{1,9})?(e[0-9]{1,3})?".prop_map(|number| AstValue::Number(number, false)),
            "[a-z0-9 ]{0,6}".prop_map(AstValue::SingleQuotedString),
        ]
    }

    proptest! {
        #[test]
        fn both_ways_give_the_same_value(literal in literal(), sql_type in 0..TYPES.len(), is_negated in any::<bool>()) {
            let column = Column::new(ColumnId(1), "c", TYPES[sql_type]);
            let mut expr = Expr::Value(literal.with_empty_span());
            if is_negated {
                expr = Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(expr) };
            }
            if let Some(value) = value_of(&expr, &column) {
                let long = literal_of(&expr, &Parameters::default()).unwrap().expect("it is a literal");
                prop_assert_eq!(Ok(value), from_literal(&long, &column).map_err(|error| error.message));
            }
        }
    }
}
