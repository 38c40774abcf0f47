//! Snapshots of all tables, and what is looked up in them.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use datafusion::catalog::TableProvider;

use super::{Engine, FoundRow, LookUp};
use crate::EngineError;
use crate::catalog::Catalog;
use crate::cold::{self, ColdSnapshot, PinnedCold};
use crate::hot::snapshot::StoredKeys;
use crate::hot::{HotRow, HotSnapshot, Key, RowKey};
use crate::scan;
use crate::schema::{Table, UserId};
use crate::seq::Seq;
use crate::transaction::{Overlay, Transaction, TransactionLimits};

/// Point reads of up to so many keys run on the calling thread.
const INLINE_KEYS: usize = 16;

/// A consistent view of every table: one RocksDB snapshot, and the version of each cold table that it names.
#[derive(Clone)]
pub struct ReadSnapshot {
    pub(super) hot: HotSnapshot,
    pub(super) cold: PinnedCold,
    /// Every commit of rows up to this one is seen.
    pub(super) seen_through: Seq,
    /// What the transaction that reads has written itself.
    pub(super) overlay: Option<Arc<Overlay>>,
}

impl Engine {
    /// A consistent view of everything that was acknowledged before the call.
    pub fn snapshot(&self) -> ReadSnapshot {
        // In this order: what is pinned after the RocksDB snapshot has the cold versions that the snapshot names.
        let shared = self.inner.committer.shared();
        let seen_through = shared.committed();
        let hot = self.inner.hot.snapshot().at(shared.clock.moment());
        ReadSnapshot { hot, cold: self.inner.cold.pin(), seen_through, overlay: None }
    }

    /// Begins a transaction over a consistent view of everything that was acknowledged before the call.
    pub fn begin(&self, limits: TransactionLimits) -> Transaction {
        Transaction::begin(self.clone(), limits)
    }

    /// The catalog, and a snapshot of the same moment: no row in it was written with a later schema, and every row of it holds to
    /// the present one.
    pub fn read(&self) -> (Arc<Catalog>, ReadSnapshot) {
        loop {
            let catalog = self.catalog();
            let snapshot = self.snapshot();
            if Arc::ptr_eq(&catalog, &self.catalog()) {
                return (catalog, snapshot);
            }
        }
    }
}

impl ReadSnapshot {
    pub(crate) fn with_overlay(self, overlay: Arc<Overlay>) -> Self {
        Self { overlay: Some(overlay), ..self }
    }

    /// When it was taken, by the database's own time, in microseconds since the Unix epoch: rows of stream tables expire by it.
    pub fn read_at(&self) -> i64 {
        self.hot.moment().now
    }

    /// Looks the keys up, first in what the transaction has written, then hot, then cold, in this snapshot; answers in the order of
    /// the keys. Every answer is a [`LookUp::Read`].
    pub async fn look_up(
        &self,
        table: &Arc<Table>,
        user: Option<&UserId>,
        keys: &[Key],
    ) -> Result<Vec<LookUp>, EngineError> {
        let Some(overlay) = &self.overlay else { return self.look_up_committed(table, user, keys).await };
        Overlay::check(table)?;
        let written = overlay.found(table, user, keys);
        let others: Vec<Key> =
            keys.iter().zip(&written).filter(|(_, written)| written.is_none()).map(|(key, _)| key.clone()).collect();
        let mut committed = self.look_up_committed(table, user, &others).await?.into_iter();
        let cold_version = self.hot.tier(table.id)?.cold_version;
        let look_up = |written: Option<Option<FoundRow>>| match written {
            Some(found) => LookUp::Read { found, cold_version, unwritten_through: None },
            None => committed.next().expect("every other key was looked up"),
        };
        Ok(written.into_iter().map(look_up).collect())
    }

    async fn look_up_committed(
        &self,
        table: &Arc<Table>,
        user: Option<&UserId>,
        keys: &[Key],
    ) -> Result<Vec<LookUp>, EngineError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let cold_version = self.hot.tier(table.id)?.cold_version;
        let hot = self.hot_rows(table, user, keys).await?;
        // A key with a hot version, be it a tombstone, lives nowhere else; one without is masked nowhere.
        let elsewhere: Vec<_> = hot.iter().enumerate().filter(|(_, hot)| hot.is_none()).map(|(at, _)| at).collect();
        let read = |hot: Option<HotRow>| LookUp::Read {
            unwritten_through: hot.is_none().then_some(self.seen_through),
            found: hot.and_then(FoundRow::of_hot),
            cold_version,
        };
        let mut look_ups: Vec<_> = hot.into_iter().map(read).collect();
        if cold_version >= 0 && !elsewhere.is_empty() {
            let keys = elsewhere.iter().map(|at| RowKey { user: user.cloned(), key: keys[*at].clone() });
            let snapshot = self.cold.at(table, cold_version).await?;
            let rows = cold::look_up(self.cold.tier(), &snapshot, table, &keys.collect::<Vec<_>>()).await?;
            for (at, row) in elsewhere.into_iter().zip(rows) {
                if let LookUp::Read { found, .. } = &mut look_ups[at] {
                    *found = row;
                }
            }
        }
        Ok(look_ups)
    }

    /// Few keys are read in place, many on a blocking thread.
    async fn hot_rows(
        &self,
        table: &Arc<Table>,
        user: Option<&UserId>,
        keys: &[Key],
    ) -> Result<Vec<Option<HotRow>>, EngineError> {
        if keys.len() <= INLINE_KEYS {
            return self.hot.rows_at(table, user, keys);
        }
        let stored = StoredKeys::new(table, user, keys);
        if self.hot.has_nothing_at(table, &stored)? {
            return Ok(vec![None; keys.len()]);
        }
        let (hot, table) = (self.hot.clone(), table.clone());
        let read = move || hot.rows_at_stored(&table, &stored);
        tokio::task::spawn_blocking(read).await.expect("reading rows does not panic")
    }

    /// The cold version of the table that this snapshot reads, for those who show it; none for a table without one.
    pub async fn cold_version(&self, table: &Arc<Table>) -> Result<Option<Arc<ColdSnapshot>>, EngineError> {
        let version = self.hot.tier(table.id)?.cold_version;
        if version < 0 {
            return Ok(None);
        }
        self.cold.at(table, version).await.map(Some)
    }

    /// DataFusion's view of the table in this snapshot, with [`Table::sql_schema`]; of a per-user table only that user's rows.
    pub fn provider(&self, table: &Arc<Table>, user: Option<&UserId>) -> Arc<dyn TableProvider> {
        self.provider_with(table, table.sql_schema(), user)
    }

    /// As [`ReadSnapshot::provider`], for who has the table's [`Table::sql_schema`] already.
    pub fn provider_with(
        &self,
        table: &Arc<Table>,
        schema: SchemaRef,
        user: Option<&UserId>,
    ) -> Arc<dyn TableProvider> {
        let user = user.cloned();
        scan::provider(self.hot.clone(), self.cold.clone(), table.clone(), schema, user, self.overlay.clone())
    }
}
