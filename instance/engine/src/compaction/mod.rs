//! Compaction: cold files are merged, deletion vectors are applied, and what the table says stays the same.
//!
//! * [`policy`]: which runs are merged; pure;
//! * `merge`: their rows in key order, in bounded memory; `shape`: those of one file, as the table has them now;
//! * here: one compaction, from its choice to its Delta commit; `jobs`: when it runs.
//!
//! The files are written beside running flushes. Only then the intent is stored, and only while the version that was read is still
//! the newest: a compaction is given up otherwise, and never rebased. What its commit came to is settled as that of a flush.
//!
//! An ALTER TABLE that comes between changes the catalog alone: the files have the schema of when they were begun, which the commit brings
//! along, and are read as any that are older than the ALTER. One that rows were looked through for comes to the log with a flush alone.

mod jobs;
mod merge;
pub mod policy;
mod shape;

pub use jobs::Tending;

#[cfg(test)]
mod deaths;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use deltalake_core::kernel::{Action, Add, Remove};
use object_store::ObjectStoreExt;
use uuid::Uuid;

use self::merge::Merge;
use self::policy::Run;
use self::shape::Shape;
use crate::EngineError;
use crate::cold::file::{WrittenFile, write_files};
use crate::cold::name::JobName;
use crate::cold::{ColdFile, ColdSnapshot, log};
use crate::config::CompactionConfig;
use crate::evolution::proof;
use crate::flush::run::{Lane, Runner};
use crate::plant::{Plant, planted};
use crate::point::{self, point};
use crate::schema::{Table, TableKind};

/// How much a job merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What the thresholds make due.
    Due,
    /// All that one job may take, due or not: a statement asked.
    All,
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Files that it replaced.
    pub replaced: usize,
    /// Files that it wrote.
    pub files: usize,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of Parquet in them.
    pub bytes: u64,
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The new files are the table's.
    Compacted(Compacted),
    /// There was nothing to merge.
    NothingToDo,
    /// The version that was read is no longer the newest.
    GivenUp,
}

/// Files that are written, and what they replace.
struct Built {
    table: Arc<Table>,
    before: Arc<ColdSnapshot>,
    inputs: Vec<Arc<ColdFile>>,
    files: Vec<WrittenFile>,
}

impl Runner {
    /// The runs that a compaction of that extent would merge, as of a version.
    fn choose(&self, table: &Table, before: &ColdSnapshot, extent: Extent, config: &CompactionConfig) -> Vec<Run> {
        let mut runs = policy::runs(table, &before.files);
        let chosen: Option<Range<usize>> = match extent {
            Extent::Due => policy::due(&runs, config, self.target_file_bytes),
            Extent::All => policy::all(&runs, config),
        };
        chosen.map(|chosen| runs.drain(chosen).collect()).unwrap_or_default()
    }

    /// Whether a compaction of that extent would change anything.
    pub(crate) async fn is_compactable(
        &self,
        table: &Arc<Table>,
        extent: Extent,
        config: &CompactionConfig,
    ) -> Result<bool, EngineError> {
        let version = self.hot.snapshot().tier(table.id)?.cold_version;
        if version < 0 || table.kind == TableKind::Stream {
            return Ok(false);
        }
        let before = self.cold.at(table, version).await?;
        let table = self.as_proven(table, &before);
        Ok(!self.choose(&table, &before, extent, config).is_empty())
    }

    /// One attempt. With `held`, the table's turn is the caller's from before the files are read, and flushes wait; otherwise it is
    /// taken only for the commit.
    pub(crate) async fn compact(
        &self,
        table: &Arc<Table>,
        lane: &tokio::sync::Mutex<Lane>,
        held: Option<&mut Lane>,
        job: CompactionJob<'_>,
        begun: impl FnOnce(i64) -> Result<(), EngineError>,
    ) -> Result<Attempt, EngineError> {
        let held = match held {
            Some(held) => {
                self.take_over(table, held).await?;
                Some(held)
            }
            None => {
                self.take_over(table, &mut *point::lock(lane).await).await?;
                None
            }
        };
        point!("compaction.begins");
        let name = JobName { epoch: self.owner.epoch()?, job: job.attempt };
        let Some(built) = self.build(table, name, &job).await? else { return Ok(Attempt::NothingToDo) };
        crash_point!("compaction.files_written");
        point!("compaction.written");
        let attempt = match held {
            Some(held) => self.commit_compaction(&built, held, name, begun).await?,
            None => self.commit_compaction(&built, &mut *point::lock(lane).await, name, begun).await?,
        };
        if attempt == Attempt::GivenUp {
            crash_point!("compaction.given_up");
            self.discard(table, &built.files).await;
            crash_point!("compaction.discarded");
        }
        Ok(attempt)
    }

    /// The newest version of the table that all rows of that cold version hold to, also those that a mask hides: such a row is what a lost
    /// volume leaves, and need not hold to what was asked of the rows that live.
    fn as_proven(&self, table: &Arc<Table>, before: &ColdSnapshot) -> Arc<Table> {
        let catalog = self.committer.catalog();
        let proven = before.schema_version.and_then(|held| proof::proven(catalog.versions_of(table.id), held));
        proven.unwrap_or(table).clone()
    }

    /// Reads the chosen files of the newest version and writes them anew.
    async fn build(
        &self,
        table: &Arc<Table>,
        name: JobName,
        job: &CompactionJob<'_>,
    ) -> Result<Option<Built>, EngineError> {
        let version = self.hot.snapshot().tier(table.id)?.cold_version;
        // After the version, so that the schema is never older than the one which the log describes.
        let newest = self.committer.catalog().tables.get(&table.name).cloned();
        let Some(table) = newest.filter(|newest| newest.id == table.id) else { return Ok(None) };
        let before = self.cold.at(&table, version).await?;
        let table = self.as_proven(&table, &before);
        let runs = self.choose(&table, &before, job.extent, job.config);
        if runs.is_empty() {
            return Ok(None);
        }
        let mut shape = Shape::new(self.cold.clone(), table.clone())?;
        let applies_masks = planted(Plant::CompactionAppliesMasks);
        if applies_masks {
            shape = shape.without(self.hot.snapshot().masked_rows(table.id)?);
        }
        let merge = Merge::new(shape, &runs)?;
        let plan = self.file_plan(&table, name);
        let files = write_files(self.cold.store(), &self.cold.log(table.uuid), plan, merge).await?;
        let (live, written) = (
            runs.iter().map(|run| run.rows - run.deleted).sum::<u64>(),
            files.iter().map(|file| file.stats.rows).sum::<u64>(),
        );
        if live != written && !applies_masks {
            return Err(EngineError::Corrupt {
                what: format!("cold files of table {}", table.name),
                reason: format!("they hold {live} live rows and a compaction read {written}; nothing was changed"),
            });
        }
        let inputs = runs.into_iter().flat_map(|run| run.files).collect();
        Ok(Some(Built { table, before, inputs, files }))
    }

    /// Stores the intent, unless the version that was read is no longer the newest, and commits.
    async fn commit_compaction(
        &self,
        built: &Built,
        lane: &mut Lane,
        name: JobName,
        begun: impl FnOnce(i64) -> Result<(), EngineError>,
    ) -> Result<Attempt, EngineError> {
        let (table, before) = (&built.table, &built.before);
        let intent = match self.committer.store_compaction(table.id, name.epoch, name.job, before.version).await {
            Ok(intent) => intent,
            Err(EngineError::Stale) => return Ok(Attempt::GivenUp),
            Err(error) => return Err(error),
        };
        crash_point!("compaction.begun");
        begun(intent.version)?;
        crash_point!("compaction.noted");
        point!("compaction.begun");
        let mut actions = log::schema_actions(table, before);
        let removed = |file: &Arc<ColdFile>| Remove { data_change: false, ..file.to_remove(self.now_ms()) };
        let added = |file: &WrittenFile| Add { data_change: false, ..self.cold_file(file).to_add() };
        let inputs = match planted(Plant::CompactionRebases) {
            true => self.cold.at(table, intent.version - 1).await?.same_files(&built.inputs),
            false => built.inputs.clone(),
        };
        actions.extend(inputs.iter().map(|file| Action::Remove(removed(file))));
        actions.extend(built.files.iter().map(|file| Action::Add(added(file))));
        self.commit(table, lane, &intent, &actions).await?;
        crash_point!("compaction.settled");
        point!("compaction.ended");
        self.checkpoint(table, lane, intent.version).await;
        Ok(Attempt::Compacted(Compacted {
            replaced: built.inputs.len(),
            files: built.files.len(),
            rows: built.files.iter().map(|file| file.stats.rows).sum(),
            bytes: built.files.iter().map(|file| file.size).sum(),
        }))
    }

    /// Deletes files whose job is this one and never stored an intent. What is left here a vacuum finds.
    async fn discard(&self, table: &Table, files: &[WrittenFile]) {
        let log = self.cold.log(table.uuid);
        for file in files {
            let path = log.path_of(&file.name);
            if let Err(error) = self.cold.store().objects().delete(&path).await {
                tracing::debug!(%path, %error, "a file of a compaction that was given up is left to the next vacuum");
            }
        }
    }
}

/// What one attempt is to do.
pub(crate) struct CompactionJob<'a> {
    /// Names its files and its intent; no two attempts have the same.
    pub attempt: Uuid,
    /// How much.
    pub extent: Extent,
    /// The thresholds.
    pub config: &'a CompactionConfig,
}
