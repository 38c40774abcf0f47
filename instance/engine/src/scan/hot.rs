//! The hot rows of a table as a stream of batches, read on threads that may block.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;

use super::cold::external;
use crate::hot::{HotScan, HotSnapshot};
use crate::schema::{Table, UserId};

/// The visible hot rows of a table, or of one user of it.
pub struct HotRows {
    snapshot: HotSnapshot,
    table: Arc<Table>,
    user: Option<UserId>,
    projection: Vec<usize>,
    without: Arc<HashSet<Vec<u8>>>,
    schema: SchemaRef,
}

impl HotRows {
    /// The columns of `projection`, which are places in the table's SQL schema; rows of the stored keys `without` are left out.
    pub fn new(
        snapshot: HotSnapshot,
        table: Arc<Table>,
        user: Option<UserId>,
        projection: Vec<usize>,
        without: Arc<HashSet<Vec<u8>>>,
    ) -> Result<Self, arrow_schema::ArrowError> {
        let schema = Arc::new(table.sql_schema().project(&projection)?);
        Ok(Self { snapshot, table, user, projection, without, schema })
    }

    fn scan(&self) -> HotScan {
        self.snapshot.scan(&self.table, self.user.as_ref(), Some(&self.projection), false).without(self.without.clone())
    }
}

impl fmt::Debug for HotRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hot rows of {}", self.table.name)
    }
}

impl PartitionStream for HotRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = context.session_config().batch_size();
        let batches = stream::try_unfold(self.scan(), move |mut scan| async move {
            let read = tokio::task::spawn_blocking(move || scan.next_batch(rows).map(|batch| (batch, scan)));
            let (batch, scan) = read
                .await
                .map_err(|error| datafusion::error::DataFusionError::ExecutionJoin(Box::new(error)))?
                .map_err(external)?;
            Ok(batch.map(|batch| (batch, scan)))
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}
