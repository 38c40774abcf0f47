//! Arithmetic of integers that never wraps: a sum, difference or product beyond its type is an error and not another number.
//!
//! DataFusion's own operators wrap. After its coercion of types, each of them between integers becomes a function that does not.

use arrow::compute::kernels::numeric;
use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr_common::datum::apply;
use datafusion::scalar::ScalarValue;

/// The rule for plans.
#[derive(Debug, Default)]
pub struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|plan| {
            // Its numbers are counts of rows, which DataFusion must be able to read.
            if matches!(plan, LogicalPlan::Limit(_)) {
                return Ok(Transformed::no(plan));
            }
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let rewritten = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let rewritten = expr.transform_up(|expr| Ok(checked(expr, &schema)))?;
                Ok(rewritten.update_data(|expr| name.restore(expr)))
            })?;
            if rewritten.transformed { rewritten.map_data(LogicalPlan::recompute_schema) } else { Ok(rewritten) }
        })?;
        Ok(plan.data)
    }
}

/// The same for one expression whose types are coerced.
pub fn arithmetic(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(expr.transform_up(|expr| Ok(checked(expr, schema)))?.data)
}

fn checked(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if can_overflow(op) => {
            match (integer(&left, schema), integer(&right, schema)) {
                (Some(of), Some(other)) if of == other => {
                    Transformed::yes(ScalarUDF::from(Checked::new(op, of)).call(vec![*left, *right]))
                }
                _ => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            }
        }
        // The least integer has no opposite.
        Expr::Negative(inner) => match integer(&inner, schema).map(|of| (ScalarValue::new_zero(&of), of)) {
            Some((Ok(zero), of)) => {
                let zero = Expr::Literal(zero, None);
                Transformed::yes(ScalarUDF::from(Checked::new(Operator::Minus, of)).call(vec![zero, *inner]))
            }
            _ => Transformed::no(Expr::Negative(inner)),
        },
        other => Transformed::no(other),
    }
}

fn can_overflow(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
}

/// Its type, if that is one of integers. What was made here says it without a look at what it is made of.
fn integer(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    if let Expr::ScalarFunction(ScalarFunction { func, .. }) = expr
        && let Some(checked) = func.inner().downcast_ref::<Checked>()
    {
        return Some(checked.of.clone());
    }
    expr.get_type(schema).ok().filter(DataType::is_integer)
}

/// One operator between integers of one type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Operator,
    of: DataType,
    signature: Signature,
}

impl Checked {
    fn new(op: Operator, of: DataType) -> Self {
        let signature = Signature::exact(vec![of.clone(), of.clone()], Volatility::Immutable);
        Self { op, of, signature }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_subtract",
            _ => "checked_multiply",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.of.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return Err(DataFusionError::Internal(format!("{} of {} values", self.name(), args.args.len())));
        };
        match self.op {
            Operator::Plus => apply(left, right, numeric::add),
            Operator::Minus => apply(left, right, numeric::sub),
            _ => apply(left, right, numeric::mul),
        }
    }
}
