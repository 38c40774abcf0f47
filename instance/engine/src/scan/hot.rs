//! The hot rows of a table as a stream of batches, read on threads that may block.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;

use super::cold::external;
use crate::hot::ahead::RowsAhead;
use crate::hot::batch::RowDecoder;
use crate::hot::{HotScan, HotSnapshot, KeyBounds};
use crate::schema::{Table, USER_ID, UserId};

/// The visible hot rows of a table, or of one user of it.
pub struct HotRows {
    snapshot: HotSnapshot,
    table: Arc<Table>,
    user: Option<UserId>,
    bounds: KeyBounds,
    projection: Vec<usize>,
    limit: Option<usize>,
    without: Arc<HashSet<Vec<u8>>>,
    /// Where `_user_id` stands in the batches, if it is wanted.
    user_place: Option<usize>,
    schema: SchemaRef,
}

impl HotRows {
    /// Of the keys within `bounds`, the columns of `projection`, which are places in the table's SQL schema; the one behind its last is `_user_id`. Rows of the
    /// stored keys `without` are left out; `limit` rows are enough.
    pub fn new(
        snapshot: HotSnapshot,
        table: Arc<Table>,
        user: Option<UserId>,
        bounds: KeyBounds,
        projection: Vec<usize>,
        without: Arc<HashSet<Vec<u8>>>,
        limit: Option<usize>,
    ) -> Result<Self, arrow_schema::ArrowError> {
        let sql = table.sql_schema();
        let user_field = Arc::new(Field::new(USER_ID, DataType::Utf8, false));
        let fields: Vec<FieldRef> = sql.fields().iter().cloned().chain([user_field]).collect();
        let schema = Arc::new(Schema::new(fields).project(&projection)?);
        let user_place = projection.iter().position(|place| *place == sql.fields().len());
        let projection = projection.into_iter().filter(|place| *place < sql.fields().len()).collect();
        Ok(Self { snapshot, table, user, bounds, projection, limit, without, user_place, schema })
    }

    fn scan(&self) -> HotScan {
        let scan = self.snapshot.scan_within(&self.table, self.user.as_ref(), &self.bounds, self.user_place.is_some());
        scan.without(self.without.clone()).limited(self.limit.unwrap_or(usize::MAX))
    }

    /// The places of a batch's columns, which end with `_user_id`, in the order that is wanted.
    fn order(&self) -> Option<Vec<usize>> {
        let place = self.user_place?;
        let mut order: Vec<usize> = (0..self.projection.len()).collect();
        order.insert(place, self.projection.len());
        Some(order)
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
        let decoder = RowDecoder::new(&self.table, Some(&self.projection), self.user_place.is_some());
        let begun = (RowsAhead::begin(self.scan(), rows).0, decoder, self.order());
        let batches = stream::try_unfold(begun, async |(mut rows, decoder, order)| {
            let Some(stored) = rows.next().await.map_err(external)? else { return Ok(None) };
            let mut batch = decoder.decode(stored).map_err(external)?;
            if let Some(order) = &order {
                batch = batch.project(order)?;
            }
            Ok(Some((batch, (rows, decoder, order))))
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}
