//! The recovery of an empty volume: the newest mirror, a new epoch, a fence in each table, a mirror of its own, and one batch.
//!
//! Whatever dies on the way leaves the volume empty, and the next start begins again with a higher epoch. So does a recovery that finds a
//! newer mirror after its fences than the one it began with.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{StreamExt, TryStreamExt};
use uuid::Uuid;

use super::fence::{Fenced, Outcome, fence_at_end};
use super::mirror::{Mirror, MirrorName};
use super::objects;
use crate::EngineError;
use crate::catalog::{self, Catalog, CatalogChange, first_catalog};
use crate::cold::ColdTier;
use crate::cold::identity::{self, Identity};
use crate::commit::Committer;
use crate::commit::recovery::Recovered;
use crate::evolution::proof;
use crate::flush::Epoch;
use crate::hot::Hot;
use crate::hot::tier::TableTier;
use crate::point::point;
use crate::schema::{Table, TableId, TableKind};

/// Tables that are fenced at once; in tests one, so that a scheduler decides their order.
const TABLES_AT_ONCE: usize = if cfg!(test) { 1 } else { 8 };
/// How often a new epoch is claimed where others claim theirs meanwhile.
const EPOCHS: usize = 10;

/// What a recovery needs.
pub struct Recovery<'a> {
    /// The empty volume.
    pub hot: &'a Hot,
    /// The object store.
    pub cold: &'a ColdTier,
    /// Takes the one batch.
    pub committer: &'a Committer,
    /// Milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// Why a volume was not recovered.
#[derive(Debug)]
pub enum Trouble {
    /// The object store or another owner is in the way now; a later try can succeed.
    Later(EngineError),
    /// A person must act.
    Stuck(EngineError),
}

/// A volume that was recovered.
#[derive(Debug)]
pub struct Done {
    /// The epoch that fenced the tables.
    pub epoch: Epoch,
    /// Tables whose Delta log can't be read, and why: they stay stopped.
    pub stopped: HashMap<TableId, String>,
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Unavailable(_) => Self::Later(error),
            error => Self::Stuck(error),
        }
    }
}

impl Recovery<'_> {
    /// Recovers the database of that identity. `tell` gets how far it is: tables that are done, and all.
    pub async fn run(&self, identity: &Identity, tell: impl Fn(usize, usize) + Sync) -> Result<Done, Trouble> {
        for _ in 0..EPOCHS {
            let mirror = self.newest_mirror(identity).await?;
            let catalog = mirror.as_ref().map_or_else(|| first_catalog(self.now_ms), |mirror| mirror.catalog.clone());
            let dropped = mirror.as_ref().map(|mirror| mirror.dropped.clone()).unwrap_or_default();
            self.cold.place_all(&catalog, &dropped)?;
            let epoch = identity::claim_epoch(self.cold.store(), identity.database_id, self.now_ms).await?;
            crash_point!("recovery.epoch_claimed");
            point!("recovery.claimed");
            let Some(fenced) = self.fence_all(&catalog, epoch, &tell).await? else { continue };
            crash_point!("recovery.fenced");
            point!("recovery.fenced");
            // An earlier owner that lives on may have altered and flushed a table before its fence, and mirrored that before. Nothing of
            // the kind can follow the fence.
            let newest = objects::names(self.cold.store()).await?.pop();
            if newest != mirror.as_ref().map(|mirror| mirror.name) {
                continue;
            }
            let mut high_water = mirror.as_ref().map(|mirror| mirror.high_water).unwrap_or_default();
            let (mut catalog, mut tiers, mut stopped) = (catalog, Vec::new(), HashMap::new());
            for (table, fenced) in fenced {
                let tier = match fenced {
                    Ok(fenced) => {
                        high_water = high_water.max(fenced.high_water);
                        if let Some(table) = as_flushed(&catalog, table, &fenced, self.now_ms) {
                            catalog = catalog::apply(&catalog, &alter_to(table))?.catalog;
                        }
                        fenced.tier
                    }
                    Err(reason) => {
                        stopped.insert(table, reason);
                        TableTier::unrecovered()
                    }
                };
                tiers.push((table, tier));
            }
            let recovered = Recovered { tiers, high_water, dropped, ..Recovered::of(identity.database_id, &catalog) };
            self.mirror(identity.database_id, epoch, catalog, &recovered).await?;
            crash_point!("recovery.mirrored");
            point!("recovery.mirrored");
            self.committer.recover(recovered).await?;
            return Ok(Done { epoch, stopped });
        }
        Err(Trouble::Later(EngineError::Unavailable(
            "other instances claim epochs of the same prefix, or go on changing its catalog; stop them".into(),
        )))
    }

    /// None where the database has never flushed anything: its prefix holds nothing but its identity then.
    async fn newest_mirror(&self, identity: &Identity) -> Result<Option<Mirror>, Trouble> {
        let store = self.cold.store();
        let mirror = objects::newest(store).await.map_err(|error| match error {
            EngineError::Corrupt { what, reason } => {
                Trouble::Stuck(EngineError::Corrupt { what, reason: format!("{reason}. {MEND_MIRROR}") })
            }
            error => Trouble::from(error),
        })?;
        match mirror {
            Some(mirror) if mirror.database_id == identity.database_id => Ok(Some(mirror)),
            Some(mirror) => Err(Trouble::Stuck(EngineError::Corrupt {
                what: format!("mirror of the catalog {} in {}", objects::path_of(mirror.name), store.name()),
                reason: format!("it is of database {}, and the prefix belongs to {}", mirror.database_id, identity.database_id),
            })),
            None if self.holds_tables().await? => Err(Trouble::Stuck(EngineError::Invalid(
                "it has no mirror of its catalog, without which nobody knows whose rows its files are: attach the volume that wrote \
                 it, which will mirror it"
                    .into(),
            ))),
            None => Ok(None),
        }
    }

    async fn holds_tables(&self) -> Result<bool, EngineError> {
        let (store, folder) = (self.cold.store(), object_store::path::Path::from("tables"));
        let first = store.objects().list(Some(&folder)).try_next().await;
        first.map(|first| first.is_some()).map_err(|error| store.failed("list tables", error))
    }

    /// None where a later epoch was first.
    async fn fence_all(
        &self,
        catalog: &Catalog,
        epoch: Epoch,
        tell: &(impl Fn(usize, usize) + Sync),
    ) -> Result<Option<Vec<(TableId, Result<Fenced, String>)>>, EngineError> {
        let tables: Vec<&Arc<Table>> =
            catalog.tables.values().filter(|table| table.kind != TableKind::Stream).collect();
        let (all, done) = (tables.len(), AtomicUsize::new(0));
        let fence = |table: Arc<Table>| {
            let done = &done;
            async move {
                let fenced = match fence_at_end(self.cold, &table, epoch, self.now_ms).await {
                    Ok(Outcome::Fenced(fenced)) => Some(Ok(fenced)),
                    Ok(Outcome::TooLate) => None,
                    Err(error @ EngineError::Unavailable(_)) => return Err(error),
                    Err(error) => {
                        tracing::error!(table = %table.name, %error, "the table is not recovered, and stays stopped; the others go on");
                        Some(Err(unreadable(&error)))
                    }
                };
                tell(done.fetch_add(1, Ordering::Relaxed) + 1, all);
                Ok(fenced.map(|fenced| (table.id, fenced)))
            }
        };
        let fences: Vec<_> = tables.into_iter().map(|table| fence(table.clone())).collect();
        let fenced: Vec<Option<_>> =
            futures::stream::iter(fences).buffer_unordered(TABLES_AT_ONCE).try_collect().await?;
        Ok(fenced.into_iter().collect())
    }

    /// Before the batch: a volume that is not empty any more is the one that wrote the newest mirror, or was displaced.
    async fn mirror(
        &self,
        database_id: Uuid,
        epoch: Epoch,
        catalog: Catalog,
        recovered: &Recovered,
    ) -> Result<(), EngineError> {
        let mut mirror = Mirror {
            database_id,
            volume: self.hot.volume_id(),
            name: MirrorName { epoch, number: 0 },
            written_at: self.now_ms,
            high_water: recovered.high_water,
            catalog,
            dropped: recovered.dropped.clone(),
        };
        objects::put(self.cold.store(), &mut mirror).await
    }
}

/// The next version of a table that was taken over, where its flushed rows are not known to hold to the newest one.
pub fn as_flushed(catalog: &Catalog, table: TableId, fenced: &Fenced, now_ms: i64) -> Option<Table> {
    let next = proof::recovered(catalog.versions_of(table), fenced.holds_to?, now_ms)?;
    tracing::warn!(
        table = %next.name, version = next.version.0,
        "what ALTER TABLE asked of rows since the table's last flush was asked of rows that are lost; it is undone: look at DESCRIBE … \
         HISTORY, and alter the table again"
    );
    Some(next)
}

/// The change that makes it.
pub fn alter_to(table: Table) -> CatalogChange {
    CatalogChange::AlterTable { table: Box::new(table), validated: None }
}

/// Why a table stays stopped.
pub fn unreadable(error: &EngineError) -> String {
    format!(
        "its Delta log could not be recovered: {error}. Mend that object, for example from a copy of the bucket, and start the instance again"
    )
}

const MEND_MIRROR: &str = "The one before it may lack tables and columns that were flushed since, so it is not taken by itself: restore \
                           this object from a copy of the bucket, or attach the database's volume, or delete it so that the one before \
                           counts";
