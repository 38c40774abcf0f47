//! The commits that bring an empty volume back, and later a table that could not be brought back with it.

use std::sync::Arc;

use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::EngineError;
use crate::catalog::{self, Catalog, CatalogChange, Credentials, Effect, Namespace, User};
use crate::commit::queue::Outcome;
use crate::commit::writer::{TableState, Writer, stage_high_water};
use crate::hot::DroppedTable;
use crate::hot::store::Family;
use crate::hot::tier::{TableTier, TierRecord};
use crate::hot::volume::{self, HighWater, VolumeRecord};
use crate::observe::Changed;
use crate::schema::{Table, TableId};

/// All that a volume takes over from the object store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovered {
    /// The database whose volume it becomes.
    pub database_id: Uuid,
    /// The catalog's namespaces.
    pub namespaces: Vec<Namespace>,
    /// Every version of every table, oldest first.
    pub tables: Vec<Table>,
    /// Users, without credentials.
    pub users: Vec<User>,
    /// The next table's number.
    pub next_table_id: u32,
    /// Where the tiers of each table meet that has a Delta log.
    pub tiers: Vec<(TableId, TableTier)>,
    /// Nothing that was flushed is above it.
    pub high_water: HighWater,
    /// Tables that were dropped before, and whose folders a vacuum is still to delete.
    pub dropped: Vec<DroppedTable>,
}

impl Recovered {
    /// A catalog, and nothing of its tables.
    pub fn of(database_id: Uuid, catalog: &Catalog) -> Self {
        Self {
            database_id,
            namespaces: catalog.namespaces.values().map(|one| Namespace::clone(one)).collect(),
            tables: catalog.versions.values().flat_map(|all| all.iter()).map(|one| Table::clone(one)).collect(),
            users: catalog.users.values().map(|one| User::clone(one)).collect(),
            next_table_id: catalog.next_table_id,
            tiers: Vec::new(),
            high_water: HighWater::default(),
            dropped: Vec::new(),
        }
    }
}

impl Writer {
    /// The whole recovery in one batch: the volume is empty before it, and the database's after it.
    pub(super) fn recover(&mut self, recovered: Recovered) -> Result<Outcome, EngineError> {
        let present = self.shared.catalog.load_full();
        if !present.tables.is_empty() || self.shared.hot.prefix_proven()? {
            return Err(EngineError::Invalid("only an empty volume is recovered; this one holds a database".into()));
        }
        let Recovered { database_id, namespaces, tables, mut users, next_table_id, tiers, high_water, dropped } =
            recovered;
        // What was set at this start, which is root's password, is all that there is of passwords.
        for user in &mut users {
            let known = present.users.get(&user.id).map(|known| known.credentials.clone());
            user.credentials = known.unwrap_or(Credentials::None);
        }
        let catalog = Catalog::of(namespaces, tables, users, next_table_id);
        self.shared.clock.raise(high_water);
        let record = VolumeRecord { database_id, ..VolumeRecord::clone(&self.shared.hot.volume()) };
        let mut batch = self.recovery_batch(&catalog, &tiers, &record);
        for table in &dropped {
            batch.put_cf(self.shared.hot.family(Family::Meta), table.key(), table.encode());
        }
        crash_point!("recovery.staged");
        self.write(batch, true);
        crash_point!("recovery.written");

        self.shared.hot.set_volume(record);
        self.last_seq = self.last_seq.max(high_water.seq);
        for table in catalog.tables.values() {
            let tier = tiers.iter().find(|(id, _)| *id == table.id).map(|(_, tier)| *tier);
            let state = TableState::new(table, tier.map(tier_record).unwrap_or_default(), high_water.seq);
            self.tables.insert(table.id, state);
        }
        self.shared.catalog.store(Arc::new(catalog));
        self.shared.observing.tell(&Changed::Everything);
        Ok(Outcome::Done)
    }

    fn recovery_batch(&self, catalog: &Catalog, tiers: &[(TableId, TableTier)], record: &VolumeRecord) -> WriteBatch {
        let (hot, mut batch) = (&self.shared.hot, WriteBatch::default());
        let namespaces = catalog.namespaces.values().cloned().map(Effect::PutNamespace);
        let tables = catalog.versions.values().flat_map(|all| all.iter()).cloned().map(Effect::PutTable);
        let users = catalog.users.values().cloned().map(Effect::PutUser);
        let effects: Vec<_> = namespaces.chain(tables).chain(users).collect();
        catalog::stage(hot, &mut batch, catalog, &effects);
        for (table, tier) in tiers {
            batch.put_cf(hot.family(Family::Tiers), TierRecord::key(*table), tier_record(*tier).encode());
        }
        batch.put_cf(hot.family(Family::Meta), volume::VOLUME_KEY, volume::encode(record));
        batch.put_cf(hot.family(Family::Meta), volume::PREFIX_PROVEN_KEY, [1]);
        stage_high_water(&self.shared, &mut batch);
        batch
    }

    /// A table of a recovered volume whose log can be read now.
    pub(super) fn recover_table(
        &mut self,
        table: TableId,
        tier: TableTier,
        high_water: HighWater,
        next: Option<Box<Table>>,
    ) -> Result<Outcome, EngineError> {
        let state = self.table(table)?;
        if !state.record.tier.is_unrecovered() {
            return Err(EngineError::Invalid(format!("table {} is recovered already", state.name)));
        }
        let altered =
            |table| catalog::apply(&self.shared.catalog.load(), &CatalogChange::AlterTable { table, validated: None });
        let altered = next.map(altered).transpose()?;
        self.shared.clock.raise(high_water);
        self.last_seq = self.last_seq.max(high_water.seq);
        let mut batch = WriteBatch::default();
        stage_high_water(&self.shared, &mut batch);
        if let Some(altered) = &altered {
            catalog::stage(&self.shared.hot, &mut batch, &altered.catalog, &altered.effects);
        }
        self.write_tier(batch, table, tier_record(tier), true);
        if let Some(altered) = altered {
            self.take_catalog(altered);
        }
        Ok(Outcome::Done)
    }
}

/// The change log begins with what comes after the recovery.
fn tier_record(tier: TableTier) -> TierRecord {
    TierRecord { tier, intents: Vec::new(), change_floor: tier.flushed_through }
}
