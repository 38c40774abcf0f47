//! What the committer's thread knows of the tables, and the commits that go alone: catalog changes, and all that is no row of a statement.

use std::collections::HashMap;
use std::sync::Arc;

use rocksdb::WriteBatch;

use crate::EngineError;
use crate::access::AccessChange;
use crate::catalog::{self, Applied, CatalogChange, Effect};
use crate::commit::Shared;
use crate::commit::queue::{Outcome, Request};
use crate::commit::record::{CommitRecord, KeyRange};
use crate::config::{Durability, EngineConfig};
use crate::hot::dropped::DroppedTable;
use crate::hot::store::Family;
use crate::hot::stream::Buckets;
use crate::hot::tier::TierRecord;
use crate::hot::volume;
use crate::observe::Changed;
use crate::plant::{Plant, planted};
use crate::schema::{SchemaVersion, Table, TableId, TableKind, TableName};
use crate::seq::Seq;

/// What the thread knows of a table.
#[derive(Debug, Clone)]
pub(super) struct TableState {
    pub(super) name: TableName,
    pub(super) kind: TableKind,
    pub(super) version: SchemaVersion,
    pub(super) record: TierRecord,
    /// No row of the table was written after it: what was looked through up to here is the whole table.
    pub(super) last_written: Seq,
    /// Of a stream table.
    pub(super) buckets: Option<Buckets>,
}

impl TableState {
    pub(super) fn new(table: &Table, record: TierRecord, last_written: Seq) -> Self {
        Self {
            name: table.name.clone(),
            kind: table.kind,
            version: table.version,
            record,
            last_written,
            buckets: Buckets::of(table),
        }
    }
}

/// The tables that exist, by id.
pub(super) type Tables = HashMap<TableId, TableState>;

/// The thread's state. Nobody else writes what it writes, so its memory is always what is on disk.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) tables: Tables,
    /// The last sequence of a commit.
    pub(super) last_seq: Seq,
    pub(super) sync: bool,
    /// Entries of the audit log that are kept of each kind.
    pub(super) audit_entries: usize,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, tables: Tables, config: &EngineConfig) -> Self {
        let last_seq = shared.hot.high_water().seq;
        let sync = config.durability == Durability::Sync;
        Self { shared, tables, last_seq, sync, audit_entries: config.limits.audit_entries }
    }

    pub(super) fn commit_alone(&mut self, request: Request) {
        let outcome = match request.record {
            CommitRecord::Rows(_) => unreachable!("rows are committed in groups"),
            CommitRecord::Catalog { change, recorded } => self.change_catalog(&change, recorded),
            CommitRecord::BeginFlush { table, epoch, job } => self.begin_flush(table, epoch, job),
            CommitRecord::StoreFence { table, epoch, job } => self.store_fence(table, epoch, job),
            CommitRecord::EndFlush { table, intent, places } => self.end_flush(table, &intent, places),
            CommitRecord::StoreCompaction { table, epoch, job, base } => self.store_compaction(table, epoch, job, base),
            CommitRecord::EndCompaction { table, intent, replaced, places } => {
                self.end_compaction(table, &intent, &replaced, places)
            }
            CommitRecord::EndFence { table, intent } => self.end_fence(table, &intent),
            CommitRecord::DeleteFlushed { table, what } => self.delete_flushed(table, &what),
            CommitRecord::TrimChanges { table, floor, ranges } => self.trim_changes(table, floor, &ranges),
            CommitRecord::Recover(recovered) => self.recover(*recovered),
            CommitRecord::RecoverTable { table, tier, high_water, next } => {
                self.recover_table(table, tier, high_water, next)
            }
            CommitRecord::DropExpired { table, range } => self.drop_expired(table, &range),
            CommitRecord::Access(changes) => self.change_access(changes),
        };
        crash_point!("commit.alone_done");
        let _ = request.reply.send(outcome);
    }

    /// The audit log's entry is in the change's own batch: neither is ever there without the other.
    fn change_catalog(&mut self, change: &CatalogChange, recorded: Vec<AccessChange>) -> Result<Outcome, EngineError> {
        if let CatalogChange::AlterTable { table, validated: Some(validated) } = change
            && self.table(table.id)?.last_written > *validated
            && !planted(Plant::AlterTrustsItsLook)
        {
            return Err(EngineError::Stale);
        }
        let applied = catalog::apply(&self.shared.catalog.load(), change)?;
        let mut batch = WriteBatch::default();
        catalog::stage(&self.shared.hot, &mut batch, &applied.catalog, &applied.effects);
        self.stage_dropped(&mut batch, &applied.effects);
        self.stage_access_of(&mut batch, &applied.effects);
        self.stage_recorded(&mut batch, recorded);
        crash_point!("catalog.staged");
        self.write(batch, self.sync);
        crash_point!("catalog.written");
        self.take_catalog(applied);
        Ok(Outcome::Done)
    }

    /// A change that is written becomes the present catalog.
    pub(super) fn take_catalog(&mut self, applied: Applied) {
        for effect in &applied.effects {
            match effect {
                Effect::PutTable(table) => {
                    let known = self.tables.remove(&table.id).map(|state| (state.record, state.last_written));
                    let (record, last_written) = known.unwrap_or_default();
                    self.tables.insert(table.id, TableState::new(table, record, last_written));
                }
                Effect::DropTable(table) => {
                    self.tables.remove(&table.id);
                    self.shared.unflushed.lock().remove(&table.id);
                    self.shared.changes.lock().remove(table.id);
                }
                Effect::PutNamespace(_) | Effect::DropNamespace(_) | Effect::PutUser(_) | Effect::DropUser(_) => {}
                Effect::PutStorage(_) | Effect::DropStorage(_) => {}
            }
        }
        self.shared.catalog.store(Arc::new(applied.catalog));
        applied.effects.iter().map(changed_by).for_each(|changed| self.shared.observing.tell(&changed));
    }

    /// A vacuum deletes the folders of dropped tables later. Stream tables have none.
    fn stage_dropped(&self, batch: &mut WriteBatch, effects: &[Effect]) {
        let now_ms = self.shared.clock.now_micros().div_euclid(1000);
        for effect in effects {
            if let Effect::DropTable(table) = effect
                && table.kind != TableKind::Stream
            {
                let dropped = DroppedTable::new(table, now_ms);
                batch.put_cf(self.shared.hot.family(Family::Meta), dropped.key(), dropped.encode());
            }
        }
    }

    /// Nothing in the range may be seen any more; the time that said so is stored with it. A power cut may bring both back, which
    /// is settled by the next of these.
    fn drop_expired(&mut self, table: TableId, (from, to): &KeyRange) -> Result<Outcome, EngineError> {
        self.table(table)?;
        let mut batch = WriteBatch::default();
        if from < to {
            batch.delete_range_cf(self.shared.hot.family(Family::StreamTable), from, to);
        }
        stage_high_water(&self.shared, &mut batch);
        crash_point!("expiry.staged");
        self.write(batch, false);
        crash_point!("expiry.written");
        Ok(Outcome::Done)
    }

    pub(super) fn write_high_water(&self) {
        let mut batch = WriteBatch::default();
        stage_high_water(&self.shared, &mut batch);
        self.write(batch, self.sync);
    }

    /// The table's state.
    pub(super) fn table(&self, table: TableId) -> Result<&TableState, EngineError> {
        self.tables.get(&table).ok_or_else(|| no_table(table))
    }

    /// Stores the table's tier record, with whatever else is in the batch, and then takes it for the present one.
    pub(super) fn write_tier(&mut self, mut batch: WriteBatch, table: TableId, record: TierRecord, sync: bool) {
        let hot = &self.shared.hot;
        batch.put_cf(hot.family(Family::Tiers), TierRecord::key(table), record.encode());
        self.write(batch, sync);
        if let Some(state) = self.tables.get_mut(&table) {
            state.record = record;
        }
    }

    /// Whether commits of this instance wait for the disk.
    pub(super) fn syncs(&self) -> bool {
        self.sync
    }
}

/// The error for a table that is gone.
pub(super) fn no_table(table: TableId) -> EngineError {
    EngineError::NotFound { what: "table", name: format!("number {}", table.0) }
}

/// Puts the clock's high-water mark into a batch.
pub(super) fn stage_high_water(shared: &Shared, batch: &mut WriteBatch) {
    let mark = shared.clock.high_water();
    batch.put_cf(shared.hot.family(Family::Meta), volume::HIGH_WATER_KEY, volume::encode(&mark));
}

fn changed_by(effect: &Effect) -> Changed {
    match effect {
        Effect::PutNamespace(namespace) => Changed::Namespace(namespace.name.clone()),
        Effect::DropNamespace(name) => Changed::Namespace(name.clone()),
        Effect::PutTable(table) | Effect::DropTable(table) => Changed::Table(table.name.clone()),
        Effect::PutUser(_) | Effect::DropUser(_) => Changed::User,
        Effect::PutStorage(_) | Effect::DropStorage(_) => Changed::Storage,
    }
}
