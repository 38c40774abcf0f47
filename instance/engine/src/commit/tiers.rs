//! Commits that move the border between the tiers: the begin and the end of a flush, fences, and what follows.

use std::collections::HashMap;

use rocksdb::{ReadOptions, WriteBatch};
use uuid::Uuid;

use crate::EngineError;
use crate::commit::judge::may_delete_hot;
use crate::commit::queue::Outcome;
use crate::commit::record::{FlushedRows, KeyRange};
use crate::commit::writer::{Writer, stage_high_water};
use crate::engine::Place;
use crate::flush::{Epoch, Intent, IntentKind};
use crate::hot::store::{Family, failed};
use crate::hot::tier::{self, Mask, TableTier, TierRecord};
use crate::hot::{RowKey, key, row};
use crate::plant::{Plant, planted};
use crate::schema::{TableId, TableKind};
use crate::seq::Seq;

/// From so many rows on a range is deleted as one: for fewer it would cost later reads more than it saves.
const RANGE_ROWS: usize = 256;

impl Writer {
    /// Flush, step 1: W, the intent and the snapshot of rows and masks, at one point of the order.
    pub(super) fn begin_flush(&mut self, table: TableId, epoch: Epoch, job: Uuid) -> Result<Outcome, EngineError> {
        let state = self.table(table)?;
        if let Some(unsettled) = state.record.intents.first() {
            let name = &state.name;
            return Err(EngineError::Invalid(format!("table {name} can't be flushed: {unsettled} is not settled")));
        }
        let (w, tier) = (self.last_seq, state.record.tier);
        if w <= tier.flushed_through {
            return Err(EngineError::Invalid(format!("table {} has nothing to flush", state.name)));
        }
        let intent = Intent { kind: IntentKind::Flush, epoch, job, version: tier.cold_version + 1, w };
        self.store_intent(table, &intent)?;
        self.shared.unflushed.lock().entry(table).or_default().begin_flush(w);
        Ok(Outcome::Begun(intent, self.shared.hot.snapshot()))
    }

    /// A fence joins the intents that it is to settle: until its version is taken, the older commit may still land.
    pub(super) fn store_fence(&mut self, table: TableId, epoch: Epoch, job: Uuid) -> Result<Outcome, EngineError> {
        let tier = self.table(table)?.record.tier;
        let intent =
            Intent { kind: IntentKind::Fence, epoch, job, version: tier.cold_version + 1, w: tier.flushed_through };
        self.store_intent(table, &intent)?;
        Ok(Outcome::Stored(intent))
    }

    pub(super) fn store_intent(&mut self, table: TableId, intent: &Intent) -> Result<(), EngineError> {
        let mut record = self.table(table)?.record.clone();
        if planted(Plant::OneIntentSlot) {
            record.intents.clear();
        }
        if !(planted(Plant::FenceWithoutIntent) && intent.kind == IntentKind::Fence) {
            record.intents.push(intent.clone());
        }
        let mut batch = WriteBatch::default();
        stage_high_water(&self.shared, &mut batch);
        // Also where `durability = "os"`: a commit in the object store that this volume has forgotten would stop the table.
        self.write_tier(batch, table, record, true);
        crash_point!("intent.stored");
        Ok(())
    }

    /// Flush, step 4: new cold version, `flushed_through` = W, masks for the keys that were superseded since step 1, covered
    /// masks gone, intents gone.
    pub(super) fn end_flush(
        &mut self,
        table: TableId,
        intent: &Intent,
        places: Vec<(RowKey, Option<Place>)>,
    ) -> Result<Outcome, EngineError> {
        let kind = self.check_stored(table, intent, IntentKind::Flush)?;
        let places: HashMap<_, _> = places.into_iter().collect();
        let dirty = self.dirty_keys(table, intent.job)?;
        let (mut known, mut missing) = (Vec::with_capacity(dirty.len()), Vec::new());
        for stored in &dirty {
            let row_key = RowKey::from_bytes(kind, stored)?;
            match places.get(&row_key) {
                Some(Some(place)) => known.push((stored, place)),
                Some(None) => {}
                None => missing.push(row_key),
            }
        }
        if !missing.is_empty() {
            return Ok(Outcome::Missing(missing));
        }
        let mut batch = WriteBatch::default();
        self.drop_covered_masks(&mut batch, table, intent.w)?;
        for (stored, place) in known {
            let newest = self.hot_seq(table, stored)?.ok_or_else(|| lost_version(table, stored))?;
            let mask = Mask::storage_key(table, &place.file, place.row);
            batch.put_cf(self.shared.hot.family(Family::Masks), mask, Mask::storage_value(newest, stored));
        }
        self.settle(batch, table, TableTier { flushed_through: intent.w, cold_version: intent.version })?;
        if let Some(counters) = self.shared.unflushed.lock().get_mut(&table) {
            counters.end_flush();
        }
        Ok(Outcome::Done)
    }

    /// A fence has taken the version: nothing that was begun before it can land any more.
    pub(super) fn end_fence(&mut self, table: TableId, intent: &Intent) -> Result<Outcome, EngineError> {
        self.check_stored(table, intent, IntentKind::Fence)?;
        let before = self.table(table)?.record.tier;
        let cold_version =
            if planted(Plant::NoFencingCommit) && intent.version > 0 { before.cold_version } else { intent.version };
        self.settle(WriteBatch::default(), table, TableTier { cold_version, ..before })?;
        if let Some(counters) = self.shared.unflushed.lock().get_mut(&table) {
            counters.give_up_flush();
        }
        Ok(Outcome::Done)
    }

    /// Whatever has taken the version settles all intents, and the dirty keys with them.
    pub(super) fn settle(&mut self, mut batch: WriteBatch, table: TableId, tier: TableTier) -> Result<(), EngineError> {
        let change_floor = self.table(table)?.record.change_floor;
        let from = key::table_prefix(table);
        batch.delete_range_cf(self.shared.hot.family(Family::Dirty), &from, &key::prefix_end(&from));
        crash_point!("settle.staged");
        self.write_tier(batch, table, TierRecord { tier, intents: Vec::new(), change_floor }, true);
        crash_point!("settle.written");
        Ok(())
    }

    /// Flush, step 5: rows that no read sees any more.
    pub(super) fn delete_flushed(&mut self, table: TableId, what: &FlushedRows) -> Result<Outcome, EngineError> {
        match what {
            FlushedRows::Whole => self.delete_all_flushed(table),
            FlushedRows::Part((from, to)) => self.delete_flushed_between(table, from, to),
        }
    }

    /// Where nothing newer was written the whole table goes as one range, unread.
    fn delete_all_flushed(&mut self, table: TableId) -> Result<Outcome, EngineError> {
        let state = self.table(table)?;
        // That bug shows in what a flush has left behind.
        if !may_delete_hot(Some(state.last_written), &state.record.tier) || planted(Plant::RowsUpToW) {
            return Ok(Outcome::NotAll);
        }
        let (mut flushed, from) = (WriteBatch::default(), key::table_prefix(table));
        flushed.delete_range_cf(self.shared.hot.family(Family::of_rows(state.kind)), &from, &key::prefix_end(&from));
        self.write(flushed, false);
        crash_point!("flush.all_deleted");
        Ok(Outcome::Done)
    }

    /// Many with no newer one between them go as a range, which leaves one trace in RocksDB instead of one for each.
    fn delete_flushed_between(&mut self, table: TableId, from: &[u8], to: &[u8]) -> Result<Outcome, EngineError> {
        let state = self.table(table)?;
        let (hot, tier) = (&self.shared.hot, state.record.tier);
        let family = hot.family(Family::of_rows(state.kind));
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to.to_vec());
        let mut rows = hot.db().raw_iterator_cf_opt(family, options);
        rows.seek(from);
        let (mut flushed, mut kept) = (WriteBatch::default(), 0);
        while let Some((stored, bytes)) = rows.item() {
            match may_delete_hot(Some(row::header(bytes)?.seq), &tier) {
                true => flushed.delete_cf(family, stored),
                false => kept += 1,
            }
            rows.next();
        }
        rows.status().map_err(failed("read flushed rows"))?;
        if kept == 0 && flushed.len() >= RANGE_ROWS {
            flushed.clear();
            flushed.delete_range_cf(family, from, to);
        }
        // Rows that come back after a power cut lie below `flushed_through` still, and are deleted by the next flush.
        self.write(flushed, false);
        crash_point!("flush.chunk_deleted");
        Ok(Outcome::Done)
    }

    /// The oldest changes go, and the floor says so.
    pub(super) fn trim_changes(
        &mut self,
        table: TableId,
        floor: Seq,
        ranges: &[KeyRange],
    ) -> Result<Outcome, EngineError> {
        let mut record = self.table(table)?.record.clone();
        record.change_floor = record.change_floor.max(floor);
        let mut batch = WriteBatch::default();
        for (from, to) in ranges {
            batch.delete_range_cf(self.shared.hot.family(Family::Changes), from, to);
        }
        crash_point!("trim.staged");
        self.write_tier(batch, table, record, self.syncs());
        crash_point!("trim.written");
        Ok(Outcome::Done)
    }

    pub(super) fn check_stored(
        &self,
        table: TableId,
        intent: &Intent,
        kind: IntentKind,
    ) -> Result<TableKind, EngineError> {
        let state = self.table(table)?;
        if intent.kind != kind || !state.record.intents.contains(intent) {
            let name = &state.name;
            return Err(EngineError::Invalid(format!("table {name}: {intent} is no stored {}", kind.as_str())));
        }
        Ok(state.kind)
    }

    fn dirty_keys(&self, table: TableId, job: Uuid) -> Result<Vec<Vec<u8>>, EngineError> {
        let mut keys = Vec::new();
        self.shared.hot.snapshot().each(Family::Dirty, &tier::dirty_prefix(table, job), |stored, _| {
            keys.push(stored.to_vec());
            Ok(())
        })?;
        Ok(keys)
    }

    fn hot_seq(&self, table: TableId, row_key: &[u8]) -> Result<Option<Seq>, EngineError> {
        let hot = &self.shared.hot;
        let family = hot.family(Family::of_rows(self.table(table)?.kind));
        let stored = [&key::table_prefix(table), row_key].concat();
        let bytes = hot.db().get_pinned_cf(family, stored).map_err(failed("read a superseding row"))?;
        Ok(bytes.map(|bytes| row::header(&bytes)).transpose()?.map(|header| header.seq))
    }

    /// Masks of versions up to W are deletion vectors now. One range goes and the few others are put back, which leaves fewer
    /// traces in RocksDB than a deletion for each.
    fn drop_covered_masks(&self, batch: &mut WriteBatch, table: TableId, w: Seq) -> Result<(), EngineError> {
        let family = self.shared.hot.family(Family::Masks);
        let prefix = key::table_prefix(table);
        batch.delete_range_cf(family, &prefix, &key::prefix_end(&prefix));
        self.shared.hot.snapshot().each(Family::Masks, &prefix, |stored, value| {
            if Mask::stored_seq(value)? > w {
                batch.put_cf(family, [&prefix, stored].concat(), value);
            }
            Ok(())
        })
    }
}

fn lost_version(table: TableId, row_key: &[u8]) -> EngineError {
    EngineError::Corrupt {
        what: format!("hot row {} of table {}", row_key.escape_ascii(), table.0),
        reason: "it superseded a row that a flush carried, and is gone".into(),
    }
}
