//! From the columns of a file to those of SQL: by physical name, with the DEFAULT where a file is older than the column.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, lit};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};

use crate::EngineError;
use crate::cold::scalar::default_scalar;
use crate::cold::snapshot::ColdFile;
use crate::cold::stats::ColumnStats;
use crate::schema::{Table, USER_ID};

/// How one column of the scan is read from a file.
#[derive(Debug, Clone)]
struct Source {
    /// Its name in Parquet.
    physical_name: String,
    /// What it reads where the file does not have it.
    absent: ScalarValue,
}

/// The columns of a table's scan: those of SQL, then `_user_id` for per-user tables.
#[derive(Debug, Clone)]
pub struct ScanColumns {
    schema: SchemaRef,
    sources: Arc<HashMap<String, Source>>,
}

impl ScanColumns {
    /// The columns of a table.
    pub fn of(table: &Table) -> Result<Self, EngineError> {
        let sql = table.sql_schema();
        let user = table.kind.is_per_user().then(|| Arc::new(Field::new(USER_ID, arrow_schema::DataType::Utf8, false)));
        let fields: Vec<FieldRef> = sql.fields().iter().cloned().chain(user).collect();
        let mut sources = HashMap::new();
        for field in &fields {
            let source = match table.column(field.name()) {
                Some(column) => Source {
                    physical_name: column.physical_name.clone(),
                    absent: default_scalar(column.default.as_ref(), column.sql_type)?,
                },
                None => Source {
                    physical_name: field.name().clone(),
                    absent: ScalarValue::try_from(field.data_type()).map_err(|error| EngineError::Cold {
                        action: "describe a scan".into(),
                        source: error.into(),
                    })?,
                },
            };
            sources.insert(field.name().clone(), source);
        }
        Ok(Self { schema: Arc::new(Schema::new(fields)), sources: Arc::new(sources) })
    }

    /// Their schema, with the names of SQL.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What the log says of each column in a file, in the order of the schema.
    pub fn stats_of<'a>(&'a self, file: &'a ColdFile) -> impl Iterator<Item = Option<&'a ColumnStats>> {
        let of = |field: &FieldRef| file.stats.columns.get(&self.sources[field.name()].physical_name);
        self.schema.fields().iter().map(of)
    }
}

impl PhysicalExprAdapterFactory for ScanColumns {
    fn create(
        &self,
        logical_file_schema: SchemaRef,
        physical_file_schema: SchemaRef,
    ) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let columns = self.clone();
        Ok(Arc::new(FileColumns { columns, logical: logical_file_schema, physical: physical_file_schema }))
    }
}

/// The same for one file.
#[derive(Debug)]
struct FileColumns {
    columns: ScanColumns,
    logical: SchemaRef,
    physical: SchemaRef,
}

impl PhysicalExprAdapter for FileColumns {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        expr.transform(|expr| match expr.downcast_ref::<Column>() {
            Some(column) => self.read(column).map(Transformed::yes),
            None => Ok(Transformed::no(expr)),
        })
        .data()
    }
}

impl FileColumns {
    fn read(&self, column: &Column) -> Result<Arc<dyn PhysicalExpr>> {
        let unknown = || DataFusionError::Internal(format!("a scan has no column {}", column.name()));
        let source = self.columns.sources.get(column.name()).ok_or_else(unknown)?;
        let Ok(index) = self.physical.index_of(&source.physical_name) else { return Ok(lit(source.absent.clone())) };
        let found: Arc<dyn PhysicalExpr> = Arc::new(Column::new(&source.physical_name, index));
        let wanted = self.logical.field_with_name(column.name())?;
        // Names and metadata differ by design; only another type needs work, where a later schema has widened the column.
        if wanted.data_type() == self.physical.field(index).data_type() {
            return Ok(found);
        }
        Ok(Arc::new(CastExpr::new(found, wanted.data_type().clone(), None)))
    }
}
