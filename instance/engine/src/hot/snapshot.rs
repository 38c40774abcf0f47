//! One RocksDB snapshot: rows, tiers, masks, intents, dirty keys and changes, all as of the same moment.
//!
//! Everything here is synchronous and may read from disk: callers with long reads run them on a blocking thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringTreemap;
use rocksdb::{ColumnFamily, DB, DBPinnableSlice, DBRawIterator, ReadOptions, Snapshot};

use crate::EngineError;
use crate::catalog;
use crate::flush::{Intent, IntentKind};
use crate::hot::changes::{self, Change};
use crate::hot::dropped::DroppedTable;
use crate::hot::key::{self, Key, RowKey};
use crate::hot::row::{self, RowReader};
use crate::hot::scan::HotScan;
use crate::hot::store::{Family, failed, handle};
use crate::hot::stream::{self, Buckets, Moment};
use crate::hot::tier::{self, Mask, TableTier, TierRecord};
use crate::hot::volume::{self, HighWater};
use crate::schema::{Table, TableId, TableKind, TableName, UserId};
use crate::seq::Seq;
use crate::value::Row;

self_cell::self_cell!(
    /// A snapshot together with the database that it borrows from, so that it can be handed around.
    struct OwnedSnapshot {
        owner: Arc<DB>,
        #[covariant]
        dependent: Snapshot,
    }
);

/// A consistent view of the hot tier. Cheap to clone.
#[derive(Clone)]
pub struct HotSnapshot {
    cell: Arc<OwnedSnapshot>,
    /// When rows of stream tables are read. Without it they are not: only [`crate::Engine::snapshot`] gives it.
    moment: Moment,
}

/// A hot row version above `flushed_through`.
#[derive(Debug, Clone, PartialEq)]
pub struct HotRow {
    /// Whose row, and which.
    pub key: RowKey,
    /// The version's commit sequence.
    pub seq: Seq,
    /// Its `_updated`, in microseconds since the Unix epoch.
    pub updated: i64,
    /// One value for each of the table's columns; none is a tombstone.
    pub row: Option<Row>,
}

/// Some rows that lie in the cold tier now.
pub struct FlushedKeys {
    /// Their keys within the table.
    pub keys: Vec<Vec<u8>>,
    /// Where to go on; none at the end of the table.
    pub next: Option<Vec<u8>>,
}

impl HotSnapshot {
    pub(crate) fn take(db: Arc<DB>) -> Self {
        Self { cell: Arc::new(OwnedSnapshot::new(db, |db| db.snapshot())), moment: Moment::default() }
    }

    /// The same, read at that moment, which must have been asked for after the snapshot was taken.
    pub fn at(self, moment: Moment) -> Self {
        Self { moment, ..self }
    }

    /// When it is read.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// Every commit of the snapshot has a sequence up to it, and every later one a higher one.
    pub fn last_seq(&self) -> Result<Seq, EngineError> {
        let stored = self.get(Family::Meta, volume::HIGH_WATER_KEY)?;
        let mark = stored.map(|bytes| volume::decode::<HighWater>(&bytes, "high-water mark")).transpose()?;
        Ok(mark.unwrap_or_default().seq)
    }

    /// The table's tier record.
    pub fn tier_record(&self, table: TableId) -> Result<TierRecord, EngineError> {
        let stored = self.get(Family::Tiers, &TierRecord::key(table))?;
        stored.map_or(Ok(TierRecord::default()), |bytes| TierRecord::decode(table, &bytes))
    }

    /// Where the table's tiers meet. Fails for a table whose Delta log is still to be recovered: it would read as empty.
    pub fn tier(&self, table: TableId) -> Result<TableTier, EngineError> {
        let tier = self.tier_record(table)?.tier;
        if !tier.is_unrecovered() {
            return Ok(tier);
        }
        let name =
            catalog::table_at(self, table)?.map_or_else(|| TableName::new("", table.0.to_string()), |table| table.name);
        let reason = "its Delta log could not be recovered from the object store; the log of the instance names what is \
                      wrong there: mend it and start the instance again";
        Err(EngineError::TableStopped { table: name, reason: reason.into() })
    }

    /// The table's unsettled intents.
    pub fn intents(&self, table: TableId) -> Result<Vec<Intent>, EngineError> {
        Ok(self.tier_record(table)?.intents)
    }

    /// All masks of a table, by file and row.
    pub fn masks(&self, table: &Table) -> Result<Vec<Mask>, EngineError> {
        let mut masks = Vec::new();
        self.each(Family::Masks, &key::table_prefix(table.id), |stored, value| {
            masks.push(Mask::decode(table.kind, stored, value)?);
            Ok(())
        })?;
        Ok(masks)
    }

    /// The rows that masks hide, by file. Far smaller than [`HotSnapshot::masks`], which keeps their keys.
    pub fn masked_rows(&self, table: TableId) -> Result<BTreeMap<Arc<str>, RoaringTreemap>, EngineError> {
        let mut rows: BTreeMap<Arc<str>, RoaringTreemap> = BTreeMap::new();
        self.each(Family::Masks, &key::table_prefix(table), |stored, _| {
            let (file, row) = Mask::place(stored)?;
            match rows.get_mut(file.as_str()) {
                Some(known) => drop(known.insert(row)),
                None => drop(rows.insert(file.into(), [row].into_iter().collect())),
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// The keys whose version at or below W was superseded since a flush of the table began.
    pub fn dirty(&self, table: &Table) -> Result<Vec<RowKey>, EngineError> {
        let mut keys = Vec::new();
        for intent in self.intents(table.id)?.iter().filter(|intent| intent.kind == IntentKind::Flush) {
            self.each(Family::Dirty, &tier::dirty_prefix(table.id, intent.job), |stored, _| {
                keys.push(RowKey::from_bytes(table.kind, stored)?);
                Ok(())
            })?;
        }
        Ok(keys)
    }

    /// Tables that were dropped and whose folder may still be there.
    pub fn dropped_tables(&self) -> Result<Vec<DroppedTable>, EngineError> {
        let mut dropped = Vec::new();
        self.each(Family::Meta, DroppedTable::KEY_PREFIX, |_, bytes| {
            dropped.push(DroppedTable::decode(bytes)?);
            Ok(())
        })?;
        Ok(dropped)
    }

    /// The rows at these keys, tombstones too; none where the hot tier has no version above `flushed_through`.
    pub fn rows_at(
        &self,
        table: &Table,
        user: Option<&UserId>,
        keys: &[Key],
    ) -> Result<Vec<Option<HotRow>>, EngineError> {
        if let Some(buckets) = Buckets::of(table) {
            return keys.iter().map(|key| self.stream_row(table, buckets, user, key)).collect();
        }
        let flushed = self.tier(table.id)?.flushed_through;
        let reader = RowReader::of_all(table);
        let family = Family::of_rows(table.kind);
        let decode = |key: &Key, bytes: &[u8]| -> Result<Option<HotRow>, EngineError> {
            if row::header(bytes)?.seq <= flushed {
                return Ok(None);
            }
            let (header, row) = row::decode_row(table, &reader, bytes)?;
            let key = RowKey { user: user.cloned(), key: key.clone() };
            Ok(Some(HotRow { key, seq: header.seq, updated: header.updated, row }))
        };
        if let [key] = keys {
            let found = self.get(family, &key::storage_key(table.id, user, key))?;
            return Ok(vec![found.map(|bytes| decode(key, &bytes)).transpose()?.flatten()]);
        }
        let stored: Vec<_> = keys.iter().map(|key| key::storage_key(table.id, user, key)).collect();
        let options = self.read_options();
        let found = self.db().batched_multi_get_cf_opt(self.family(family), stored.iter(), false, &options);
        let row = |(key, found): (&Key, Result<Option<DBPinnableSlice<'_>>, _>)| {
            found.map_err(failed("read hot rows"))?.map(|bytes| decode(key, &bytes)).transpose().map(Option::flatten)
        };
        keys.iter().zip(found).map(row).collect()
    }

    /// The live row of a stream table: it lies in one of few buckets.
    fn stream_row(
        &self,
        table: &Table,
        buckets: Buckets,
        user: Option<&UserId>,
        key: &Key,
    ) -> Result<Option<HotRow>, EngineError> {
        let row_key = RowKey { user: user.cloned(), key: key.clone() };
        let bytes = row_key.bytes();
        let stored: Vec<_> =
            buckets.live(self.moment).rev().map(|bucket| stream::stored_key(table.id, bucket, &bytes)).collect();
        let (family, options) = (self.family(Family::StreamTable), self.read_options());
        for found in self.db().batched_multi_get_cf_opt(family, stored.iter(), false, &options) {
            let Some(bytes) = found.map_err(failed("read rows of a stream table"))? else { continue };
            if buckets.is_live(row::header(&bytes)?.updated, self.moment.now) {
                let (header, row) = row::decode_row(table, &RowReader::of_all(table), &bytes)?;
                return Ok(Some(HotRow { key: row_key, seq: header.seq, updated: header.updated, row }));
            }
        }
        Ok(None)
    }

    /// The table's rows, or one user's, in key order: versions above `flushed_through`, tombstones too.
    pub fn rows<'a>(
        &'a self,
        table: &'a Arc<Table>,
        user: Option<&UserId>,
    ) -> impl Iterator<Item = Result<HotRow, EngineError>> + Send + use<'a> {
        let mut scan = self.raw_scan(table, user);
        let reader = RowReader::of_all(table);
        std::iter::from_fn(move || {
            scan.next_row(|key, header, bytes| {
                let (_, row) = row::decode_row(table, &reader, bytes)?;
                let key = RowKey::from_bytes(table.kind, key)?;
                Ok(HotRow { key, seq: header.seq, updated: header.updated, row })
            })
            .transpose()
        })
    }

    /// The table's live rows, or one user's, as Arrow batches in key order. `projection`: places in [`Table::sql_schema`];
    /// `with_user` appends `_user_id`.
    pub fn scan(
        &self,
        table: &Arc<Table>,
        user: Option<&UserId>,
        projection: Option<&[usize]>,
        with_user: bool,
    ) -> HotScan {
        HotScan::new(self.clone(), table.clone(), user, projection, with_user)
    }

    fn raw_scan<'a>(&'a self, table: &'a Table, user: Option<&UserId>) -> RawScan<'a> {
        RawScan { snapshot: self, table, prefix: key::part_prefix(table.id, user), state: None }
    }

    /// Changes of the table, or of one user's part, after `after`, oldest first; none older than the table's floor are complete.
    pub fn changes(
        &self,
        table: &Table,
        user: Option<&UserId>,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Change>, EngineError> {
        let part = key::part_prefix(table.id, user);
        let mut iterator = self.iterator(Family::Changes, key::prefix_end(&part));
        let mut from = part;
        from.extend_from_slice(&(after.0 + 1).to_be_bytes());
        iterator.seek(&from);
        let mut found = Vec::new();
        while found.len() < limit
            && let Some((stored, value)) = iterator.item()
        {
            let (_, seq) = changes::split_key(table.kind, key::split_table(stored)?.1)?;
            found.push(changes::decode(seq, value)?);
            iterator.next();
        }
        iterator.status().map_err(failed("read the change log"))?;
        Ok(found)
    }

    /// Keys within the table, from `after` on, of at most `limit` rows at or below `flushed_through`: the end of a flush deletes
    /// them.
    pub fn flushed_keys(
        &self,
        table: TableId,
        kind: TableKind,
        after: &[u8],
        limit: usize,
    ) -> Result<FlushedKeys, EngineError> {
        let flushed = self.tier(table)?.flushed_through;
        let prefix = key::table_prefix(table);
        let mut iterator = self.iterator(Family::of_rows(kind), key::prefix_end(&prefix));
        iterator.seek([&prefix, after].concat());
        let mut keys = Vec::new();
        while let Some((stored, value)) = iterator.item() {
            let key = &stored[prefix.len()..];
            if keys.len() == limit {
                return Ok(FlushedKeys { keys, next: Some(key.to_vec()) });
            }
            if row::header(value)?.seq <= flushed {
                keys.push(key.to_vec());
            }
            iterator.next();
        }
        iterator.status().map_err(failed("read flushed rows"))?;
        Ok(FlushedKeys { keys, next: None })
    }

    /// Calls `visit` with every record whose key begins with `prefix`, and the key behind it.
    pub(crate) fn each(
        &self,
        family: Family,
        prefix: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut iterator = self.iterator(family, key::prefix_end(prefix));
        iterator.seek(prefix);
        while let Some((stored, value)) = iterator.item() {
            visit(&stored[prefix.len()..], value)?;
            iterator.next();
        }
        iterator.status().map_err(failed("read records"))
    }

    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>, EngineError> {
        let found = self.db().get_pinned_cf_opt(self.family(family), key, &self.read_options());
        found.map_err(failed("read a record"))
    }

    /// An iterator that ends before `end`; an empty one ends with the family.
    pub(crate) fn iterator(&self, family: Family, end: Vec<u8>) -> DBRawIterator<'_> {
        let mut options = self.read_options();
        if !end.is_empty() {
            options.set_iterate_upper_bound(end);
        }
        self.db().raw_iterator_cf_opt(self.family(family), options)
    }

    fn read_options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(self.cell.borrow_dependent());
        options
    }

    fn db(&self) -> &DB {
        self.cell.borrow_owner()
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        handle(self.db(), family)
    }
}

/// Visible row versions of a table, decoded by the caller.
struct RawScan<'a> {
    snapshot: &'a HotSnapshot,
    table: &'a Table,
    prefix: Vec<u8>,
    /// Opened by the first row that is asked for: `flushed_through`, and the iterator.
    state: Option<(Seq, DBRawIterator<'a>)>,
}

impl RawScan<'_> {
    /// The next visible version: `decode` gets its key within the table, its header and its bytes.
    fn next_row<T>(
        &mut self,
        decode: impl FnOnce(&[u8], row::RowHeader, &[u8]) -> Result<T, EngineError>,
    ) -> Result<Option<T>, EngineError> {
        let (flushed, iterator) = match &mut self.state {
            Some(state) => state,
            None => {
                let flushed = self.snapshot.tier(self.table.id)?.flushed_through;
                let family = Family::of_rows(self.table.kind);
                let mut iterator = self.snapshot.iterator(family, key::prefix_end(&self.prefix));
                iterator.seek(&self.prefix);
                self.state.insert((flushed, iterator))
            }
        };
        while let Some((stored, bytes)) = iterator.item() {
            let header = row::header(bytes)?;
            if header.seq <= *flushed {
                iterator.next();
                continue;
            }
            let row = decode(key::split_table(stored)?.1, header, bytes);
            iterator.next();
            return row.map(Some);
        }
        iterator.status().map_err(failed("read hot rows"))?;
        Ok(None)
    }
}
