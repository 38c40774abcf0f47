//! A thread that keeps the change logs within their bounds: it finds what must go, and the committer deletes it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;

use crate::EngineError;
use crate::commit::Shared;
use crate::commit::background::{self, Background};
use crate::commit::queue::Message;
use crate::commit::record::{CommitRecord, KeyRange};
use crate::config::Limits;
use crate::hot::changes;
use crate::hot::store::{Family, failed};
use crate::hot::{HotSnapshot, key};
use crate::schema::{Table, TableId, TableKind};
use crate::seq::Seq;

/// How often the logs are looked at.
const INTERVAL: Duration = Duration::from_secs(5);
/// Ranges that one commit deletes: a per-user table has one range for each user. Tests see several commits for few users.
const RANGES: usize = if cfg!(test) { 1 } else { 1000 };
const HOUR: Duration = Duration::from_secs(3600);

/// Starts the thread.
pub(super) fn start(queue: Sender<Message>, shared: Arc<Shared>, limits: &Limits) -> Result<Background, EngineError> {
    let (bytes, age) = (limits.change_log_bytes, limits.change_log_age);
    Background::start("change-log", INTERVAL, move || {
        let catalog = shared.catalog.load_full();
        let hours = |table: &Table| Some((table.id, table.deleted_retention_hours?));
        let own: HashMap<TableId, u32> = catalog.tables.values().filter_map(|table| hours(table)).collect();
        let age_of = |table| own.get(&table).map_or(age, |hours| HOUR * *hours);
        let due = shared.changes.lock().due(bytes, age_of, shared.clock.now_micros() / 1000);
        for (table, floor) in due {
            if let Err(error) = trim(&queue, &shared, table, floor) {
                tracing::warn!(table = table.0, %error, "failed to trim a change log; it is tried again");
            }
        }
    })
}

/// Deletes a table's changes up to `floor`.
pub(super) fn trim(queue: &Sender<Message>, shared: &Shared, table: TableId, floor: Seq) -> Result<(), EngineError> {
    let catalog = shared.catalog.load();
    let Some(kind) = catalog.tables.values().find(|found| found.id == table).map(|found| found.kind) else {
        return Ok(());
    };
    let ranges = ranges(&shared.hot.snapshot(), table, kind, floor)?;
    crash_point!("trim.found");
    for ranges in ranges.chunks(RANGES) {
        background::submit(queue, CommitRecord::TrimChanges { table, floor, ranges: ranges.to_vec() })?;
        crash_point!("trim.chunk_deleted");
    }
    shared.changes.lock().trimmed(table, floor);
    Ok(())
}

/// The ranges of stored changes up to `floor`: one for the table, or one for each of its users.
fn ranges(snapshot: &HotSnapshot, table: TableId, kind: TableKind, floor: Seq) -> Result<Vec<KeyRange>, EngineError> {
    let prefix = key::table_prefix(table);
    let beyond = Seq(floor.0 + 1);
    let mut ranges = Vec::new();
    let mut iterator = snapshot.iterator(Family::Changes, key::prefix_end(&prefix));
    iterator.seek(&prefix);
    while let Some((stored, _)) = iterator.item() {
        let (user, _) = changes::split_key(kind, &stored[prefix.len()..])?;
        let to = changes::storage_key(table, user, beyond);
        if *stored < to[..] {
            ranges.push((stored.to_vec(), to));
        }
        // On to the next user; a shared table has no other.
        let mut part = prefix.clone();
        part.extend_from_slice(user);
        let next = key::prefix_end(&part);
        iterator.seek(&next);
    }
    iterator.status().map_err(failed("read the change log"))?;
    Ok(ranges)
}
