//! At the start: what the volume says about unflushed rows and the change log, counted by one pass over both.

use std::collections::HashMap;

use crate::EngineError;
use crate::catalog::Catalog;
use crate::commit::retention::ChangeLogs;
use crate::commit::unflushed::{Counters, Version};
use crate::commit::writer::{TableState, Tables};
use crate::flush::IntentKind;
use crate::hot::store::Family;
use crate::hot::{Hot, HotSnapshot, changes, key, row};
use crate::schema::TableId;
use crate::seq::Seq;

/// What the committer starts with.
pub(super) struct Rebuilt {
    pub(super) tables: Tables,
    pub(super) unflushed: HashMap<TableId, Counters>,
    pub(super) changes: ChangeLogs,
}

pub(super) fn rebuild(hot: &Hot, catalog: &Catalog) -> Result<Rebuilt, EngineError> {
    let snapshot = hot.snapshot();
    let mut rebuilt = Rebuilt { tables: Tables::new(), unflushed: HashMap::new(), changes: ChangeLogs::default() };
    for table in catalog.tables.values() {
        let state = TableState::new(table, snapshot.tier_record(table.id)?, hot.high_water().seq);
        hot.newest().raise(table.id, count_rows(&snapshot, table.id, &state, &mut rebuilt)?);
        count_changes(&snapshot, table.id, &state, &mut rebuilt)?;
        rebuilt.tables.insert(table.id, state);
    }
    Ok(rebuilt)
}

/// Answers with the newest sequence of the table's rows.
fn count_rows(
    snapshot: &HotSnapshot,
    table: TableId,
    state: &TableState,
    rebuilt: &mut Rebuilt,
) -> Result<Seq, EngineError> {
    // Rows of stream tables are never flushed, and so never unflushed.
    if state.buckets.is_some() {
        return Ok(Seq::MAX);
    }
    let mut newest = Seq::ZERO;
    let mut counters = Counters::default();
    if let Some(flush) = state.record.intents.iter().find(|intent| intent.kind == IntentKind::Flush) {
        counters.begin_flush(flush.w);
    }
    let prefix = key::table_prefix(table);
    snapshot.each(Family::of_rows(state.kind), &prefix, |stored, value| {
        let header = row::header(value)?;
        newest = newest.max(header.seq);
        if header.seq > state.record.tier.flushed_through {
            let bytes = (prefix.len() + stored.len() + value.len()) as u64;
            counters.recover(Version { seq: header.seq, updated: header.updated, bytes });
        }
        Ok(())
    })?;
    rebuilt.unflushed.insert(table, counters);
    Ok(newest)
}

fn count_changes(
    snapshot: &HotSnapshot,
    table: TableId,
    state: &TableState,
    rebuilt: &mut Rebuilt,
) -> Result<(), EngineError> {
    let prefix = key::table_prefix(table);
    snapshot.each(Family::Changes, &prefix, |stored, value| {
        let (_, seq) = changes::split_key(state.kind, stored)?;
        rebuilt.changes.add(table, seq, (prefix.len() + stored.len() + value.len()) as u64);
        Ok(())
    })
}

/// Every W was below the mark when it was stored: otherwise a later commit could fall below it, and be invisible.
pub(super) fn check_high_water(hot: &Hot, tables: &Tables) -> Result<(), EngineError> {
    let mark = hot.high_water().seq;
    for state in tables.values() {
        let named =
            state.record.intents.iter().map(|intent| intent.w).fold(state.record.tier.flushed_through, Seq::max);
        if named > mark {
            let reason = format!("{mark} is below {named}, which table {} names", state.name);
            return Err(EngineError::Corrupt { what: "high-water mark".into(), reason });
        }
    }
    Ok(())
}
