//! What values of different types mean beside each other, where DataFusion would lose something: times are compared by their microseconds, of
//! any year, with integers and texts too; parts of JSON documents by what they say. Its own coercion comes after this, and finds nothing to do.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{
    AggregateFunction, Between, Case, Cast, InList, InSubquery, Like, Placeholder, ScalarFunction, SetComparison,
    TryCast,
};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlanBuilder, Operator, Subquery};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::BinaryOperator;
use kalamdb_engine::schema::SqlType;

use crate::{conversions, documents};

/// Functions that compare their arguments with each other.
const COMPARING: [&str; 3] = ["nullif", "greatest", "least"];

/// A rule of the analyzer, which knows all types; and one of the planner, for comparisons that DataFusion would refuse at once.
#[derive(Debug)]
pub struct Coercion;

impl FunctionRewrite for Coercion {
    fn name(&self) -> &str {
        "kalamdb_coercion"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        coerced(expr, schema)
    }
}

impl ExprPlanner for Coercion {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let Some(op) = comparison(&expr.op) else { return Ok(PlannerResult::Original(expr)) };
        let (mut left, mut right) = (expr.left.clone(), expr.right.clone());
        let written = Expr::BinaryExpr(BinaryExpr::new(Box::new(expr.left.clone()), op, Box::new(expr.right.clone())));
        let is_changed = beside_unknown(&mut left, &right, schema)
            || beside_unknown(&mut right, &left, schema)
            || (written.get_type(schema).is_err() && align(vec![&mut left, &mut right], schema));
        if !is_changed {
            return Ok(PlannerResult::Original(expr));
        }
        let compared = Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
        Ok(PlannerResult::Planned(compared.alias(written.schema_name().to_string())))
    }
}

/// The expression over rows of that schema, all of it.
pub fn coerce(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(expr.transform_up(|expr| coerced(expr, schema))?.data)
}

fn comparison(op: &BinaryOperator) -> Option<Operator> {
    Some(match op {
        BinaryOperator::Eq => Operator::Eq,
        BinaryOperator::NotEq => Operator::NotEq,
        BinaryOperator::Lt => Operator::Lt,
        BinaryOperator::LtEq => Operator::LtEq,
        BinaryOperator::Gt => Operator::Gt,
        BinaryOperator::GtEq => Operator::GtEq,
        _ => return None,
    })
}

/// A parameter whose type comes later, beside a time.
fn beside_unknown(operand: &mut Expr, other: &Expr, schema: &DFSchema) -> bool {
    if !matches!(operand, Expr::Placeholder(Placeholder { field: None, .. })) {
        return false;
    }
    let time = match other.get_type(schema) {
        Ok(DataType::Timestamp(..)) => SqlType::Timestamp,
        Ok(DataType::Time64(_)) => SqlType::Time,
        _ => return false,
    };
    *operand = conversions::convert(std::mem::take(operand), time, false);
    true
}

/// One node of an expression.
fn coerced(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_changed = match &mut expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            texts(vec![left.as_mut(), right.as_mut()], schema)
        }
        Expr::Like(Like { expr, pattern, .. }) | Expr::SimilarTo(Like { expr, pattern, .. }) => {
            texts(vec![expr.as_mut(), pattern.as_mut()], schema)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => {
            align(vec![left.as_mut(), right.as_mut()], schema)
        }
        Expr::InList(InList { expr, list, .. }) => align(std::iter::once(expr.as_mut()).chain(list).collect(), schema),
        Expr::Between(Between { expr, low, high, .. }) => {
            align(vec![expr.as_mut(), low.as_mut(), high.as_mut()], schema)
        }
        Expr::Case(Case { expr: Some(expr), when_then_expr, .. }) => {
            let whens = when_then_expr.iter_mut().map(|(when, _)| when.as_mut());
            align(std::iter::once(expr.as_mut()).chain(whens).collect(), schema)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            align_timestamps(vec![left.as_mut(), right.as_mut()], schema, is_timestamp)
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if COMPARING.contains(&func.name()) => {
            align_timestamps(args.iter_mut().collect(), schema, is_moment)
        }
        Expr::AggregateFunction(AggregateFunction { params, .. }) if params.distinct && params.order_by.is_empty() => {
            with_one_zero(&mut params.args, schema)?
        }
        Expr::InSubquery(InSubquery { expr, subquery, .. })
        | Expr::SetComparison(SetComparison { expr, subquery, .. }) => align_rows(expr, subquery, schema)?,
        _ => return Ok(converted(expr, schema)),
    };
    Ok(Transformed::new_transformed(expr, is_changed))
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// CASTs to types of which Arrow knows nothing, and those of parts of documents.
fn converted(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let (or_null, inner, target) = match expr {
        Expr::Cast(Cast { expr, field }) => (false, expr, field),
        Expr::TryCast(TryCast { expr, field }) => (true, expr, field),
        other => return Transformed::no(other),
    };
    if let Some(sql_type) = conversions::wanted(&target) {
        return Transformed::yes(conversions::convert(*inner, sql_type, or_null));
    }
    let again = |expr, field| match or_null {
        true => Expr::TryCast(TryCast { expr, field }),
        false => Expr::Cast(Cast { expr, field }),
    };
    if !inner.to_field(schema).is_ok_and(|(_, field)| documents::is_document(&field)) {
        return Transformed::no(again(inner, target));
    }
    Transformed::yes(match documents::cast_to(*inner, target.data_type()) {
        Expr::Cast(Cast { expr, field }) => again(expr, field),
        other => other,
    })
}

/// An operand and the rows of a subquery.
fn align_rows(operand: &mut Expr, subquery: &mut Subquery, schema: &DFSchema) -> Result<bool> {
    let Ok((_, field)) = operand.to_field(schema) else { return Ok(false) };
    let (qualifier, of_rows) = subquery.subquery.schema().qualified_field(0);
    let (qualifier, of_rows) = (qualifier.cloned(), Arc::clone(of_rows));
    let mut column = Expr::Column(Column::new(qualifier.clone(), of_rows.name()));
    let is_changed = align_fields(vec![operand, &mut column], vec![field, Arc::clone(&of_rows)]);
    if !matches!(column, Expr::Column(_)) {
        let column = column.alias_qualified(qualifier, of_rows.name());
        subquery.subquery =
            Arc::new(LogicalPlanBuilder::from(subquery.subquery.as_ref().clone()).project([column])?.build()?);
    }
    Ok(is_changed)
}

/// Parts of documents among the operands are texts.
fn texts(operands: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    let mut is_changed = false;
    for operand in operands {
        if operand.to_field(schema).is_ok_and(|(_, field)| documents::is_document(&field)) {
            *operand = documents::said(std::mem::take(operand), DataType::Utf8);
            is_changed = true;
        }
    }
    is_changed
}

/// Gives operands that are compared with each other types in which nothing is lost; whether any was changed.
fn align(operands: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    fields(&operands, schema).is_ok_and(|fields| align_fields(operands, fields))
}

/// The same for operands that are all of the kind, one of them a timestamp, and no part of a document.
fn align_timestamps(operands: Vec<&mut Expr>, schema: &DFSchema, kind: fn(&DataType) -> bool) -> bool {
    fields(&operands, schema).is_ok_and(|fields| {
        let fits = |field: &FieldRef| kind(field.data_type()) && !documents::is_document(field);
        let has_timestamp = fields.iter().any(|field| is_timestamp(field.data_type()));
        has_timestamp && fields.iter().all(fits) && align_fields(operands, fields)
    })
}

fn fields(operands: &[&mut Expr], schema: &DFSchema) -> Result<Vec<FieldRef>> {
    operands.iter().map(|operand| operand.to_field(schema).map(|(_, field)| field)).collect()
}

/// What an aggregate of distinct values is given: it tells -0.0 and 0.0 apart, which are equal everywhere else. Adding zero makes one of them.
fn with_one_zero(args: &mut [Expr], schema: &DFSchema) -> Result<bool> {
    let mut is_changed = false;
    for arg in args {
        if let Some(float) = arg.get_type(schema).ok().filter(DataType::is_floating) {
            *arg = std::mem::take(arg) + Expr::Literal(ScalarValue::new_zero(&float)?, None);
            is_changed = true;
        }
    }
    Ok(is_changed)
}

fn align_fields(mut operands: Vec<&mut Expr>, fields: Vec<FieldRef>) -> bool {
    let other = fields.iter().find(|field| !documents::is_document(field) && *field.data_type() != DataType::Null);
    let said = other.map(|other| documents::compared_with(other.data_type()));
    let mut is_changed = false;
    let mut types = Vec::with_capacity(fields.len());
    for (operand, field) in operands.iter_mut().zip(&fields) {
        match &said {
            Some(said) if documents::is_document(field) => {
                **operand = documents::said(std::mem::take(&mut **operand), said.clone());
                is_changed = true;
                types.push(said.clone());
            }
            _ => types.push(field.data_type().clone()),
        }
    }
    let Some(common) = common_time(&types) else { return is_changed };
    for (operand, of) in operands.into_iter().zip(&types) {
        if *of != common.arrow() && *of != DataType::Null {
            *operand = as_time(std::mem::take(operand), of, common);
        }
    }
    true
}

/// The time that all of them can be, where they are not of one type already; none where that is not for us to say.
fn common_time(types: &[DataType]) -> Option<SqlType> {
    let all = |fits: fn(&DataType) -> bool| types.iter().all(|of| *of == DataType::Null || fits(of));
    let mut known = types.iter().filter(|of| **of != DataType::Null);
    let first = known.next()?;
    if known.all(|of| of == first) {
        return None;
    }
    if types.iter().any(is_timestamp) && all(is_moment) {
        return Some(SqlType::Timestamp);
    }
    let is_of_day = |of: &DataType| of.is_integer() || of.is_string() || matches!(of, DataType::Time64(_));
    (types.iter().any(|of| matches!(of, DataType::Time64(_))) && all(is_of_day)).then_some(SqlType::Time)
}

fn is_moment(of: &DataType) -> bool {
    of.is_string() || of.is_integer() || is_timestamp(of) || matches!(of, DataType::Date32 | DataType::Date64)
}

fn is_timestamp(of: &DataType) -> bool {
    matches!(of, DataType::Timestamp(..))
}

fn as_time(operand: Expr, of: &DataType, time: SqlType) -> Expr {
    if of.is_string() || of.is_integer() {
        return conversions::convert(operand, time, false);
    }
    Expr::Cast(Cast::new(Box::new(operand), time.arrow()))
}
