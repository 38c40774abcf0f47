//! Values that become values of a column's type within a query, just as they do when they are written: in CAST to the types that Arrow has none
//! of its own for, and where times are compared with what is no time.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use kalamdb_engine::schema::SqlType;
use kalamdb_engine::value::Value;

use crate::bind::value;
use crate::{ErrorCode, SqlError, documents, rows};

/// Tells in a CAST's target which SQL type is meant by its Arrow type.
const SQL_TYPE: &str = "kalamdb.sql_type";
/// The types that are told so.
const TOLD: [SqlType; 3] = [SqlType::Json, SqlType::Uuid, SqlType::File];

/// The target of a CAST to that type.
pub fn target(sql_type: SqlType) -> FieldRef {
    let field = Field::new("", sql_type.arrow(), true);
    let told = TOLD.contains(&sql_type).then(|| (SQL_TYPE.to_owned(), sql_type.to_string()));
    Arc::new(field.with_metadata(told.into_iter().collect()))
}

/// The SQL type that a CAST to the target has to make; none where Arrow's own way is right.
pub fn wanted(target: &Field) -> Option<SqlType> {
    if let DataType::FixedSizeList(_, length) = target.data_type() {
        let embedding = u16::try_from(*length).ok().map(|dimensions| SqlType::Embedding { dimensions });
        return embedding.filter(|embedding| embedding.arrow() == *target.data_type());
    }
    let told = target.metadata().get(SQL_TYPE)?;
    TOLD.into_iter().find(|sql_type| sql_type.to_string() == *told)
}

/// The expression's value as one of the type; an error, or NULL, where it can't be one.
pub fn convert(expr: Expr, sql_type: SqlType, or_null: bool) -> Expr {
    ScalarUDF::from(Convert { sql_type, or_null, signature: Signature::any(1, Volatility::Immutable) }).call(vec![expr])
}

/// What a function makes, if it is one of these.
pub fn made_by(function: &ScalarUDF) -> Option<SqlType> {
    function.inner().downcast_ref::<Convert>().map(|convert| convert.sql_type)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Convert {
    sql_type: SqlType,
    /// Whether NULL stands for what does not fit.
    or_null: bool,
    signature: Signature,
}

impl Convert {
    fn value(&self, scalar: &ScalarValue, is_document: bool) -> Result<Value> {
        let converted = match scalar {
            scalar if scalar.is_null() => Ok(Value::Null),
            ScalarValue::Utf8(Some(text)) if is_document && self.sql_type != SqlType::Json => {
                value::convert(&documents::literal(text), self.sql_type)
            }
            scalar if is_time(self.sql_type) && scalar.data_type().is_floating() => {
                Err(format!("{scalar} is no whole number"))
            }
            scalar => value::of_scalar(scalar, self.sql_type),
        };
        let refused =
            |reason| SqlError::new(ErrorCode::InvalidValue, format!("conversion to {}: {reason}", self.sql_type));
        match converted {
            Err(_) if self.or_null => Ok(Value::Null),
            converted => converted.map_err(|reason| DataFusionError::External(Box::new(refused(reason)))),
        }
    }
}

fn is_time(sql_type: SqlType) -> bool {
    matches!(sql_type, SqlType::Timestamp | SqlType::Time)
}

impl ScalarUDFImpl for Convert {
    fn name(&self) -> &str {
        match self.sql_type {
            SqlType::Timestamp => "as_timestamp",
            SqlType::Time => "as_time",
            SqlType::Json => "as_json",
            SqlType::Uuid => "as_uuid",
            SqlType::File => "as_file",
            _ => "as_embedding",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.sql_type.arrow())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), self.sql_type.arrow(), true)))
    }

    /// A constant that does not fit is told of before any row is read.
    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        if let [Expr::Literal(constant, None)] = args.as_slice() {
            self.value(constant, false)?;
        }
        Ok(ExprSimplifyResult::Original(args))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_document = args.arg_fields.iter().any(|field| documents::is_document(field));
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let mut values = Vec::with_capacity(args.number_rows);
        for array in ColumnarValue::values_to_arrays(&args.args)? {
            for at in 0..array.len() {
                values.push(self.value(&ScalarValue::try_from_array(&array, at)?, is_document)?);
            }
        }
        let array = rows::array_of(self.sql_type, values.iter());
        let array = array.map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(if is_scalar {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
        } else {
            ColumnarValue::Array(array)
        })
    }
}
