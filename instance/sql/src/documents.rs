//! `->`: a part of a JSON document is the text that stands there, every digit of it. What it is compared with or becomes decides whether its
//! text, its number or its truth counts.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray, new_empty_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Alias, Cast, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::BinaryOperator;
use kalamdb_engine::schema::SqlType;
use kalamdb_engine::value::Value;
use serde_json::value::RawValue;

use crate::bind::literal::{JsonValue, Literal, of_json};
use crate::bind::value;

/// The function behind `->`.
pub const PART: &str = "json_get";
/// Marks texts that are parts of documents.
const MARK: (&str, &str) = ("ARROW:extension:name", "kalamdb.json");
/// Numbers of documents beside whole ones and decimals: exact for all integers of 64 bits, and for eighteen digits behind the point.
const NUMBER: (u8, i8) = (38, 18);

/// Whether the column holds parts of documents.
pub fn is_document(field: &Field) -> bool {
    field.metadata().get(MARK.0).is_some_and(|mark| mark == MARK.1)
}

/// What a part of a document says. Lists and objects are their text.
pub fn literal(part: &str) -> Literal {
    match serde_json::from_str::<&RawValue>(part).and_then(of_json) {
        Ok(JsonValue::Scalar(literal)) => literal,
        Ok(JsonValue::Array(text) | JsonValue::Object(text)) => Literal::Text(text.to_owned()),
        Err(_) => Literal::Text(part.to_owned()),
    }
}

/// What counts of parts of documents that are compared with values of that type.
pub fn compared_with(other: &DataType) -> DataType {
    let number = DataType::Decimal128(NUMBER.0, NUMBER.1);
    match other {
        DataType::Boolean => DataType::Boolean,
        integer if integer.is_integer() => number,
        DataType::Decimal128(precision, scale) if *scale <= NUMBER.1 && *precision as i8 - scale <= 20 => number,
        numeric if numeric.is_numeric() => DataType::Float64,
        _ => DataType::Utf8,
    }
}

/// The parts as values of the type; those that are none become NULL, as do numbers that don't fit.
pub fn said(parts: Expr, to: DataType) -> Expr {
    ScalarUDF::from(Said { to, signature: Signature::any(1, Volatility::Immutable) }).call(vec![parts])
}

/// The parts cast to the type.
pub fn cast_to(parts: Expr, to: &DataType) -> Expr {
    let by_way_of = match to {
        DataType::Boolean | DataType::Decimal128(..) => to.clone(),
        integer if integer.is_integer() => DataType::Int64,
        numeric if numeric.is_numeric() => DataType::Float64,
        _ => DataType::Utf8,
    };
    let said = said(parts, by_way_of.clone());
    if by_way_of == *to { said } else { Expr::Cast(Cast::new(Box::new(said), to.clone())) }
}

/// Plans `->`.
#[derive(Debug)]
pub struct Arrow {
    function: Arc<ScalarUDF>,
}

impl Default for Arrow {
    fn default() -> Self {
        Self { function: Arc::new(part()) }
    }
}

impl ExprPlanner for Arrow {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let sign = match expr.op {
            BinaryOperator::Arrow => "->",
            BinaryOperator::HashArrow => "#>",
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let name = format!("{} {sign} {}", shown(&expr.left), shown(&expr.right));
        let call = ScalarFunction { func: Arc::clone(&self.function), args: vec![expr.left, expr.right] };
        Ok(PlannerResult::Planned(Expr::Alias(Alias::new(Expr::ScalarFunction(call), None::<&str>, name))))
    }
}

/// An operand as the header of a column names it.
fn shown(operand: &Expr) -> String {
    match operand {
        Expr::Column(Column { name, .. }) => name.clone(),
        Expr::Alias(alias) => alias.name.clone(),
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => format!("'{text}'"),
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => number.to_string(),
        Expr::Cast(cast) => shown(&cast.expr),
        other => other.to_string(),
    }
}

/// `json_get`, by its name too.
pub fn part() -> ScalarUDF {
    ScalarUDF::from(Part {
        raw: datafusion_functions_json::udfs::json_get_json_udf(),
        signature: Signature::variadic_any(Volatility::Immutable),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Part {
    /// Finds the text of a part.
    raw: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for Part {
    fn name(&self) -> &str {
        PART
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.raw.return_type(types)?;
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let mark = HashMap::from([(MARK.0.to_owned(), MARK.1.to_owned())]);
        Ok(Arc::new(Field::new(PART, self.return_type(&types)?, true).with_metadata(mark)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        // The document's `null` is none, as `->>` has it.
        let no_null = |text: &str| text != "null";
        Ok(match self.raw.inner().invoke_with_args(args)? {
            ColumnarValue::Scalar(found) => {
                let text = found.cast_to(&DataType::Utf8)?;
                let text = text.try_as_str().flatten().filter(|text| no_null(text));
                ColumnarValue::Scalar(ScalarValue::Utf8(text.map(str::to_owned)))
            }
            ColumnarValue::Array(found) => {
                let found = cast(&found, &DataType::Utf8)?;
                let texts = found.as_string::<i32>().iter().map(|text| text.filter(|text| no_null(text)));
                ColumnarValue::Array(Arc::new(texts.collect::<StringArray>()))
            }
        })
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.raw.placement(args)
    }
}

/// Parts of documents as values of one type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Said {
    to: DataType,
    signature: Signature,
}

impl Said {
    fn value(&self, part: Option<&str>) -> Result<ScalarValue> {
        let value = match (part.map(literal), &self.to) {
            (Some(Literal::Boolean(value)), DataType::Boolean) => ScalarValue::Boolean(Some(value)),
            (Some(Literal::Number(text)), DataType::Int64) => ScalarValue::Int64(text.parse().ok()),
            (Some(Literal::Number(text)), DataType::Float64) => ScalarValue::Float64(text.parse().ok()),
            (Some(number @ Literal::Number(_)), DataType::Decimal128(precision, scale)) => {
                let decimal = SqlType::Decimal { precision: *precision, scale: scale.unsigned_abs() };
                let unscaled = match value::convert(&number, decimal) {
                    Ok(Value::Decimal(unscaled)) => Some(unscaled),
                    _ => None,
                };
                ScalarValue::Decimal128(unscaled, *precision, *scale)
            }
            (Some(Literal::Text(text) | Literal::Number(text)), DataType::Utf8) => ScalarValue::Utf8(Some(text)),
            (Some(Literal::Boolean(value)), DataType::Utf8) => ScalarValue::Utf8(Some(value.to_string())),
            _ => ScalarValue::try_from(&self.to)?,
        };
        Ok(value)
    }
}

impl ScalarUDFImpl for Said {
    fn name(&self) -> &str {
        match self.to {
            DataType::Boolean => "json_boolean",
            DataType::Utf8 => "json_text",
            _ => "json_number",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), self.to.clone(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let mut values = Vec::with_capacity(args.number_rows);
        for array in ColumnarValue::values_to_arrays(&args.args)? {
            let parts = cast(&array, &DataType::Utf8)?;
            values = parts.as_string::<i32>().iter().map(|part| self.value(part)).collect::<Result<_>>()?;
        }
        match values.pop() {
            Some(value) if is_scalar => Ok(ColumnarValue::Scalar(value)),
            Some(value) => {
                values.push(value);
                let array: ArrayRef = ScalarValue::iter_to_array(values)?;
                Ok(ColumnarValue::Array(array))
            }
            None => Ok(ColumnarValue::Array(new_empty_array(&self.to))),
        }
    }
}
