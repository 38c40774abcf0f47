//! Which runs of a table are merged. Pure: files in, a choice out.
//!
//! A run is what one job wrote: files in key order that do not overlap. Runs that a merge may join are neighbours in `_seq`, so that
//! recent time ranges stay in few files. Sizes grow geometrically from new to old, so that each row is rewritten few times.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use datafusion::common::ScalarValue;

use crate::cold::name::JobName;
use crate::cold::{ColdFile, schema};
use crate::config::CompactionConfig;
use crate::schema::{SEQ, Table};

/// Bounds of one column of a run; none is open.
type Bounds = (Option<ScalarValue>, Option<ScalarValue>);

/// Files of one job.
#[derive(Debug, Clone)]
pub struct Run {
    /// In key order.
    pub files: Vec<Arc<ColdFile>>,
    /// Their size in bytes.
    pub bytes: u64,
    /// Their rows, deleted ones included.
    pub rows: u64,
    /// Rows that deletion vectors hide.
    pub deleted: u64,
    /// The lowest `_seq` and the highest.
    seqs: (i64, i64),
    /// Of user and key, column by column.
    keys: Vec<Bounds>,
    /// Whether a file is older than a column of the table.
    lacks_columns: bool,
}

impl Run {
    /// About the bytes that a rewrite leaves.
    fn live_bytes(&self) -> u64 {
        let live = u128::from(self.rows.saturating_sub(self.deleted));
        u64::try_from(u128::from(self.bytes) * live / u128::from(self.rows.max(1))).unwrap_or(self.bytes).max(1)
    }

    /// Whether the two may hold the same keys.
    fn overlaps(&self, other: &Self) -> bool {
        self.keys.iter().zip(&other.keys).all(|(mine, theirs)| !is_below(mine, theirs) && !is_below(theirs, mine))
    }

    /// Whether a rewrite alone changes anything.
    fn gains(&self) -> bool {
        self.deleted > 0 || self.lacks_columns
    }
}

fn is_below(low: &Bounds, high: &Bounds) -> bool {
    let order = low.1.as_ref().zip(high.0.as_ref()).and_then(|(end, begin)| end.partial_cmp(begin));
    order.is_some_and(|order| order.is_lt())
}

/// The runs of a version's files, oldest `_seq` first.
pub fn runs(table: &Table, files: &[Arc<ColdFile>]) -> Vec<Run> {
    let mut by_job: BTreeMap<String, Vec<Arc<ColdFile>>> = BTreeMap::new();
    for file in files {
        let name = JobName::parse(&file.path).map_or_else(|| file.path.to_string(), |name| name.file_prefix());
        by_job.entry(name).or_default().push(file.clone());
    }
    let mut runs: Vec<_> = by_job.into_values().map(|files| run(table, files)).collect();
    runs.sort_by_key(|run| run.seqs);
    runs
}

fn run(table: &Table, mut files: Vec<Arc<ColdFile>>) -> Run {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let bounds = |column: &str| {
        let of = |file: &Arc<ColdFile>| file.stats.columns.get(column).cloned().unwrap_or_default();
        let stats = files.iter().map(of).map(|stats| (stats.min.map(widened), stats.max.map(widened)));
        let (mins, maxes): (Vec<_>, Vec<_>) = stats.unzip();
        (outermost(mins, std::cmp::Ordering::Less), outermost(maxes, std::cmp::Ordering::Greater))
    };
    let seq = |bound: Option<ScalarValue>| match bound {
        Some(ScalarValue::Int64(Some(seq))) => seq,
        _ => 0,
    };
    let (low, high) = bounds(SEQ);
    // Every column that a file has is counted in, whether or not it has bounds.
    let has =
        |file: &Arc<ColdFile>, column: &str| file.stats.columns.get(column).is_some_and(|stats| stats.nulls.is_some());
    let columns = schema::file_columns(table);
    Run {
        bytes: files.iter().map(|file| file.size).sum(),
        rows: files.iter().map(|file| file.stats.rows).sum(),
        deleted: files.iter().map(|file| file.deleted_rows()).sum(),
        seqs: (seq(low), seq(high)),
        keys: schema::looked_up_columns(table).iter().map(|column| bounds(column)).collect(),
        lacks_columns: files.iter().any(|file| columns.iter().any(|column| !has(file, &column.physical_name))),
        files,
    }
}

/// Files have integer keys in the width that the column had when they were written.
fn widened(bound: ScalarValue) -> ScalarValue {
    match bound {
        ScalarValue::Int16(Some(number)) => ScalarValue::Int64(Some(number.into())),
        ScalarValue::Int32(Some(number)) => ScalarValue::Int64(Some(number.into())),
        other => other,
    }
}

/// The outermost bound; none where one is open.
fn outermost(bounds: Vec<Option<ScalarValue>>, outer: std::cmp::Ordering) -> Option<ScalarValue> {
    let bounds: Option<Vec<_>> = bounds.into_iter().collect();
    bounds?.into_iter().reduce(|found, bound| if bound.partial_cmp(&found) == Some(outer) { bound } else { found })
}

/// What is due: the neighbours to merge, or the one run to rewrite.
pub fn due(runs: &[Run], config: &CompactionConfig, target_file_bytes: u64) -> Option<Range<usize>> {
    similar(runs, config, target_file_bytes).or_else(|| crowded(runs, config)).or_else(|| mostly_deleted(runs, config))
}

/// As much as one job may merge, due or not; none where nothing would change.
pub fn all(runs: &[Run], config: &CompactionConfig) -> Option<Range<usize>> {
    let window = |start: usize| {
        let mut end = start + 1;
        while end < runs.len() && fits(&runs[start..=end], config) {
            end += 1;
        }
        start..end
    };
    let changes = |window: &Range<usize>| window.len() > 1 || runs[window.start].gains();
    (0..runs.len()).map(window).filter(changes).max_by_key(|window| (window.len(), window.start))
}

/// The newest neighbours of which each older one is not much larger than all newer ones together. Runs that are large and do not
/// overlap gain nothing from being one.
fn similar(runs: &[Run], config: &CompactionConfig, target_file_bytes: u64) -> Option<Range<usize>> {
    (config.min_runs.max(2)..=runs.len()).rev().find_map(|end| {
        let (mut start, mut bytes) = (end - 1, runs[end - 1].live_bytes());
        while start > 0 && fits(&runs[start - 1..end], config) {
            let older = runs[start - 1].live_bytes();
            if u128::from(older) * 100 > u128::from(bytes) * u128::from(config.size_percent) {
                break;
            }
            (start, bytes) = (start - 1, bytes + older);
        }
        let found = &runs[start..end];
        let small = || found.iter().any(|run| run.live_bytes() < target_file_bytes);
        let overlap =
            || found.iter().enumerate().any(|(at, run)| found[at + 1..].iter().any(|other| run.overlaps(other)));
        (found.len() >= config.min_runs.max(2) && (small() || overlap())).then_some(start..end)
    })
}

/// Where more runs overlap than a look-up should ask: the smallest neighbours that make them few enough.
fn crowded(runs: &[Run], config: &CompactionConfig) -> Option<Range<usize>> {
    let most = runs.iter().map(|run| runs.iter().filter(|other| run.overlaps(other)).count()).max()?;
    let too_many = most.saturating_sub(config.max_runs.max(1));
    if too_many == 0 {
        return None;
    }
    let length = (too_many + 1).min(config.merge_runs.max(2)).min(runs.len());
    let windows = (0..=runs.len() - length).map(|start| start..start + length);
    let bytes = |window: &Range<usize>| runs[window.clone()].iter().map(Run::live_bytes).sum::<u64>();
    windows.filter(|window| fits(&runs[window.clone()], config)).min_by_key(bytes)
}

fn mostly_deleted(runs: &[Run], config: &CompactionConfig) -> Option<Range<usize>> {
    let is_due = |run: &Run| {
        let (deleted, rows) = (u128::from(run.deleted) * 100, u128::from(run.rows));
        run.deleted > 0 && deleted >= rows * u128::from(config.deleted_percent) && run.bytes <= config.max_bytes
    };
    runs.iter().position(is_due).map(|at| at..at + 1)
}

fn fits(runs: &[Run], config: &CompactionConfig) -> bool {
    runs.len() <= config.merge_runs.max(2) && runs.iter().map(|run| run.bytes).sum::<u64>() <= config.max_bytes
}

#[cfg(test)]
#[path = "policy/tests.rs"]
mod tests;
