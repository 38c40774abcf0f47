//! `a || b` as the call of a function, so that it has a bound as others have: each `||` of a text with itself doubles it.

use std::sync::Arc;

use arrow::compute::kernels::concat_elements::concat_elements_dyn;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::Bounded;

/// Comes after the operands were brought to one type.
#[derive(Debug)]
pub(super) struct Concatenations(Arc<ScalarUDF>);

impl Concatenations {
    pub(super) fn new(most_bytes: usize) -> Self {
        let plain = Arc::new(ScalarUDF::from(Concatenate(Signature::any(2, Volatility::Immutable))));
        Self(Bounded::of(&plain, most_bytes).map_or(plain, Arc::new))
    }

    fn rewrite(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let (schema, names) = (merge_schema(&plan.inputs()), NamePreserver::new(&plan));
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let called = expr.transform_up(|expr| Ok(self.call(expr, &schema)))?;
            Ok(called.update_data(|expr| name.restore(expr)))
        })
    }

    fn call(&self, expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right })
                if is_text(&left, schema) && is_text(&right, schema) =>
            {
                let call = ScalarFunction::new_udf(Arc::clone(&self.0), vec![*left, *right]);
                Transformed::yes(Expr::ScalarFunction(call))
            }
            other => Transformed::no(other),
        }
    }
}

fn is_text(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|data_type| data_type.is_string())
}

impl AnalyzerRule for Concatenations {
    fn name(&self) -> &str {
        "concatenations"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| self.rewrite(plan)).map(|rewritten| rewritten.data)
    }
}

/// Of two texts of one type; NULL where one of them is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Concatenate(Signature);

impl ScalarUDFImpl for Concatenate {
    fn name(&self) -> &str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Utf8))
    }

    /// As the operator's: not NULL where no operand is.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let is_nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, is_nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = ColumnarValue::values_to_arrays(&args.args)?;
        Ok(ColumnarValue::Array(concat_elements_dyn(&texts[0], &texts[1])?))
    }
}
