//! DataFusion's view of a table: cold files minus deletion vectors minus masks, plus hot rows above `flushed_through`.
//!
//! * [`table`]: the provider, which joins the two tiers in one plan;
//! * [`cold`]: the files of one version as a Parquet scan; [`columns`] maps their columns to those of SQL, and
//!   `naming` names the file in their errors;
//! * [`hot`]: the hot rows as a stream; [`key_bounds`]: which keys of them a query's filters leave.
//!
//! Isolation between users is enforced here, below SQL: a provider made for a user holds no other user's rows.

mod cold;
mod columns;
mod deleted;
mod hot;
mod key_bounds;
mod naming;
mod table;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow_schema::SchemaRef;
use datafusion::catalog::TableProvider;

use crate::cold::PinnedCold;
use crate::hot::HotSnapshot;
use crate::schema::{Table, UserId};
use crate::transaction::Overlay;

/// The table as of one snapshot, with its [`Table::sql_schema`]; of a per-user table only that user's rows.
/// Within a transaction, what that has written stands in the place of the rows of the same keys.
pub fn provider(
    hot: HotSnapshot,
    cold: PinnedCold,
    table: Arc<Table>,
    schema: SchemaRef,
    user: Option<UserId>,
    overlay: Option<Arc<Overlay>>,
) -> Arc<dyn TableProvider> {
    Arc::new(table::KalamTable::new(hot, cold, table, schema, user, overlay))
}

/// As [`provider`], with the rows of all users, and `_user_id` behind the other columns of per-user tables. For the engine itself:
/// no statement reads through it.
pub(crate) fn provider_of_all_users(hot: HotSnapshot, cold: PinnedCold, table: Arc<Table>) -> Arc<dyn TableProvider> {
    Arc::new(table::KalamTable::of_all_users(hot, cold, table))
}
