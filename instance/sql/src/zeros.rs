//! Sorts in which `-0.0` and `0.0` are equal, as they are in comparisons, groups and PostgreSQL. DataFusion's sort orders one before the other,
//! its `LIMIT` beside `ORDER BY` holds them for equal: without this, the limit would take other rows than the first ones of the sort.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, SortExpr, lit};
use datafusion::optimizer::AnalyzerRule;

/// Sort keys of FLOAT and DOUBLE are sorted as `key + 0.0`, which makes one zero of both and leaves every other value as it is.
#[derive(Debug)]
pub struct EqualZeros;

impl AnalyzerRule for EqualZeros {
    fn name(&self) -> &str {
        "equal_zeros"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let LogicalPlan::Sort(mut sort) = plan else { return Ok(Transformed::no(plan)) };
            let key = |key: SortExpr| -> Result<SortExpr> {
                let zero = match key.expr.get_type(sort.input.schema())? {
                    DataType::Float32 => lit(0.0_f32),
                    DataType::Float64 => lit(0.0_f64),
                    _ => return Ok(key),
                };
                Ok(SortExpr { expr: with_one_zero(key.expr, zero), ..key })
            };
            sort.expr = sort.expr.into_iter().map(key).collect::<Result<_>>()?;
            Ok(Transformed::yes(LogicalPlan::Sort(sort)))
        })
        .map(|transformed| transformed.data)
    }
}

/// A plan may be analysed more than once.
fn with_one_zero(key: Expr, zero: Expr) -> Expr {
    match &key {
        Expr::BinaryExpr(BinaryExpr { op: Operator::Plus, right, .. }) if **right == zero => key,
        _ => key + zero,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, AsArray, Float32Array, Float64Array, Int32Array, RecordBatch};
    use datafusion::arrow::compute::concat_batches;
    use datafusion::arrow::datatypes::Int32Type;
    use datafusion::datasource::MemTable;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    const ZEROS: [f64; 2] = [-0.0, 0.0];

    /// Rows 1 to 5 with the one zero, 10 to 15 with the other, and 20 to 25 with what is neither.
    fn session(first: usize) -> SessionContext {
        let others = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, -f64::MIN_POSITIVE, 1.5];
        let rows = |ids: std::ops::RangeInclusive<i32>, of: &dyn Fn(i32) -> f64| {
            let doubles: Vec<_> = ids.clone().map(of).collect();
            let columns: [(&str, ArrayRef); 3] = [
                ("id", Arc::new(Int32Array::from_iter_values(ids))),
                ("f", Arc::new(Float32Array::from_iter_values(doubles.iter().map(|double| *double as f32)))),
                ("d", Arc::new(Float64Array::from(doubles))),
            ];
            RecordBatch::try_from_iter(columns).unwrap()
        };
        let batches = vec![
            rows(1..=5, &|_| ZEROS[first]),
            rows(10..=15, &|_| ZEROS[1 - first]),
            rows(20..=25, &|id| others[id as usize - 20]),
        ];
        let config = SessionConfig::new().with_target_partitions(1).with_batch_size(4);
        let state = SessionStateBuilder::new().with_config(config).with_default_features();
        let session = SessionContext::new_with_state(state.with_analyzer_rule(Arc::new(EqualZeros)).build());
        let table = MemTable::try_new(batches[0].schema(), vec![batches]).unwrap();
        session.register_table("t", Arc::new(table)).unwrap();
        session
    }

    async fn ids(session: &SessionContext, sql: &str) -> Vec<i32> {
        let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
        let all = concat_batches(&batches[0].schema(), &batches).unwrap();
        all.column(0).as_primitive::<Int32Type>().values().to_vec()
    }

    #[tokio::test]
    async fn a_limit_takes_the_first_rows_of_the_sort_whichever_zero_they_have() {
        let ascending = [22, 24, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 23, 25, 21, 20];
        for session in [0, 1].map(session) {
            for column in ["d", "f"] {
                // The smallest double is a zero among floats, of either sign.
                let without = if column == "f" { "WHERE id < 23 OR id > 24" } else { "" };
                for direction in ["ASC", "DESC"] {
                    let sort = format!("SELECT id FROM t {without} ORDER BY {column} {direction}, id");
                    let all = ids(&session, &sort).await;
                    let mut wanted = ascending.to_vec();
                    wanted.retain(|id| column == "d" || ![23, 24].contains(id));
                    if direction == "DESC" {
                        wanted.reverse();
                        let zeros = wanted.iter().position(|id| *id == 15).unwrap();
                        wanted[zeros..zeros + 11].reverse();
                    }
                    assert_eq!(all, wanted, "{sort}");
                    for limit in 1..=all.len() {
                        assert_eq!(ids(&session, &format!("{sort} LIMIT {limit}")).await, all[..limit], "{limit}");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn a_plan_that_is_analysed_twice_stays_as_it_is() {
        let session = session(0);
        let plan = session.sql("SELECT id FROM t ORDER BY d").await.unwrap().into_unoptimized_plan();
        let options = ConfigOptions::default();
        let once = EqualZeros.analyze(plan, &options).unwrap();
        assert!(once.to_string().contains("t.d + Float64(0)"), "{once}");
        assert_eq!(EqualZeros.analyze(once.clone(), &options).unwrap(), once);
    }
}
