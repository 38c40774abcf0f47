//! A table that is made when it is asked for: typed columns and rows.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use kalamdb_engine::schema::SqlType;
use kalamdb_engine::value::{Row, Value};

use crate::{ErrorCode, SqlError, rows};

/// A column of a view.
pub type ViewColumn = (&'static str, SqlType);

/// Columns and rows.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Names and types.
    pub columns: Vec<ViewColumn>,
    /// One value a column in each.
    pub rows: Vec<Row>,
}

impl View {
    /// Columns without rows yet.
    pub fn new(columns: &[ViewColumn]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// With these rows.
    pub fn with(mut self, rows: impl IntoIterator<Item = Row>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// As Arrow carries it.
    pub fn batch(&self) -> Result<RecordBatch, SqlError> {
        let fields: Vec<Field> = self.columns.iter().map(|(name, of)| Field::new(*name, of.arrow(), true)).collect();
        let column =
            |(place, (_, of)): (usize, &ViewColumn)| rows::array_of(*of, self.rows.iter().map(|row| &row[place]));
        let arrays = self.columns.iter().enumerate().map(column).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .map_err(|error| SqlError::new(ErrorCode::Internal, error.to_string()))
    }
}

/// TEXT.
pub(super) fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

/// TEXT or NULL.
pub(super) fn optional_text(value: Option<impl Into<String>>) -> Value {
    value.map_or(Value::Null, text)
}

/// TIMESTAMP of milliseconds since the Unix epoch.
pub(super) fn moment(ms: i64) -> Value {
    Value::Timestamp(ms.saturating_mul(1000))
}

/// TIMESTAMP or NULL.
pub(super) fn optional_moment(ms: Option<i64>) -> Value {
    ms.map_or(Value::Null, moment)
}
