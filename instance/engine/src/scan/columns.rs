//! From the columns of a file to those of SQL: by physical name, cast from the type that it had when the file was
//! written, and with its initial value where a file is older than the column.
//!
//! What reads the files knows the columns by their physical names alone: DataFusion compares names of a scan with those of a file, and a
//! name of SQL may be the physical name of another column.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column as FileColumn, lit};
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};

use crate::EngineError;
use crate::cold::scalar::scalar_of;
use crate::cold::snapshot::ColdFile;
use crate::cold::stats::ColumnStats;
use crate::evolution::reading::{FileSource, source_in};
use crate::schema::{Column, SqlType, Table, USER_ID};

/// Where one column of the scan comes from.
#[derive(Debug, Clone)]
enum Source {
    /// A column of the table, and what it reads in files that are older than it.
    Own(Arc<Column>, ScalarValue),
    /// One that each file has under its own name.
    System,
}

/// The columns of a table's scan: those of SQL, then `_user_id` for per-user tables.
#[derive(Debug, Clone)]
pub struct ScanColumns {
    schema: SchemaRef,
    physical: SchemaRef,
    /// By physical name.
    sources: Arc<HashMap<String, Source>>,
}

impl ScanColumns {
    /// The columns of a table.
    pub fn of(table: &Table) -> Result<Self, EngineError> {
        let sql = table.sql_schema();
        let user = table.kind.is_per_user().then(|| Arc::new(Field::new(USER_ID, DataType::Utf8, false)));
        let fields: Vec<FieldRef> = sql.fields().iter().cloned().chain(user).collect();
        let (mut sources, mut physical) = (HashMap::new(), Vec::with_capacity(fields.len()));
        for field in &fields {
            let (name, source) = match table.column(field.name()) {
                Some(column) => {
                    let absent = scalar_of(column.initial.clone(), column.sql_type)?;
                    (&column.physical_name, Source::Own(Arc::new(column.clone()), absent))
                }
                None => (field.name(), Source::System),
            };
            sources.insert(name.clone(), source);
            physical.push(Field::clone(field).with_name(name));
        }
        let (schema, physical) = (Arc::new(Schema::new(fields)), Arc::new(Schema::new(physical)));
        Ok(Self { schema, physical, sources: Arc::new(sources) })
    }

    /// Their schema, with the names of SQL.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The same with the names of files: what reads them is told this one.
    pub fn physical(&self) -> &SchemaRef {
        &self.physical
    }

    /// Columns at these places under their names in SQL.
    pub fn named(&self, places: &[usize]) -> ProjectionExprs {
        let column = |place: &usize| {
            let column = FileColumn::new(self.physical.field(*place).name(), *place);
            ProjectionExpr::new(Arc::new(column), self.schema.field(*place).name())
        };
        places.iter().map(column).collect()
    }

    /// What the log says of each column in a file, in the order of the schema, and in the types of SQL.
    pub fn stats_of<'a>(&'a self, file: &'a ColdFile) -> impl Iterator<Item = Option<ColumnStats>> + 'a {
        let of = |field: &FieldRef| file.stats.columns.get(field.name()).map(|stats| as_type(stats, field.data_type()));
        self.physical.fields().iter().map(of)
    }
}

/// Bounds in the type that the column has now; a bound that it can't hold is none.
fn as_type(stats: &ColumnStats, wanted: &DataType) -> ColumnStats {
    let bound = |bound: &Option<ScalarValue>| {
        let bound = bound.as_ref()?;
        let found = bound.data_type();
        if found == *wanted {
            return Some(bound.clone());
        }
        // Numbers alone keep their order in a cast.
        let ordered = found.is_numeric() && wanted.is_numeric();
        ordered.then(|| bound.cast_to(wanted).ok()).flatten().filter(|bound| !bound.is_null())
    };
    ColumnStats { min: bound(&stats.min), max: bound(&stats.max), nulls: stats.nulls }
}

impl PhysicalExprAdapterFactory for ScanColumns {
    fn create(&self, _: SchemaRef, physical_file_schema: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let columns = self.clone();
        Ok(Arc::new(ColumnsOfFile { columns, physical: physical_file_schema }))
    }
}

/// The same for one file.
#[derive(Debug)]
struct ColumnsOfFile {
    columns: ScanColumns,
    physical: SchemaRef,
}

impl PhysicalExprAdapter for ColumnsOfFile {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        expr.transform(|expr| match expr.downcast_ref::<FileColumn>() {
            Some(column) => self.read(column).map(Transformed::yes),
            None => Ok(Transformed::no(expr)),
        })
        .data()
    }
}

impl ColumnsOfFile {
    fn read(&self, column: &FileColumn) -> Result<Arc<dyn PhysicalExpr>> {
        let unknown = || DataFusionError::Internal(format!("a scan has no column {}", column.name()));
        let source = self.columns.sources.get(column.name()).ok_or_else(unknown)?;
        let (index, casts) = match source {
            Source::System => (self.physical.index_of(column.name()).map_err(|_| unknown())?, Vec::new()),
            Source::Own(own, absent) => match source_in(own, &self.physical) {
                FileSource::Present { index, casts } => (index, casts),
                FileSource::Absent => return Ok(lit(absent.clone())),
            },
        };
        let found = self.physical.field(index);
        let mut data_type = found.data_type().clone();
        let mut expr: Arc<dyn PhysicalExpr> = Arc::new(FileColumn::new(found.name(), index));
        // Names and metadata differ by design; only another type needs work.
        for cast in casts.into_iter().map(SqlType::arrow) {
            if cast != data_type {
                expr = Arc::new(CastExpr::new(expr, cast.clone(), None));
                data_type = cast;
            }
        }
        Ok(expr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_older_files_are_told_in_the_type_of_the_column_or_not_at_all() {
        let bounds = |min, max| ColumnStats { min: Some(min), max: Some(max), nulls: Some(1) };
        let int = |number| ScalarValue::Int32(Some(number));
        let long = |number| ScalarValue::Int64(Some(number));
        assert_eq!(as_type(&bounds(int(-5), int(7)), &DataType::Int64), bounds(long(-5), long(7)));
        let narrowed = as_type(&bounds(long(-5), long(1 << 40)), &DataType::Int32);
        assert_eq!((narrowed.min, narrowed.max), (Some(int(-5)), None), "a deleted row may lie beyond the type");
        let text = as_type(&bounds(int(10), int(9)), &DataType::Utf8);
        assert_eq!((text.min, text.max, text.nulls), (None, None, Some(1)), "texts have another order");
    }
}
