//! One RocksDB snapshot: rows, tiers, masks, intents, dirty keys and changes, all as of the same moment.
//!
//! Everything here is synchronous and may read from disk: callers with long reads run them on a blocking thread.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use roaring::RoaringTreemap;
use rocksdb::{ColumnFamily, DB, DBPinnableSlice, DBRawIterator, ReadOptions, Snapshot};

use crate::EngineError;
use crate::catalog;
use crate::commit::record::KeyRange;
use crate::flush::{Intent, IntentKind};
use crate::hot::changes::{self, Change};
use crate::hot::dropped::DroppedTable;
use crate::hot::key::{self, Key, KeyBounds, RowKey};
use crate::hot::row::{self, RowReader};
use crate::hot::scan::HotScan;
use crate::hot::store::{Family, failed, handle};
use crate::hot::stream::{self, Buckets, Moment};
use crate::hot::tier::{self, Mask, TableTier, TierRecord};
use crate::hot::volume::{self, HighWater};
use crate::plant::{Plant, planted};
use crate::schema::{Table, TableId, TableKind, TableName, UserId};
use crate::seq::Seq;
use crate::value::Row;

/// The newest row version of each table: no version on disk has a higher sequence.
#[derive(Debug, Default)]
pub struct Newest(RwLock<HashMap<TableId, Seq>>);

impl Newest {
    /// A version is about to be written, or was found at the start. Before the write, so that no snapshot has what is not told here.
    pub(crate) fn raise(&self, table: TableId, seq: Seq) {
        let mut newest = self.0.write();
        let known = newest.entry(table).or_insert(seq);
        *known = seq.max(*known);
    }

    /// None where nothing is known of the table.
    fn of(&self, table: TableId) -> Option<Seq> {
        self.0.read().get(&table).copied()
    }
}

/// Entries of deleted rows that a search steps over before it gives up.
const STEPS: u64 = 64;

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
    newest: Arc<Newest>,
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

/// Keys of one table, or of one user's part of it, as they are stored, one behind the other.
pub struct StoredKeys {
    user: Option<UserId>,
    /// Bytes of each before its primary key.
    prefix: usize,
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl StoredKeys {
    /// The keys in their order.
    pub fn new(table: &Table, user: Option<&UserId>, keys: &[Key]) -> Self {
        let mut bytes = key::part_prefix(table.id, user);
        let prefix = bytes.len();
        bytes.clear();
        bytes.reserve(keys.iter().map(|key| prefix + key.0.len()).sum());
        let mut ends = Vec::with_capacity(keys.len());
        for key in keys {
            key::put_part_prefix(&mut bytes, table.id, user);
            bytes.extend_from_slice(&key.0);
            ends.push(bytes.len());
        }
        Self { user: user.cloned(), prefix, bytes, ends }
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn stored(&self, at: usize) -> &[u8] {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[from..self.ends[at]]
    }

    fn key(&self, at: usize) -> Key {
        Key(self.stored(at)[self.prefix..].into())
    }

    fn are_ascending(&self) -> bool {
        (1..self.len()).all(|at| self.stored(at - 1) < self.stored(at))
    }
}

/// A part of a table that was looked through for rows that lie in the cold tier now.
pub struct FlushedPart {
    /// From the first of them, inclusive, to the part's end, exclusive, as stored keys; none where there are none.
    pub range: Option<KeyRange>,
    /// Bytes of their keys.
    pub bytes: usize,
    /// The key within the table at which to go on; none at the end of the table.
    pub next: Option<Vec<u8>>,
}

impl HotSnapshot {
    pub(crate) fn take(db: Arc<DB>, newest: Arc<Newest>) -> Self {
        Self { cell: Arc::new(OwnedSnapshot::new(db, |db| db.snapshot())), newest, moment: Moment::default() }
    }

    /// Whether no row of the table can lie above that sequence. What is known of the newest rows is never older than the snapshot.
    pub fn has_none_above(&self, table: TableId, seq: Seq) -> bool {
        self.newest.of(table).is_some_and(|newest| newest <= seq)
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
        // The masks of a file follow one another by row: its name is read once for all of them.
        let (mut part, mut file, mut hidden) = (Vec::new(), String::new(), RoaringTreemap::new());
        self.each(Family::Masks, &key::table_prefix(table), |stored, _| {
            let (of_file, row) = Mask::split_row(stored)?;
            if part != of_file {
                if !hidden.is_empty() {
                    rows.insert(file.as_str().into(), std::mem::take(&mut hidden));
                }
                file = Mask::place(stored)?.0;
                part = of_file.to_vec();
            }
            // Ascending within a file, which an append takes for granted; nothing is lost where it is not so.
            if hidden.try_push(row).is_err() {
                hidden.insert(row);
            }
            Ok(())
        })?;
        if !hidden.is_empty() {
            rows.insert(file.as_str().into(), hidden);
        }
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
        self.rows_at_stored(table, &StoredKeys::new(table, user, keys))
    }

    /// Whether the hot tier is known to have nothing at all at these keys: they ascend, and nothing lies from the first of them to the
    /// last. That is one search, where most INSERTs would make as many as they have rows.
    pub fn has_nothing_at(&self, table: &Table, keys: &StoredKeys) -> Result<bool, EngineError> {
        let (false, Some(last)) = (table.kind == TableKind::Stream || !keys.are_ascending(), keys.len().checked_sub(1))
        else {
            return Ok(false);
        };
        let mut options = self.read_options();
        options.set_iterate_upper_bound([keys.stored(last), &[0]].concat());
        // Rows that were deleted lie there still, for a while: it gives up rather than step over many.
        options.set_max_skippable_internal_keys(STEPS);
        let mut iterator = self.db().raw_iterator_cf_opt(self.family(Family::of_rows(table.kind)), options);
        iterator.seek(keys.stored(0));
        Ok(!iterator.valid() && iterator.status().is_ok())
    }

    /// As [`HotSnapshot::rows_at`], for keys as they are stored.
    pub fn rows_at_stored(&self, table: &Table, keys: &StoredKeys) -> Result<Vec<Option<HotRow>>, EngineError> {
        if let Some(buckets) = Buckets::of(table) {
            let row = |at| self.stream_row(table, buckets, keys.user.as_ref(), &keys.key(at));
            return (0..keys.len()).map(row).collect();
        }
        let flushed = self.tier(table.id)?.flushed_through;
        // Made for the first row that is found: most keys of an INSERT are free.
        let reader = OnceCell::new();
        let decode = |at: usize, bytes: &[u8]| -> Result<Option<HotRow>, EngineError> {
            if row::header(bytes)?.seq <= flushed {
                return Ok(None);
            }
            let (header, row) = row::decode_row(table, reader.get_or_init(|| RowReader::of_all(table)), bytes)?;
            let key = RowKey { user: keys.user.clone(), key: keys.key(at) };
            Ok(Some(HotRow { key, seq: header.seq, updated: header.updated, row }))
        };
        let family = Family::of_rows(table.kind);
        if keys.len() == 1 {
            let found = self.get(family, keys.stored(0))?;
            return Ok(vec![found.map(|bytes| decode(0, &bytes)).transpose()?.flatten()]);
        }
        let (family, options) = (self.family(family), self.read_options());
        let stored = (0..keys.len()).map(|at| keys.stored(at));
        let found = self.db().batched_multi_get_cf_opt(family, stored, keys.are_ascending(), &options);
        let row = |(at, found): (usize, Result<Option<DBPinnableSlice<'_>>, _>)| {
            found.map_err(failed("read hot rows"))?.map(|bytes| decode(at, &bytes)).transpose().map(Option::flatten)
        };
        found.into_iter().enumerate().map(row).collect()
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
            if buckets.is_live(row::header(&bytes)?.updated, self.moment.now) || planted(Plant::ExpiredRowsAreRead) {
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

    /// The table's live rows, or one user's, in key order. `with_user`: with the user of each.
    pub fn scan(&self, table: &Arc<Table>, user: Option<&UserId>, with_user: bool) -> HotScan {
        self.scan_within(table, user, &KeyBounds::ALL, with_user)
    }

    /// As [`HotSnapshot::scan`], of a part of the keys.
    pub fn scan_within(
        &self,
        table: &Arc<Table>,
        user: Option<&UserId>,
        bounds: &KeyBounds,
        with_user: bool,
    ) -> HotScan {
        HotScan::new(self.clone(), table.clone(), user, bounds, with_user)
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

    /// From `after` on, a part of the table with at most `limit` stored rows, and whether any of them lies at or below
    /// `flushed_through`: the end of a flush deletes those.
    pub fn flushed_part(
        &self,
        table: TableId,
        kind: TableKind,
        after: &[u8],
        limit: usize,
    ) -> Result<FlushedPart, EngineError> {
        let flushed = self.tier(table)?.flushed_through;
        let prefix = key::table_prefix(table);
        let mut iterator = self.iterator(Family::of_rows(kind), key::prefix_end(&prefix));
        iterator.seek([&prefix, after].concat());
        let (mut rows, mut bytes, mut from) = (0, 0, None);
        while let Some((stored, value)) = iterator.item() {
            if rows == limit {
                let next = stored[prefix.len()..].to_vec();
                return Ok(FlushedPart { range: from.map(|from| (from, stored.to_vec())), bytes, next: Some(next) });
            }
            rows += 1;
            if row::header(value)?.seq <= flushed {
                bytes += stored.len();
                from.get_or_insert_with(|| stored.to_vec());
            }
            iterator.next();
        }
        iterator.status().map_err(failed("read flushed rows"))?;
        Ok(FlushedPart { range: from.map(|from| (from, key::prefix_end(&prefix))), bytes, next: None })
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

    /// The same for what nobody will read again soon: nothing of it stays in the cache.
    pub(crate) fn iterator_once(&self, family: Family, end: Vec<u8>, read_ahead: usize) -> DBRawIterator<'_> {
        let mut options = self.read_options();
        options.fill_cache(false);
        options.set_readahead_size(read_ahead);
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
