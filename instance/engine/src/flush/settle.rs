//! What takes a table's next Delta version decides what becomes of the jobs that wanted it: in operation and after a crash alike.

use std::collections::HashMap;
use std::sync::Arc;

use super::places::JobPlaces;
use super::run::{LOG_RETENTION_MS, Lane, Runner};
use super::{Intent, IntentKind};
use crate::EngineError;
use crate::catalog;
use crate::cold::log::{self, Commit, DeltaLog, Put};
use crate::cold::look_up::places_in;
use crate::cold::{ColdFile, ColdSnapshot, schema};
use crate::engine::Place;
use crate::hot::{HotSnapshot, RowKey};
use crate::plant::{Plant, planted};
use crate::point::point;
use crate::schema::Table;
use uuid::Uuid;

/// Keys that are looked up at once.
const LOOK_UP_KEYS: usize = 4096;

/// How long a listing of a log is relied on.
const LISTING_PERIOD_MS: i64 = LOG_RETENTION_MS / 30;

/// What `settle` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Nothing has taken the version yet: every intent stands, and may still land.
    Free,
    /// This one has; the others can never land now.
    Ended(Intent),
}

/// Whether the commit is what the intent was stored for.
pub fn matches(intent: &Intent, commit: &Commit, version: i64) -> bool {
    intent.version == version && (commit.intent.as_ref() == Some(intent) || planted(Plant::RecoveryByNumber))
}

impl Runner {
    /// Step 4, in operation and after a crash alike: what took the next version ends a job of ours, or stops the table.
    pub async fn settle(&self, table: &Arc<Table>, lane: &mut Lane) -> Result<Settled, EngineError> {
        let hot = self.hot.snapshot();
        check_exists(&hot, table)?;
        let (tier, intents) = (hot.tier(table.id)?, hot.intents(table.id)?);
        let version = tier.cold_version + 1;
        let Some(commit) = self.cold.log(table.uuid).read(version).await? else { return Ok(Settled::Free) };
        let Some(intent) = intents.into_iter().find(|intent| matches(intent, &commit, version)) else {
            return Err(self.stop(table, unknown_commit(self.cold.store().name(), table, version, &commit)));
        };
        let before = self.cold.at(table, tier.cold_version).await?;
        let after = Arc::new(before.after(&commit.actions, &schema::file_schema(table))?);
        crash_point!("settle.read");
        point!("settle.read");
        // In memory before any reader can learn of it.
        self.cold.install(table.uuid, after.clone());
        crash_point!("settle.installed");
        match intent.kind {
            IntentKind::Flush => self.end_flush(table, &intent, &before, &after).await?,
            IntentKind::Fence => self.committer.end_fence(table.id, &intent).await?,
            IntentKind::Compaction => self.end_compaction(table, &intent, &before, &after).await?,
        }
        if intent.kind == IntentKind::Fence && self.owner.epoch().is_ok_and(|epoch| epoch == intent.epoch) {
            lane.fenced = true;
        }
        Ok(Settled::Ended(intent))
    }

    /// Looks up where the keys lie that were written since W, and ends the flush. Each turn of the loop is for the few keys that
    /// were written during the one before.
    async fn end_flush(
        &self,
        table: &Arc<Table>,
        intent: &Intent,
        before: &ColdSnapshot,
        after: &ColdSnapshot,
    ) -> Result<(), EngineError> {
        let files = after.new_files(before);
        let known = self.places.lock().get(&intent.job).cloned();
        let mut places = HashMap::new();
        while let Err(missing) = self.committer.end_flush(table.id, intent, places.clone()).await? {
            match &known {
                Some(known) => find_known_places(known.clone(), missing, &mut places).await?,
                None => self.find_places(table, &files, missing, &mut places).await?,
            }
            point!("settle.placed");
        }
        Ok(())
    }

    /// Looks up where the masked rows of the replaced files lie now, and ends the compaction; in turns likewise.
    async fn end_compaction(
        &self,
        table: &Arc<Table>,
        intent: &Intent,
        before: &ColdSnapshot,
        after: &ColdSnapshot,
    ) -> Result<(), EngineError> {
        let files = after.new_files(before);
        let replaced: Vec<_> = before.new_files(after).iter().map(|file| file.path.clone()).collect();
        let mut places = HashMap::new();
        loop {
            let end = self.committer.end_compaction(table.id, intent, replaced.clone(), places.clone());
            let Err(missing) = end.await? else { return Ok(()) };
            self.find_places(table, &files, missing, &mut places).await?;
            point!("settle.placed");
        }
    }

    /// Some keys at a time, so that the memory of a look-up is bounded.
    async fn find_places(
        &self,
        table: &Arc<Table>,
        files: &[Arc<ColdFile>],
        missing: Vec<RowKey>,
        places: &mut HashMap<RowKey, Option<Place>>,
    ) -> Result<(), EngineError> {
        for keys in missing.chunks(LOOK_UP_KEYS) {
            let found = places_in(&self.cold, files, table, keys).await?;
            places.extend(keys.iter().cloned().zip(found));
            crash_point!("settle.places_found");
        }
        Ok(())
    }

    /// Brings the table into this epoch's hands with nothing unsettled: before its first Delta commit, and after a job whose end is
    /// unknown. What an earlier job left in the log ends that job on the way. Answers with the intents that were settled.
    pub async fn take_over(&self, table: &Arc<Table>, lane: &mut Lane) -> Result<Vec<Intent>, EngineError> {
        self.check_log_is_ours(table, lane).await?;
        let mut settled = Vec::new();
        if !self.hot.snapshot().intents(table.id)?.is_empty()
            && let Settled::Ended(intent) = self.settle(table, lane).await?
        {
            settled.push(intent);
            crash_point!("takeover.settled");
        }
        while !lane.fenced || !self.hot.snapshot().intents(table.id)?.is_empty() {
            settled.push(self.fence(table, lane).await?);
        }
        Ok(settled)
    }

    /// The entry of a version goes once a checkpoint has replaced it and Delta's retention has passed: after that it looks free to
    /// whoever is older. So the whole log is listed before an epoch's first commit, and again long before an entry could be gone that
    /// was put since.
    async fn check_log_is_ours(&self, table: &Arc<Table>, lane: &mut Lane) -> Result<(), EngineError> {
        let now = self.now_ms();
        if lane.listed.is_some_and(|listed| (listed..listed + LISTING_PERIOD_MS).contains(&now)) {
            return Ok(());
        }
        let hot = self.hot.snapshot();
        check_exists(&hot, table)?;
        let next = hot.tier(table.id)?.cold_version + 1;
        if let Some(newest) = self.cold.log(table.uuid).newest_without(next).await? {
            return Err(self.stop(table, outlived(self.cold.store().name(), table, next, newest)));
        }
        lane.listed = Some(now);
        Ok(())
    }

    /// Takes the next version with a commit that changes nothing. A table's version 0 is one, and brings its schema.
    async fn fence(&self, table: &Arc<Table>, lane: &mut Lane) -> Result<Intent, EngineError> {
        let epoch = self.owner.epoch()?;
        // Also the first commit of a log: no log exists that no mirror names.
        self.keeper.await_named(table, epoch).await?;
        let hot = self.hot.snapshot();
        let before = self.cold.at(table, hot.tier(table.id)?.cold_version).await?;
        let stored = hot.intents(table.id)?;
        let own = stored.into_iter().find(|intent| intent.kind == IntentKind::Fence && intent.epoch == epoch);
        let intent = match own {
            Some(intent) => intent,
            None => self.committer.store_fence(table.id, epoch, Uuid::new_v4()).await?,
        };
        crash_point!("fence.stored");
        if planted(Plant::NoFencingCommit) && before.version >= 0 {
            self.committer.end_fence(table.id, &intent).await?;
            lane.fenced = true;
            return Ok(intent);
        }
        point!("fence.stored");
        let actions = if before.version < 0 { log::schema_actions(table, &before) } else { Vec::new() };
        self.put_and_settle(table, lane, &intent, DeltaLog::encode(&intent, &actions, self.now_ms())).await
    }

    /// Puts a commit at its version and settles whatever is there then. Where the put failed and nothing took the version, the put's
    /// error is the answer, and every intent stands.
    pub async fn put_and_settle(
        &self,
        table: &Arc<Table>,
        lane: &mut Lane,
        intent: &Intent,
        commit: bytes::Bytes,
    ) -> Result<Intent, EngineError> {
        crash_point!("delta.prepared");
        let put = self.cold.log(table.uuid).put(intent, commit).await;
        crash_point!("delta.put");
        match (self.settle(table, lane).await, put) {
            (Ok(Settled::Ended(intent)), _) => Ok(intent),
            (Ok(Settled::Free) | Err(EngineError::Unavailable(_)), Err(lost)) => Err(lost),
            (Ok(Settled::Free), Ok(Put::Taken)) => Err(log::met_another(intent)),
            (Ok(Settled::Free), Ok(Put::Landed)) => Err(EngineError::Corrupt {
                what: format!("Delta log of table {}", table.name),
                reason: format!("version {} was put and is not there", intent.version),
            }),
            (Err(error), _) => Err(error),
        }
    }
}

/// By the rows' numbers: on a thread that may block, for rows of the hot tier are counted.
async fn find_known_places(
    known: Arc<JobPlaces>,
    missing: Vec<RowKey>,
    places: &mut HashMap<RowKey, Option<Place>>,
) -> Result<(), EngineError> {
    let find = move || known.of(&missing).map(|found| missing.into_iter().zip(found).collect::<Vec<_>>());
    places.extend(tokio::task::spawn_blocking(find).await.expect("counting rows does not panic")?);
    Ok(())
}

/// A table that was dropped has no tier any more: its log would look like another owner's to the last of its jobs.
fn check_exists(hot: &HotSnapshot, table: &Table) -> Result<(), EngineError> {
    match catalog::table_at(hot, table.id)? {
        Some(_) => Ok(()),
        None => Err(EngineError::NotFound { what: "table", name: table.name.to_string() }),
    }
}

fn outlived(store: &str, table: &Table, next: i64, newest: i64) -> String {
    format!(
        "its Delta log ({} in {store}) has version {newest}, and version {next}, which this volume would write next, was cleaned away since: \
         another instance owns the prefix, or this volume is much older than the log. Stop the other instance, or attach the volume \
         that goes with the log; nothing was overwritten",
        log::table_folder(table.uuid)
    )
}

fn unknown_commit(store: &str, table: &Table, version: i64, commit: &Commit) -> String {
    let writer = match &commit.intent {
        Some(intent) => format!("{intent}, which this volume did not begin"),
        None => "a writer that is not KalamDB".into(),
    };
    format!(
        "version {version} of its Delta log ({} in {store}) is of {writer}: another instance owns the prefix, or this volume is \
         older than the log. Stop the other instance, or attach the volume that goes with the log; nothing was overwritten",
        log::table_folder(table.uuid)
    )
}
