//! Per-user tables in plans that are shown.
//!
//! A file holds rows of many users. Which files a plan reads, how large they are and what is skipped in them tells of rows that are not
//! the reader's, and so would the shape of a plan that was made by such sizes. Here a table is one node of one partition and of unknown
//! size, which tells of itself only how many of the user's own rows pass its filters.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::stream;

/// The table that answers as another one does, and shows nothing of how.
#[derive(Debug)]
pub struct Opaque(pub Arc<dyn TableProvider>);

#[async_trait]
impl TableProvider for Opaque {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        self.0.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.0.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scan = filtered(state, self.0.scan(state, projection, filters, limit).await?, filters)?;
        let schema = scan.schema();
        let rows = Arc::new(OwnRows { scan, schema: Arc::clone(&schema) });
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![rows], None, [], false, None)?))
    }
}

/// The scan's rows that pass all filters. Those that only have not been pruned would tell by their number which files were.
fn filtered(state: &dyn Session, scan: Arc<dyn ExecutionPlan>, filters: &[Expr]) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(filter) = conjunction(filters.to_vec()) else { return Ok(scan) };
    let filter = state.create_physical_expr(filter, &DFSchema::try_from(scan.schema().as_ref().clone())?)?;
    Ok(Arc::new(FilterExecBuilder::new(filter, scan).build()?))
}

/// The rows of a scan, as one stream.
struct OwnRows {
    scan: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
}

impl fmt::Debug for OwnRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows of one user")
    }
}

impl PartitionStream for OwnRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        execute_stream(Arc::clone(&self.scan), context).unwrap_or_else(|error| {
            let failed = stream::once(std::future::ready(Err(error)));
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), failed))
        })
    }
}
