//! SUM of integers, which never wraps: it is added up in more bits than it may have in the end, and is an error where that is too many.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type};
use arrow::error::ArrowError;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
    StatisticsArgs,
};
use datafusion::scalar::ScalarValue;

/// What partitions hand on: as many digits as an Arrow decimal can have.
fn state_type() -> DataType {
    DataType::Decimal128(38, 0)
}

/// DataFusion's SUM, but for integers.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct CheckedSum {
    of_others: Sum,
}

fn is_checked(result: &DataType, is_distinct: bool) -> bool {
    *result == DataType::Int64 && !is_distinct
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.of_others.name()
    }

    fn signature(&self) -> &Signature {
        self.of_others.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.of_others.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if is_checked(args.return_field.data_type(), args.is_distinct) {
            return Ok(Box::new(Exact::default()));
        }
        self.of_others.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if is_checked(args.return_type(), args.is_distinct) {
            return Ok(vec![Arc::new(Field::new(format_state_name(args.name, "sum"), state_type(), true))]);
        }
        self.of_others.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.of_others.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if is_checked(args.return_field.data_type(), args.is_distinct) {
            return Ok(Box::new(ExactOfGroups::default()));
        }
        self.of_others.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if is_checked(args.return_field.data_type(), args.is_distinct) {
            return Ok(Box::new(Exact::default()));
        }
        self.of_others.create_sliding_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.of_others.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.of_others.order_sensitivity()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.of_others.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.of_others.set_monotonicity(data_type)
    }

    fn value_from_stats(&self, statistics_args: &StatisticsArgs) -> Option<ScalarValue> {
        self.of_others.value_from_stats(statistics_args)
    }
}

/// A sum as a BIGINT.
fn narrow(sum: i128) -> Result<i64> {
    i64::try_from(sum).map_err(|_| {
        let text = format!("Overflow happened on: the sum {sum}");
        DataFusionError::ArrowError(Box::new(ArrowError::ArithmeticOverflow(text)), None)
    })
}

/// Of all rows, or of those in a window.
#[derive(Debug, Default)]
struct Exact {
    sum: i128,
    rows: u64,
}

impl Exact {
    fn sum_of(values: &[ArrayRef]) -> (i128, u64) {
        let integers = values[0].as_primitive::<Int64Type>();
        let rows = (integers.len() - integers.null_count()) as u64;
        if integers.null_count() == 0 {
            return (integers.values().iter().map(|value| i128::from(*value)).sum(), rows);
        }
        (integers.iter().flatten().map(i128::from).sum(), rows)
    }
}

impl Accumulator for Exact {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, rows) = Self::sum_of(values);
        self.sum += sum;
        self.rows += rows;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, rows) = Self::sum_of(values);
        self.sum -= sum;
        self.rows -= rows;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for sum in states[0].as_primitive::<Decimal128Type>().iter().flatten() {
            self.sum += sum;
            self.rows += 1;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Decimal128((self.rows > 0).then_some(self.sum), 38, 0)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = if self.rows > 0 { Some(narrow(self.sum)?) } else { None };
        Ok(ScalarValue::Int64(sum))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// Of each group; none where it has had no value yet.
#[derive(Debug, Default)]
struct ExactOfGroups {
    sums: Vec<Option<i128>>,
}

impl ExactOfGroups {
    fn add(&mut self, group: usize, value: Option<i128>) {
        if let Some(value) = value {
            *self.sums[group].get_or_insert(0) += value;
        }
    }
}

fn is_meant(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

fn states(sums: impl Iterator<Item = Option<i128>>) -> Result<Vec<ArrayRef>> {
    let array = sums.collect::<Decimal128Array>().with_data_type(state_type());
    Ok(vec![Arc::new(array)])
}

impl GroupsAccumulator for ExactOfGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.sums.resize(total_num_groups, None);
        let integers = values[0].as_primitive::<Int64Type>().iter();
        for (row, (value, group)) in integers.zip(group_indices).enumerate() {
            if is_meant(opt_filter, row) {
                self.add(*group, value.map(i128::from));
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.sums.resize(total_num_groups, None);
        let sums = values[0].as_primitive::<Decimal128Type>().iter();
        sums.zip(group_indices).for_each(|(sum, group)| self.add(*group, sum));
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = emit_to.take_needed(&mut self.sums).into_iter();
        let sums: Int64Array = sums.map(|sum| sum.map(narrow).transpose()).collect::<Result<_>>()?;
        Ok(Arc::new(sums))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        states(emit_to.take_needed(&mut self.sums).into_iter())
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let integers = values[0].as_primitive::<Int64Type>().iter().enumerate();
        states(integers.map(|(row, value)| value.filter(|_| is_meant(opt_filter, row)).map(i128::from)))
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<Option<i128>>()
    }
}
