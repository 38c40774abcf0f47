//! Comparisons of UUID columns. They hold texts in lower case with hyphens, so that whatever they are compared with takes that form first:
//! a UUID is the same however it is written.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, Case, InList, InSubquery, SetComparison};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Filter, Join, JoinConstraint, LogicalPlan, LogicalPlanBuilder, Operator,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Subquery, Volatility, lit,
};
use kalamdb_engine::schema::{SqlType, Table};
use uuid::Uuid;

use crate::sql_types::{SqlTypes, Tables};

/// Functions that compare their arguments, or the elements of them, with each other.
const COMPARING: [&str; 6] = ["nullif", "greatest", "least", "array_has", "array_has_any", "array_has_all"];
/// The function that writes a text as UUIDs are.
const CANONICAL: &str = "uuid_text";
/// What `ARRAY[…]` is.
const ARRAY: &str = "make_array";
/// What `(a, b)` is.
const ROW: &str = "struct";

/// The plan, in which everything that a UUID is compared with is written as UUIDs are.
pub fn normalise(plan: LogicalPlan, tables: Tables<'_>) -> Result<LogicalPlan> {
    if !reads_uuids(&plan, tables)? {
        return Ok(plan);
    }
    let types = SqlTypes::new(&plan, tables)?;
    normalise_nodes(plan, &types)
}

/// The expression over columns of that plan, likewise. It holds no subqueries.
pub fn normalise_expr(expr: Expr, types: &SqlTypes<'_>, input: &LogicalPlan) -> Result<Expr> {
    let comparisons = Comparisons { types, inputs: &[input] };
    Ok(expr.transform_up(|expr| comparisons.normalise(expr))?.data)
}

/// Whether a column of the table is a UUID.
pub fn has_uuids(table: &Table) -> bool {
    table.columns.iter().any(|column| column.sql_type == SqlType::Uuid)
}

fn reads_uuids(plan: &LogicalPlan, tables: Tables<'_>) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::TableScan(scan) = plan {
            found |= tables.get(&scan.table_name).is_some_and(has_uuids);
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn normalise_nodes(plan: LogicalPlan, types: &SqlTypes<'_>) -> Result<LogicalPlan> {
    Ok(plan.transform_up(|plan| normalise_node(plan, types).map(Transformed::yes))?.data)
}

/// One node whose inputs are done, and the subqueries of its expressions.
fn normalise_node(plan: LogicalPlan, types: &SqlTypes<'_>) -> Result<LogicalPlan> {
    // The node is looked at as it is, and made anew beside it.
    let before = plan.clone();
    let inputs = before.inputs();
    let (here, below) = (types.within(&[]), types.within(&inputs));
    let plan = plan.map_subqueries(|subquery| normalise_nodes(subquery, &below).map(Transformed::yes))?.data;
    let comparisons = Comparisons { types: &here, inputs: &inputs };
    let names = NamePreserver::new(&plan);
    let plan = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|expr| comparisons.normalise(expr))?;
        Ok(rewritten.update_data(|expr| name.restore(expr)))
    })?;
    match plan.data {
        LogicalPlan::Join(join) => LogicalPlan::Join(comparisons.normalise_join(join)).recompute_schema(),
        LogicalPlan::Filter(filter) => correlated_by_columns(filter),
        other => other.recompute_schema(),
    }
}

/// A subquery that aggregates may only compare its columns with those of outer queries: a text that is written for that is computed as a column
/// below the filter.
fn correlated_by_columns(filter: Filter) -> Result<LogicalPlan> {
    let mut computed: Vec<Expr> = Vec::new();
    let conjuncts = split_conjunction(&filter.predicate).into_iter().map(|conjunct| {
        if !conjunct.contains_outer() {
            return Ok(conjunct.clone());
        }
        let by_column = conjunct.clone().transform_down(|expr| {
            if !is_call(&expr, CANONICAL) || expr.contains_outer() || !expr.any_column_refs() {
                return Ok(Transformed::no(expr));
            }
            let column = Expr::Column(Column::new_unqualified(expr.schema_name().to_string()));
            if !computed.contains(&expr) {
                computed.push(expr);
            }
            Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
        })?;
        Ok(by_column.data)
    });
    let conjuncts = conjuncts.collect::<Result<Vec<_>>>()?;
    if computed.is_empty() {
        return LogicalPlan::Filter(filter).recompute_schema();
    }
    let input = Arc::unwrap_or_clone(filter.input);
    let own: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let with_computed = LogicalPlanBuilder::from(input).project(own.iter().cloned().chain(computed))?;
    with_computed.filter(conjunction(conjuncts).unwrap_or_else(|| lit(true)))?.project(own)?.build()
}

/// Finds what is compared with a UUID in expressions over those plans.
struct Comparisons<'a> {
    types: &'a SqlTypes<'a>,
    inputs: &'a [&'a LogicalPlan],
}

impl Comparisons<'_> {
    fn normalise(&self, mut expr: Expr) -> Result<Transformed<Expr>> {
        let is_changed = match &mut expr {
            Expr::InSubquery(InSubquery { expr, subquery, .. })
            | Expr::SetComparison(SetComparison { expr, subquery, .. }) => self.normalise_rows(expr, subquery)?,
            other => self.normalise_operands(operands(other)),
        };
        Ok(Transformed::new_transformed(expr, is_changed))
    }

    /// The columns that USING and set operations join by. They must be columns for USING, which means nothing any more in a plan.
    fn normalise_join(&self, mut join: Join) -> Join {
        for (left, right) in &mut join.on {
            if self.normalise_operands(vec![left, right]) {
                join.join_constraint = JoinConstraint::On;
            }
        }
        join
    }

    /// An operand and the rows of a subquery.
    fn normalise_rows(&self, operand: &mut Expr, subquery: &mut Subquery) -> Result<bool> {
        let of_rows = self.types.within(&[]).of_column(&subquery.subquery, 0) == Some(SqlType::Uuid);
        match (self.is_uuid(operand), of_rows) {
            (true, false) => subquery.subquery = Arc::new(written_rows(&subquery.subquery)?),
            (false, true) => return Ok(self.write(operand)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Operands that are compared with each other: rows place by place, arrays by their elements.
    fn normalise_operands(&self, operands: Vec<&mut Expr>) -> bool {
        let mut is_changed = false;
        if operands.iter().all(|operand| is_call(operand, ROW)) {
            let mut rows: Vec<_> = operands.into_iter().map(|row| arguments(row, ROW).into_iter()).collect();
            loop {
                let column: Vec<&mut Expr> = rows.iter_mut().filter_map(Iterator::next).collect();
                if column.is_empty() {
                    return is_changed;
                }
                is_changed |= self.normalise_operands(column);
            }
        }
        let operands: Vec<&mut Expr> = operands.into_iter().flat_map(|operand| arguments(operand, ARRAY)).collect();
        if operands.iter().any(|operand| self.is_uuid(operand)) {
            for operand in operands {
                is_changed |= !self.is_uuid(operand) && self.write(operand);
            }
        }
        is_changed
    }

    fn is_uuid(&self, expr: &Expr) -> bool {
        self.types.of_expr(expr, self.inputs) == Some(SqlType::Uuid)
    }

    /// Makes the operand its text as a UUID is written; constants become one when the plan is simplified. Columns of an outer query of
    /// which nothing is known stay, for joins are made of them.
    fn write(&self, operand: &mut Expr) -> bool {
        let is_null = matches!(operand, Expr::Literal(value, _) if value.is_null());
        let is_unknown =
            |expr: &Expr| matches!(expr, Expr::OuterReferenceColumn(_, column) if !self.types.knows_outer(column));
        if is_null || operand.exists(|expr| Ok(is_unknown(expr))).unwrap_or(true) {
            return false;
        }
        *operand = written(std::mem::take(operand));
        true
    }
}

/// What the expression compares with each other.
fn operands(expr: &mut Expr) -> Vec<&mut Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => vec![left, right],
        Expr::InList(InList { expr, list, .. }) => std::iter::once(expr.as_mut()).chain(list).collect(),
        Expr::Between(Between { expr, low, high, .. }) => vec![expr, low, high],
        Expr::Case(Case { expr: Some(expr), when_then_expr, .. }) => {
            std::iter::once(expr).chain(when_then_expr.iter_mut().map(|(when, _)| when)).map(AsMut::as_mut).collect()
        }
        Expr::ScalarFunction(function) if COMPARING.contains(&function.func.name()) => {
            function.args.iter_mut().collect()
        }
        _ => Vec::new(),
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

fn is_call(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if function.func.name() == name)
}

/// The arguments of a call of that function; anything else by itself.
fn arguments<'e>(expr: &'e mut Expr, name: &str) -> Vec<&'e mut Expr> {
    if !is_call(expr, name) {
        return vec![expr];
    }
    match expr {
        Expr::ScalarFunction(function) => function.args.iter_mut().collect(),
        _ => Vec::new(),
    }
}

fn written(expr: Expr) -> Expr {
    ScalarUDF::from(Canonical::default()).call(vec![expr])
}

/// The subquery's rows with their one column written as UUIDs are.
fn written_rows(subquery: &LogicalPlan) -> Result<LogicalPlan> {
    let (qualifier, field) = subquery.schema().qualified_field(0);
    let column = written(Expr::Column(Column::from((qualifier, field))));
    let column = column.alias_qualified(qualifier.cloned(), field.name());
    LogicalPlanBuilder::from(subquery.clone()).project([column])?.build()
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
        CANONICAL
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
