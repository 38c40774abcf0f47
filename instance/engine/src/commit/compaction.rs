//! Commits that begin and end a compaction: the border between the tiers stays where it is, masks move to where their rows lie now.

use std::collections::HashMap;
use std::sync::Arc;

use rocksdb::WriteBatch;
use uuid::Uuid;

use crate::EngineError;
use crate::commit::queue::Outcome;
use crate::commit::writer::Writer;
use crate::engine::Place;
use crate::flush::{Epoch, Intent, IntentKind};
use crate::hot::store::Family;
use crate::hot::tier::{Mask, TableTier};
use crate::hot::{RowKey, key};
use crate::plant::{Plant, planted};
use crate::schema::{TableId, TableKind};

/// A mask on a file that is replaced: its value, and its key.
struct Moving {
    value: Vec<u8>,
    key: RowKey,
}

impl Writer {
    /// Never rebased: a flush that came between has put deletion vectors on the input files.
    pub(super) fn store_compaction(
        &mut self,
        table: TableId,
        epoch: Epoch,
        job: Uuid,
        base: i64,
    ) -> Result<Outcome, EngineError> {
        let record = &self.table(table)?.record;
        let is_newest = record.tier.cold_version == base || planted(Plant::CompactionRebases);
        if !is_newest || !record.intents.is_empty() {
            return Err(EngineError::Stale);
        }
        let w = record.tier.flushed_through;
        let intent = Intent { kind: IntentKind::Compaction, epoch, job, version: record.tier.cold_version + 1, w };
        self.store_intent(table, &intent)?;
        Ok(Outcome::Stored(intent))
    }

    /// New cold version, masks on replaced files at their rows' new places, intents gone. `flushed_through` stays.
    pub(super) fn end_compaction(
        &mut self,
        table: TableId,
        intent: &Intent,
        replaced: &[Arc<str>],
        places: Vec<(RowKey, Option<Place>)>,
    ) -> Result<Outcome, EngineError> {
        let kind = self.check_stored(table, intent, IntentKind::Compaction)?;
        let places: HashMap<_, _> = places.into_iter().collect();
        let moving = self.masks_on(table, kind, replaced)?;
        let missing: Vec<_> =
            moving.iter().filter(|mask| !places.contains_key(&mask.key)).map(|mask| mask.key.clone()).collect();
        if !missing.is_empty() {
            return Ok(Outcome::Missing(missing));
        }
        let family = self.shared.hot.family(Family::Masks);
        let mut batch = WriteBatch::default();
        for file in replaced {
            let from = Mask::file_prefix(table, file);
            batch.delete_range_cf(family, &from, &key::prefix_end(&from));
        }
        for mask in &moving {
            if let Some(Some(place)) = places.get(&mask.key) {
                batch.put_cf(family, Mask::storage_key(table, &place.file, place.row), &mask.value);
            }
        }
        let tier = TableTier { cold_version: intent.version, ..self.table(table)?.record.tier };
        self.settle(batch, table, tier)?;
        Ok(Outcome::Done)
    }

    fn masks_on(&self, table: TableId, kind: TableKind, files: &[Arc<str>]) -> Result<Vec<Moving>, EngineError> {
        let (mut masks, snapshot) = (Vec::new(), self.shared.hot.snapshot());
        for file in files {
            snapshot.each(Family::Masks, &Mask::file_prefix(table, file), |_, value| {
                let key = RowKey::from_bytes(kind, Mask::stored_row_key(value)?)?;
                masks.push(Moving { value: value.to_vec(), key });
                Ok(())
            })?;
        }
        Ok(masks)
    }
}
