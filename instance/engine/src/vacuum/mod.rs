//! Vacuum: deletes from the object store what left a table long enough ago, and what no version will ever name.
//!
//! [`policy`] decides, by what the Delta log's tombstones, the readers in memory and the names of the objects say. Nothing here
//! changes a table: whatever dies in the middle, the next vacuum goes on. `dropped`: the folders of tables that are gone.

mod dropped;
pub mod policy;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;

use self::policy::{Knowledge, Verdict};
use crate::EngineError;
use crate::cold::{ColdSnapshot, log};
use crate::flush::Flusher;
use crate::flush::run::{Lane, Runner};
use crate::point::{self, point};
use crate::schema::{Table, TableKind};

/// How often tables that a compaction changed are looked for.
const LITTER_PERIOD: Duration = Duration::from_secs(10);
const LOG_FOLDER: &str = "_delta_log";

/// What a vacuum deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// Objects that left their table long enough ago.
    pub expired: usize,
    /// Objects that no version will ever name.
    pub orphans: usize,
}

impl Runner {
    /// Deletes what may go of one table. `retention` counts from when the commit landed that removed a file.
    pub(crate) async fn vacuum(
        &self,
        table: &Arc<Table>,
        lane: &tokio::sync::Mutex<Lane>,
        retention: Duration,
    ) -> Result<Vacuumed, EngineError> {
        // In this order: what was written or committed after the listing is not in it.
        let names = self.object_names(table).await?;
        let staged = self.cold.store().staged(&log::table_folder(table.uuid)).await?;
        point!("vacuum.listed");
        let Some(mut known) = self.know(table, lane).await? else { return Ok(Vacuumed::default()) };
        let before_ms = self.now_ms() - i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let may_go = |name: &String| known.judge(name, before_ms) != Verdict::Keeps;
        if names.iter().any(may_go) && !self.learn_promised(table, &mut known, before_ms).await? {
            return Ok(Vacuumed::default());
        }
        let (mut done, mut paths, log) = (Vacuumed::default(), Vec::new(), self.cold.log(table.uuid));
        for name in names {
            match known.judge(&name, before_ms) {
                Verdict::Keeps => continue,
                Verdict::Expired => done.expired += 1,
                Verdict::Orphan => done.orphans += 1,
            }
            paths.push(log.path_of(&name));
        }
        crash_point!("vacuum.judged");
        point!("vacuum.judged");
        self.cold.store().delete_all(paths.clone()).await?;
        crash_point!("vacuum.objects_deleted");
        paths.iter().for_each(|path| self.cold.cache().forget(path));
        let dead: Vec<_> = staged.into_iter().filter(|staged| known.is_of_dead_job(&staged.name)).collect();
        done.orphans += dead.len();
        self.cold.store().delete_staged(dead).await?;
        crash_point!("vacuum.staged_deleted");
        Ok(done)
    }

    /// Names below the table's folder, but for the log.
    async fn object_names(&self, table: &Table) -> Result<Vec<String>, EngineError> {
        let (store, folder) = (self.cold.store(), log::table_folder(table.uuid));
        let failed = |error| store.failed(format!("list {folder}"), error);
        let top = store.objects().list_with_delimiter(Some(&folder)).await.map_err(failed)?;
        let mut found = top.objects;
        for below in top.common_prefixes.iter().filter(|below| below.filename() != Some(LOG_FOLDER)) {
            found.extend(store.objects().list(Some(below)).try_collect::<Vec<_>>().await.map_err(failed)?);
        }
        let name = |path: &Path| {
            let parts: Vec<_> = path.prefix_match(&folder)?.map(|part| part.as_ref().to_owned()).collect();
            Some(parts.join("/"))
        };
        Ok(found.iter().filter_map(|object| name(&object.location)).collect())
    }

    /// What is known of the table's objects; none where the table was never flushed, or somebody else may have committed to its log.
    async fn know(
        &self,
        table: &Arc<Table>,
        lane: &tokio::sync::Mutex<Lane>,
    ) -> Result<Option<Knowledge>, EngineError> {
        let fenced = point::lock(lane).await.fenced;
        let mut known = Knowledge { fenced: self.owner.epoch().ok().filter(|_| fenced), ..Knowledge::default() };
        // Before the tier: an attempt that has ended by now has left its mark there.
        known.alive = self.alive.lock().keys().copied().collect();
        let tier = self.hot.snapshot().tier_record(table.id)?;
        known.alive.extend(tier.intents.iter().map(|intent| intent.job));
        let (log, version) = (self.cold.log(table.uuid), tier.tier.cold_version);
        let Ok(known_version) = u64::try_from(version) else { return Ok(None) };
        // Files that left the table while it was written last would otherwise stay until it is written again.
        self.cold.forget_before(table.uuid, version);
        known.pinned = self.cold.pinned(table.uuid);
        let live = self.cold.at_once(table, version).await?;
        known.version = version;
        known.live = names_of(&live);
        known.learn_removed(log.removed(known_version).await?);
        // A commit beyond ours is one that is not settled, or another owner's: they know better.
        Ok(log.read(version + 1).await?.is_none().then_some(known))
    }

    /// Learns what the version names that was the newest one at that moment. `false` where nobody can tell which that was: all that is left
    /// of the log came later.
    async fn learn_promised(&self, table: &Arc<Table>, known: &mut Knowledge, at_ms: i64) -> Result<bool, EngineError> {
        let Some(version) = self.cold.log(table.uuid).newest_at(known.version, at_ms).await? else { return Ok(false) };
        if version < known.version {
            let snapshot = self.cold.at_once(table, version).await?;
            known.promised = names_of(&snapshot);
        }
        Ok(true)
    }
}

/// The names of all that the version needs.
fn names_of(snapshot: &ColdSnapshot) -> HashSet<String> {
    snapshot.files.iter().flat_map(|file| file.names().collect::<Vec<_>>()).collect()
}

impl Flusher {
    /// Vacuums all tables now and then, and those that were compacted soon after.
    pub(crate) async fn watch_removed_files(self: Arc<Self>) {
        let mut all = tokio::time::interval(self.tending.vacuum.interval.max(LITTER_PERIOD));
        all.tick().await;
        let mut littered = tokio::time::interval(LITTER_PERIOD);
        loop {
            let tables: Vec<_> = tokio::select! {
                _ = all.tick() => {
                    self.vacuum_dropped_visibly().await;
                    self.runner.committer.catalog().tables.values().cloned().collect()
                }
                _ = littered.tick() => {
                    let names = std::mem::take(&mut *self.tending.littered.lock());
                    names.iter().filter_map(|name| self.table(name).ok()).collect()
                }
                () = self.stop.cancelled() => return,
            };
            for table in tables {
                tokio::select! {
                    () = self.vacuum_visibly(&table) => {}
                    () = self.stop.cancelled() => return,
                }
            }
        }
    }

    async fn vacuum_visibly(&self, table: &Arc<Table>) {
        match self.vacuum(table, self.tending.vacuum.retention).await {
            Ok(done) if done == Vacuumed::default() => {}
            Ok(Vacuumed { expired, orphans }) => {
                tracing::info!(table = %table.name, expired, orphans, "deleted cold files that no version needs any more")
            }
            Err(error) => tracing::warn!(table = %table.name, %error, "a vacuum failed; the next one goes on"),
        }
    }

    /// Deletes what may go of one table.
    pub(crate) async fn vacuum(&self, table: &Arc<Table>, retention: Duration) -> Result<Vacuumed, EngineError> {
        if table.kind == TableKind::Stream || self.check_not_stopped(table).is_err() {
            return Ok(Vacuumed::default());
        }
        self.runner.vacuum(table, &self.lane(table), retention).await
    }
}
