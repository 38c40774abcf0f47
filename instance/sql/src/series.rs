//! `generate_series` and `range` in FROM, over our TIMESTAMP: DataFusion's take nanoseconds alone.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;

/// Lets the session's functions take microseconds too.
pub fn bind(session: &mut SessionState) {
    for name in ["generate_series", "range"] {
        if let Some(function) = session.table_functions().get(name) {
            let series = Series(Arc::clone(function.function()));
            session.register_udtf(name, Arc::new(series));
        }
    }
}

#[derive(Debug)]
struct Series(Arc<dyn TableFunctionImpl>);

impl TableFunctionImpl for Series {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let exprs: Vec<Expr> = args.exprs().iter().map(in_nanoseconds).collect::<Result<_>>()?;
        self.0.call_with_args(TableFunctionArgs::new(&exprs, args.session()))
    }
}

fn in_nanoseconds(expr: &Expr) -> Result<Expr> {
    Ok(match expr {
        Expr::Literal(moment @ ScalarValue::TimestampMicrosecond(_, zone), metadata) => {
            let nanoseconds = moment.cast_to(&DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()))?;
            Expr::Literal(nanoseconds, metadata.clone())
        }
        other => other.clone(),
    })
}
