//! EMBEDDING: a list of numbers, from JSON text or from a list that was computed.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::ScalarValue;
use kalamdb_engine::schema::SqlType;
use kalamdb_engine::value::Value;

/// The numbers of `[0.1, 0.2]`.
pub fn of_text(text: &str, dimensions: u16) -> Result<Vec<f32>, String> {
    let numbers: Vec<f64> =
        serde_json::from_str(text).map_err(|error| format!("the text is not a JSON array of numbers: {error}"))?;
    single(&numbers, dimensions)
}

/// The value of a list; none where the scalar is no list, or the column no EMBEDDING.
pub fn of_list(scalar: &ScalarValue, sql_type: SqlType) -> Option<Result<Value, String>> {
    let SqlType::Embedding { dimensions } = sql_type else { return None };
    let list = match scalar {
        ScalarValue::List(list) => list.value(0),
        ScalarValue::LargeList(list) => list.value(0),
        ScalarValue::FixedSizeList(list) => list.value(0),
        _ => return None,
    };
    let numbers = cast(&list, &DataType::Float64).map_err(|error| error.to_string());
    Some(numbers.and_then(|numbers| {
        if numbers.null_count() > 0 {
            return Err("an EMBEDDING holds no NULL".into());
        }
        single(numbers.as_primitive::<Float64Type>().values(), dimensions).map(Value::Embedding)
    }))
}

/// Distances to what is not a number are none: all numbers are finite.
fn single(numbers: &[f64], dimensions: u16) -> Result<Vec<f32>, String> {
    if numbers.len() != usize::from(dimensions) {
        return Err(format!("it has {dimensions} numbers, not {}", numbers.len()));
    }
    let narrowed = |number: &f64| {
        let narrowed = *number as f32;
        if narrowed.is_finite() { Ok(narrowed) } else { Err(format!("{number:e} is out of range")) }
    };
    numbers.iter().map(narrowed).collect()
}
