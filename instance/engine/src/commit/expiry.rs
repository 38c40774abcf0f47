//! A thread that drops what has expired in stream tables, in ranges of whole time buckets.
//!
//! Reads never depend on it: they judge each row by its age.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;

use crate::EngineError;
use crate::commit::Shared;
use crate::commit::background::{self, Background};
use crate::commit::queue::Message;
use crate::commit::record::{CommitRecord, KeyRange};
use crate::hot::key;
use crate::hot::store::{Family, failed};
use crate::hot::stream::{self, Buckets};
use crate::schema::{Table, TableId};

/// How often the tables are looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Up to where each table was dropped already, so that nobody walks over what is gone.
pub(super) type Dropped = HashMap<TableId, u64>;

/// What was found in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It holds nothing.
    Nothing,
    /// It holds rows, none of which can go yet.
    Young,
    /// Some could go, and are gone.
    Expired,
}

/// Starts the thread.
pub(super) fn start(queue: Sender<Message>, shared: Arc<Shared>) -> Result<Background, EngineError> {
    let mut dropped = Dropped::new();
    Background::start("stream-expiry", INTERVAL, move || drop_all(&queue, &shared, &mut dropped))
}

/// Drops what has expired of every stream table. Where nothing goes yet but may have expired, the time alone is stored: what a reader
/// did not see any more must not come back after a crash.
fn drop_all(queue: &Sender<Message>, shared: &Shared, dropped: &mut Dropped) {
    let catalog = shared.catalog.load();
    dropped.retain(|known, _| catalog.tables.values().any(|table| table.id == *known));
    let (mut young, mut stored) = (None, false);
    for table in catalog.tables.values() {
        let Some(buckets) = Buckets::of(table) else { continue };
        match drop_expired(queue, shared, table, buckets, dropped) {
            Ok(Found::Nothing) => {}
            Ok(Found::Young) => young = Some(table),
            Ok(Found::Expired) => stored = true,
            Err(error) => failed_to_drop(table, &error),
        }
    }
    if let Some(table) = young.filter(|_| !stored)
        && let Err(error) = submit(queue, table.id, KeyRange::default())
    {
        failed_to_drop(table, &error);
    }
}

fn failed_to_drop(table: &Table, error: &EngineError) {
    tracing::warn!(table = %table.name, %error, "failed to drop expired rows, which nobody sees; it is tried again");
}

/// Drops one table's buckets in which nothing may be seen any more.
pub(super) fn drop_expired(
    queue: &Sender<Message>,
    shared: &Shared,
    table: &Table,
    buckets: Buckets,
    dropped: &mut Dropped,
) -> Result<Found, EngineError> {
    let from = dropped.get(&table.id).copied().unwrap_or(0);
    let Some(first) = first_bucket(shared, table.id, from)? else { return Ok(Found::Nothing) };
    let live = buckets.oldest_live(shared.clock.moment().now);
    if live <= first {
        return Ok(Found::Young);
    }
    let ends = [first, live].map(|bucket| stream::stored_key(table.id, bucket, &[]));
    crash_point!("expiry.found");
    submit(queue, table.id, ends.into())?;
    crash_point!("expiry.dropped");
    dropped.insert(table.id, live);
    Ok(Found::Expired)
}

fn submit(queue: &Sender<Message>, table: TableId, range: KeyRange) -> Result<(), EngineError> {
    background::submit(queue, CommitRecord::DropExpired { table, range })
}

/// The first bucket of the table that holds anything, from that one on.
fn first_bucket(shared: &Shared, table: TableId, from: u64) -> Result<Option<u64>, EngineError> {
    let snapshot = shared.hot.snapshot();
    let mut iterator = snapshot.iterator(Family::StreamTable, key::prefix_end(&key::table_prefix(table)));
    iterator.seek(stream::stored_key(table, from, &[]));
    let first = iterator.item().and_then(|(stored, _)| stream::bucket_of(stored));
    iterator.status().map_err(failed("look for expired rows"))?;
    Ok(first)
}
