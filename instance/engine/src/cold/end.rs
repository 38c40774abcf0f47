//! Where a Delta log ends, told by the log alone: for whoever takes a table over without knowing its version.

use std::collections::BTreeMap;

use datafusion::common::ScalarValue;
use deltalake_core::kernel::EagerSnapshot;
use futures::TryStreamExt;
use object_store::path::Path;

use super::log::{DeltaLog, TXN_EPOCH, TXN_FLUSHED};
use super::schema;
use super::snapshot::{ColdFile, schema_version};
use crate::EngineError;
use crate::flush::Epoch;
use crate::hot::volume::HighWater;
use crate::schema::{SEQ, SchemaVersion, Table, UPDATED};
use crate::seq::Seq;

/// The newest version of a log, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// The newest version.
    pub version: i64,
    /// Of the owner who committed it. Epochs never go back along a log.
    pub epoch: Epoch,
    /// Every row up to it is in the files, if it lives.
    pub w: Seq,
    /// The schema that the log's metadata describes.
    pub schema_version: Option<SchemaVersion>,
    /// No row of the files is above it.
    pub high_water: HighWater,
    /// Whether there are files at all.
    pub has_files: bool,
}

/// What lies in a log's folder: versions of commits and of whole checkpoints, ascending.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) commits: Vec<i64>,
    pub(super) checkpoints: Vec<(i64, Path)>,
    /// When each commit was put, by the store's clock: milliseconds since the Unix epoch.
    put_ms: BTreeMap<i64, i64>,
}

impl Entries {
    /// Which of the versions up to `newest` was the table's at that moment: -1 before its first one. None where that is not known, for the
    /// log's first entries have gone.
    fn newest_at(&self, newest: i64, at_ms: i64) -> Option<i64> {
        let known = self.put_ms.range(..=newest);
        match known.clone().find(|(_, put_ms)| **put_ms > at_ms) {
            None => Some(newest),
            Some((0, _)) => Some(-1),
            Some((later, _)) => Some(later - 1).filter(|before| self.put_ms.contains_key(before)),
        }
    }
}

impl DeltaLog {
    /// Where the log ends; none where there is none. Fails where a commit since the last checkpoint is damaged, missing, or not ours.
    pub async fn end(&self, table: &Table) -> Result<Option<LogEnd>, EngineError> {
        let entries = self.entries().await?;
        let checkpoint = entries.checkpoints.last().map(|(version, _)| *version);
        let Some(newest) = entries.commits.last().copied().max(checkpoint) else { return Ok(None) };
        self.check_commits(checkpoint.map_or(0, |version| version + 1)..=newest).await?;
        let load = async {
            let snapshot = EagerSnapshot::try_new(self.log().as_ref(), Some(newest.unsigned_abs())).await?;
            let flushed = snapshot.transaction_version(self.log().as_ref(), TXN_FLUSHED).await?;
            let epoch = snapshot.transaction_version(self.log().as_ref(), TXN_EPOCH).await?;
            let views: Vec<_> = snapshot.file_views(self.log().as_ref(), None).try_collect().await?;
            Ok((snapshot, flushed, epoch, views))
        };
        let (snapshot, flushed, epoch, views) = match load.await {
            Ok(loaded) => loaded,
            Err(error) => return Err(self.blame(newest, error).await),
        };
        let (Some(flushed), Some(epoch)) = (flushed, epoch) else {
            return Err(self.damaged(newest, "the log does not say how far the table was flushed, and by whom".into()));
        };
        let file_schema = schema::file_schema(table);
        let w = Seq(flushed);
        let has_files = !views.is_empty();
        let mut high_water = HighWater { seq: w, updated: 0 };
        for view in views {
            #[expect(deprecated, reason = "the only public way from a view to all fields of its add action")]
            let file = ColdFile::from_add(&view.add_action(), &file_schema)?;
            high_water = high_water.max(highest(&file));
        }
        let epoch = Epoch(epoch.unsigned_abs());
        let schema_version = schema_version(snapshot.metadata());
        Ok(Some(LogEnd { version: newest, epoch, w, schema_version, high_water, has_files }))
    }

    /// The newest version of the log, where that is the given one or a later one and the given one's own entry is gone: it was taken once, and
    /// cleaned away.
    pub async fn newest_without(&self, version: i64) -> Result<Option<i64>, EngineError> {
        let entries = self.entries().await?;
        let newest = entries.commits.last().copied().max(entries.checkpoints.last().map(|(version, _)| *version));
        Ok(newest.filter(|newest| *newest >= version && entries.commits.binary_search(&version).is_err()))
    }

    /// Which of the versions up to `newest` was the table's at that moment: -1 before its first one. The store's own times count, for a
    /// commit may have landed long after it was prepared. None where that is not known, for the log's first entries have gone.
    pub async fn newest_at(&self, newest: i64, at_ms: i64) -> Result<Option<i64>, EngineError> {
        Ok(self.entries().await?.newest_at(newest, at_ms))
    }

    async fn check_commits(&self, versions: std::ops::RangeInclusive<i64>) -> Result<(), EngineError> {
        for version in versions {
            match self.read(version).await? {
                None => return Err(self.damaged(version, "it is missing, and later versions are there".into())),
                Some(commit) if commit.intent.is_none() => {
                    return Err(self.damaged(version, "it is of a writer that is not KalamDB".into()));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    pub(super) async fn entries(&self) -> Result<Entries, EngineError> {
        let folder = self.path_of("_delta_log");
        let failed = |error| self.store().failed(format!("list {folder}"), error);
        let objects: Vec<_> = self.store().objects().list(Some(&folder)).try_collect().await.map_err(failed)?;
        let mut entries = Entries::default();
        for object in objects {
            let Some((version, kind)) = object.location.filename().and_then(|name| name.split_once('.')) else {
                continue;
            };
            let Ok(version) = version.parse() else { continue };
            if kind == "json" {
                entries.commits.push(version);
                entries.put_ms.insert(version, object.last_modified.timestamp_millis());
            } else if kind.starts_with("checkpoint") {
                entries.checkpoints.push((version, object.location));
            }
        }
        entries.commits.sort_unstable();
        entries.checkpoints.sort();
        Ok(entries)
    }
}

/// The highest `_seq` and `_updated` of a file, as far as its statistics tell.
fn highest(file: &ColdFile) -> HighWater {
    let max = |column: &str| match file.stats.columns.get(column).and_then(|column| column.max.as_ref()) {
        Some(ScalarValue::Int64(Some(max)) | ScalarValue::TimestampMicrosecond(Some(max), _)) => *max,
        _ => 0,
    };
    HighWater { seq: Seq(max(SEQ)), updated: max(UPDATED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_moment_is_the_one_before_the_first_that_came_later() {
        let at = |put: &[(i64, i64)], at_ms| {
            let entries = Entries { put_ms: put.iter().copied().collect(), ..Entries::default() };
            entries.newest_at(4, at_ms)
        };
        let whole = [(0, 10), (1, 20), (2, 20), (3, 40), (4, 50), (5, 60)];
        let of_moments = [9, 10, 19, 20, 49, 50, 99].map(|moment| at(&whole, moment));
        assert_eq!(of_moments, [-1, 0, 0, 2, 3, 4, 4].map(Some));
        assert_eq!(at(&[(0, 10), (1, 70), (2, 20), (3, 30), (4, 40)], 50), Some(0), "the store's clock went back");
        let cleaned = [(2, 20), (3, 40), (4, 50)];
        assert_eq!([19, 20, 45].map(|moment| at(&cleaned, moment)), [None, Some(2), Some(3)]);
    }
}
