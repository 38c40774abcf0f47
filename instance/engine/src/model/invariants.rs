//! What must hold after every step, as named predicates over the world. They bear the storage model's names.

use std::collections::{BTreeMap, BTreeSet};

use super::bucket::Version;
use super::owner::{Owner, row_id};
use super::reference::{Change, KEY, RowId, TableHistory, VALUE, fits, to_cells, user_of, values};
use super::world::World;
use crate::engine::{Resumed, Seen};
use crate::flush::IntentKind;
use crate::hot::RowKey;
use crate::hot::row::{RowReader, decode_row};
use crate::seq::Seq;

/// What is wrong.
pub type Fault = Result<(), String>;

/// A predicate over the whole world, by its name.
pub type Invariant = (&'static str, fn(&World) -> Fault);

/// All that are looked at after every step. `no_lost_update` and `snapshots_stay_true` are looked at where a write and a reader end.
pub const INVARIANTS: [Invariant; 8] = [
    ("one_live_place", one_live_place),
    ("reads_equal_acknowledged", reads_equal_acknowledged),
    ("change_log_complete", change_log_complete),
    ("resume_loses_nothing", resume_loses_nothing),
    ("outside_reader_sees_flushed_rows", outside_reader_sees_flushed_rows),
    ("masks_hide_for_a_newer_version", masks_hide_for_a_newer_version),
    ("stops_only_with_cause", stops_only_with_cause),
    ("rows_hold_to_their_schema", rows_hold_to_their_schema),
];

fn each_served(world: &World, check: impl Fn(&Owner, &TableHistory) -> Fault) -> Fault {
    for owner in &world.owners {
        for history in owner.served() {
            check(owner, history).map_err(|fault| format!("owner {}, {}: {fault}", owner.id, history.table.name))?;
        }
    }
    Ok(())
}

/// A key has at most one live place, hot or cold.
fn one_live_place(world: &World) -> Fault {
    each_served(world, |owner, history| {
        let mut seen = BTreeMap::new();
        let live = match history.ttl() {
            None => owner.live_rows(&history.table, &world.bucket)?,
            Some(ttl) => {
                let hot = owner.now();
                let is_live = |updated: i64| hot.moment().now - updated < ttl;
                let stored = owner.stream_versions(&hot, &history.table)?;
                stored.into_iter().filter(|(_, updated)| is_live(*updated)).map(|(live, _)| live).collect()
            }
        };
        for live in live {
            if let Some(before) = seen.insert(live.row, live.place.clone()) {
                return Err(format!("{:?} lives at {before:?} and at {:?}", live.row, live.place));
            }
        }
        Ok(())
    })
}

/// Every serving owner reads exactly what it acknowledged; after a recovery, exactly the flushed prefix and what followed.
fn reads_equal_acknowledged(world: &World) -> Fault {
    each_served(world, |owner, history| {
        let (found, wanted) = match history.ttl() {
            None => {
                let live = owner.live_rows(&history.table, &world.bucket)?;
                (live.into_iter().map(|live| (live.row, live.value)).collect(), values(&history.now.state))
            }
            Some(_) => {
                let hot = owner.now();
                (owner.looked_up(&hot, &history.table)?, values(&history.seen_at(hot.moment().now)))
            }
        };
        if found == wanted { Ok(()) } else { Err(format!("it has {found:?}, and acknowledged {wanted:?}")) }
    })
}

/// Above its floor the change log has every acknowledged change with its old image, and nothing else.
fn change_log_complete(world: &World) -> Fault {
    each_served(world, |owner, history| {
        let hot = owner.engine.hot().snapshot();
        let floor = hot.tier_record(history.table.id).map_err(|error| error.to_string())?.change_floor;
        let logged = logged(owner, history, floor)?;
        let wanted: Vec<_> = history.changes.iter().filter(|change| change.seq > floor).map(summary).collect();
        if logged == wanted { Ok(()) } else { Err(format!("above {floor} it has {logged:?}, and not {wanted:?}")) }
    })
}

/// (sequence, row, value before): what a change record tells.
type Logged = (Seq, RowId, Option<i64>);

fn summary(change: &Change) -> Logged {
    (change.seq, change.row, change.old)
}

fn parts(history: &TableHistory) -> BTreeSet<Option<&'static str>> {
    super::reference::row_ids(&history.table).into_iter().map(|row| row.0).collect()
}

fn logged(owner: &Owner, history: &TableHistory, floor: Seq) -> Result<Vec<Logged>, String> {
    let (hot, table) = (owner.engine.hot().snapshot(), &history.table);
    let mut logged = Vec::new();
    for part in parts(history) {
        let changes = hot.changes(table, user_of((part, 0)).as_ref(), floor, usize::MAX);
        for change in changes.map_err(|error| error.to_string())? {
            let key = RowKey::from_bytes(table.kind, &change.key).map_err(|error| error.to_string())?;
            let old = change.old.map(|image| decode_row(table, &RowReader::of_all(table), &image)).transpose();
            let old = old.map_err(|error| error.to_string())?.and_then(|(_, row)| row);
            logged.push((change.seq, row_id(table, &key), old.map(|row| to_cells(table, &row)[VALUE])));
        }
    }
    logged.sort_by_key(|change| change.0);
    Ok(logged)
}

/// A client that may resume and applies the changes that it is told has the newest state.
fn resume_loses_nothing(world: &World) -> Fault {
    let Some(client) = &world.client else { return Ok(()) };
    each_served(world, |owner, history| {
        let Some((uuid, before)) = client.tables.get(&history.table.name) else { return Ok(()) };
        if *uuid != history.table.uuid {
            return Ok(());
        }
        let now = values(&history.now.state);
        for part in parts(history) {
            let seen = Seen { life: client.life, seq: client.seq };
            let told = owner.engine.resume(&history.table, user_of((part, 0)).as_ref(), seen, usize::MAX);
            let Resumed::Changes(changes) = told.map_err(|error| error.to_string())? else { continue };
            let mut told = BTreeSet::new();
            for change in changes {
                let key = RowKey::from_bytes(history.table.kind, &change.key).map_err(|error| error.to_string())?;
                told.insert(row_id(&history.table, &key));
            }
            // A row that it is told of it has as it is now; any other it still has as it was.
            let rows = before.keys().chain(now.keys()).filter(|row| row.0 == part && !told.contains(row));
            for row in rows {
                if before.get(row) != now.get(row) {
                    return Err(format!("a client keeps {row:?} as {:?}; it is {:?}", before.get(row), now.get(row)));
                }
            }
        }
        Ok(())
    })
}

/// Whoever reads a Delta table at any version sees the state at its W, and misses no file.
fn outside_reader_sees_flushed_rows(world: &World) -> Fault {
    for (table, versions) in &world.bucket.versions {
        let aged = world.bucket.aged.get(table).copied().unwrap_or(0);
        let is_promised = |(at, version): &(usize, &Version)| *at >= aged || version.missing.is_empty();
        if let Some(fault) = versions.iter().enumerate().filter(is_promised).find_map(|(_, version)| version.fault()) {
            return Err(fault);
        }
    }
    Ok(())
}

/// Each mask names a row of its key, and that key has a hot version that explains the mask.
fn masks_hide_for_a_newer_version(world: &World) -> Fault {
    each_served(world, |owner, history| {
        if history.ttl().is_some() {
            return Ok(());
        }
        let masks = owner.masks(&history.table)?;
        if masks.is_empty() {
            return Ok(());
        }
        let tier = owner.engine.hot().snapshot().tier(history.table.id).map_err(|error| error.to_string())?;
        let version = world.bucket.version(history.table.uuid, tier.cold_version).ok_or("its version is not there")?;
        let cold: BTreeMap<_, _> = version.rows.iter().map(|(place, row)| (place, row)).collect();
        for mask in masks {
            let hides = cold.get(&mask.place).is_some_and(|cold| cold.row == mask.row && cold.seq < mask.seq.0);
            if !hides || mask.newest.is_none_or(|newest| newest < mask.seq) {
                return Err(format!("{mask:?} hides {:?}", cold.get(&mask.place)));
            }
        }
        Ok(())
    })
}

/// A table stops only at a commit of another line of volumes, and a fenced owner never for an older epoch's commit. A volume is refused
/// only where there is another.
fn stops_only_with_cause(world: &World) -> Fault {
    for owner in &world.owners {
        if let Some(reason) = owner.refused()
            && world.other_lines == 0
        {
            return Err(format!("owner {} is alone, and refused: {reason}", owner.id));
        }
        for history in owner.tables.values() {
            let Some(reason) = owner.stopped(history.table.id) else { continue };
            let fault = |why: &str| Err(format!("owner {} stopped {} {why}: {reason}", owner.id, history.table.name));
            let record = owner.engine.hot().snapshot().tier_record(history.table.id);
            let known = record.map_err(|error| error.to_string())?.tier.cold_version;
            let Some(met) = world.bucket.version(history.table.uuid, known + 1) else {
                return fault("without a commit");
            };
            if world.bucket.lines.get(&met.intent.epoch) == Some(&owner.line) {
                return fault("at a commit of its own line");
            }
            let own = owner.epoch();
            let versions = &world.bucket.versions[&history.table.uuid];
            let is_fence =
                |intent: &crate::flush::Intent| intent.kind == IntentKind::Fence && Some(intent.epoch) == own;
            let is_fenced = versions.iter().take((known + 1) as usize).any(|version| is_fence(&version.intent));
            if is_fenced && own.is_some_and(|own| met.intent.epoch < own) {
                return fault("at a commit of an older epoch than its fence");
            }
        }
    }
    Ok(())
}

/// No acknowledged row has NULL where its table takes none, or a number that its column does not hold.
fn rows_hold_to_their_schema(world: &World) -> Fault {
    each_served(world, |_, history| {
        let columns = history.table.columns.iter().filter(|column| column.name != KEY);
        for column in columns {
            let holds = |cell: Option<&i64>| cell.map_or(column.nullable, |cell| fits(column.sql_type, *cell));
            if let Some((row, cells)) = history.now.state.iter().find(|(_, cells)| !holds(cells.get(&column.name))) {
                return Err(format!("{row:?} has {:?} in column {}", cells.get(&column.name), column.name));
            }
        }
        Ok(())
    })
}
