//! Comparisons of UUID columns. They hold texts in lower case with hyphens, so that whatever they are compared with takes that form first:
//! a UUID is the same however it is written.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use kalamdb_engine::schema::SqlType;
use uuid::Uuid;

use crate::sql_types::{SqlTypes, Tables};

/// The plan, in which everything that a UUID is compared with is written as UUIDs are.
pub fn normalise(plan: LogicalPlan, tables: Tables<'_>) -> Result<LogicalPlan> {
    if !reads_uuids(&plan, tables)? {
        return Ok(plan);
    }
    let plan = plan.transform_up_with_subqueries(|plan| {
        // The nodes are looked at as they are, and made anew beside them.
        let before = plan.clone();
        let (inputs, types) = (before.inputs(), SqlTypes::new(tables));
        let names = NamePreserver::new(&plan);
        let rewritten = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| Ok(compared(expr, &types, &inputs)))?;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })?;
        rewritten.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(plan.data)
}

fn reads_uuids(plan: &LogicalPlan, tables: Tables<'_>) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::TableScan(scan) = plan {
            let table = tables.get(&scan.table_name);
            found |= table.is_some_and(|table| table.columns.iter().any(|column| column.sql_type == SqlType::Uuid));
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn compared(expr: Expr, types: &SqlTypes<'_>, inputs: &[&LogicalPlan]) -> Transformed<Expr> {
    let is_uuid = |expr: &Expr| types.of_expr(expr, inputs) == Some(SqlType::Uuid);
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (left, right) = match (is_uuid(&left), is_uuid(&right)) {
                (true, false) => (left, Box::new(written(*right))),
                (false, true) => (Box::new(written(*left)), right),
                _ => return Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            };
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::InList(InList { expr, list, negated }) if is_uuid(&expr) => {
            let item = |item| if is_uuid(&item) { item } else { written(item) };
            Transformed::yes(Expr::InList(InList { expr, list: list.into_iter().map(item).collect(), negated }))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_uuid(&expr) => {
            let bound = |bound: Box<Expr>| if is_uuid(&bound) { bound } else { Box::new(written(*bound)) };
            Transformed::yes(Expr::Between(Between { expr, negated, low: bound(low), high: bound(high) }))
        }
        other => Transformed::no(other),
    }
}

fn compares(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// The expression's text as a UUID is written; constants become one when the plan is simplified. Columns of an outer query stay, for joins are
/// made of them.
fn written(expr: Expr) -> Expr {
    let is_null = matches!(&expr, Expr::Literal(value, _) if value.is_null());
    if is_null || expr.contains_outer() { expr } else { ScalarUDF::from(Canonical::default()).call(vec![expr]) }
}

/// A text that is a UUID in any way, in lower case with hyphens; any other text as it is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical {
    signature: Signature,
}

impl Default for Canonical {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &str {
        "uuid_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let given = ColumnarValue::values_to_arrays(&args.args)?;
        let mut texts: Vec<Option<String>> = vec![None; rows];
        for array in given {
            let array = cast(&array, &DataType::Utf8)?;
            texts = array.as_string::<i32>().iter().map(|text| text.map(canonical)).collect();
        }
        let texts: ArrayRef = Arc::new(StringArray::from(texts));
        if is_scalar {
            return Ok(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&texts, 0)?));
        }
        Ok(ColumnarValue::Array(texts))
    }
}

fn canonical(text: &str) -> String {
    Uuid::try_parse(text.trim()).map_or_else(|_| text.to_owned(), |uuid| uuid.hyphenated().to_string())
}
