//! Functions whose result can be far larger than their arguments: `repeat('x', 2000000000)` is short. They are told how large their result
//! will be before they make it, and refuse what goes beyond a bound; what they have made counts in the memory of its query for as long as
//! it is held.
//!
//! Constants are computed while a query is planned, and stay in its plan. Those that are larger than a parameter may be are computed when
//! it runs.

mod account;
mod operator;
mod size;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{ScalarValue, exec_datafusion_err};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::bind::literal::MAX_PARAMETER_BYTES;

pub use account::Account;
use operator::Concatenations;
use size::Growth;

/// The largest constant that stays in a plan, in bytes.
const LARGEST_CONSTANT: f64 = MAX_PARAMETER_BYTES as f64;
/// Results up to so many bytes are not counted.
const SMALL: f64 = (64 << 10) as f64;
/// Steps of a function that compares everything with everything: some seconds, in which nobody can stop it.
const MOST_STEPS: f64 = 4e9;

/// Puts a bound on those functions of the session that need one: a call makes at most so many bytes more than it was given.
pub fn bound(state: &mut SessionState, most_bytes: usize) -> Result<()> {
    let functions: Vec<_> = state.scalar_functions().values().cloned().collect();
    for function in functions {
        if let Some(bounded) = Bounded::of(&function, most_bytes) {
            state.register_udf(Arc::new(bounded))?;
        }
    }
    state.add_analyzer_rule(Arc::new(Concatenations::new(most_bytes)));
    Ok(())
}

/// A function that looks at its arguments before it is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
    most_bytes: usize,
}

impl Bounded {
    /// None where the function needs no bound.
    fn of(inner: &Arc<ScalarUDF>, most_bytes: usize) -> Option<ScalarUDF> {
        let growth = Growth::of(inner.name())?;
        Some(ScalarUDF::from(Self { inner: Arc::clone(inner), growth, most_bytes }))
    }

    /// All arguments are constants, and so is the result.
    fn constant(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (rows, options) = (args.number_rows, Arc::clone(&args.config_options));
        let account = Account::of(&options);
        let most = if account.is_some_and(Account::is_planning) { LARGEST_CONSTANT } else { self.most_bytes as f64 };
        let size = self.growth.sizes(&args.args, 1)?.iter().sum();
        self.check(size, most)?;
        let reserved = account.map(|account| account.reserve(self.name(), size as usize)).transpose()?;
        let made = match self.inner.invoke_with_args(ScalarFunctionArgs { number_rows: 1, ..args })? {
            ColumnarValue::Scalar(made) => made,
            ColumnarValue::Array(made) => ScalarValue::try_from_array(&made, 0)?,
        };
        // Whoever takes it may lay it out once for each row.
        let size = made.size() as f64;
        if size > LARGEST_CONSTANT {
            self.check(size * rows as f64, most)?;
        }
        drop(reserved);
        account.map_or(Ok(()), |account| account.keep(&made))?;
        Ok(ColumnarValue::Scalar(made))
    }

    /// Where the sizes are too pessimistic for all rows together, some at a time are computed, until it is certain.
    fn column(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let sizes = self.growth.sizes(&args.args, args.number_rows)?;
        let given = args.args.iter().map(given_bytes).sum::<Result<f64>>()?;
        let most = self.most_bytes as f64 + given;
        if sizes.iter().sum::<f64>() <= most {
            return self.call(args, sizes.iter().sum());
        }
        let (mut parts, mut made, mut from) = (Vec::new(), 0.0, 0);
        while from < sizes.len() {
            let (to, size) = piece(&sizes, from, most);
            self.check(size, most)?;
            let part = self.call(rows_of(&args, from, to), size)?.into_array(to - from)?;
            made += part.get_array_memory_size() as f64;
            self.check(made, most)?;
            parts.push(part);
            from = to;
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        let whole = concat(&parts)?;
        match Account::of(&args.config_options) {
            Some(account) => {
                account.hold(whole, account.reserve(self.name(), made as usize)?).map(ColumnarValue::Array)
            }
            None => Ok(ColumnarValue::Array(whole)),
        }
    }

    fn call(&self, args: ScalarFunctionArgs, size: f64) -> Result<ColumnarValue> {
        let (options, rows) = (Arc::clone(&args.config_options), args.number_rows);
        let Some(account) = Account::of(&options).filter(|_| size > SMALL) else {
            return self.inner.invoke_with_args(args);
        };
        let reserved = account.reserve(self.name(), size as usize)?;
        let made = self.inner.invoke_with_args(args)?.into_array(rows)?;
        account.hold(made, reserved).map(ColumnarValue::Array)
    }

    fn check(&self, size: f64, most: f64) -> Result<()> {
        if size <= most {
            return Ok(());
        }
        Err(DataFusionError::ResourcesExhausted(format!(
            "{} would make {size:.0} bytes at once, of the {most:.0} that it may",
            self.name()
        )))
    }

    fn check_steps(&self, args: &ScalarFunctionArgs) -> Result<()> {
        let steps: f64 = self.growth.sizes(&args.args, args.number_rows)?.iter().sum();
        if steps <= MOST_STEPS {
            return Ok(());
        }
        Err(DataFusionError::ResourcesExhausted(format!(
            "{} would take {steps:.0} steps at once, of the {MOST_STEPS:.0} that it may",
            self.name()
        )))
    }
}

/// The rows from there on that may be computed together, at least one; and how large their results are.
fn piece(sizes: &[f64], from: usize, most: f64) -> (usize, f64) {
    let (mut to, mut size) = (from + 1, sizes[from]);
    while to < sizes.len() && size + sizes[to] <= most {
        size += sizes[to];
        to += 1;
    }
    (to, size)
}

fn rows_of(args: &ScalarFunctionArgs, from: usize, to: usize) -> ScalarFunctionArgs {
    let slice = |value: &ColumnarValue| match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, to - from)),
        scalar => scalar.clone(),
    };
    ScalarFunctionArgs { args: args.args.iter().map(slice).collect(), number_rows: to - from, ..args.clone() }
}

fn given_bytes(value: &ColumnarValue) -> Result<f64> {
    match value {
        ColumnarValue::Array(array) => Ok(array.to_data().get_slice_memory_size()? as f64),
        ColumnarValue::Scalar(_) => Ok(0.0),
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.inner.inner().is_strict()
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let updated = self.inner.inner().with_updated_config(config)?;
        Self::of(&Arc::new(updated), self.most_bytes)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let literals: usize = args.iter().filter_map(Expr::as_literal).map(ScalarValue::size).sum();
        if literals as f64 > LARGEST_CONSTANT {
            return Ok(ExprSimplifyResult::Original(args));
        }
        // Some become another call, which needs its own bound.
        match self.inner.simplify(args, info)? {
            ExprSimplifyResult::Simplified(Expr::ScalarFunction(ScalarFunction { func, args })) => {
                let func = Self::of(&func, self.most_bytes).map_or(func, Arc::new);
                Ok(ExprSimplifyResult::Simplified(Expr::ScalarFunction(ScalarFunction { func, args })))
            }
            other => Ok(other),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.growth == Growth::Steps {
            self.check_steps(&args)?;
            return self.inner.invoke_with_args(args);
        }
        if args.args.iter().any(|value| matches!(value, ColumnarValue::Array(_))) {
            self.column(args)
        } else if args.args.is_empty() {
            Err(exec_datafusion_err!("{} needs arguments", self.name()))
        } else {
            self.constant(args)
        }
    }
}
