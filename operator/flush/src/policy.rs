//! Which flushes are due: a pure function of what was scraped, what runs, what went before, and the time.
//!
//! There is no client and no clock in here. Times are [`Moment`]s, counted from the start of the scheduler.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use kalamdb_api::flush::FlushReason;

use crate::scrape::{Disk, TableSample};
use crate::{Job, Limits, Sample, StoreKey, TableName, TargetId};

/// A point in time: how long the scheduler had been running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Duration);

/// Limits beyond one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetLimits {
    /// Jobs at a time that write to one object store.
    pub per_store: usize,
    /// Jobs at a time in the whole fleet.
    pub fleet: usize,
    /// From this fullness of an instance's disk on, in percent, all its tables are due.
    pub disk_full_percent: u8,
    /// How long jobs that somebody else started hold back ours: see [`Instance::foreign_since`].
    pub foreign_patience: Duration,
}

/// An instance with its latest sample.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    /// Who it is.
    pub target: &'a TargetId,
    /// Where its flushes go.
    pub store: &'a StoreKey,
    /// When its tables are due.
    pub limits: &'a Limits,
    /// What it told.
    pub sample: &'a Sample,
    /// When it told so.
    pub sampled_at: Moment,
    /// Since when it has been running jobs that this scheduler did not start: those of a statement, of the instance's own
    /// safety net, or of an operator that was replaced. The sample does not tell their tables, so nothing is posted until
    /// they have ended; a job that hangs holds the others back for [`FleetLimits::foreign_patience`] only.
    pub foreign_since: Option<Moment>,
}

/// A job that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The instance.
    pub target: TargetId,
    /// Where it writes.
    pub store: StoreKey,
    /// The table.
    pub table: TableName,
}

/// How the last job of a table ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// When. A sample from before is out of date.
    pub at: Moment,
    /// Failures in a row.
    pub failures: u32,
    /// Not before this may the next job start.
    pub not_before: Moment,
}

/// How the last job of each table ended.
pub type History = HashMap<(TargetId, TableName), Ended>;

/// Why a table is due, and how much it presses. Above 1 is due; what is twice over its limit goes before what is just over.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Due {
    reason: FlushReason,
    urgency: f64,
}

/// A full disk stops writes: it goes before all else.
const DISK_URGENCY: f64 = 1e6;

/// The part of the age limit that `stagger` may take away.
const STAGGER: f64 = 0.1;

/// The jobs to start now, most urgent first.
///
/// `stagger` gives each table a fixed number in 0..1 that shortens its age limit a little, so that tables which began
/// together do not fall due together.
pub fn decide(
    now: Moment,
    instances: &[Instance<'_>],
    running: &[Running],
    history: &History,
    fleet: &FleetLimits,
    stagger: impl Fn(&TargetId, &TableName) -> f64,
) -> Vec<Job> {
    let mut due: Vec<_> = instances
        .iter()
        .filter(|instance| !held_back(instance, now, fleet))
        .flat_map(|instance| instance.sample.tables.iter().map(move |(table, sample)| (instance, table, sample)))
        .filter(|(instance, table, _)| may_start(instance, table, now, running, history))
        .filter_map(|(instance, table, sample)| {
            let due = judge(sample, instance, fleet, stagger(instance.target, table))?;
            Some((due, instance, table))
        })
        .collect();
    due.sort_by(|(left, left_instance, left_table), (right, right_instance, right_table)| {
        let by_urgency = right.urgency.partial_cmp(&left.urgency).unwrap_or(Ordering::Equal);
        by_urgency.then_with(|| (left_instance.target, left_table).cmp(&(right_instance.target, right_table)))
    });

    let mut slots = Slots::new(running, instances, fleet);
    due.into_iter()
        .filter(|(_, instance, _)| slots.take(instance))
        .map(|(due, instance, table)| Job {
            target: instance.target.clone(),
            store: instance.store.clone(),
            table: table.clone(),
            reason: due.reason,
            epoch: instance.sample.epoch(),
            attempt: history.get(&key(instance, table)).map_or(0, |ended| ended.failures),
        })
        .collect()
}

fn key(instance: &Instance<'_>, table: &TableName) -> (TargetId, TableName) {
    (instance.target.clone(), table.clone())
}

fn held_back(instance: &Instance<'_>, now: Moment, fleet: &FleetLimits) -> bool {
    instance.foreign_since.is_some_and(|since| now.0.saturating_sub(since.0) < fleet.foreign_patience)
}

fn may_start(instance: &Instance<'_>, table: &TableName, now: Moment, running: &[Running], history: &History) -> bool {
    let is_running = || running.iter().any(|job| job.target == *instance.target && job.table == *table);
    let is_over = match history.get(&key(instance, table)) {
        Some(ended) => instance.sampled_at > ended.at && now >= ended.not_before,
        None => true,
    };
    is_over && !table.is_other() && !is_running()
}

/// Whether a table is due, by the tighter of the instance's limits and its own policy.
fn judge(table: &TableSample, instance: &Instance<'_>, fleet: &FleetLimits, stagger: f64) -> Option<Due> {
    if table.rows == 0 {
        return None;
    }
    let limits = instance.limits;
    let max_rows = table.policy_rows.map_or(limits.max_rows, |own| own.min(limits.max_rows));
    let max_age = table.policy_interval.map_or(limits.max_age, |own| own.min(limits.max_age));
    let max_age = max_age.mul_f64(1.0 - STAGGER * stagger.clamp(0.0, 1.0));
    let candidates = [
        (FlushReason::Bytes, table.bytes as f64 / limits.max_bytes.max(1) as f64),
        (FlushReason::Rows, table.rows as f64 / max_rows.max(1) as f64),
        (FlushReason::Age, table.oldest_age.as_secs_f64() / max_age.as_secs_f64().max(1.0)),
    ];
    let disk_is_full = instance.sample.disk.is_some_and(|disk| fullness(disk) >= f64::from(fleet.disk_full_percent));
    if disk_is_full {
        // The largest table frees the most.
        return Some(Due { reason: FlushReason::Disk, urgency: DISK_URGENCY + table.bytes as f64 });
    }
    candidates
        .into_iter()
        .max_by(|left, right| left.1.total_cmp(&right.1))
        .filter(|(_, urgency)| *urgency >= 1.0)
        .map(|(reason, urgency)| Due { reason, urgency })
}

fn fullness(disk: Disk) -> f64 {
    let size = disk.used as f64 + disk.free as f64;
    if size > 0.0 { disk.used as f64 * 100.0 / size } else { 0.0 }
}

/// What is taken of the three limits.
struct Slots<'a> {
    fleet: &'a FleetLimits,
    total: usize,
    stores: HashMap<&'a StoreKey, usize>,
    targets: HashMap<&'a TargetId, usize>,
}

impl<'a> Slots<'a> {
    fn new(running: &'a [Running], instances: &'a [Instance<'a>], fleet: &'a FleetLimits) -> Self {
        let mut slots = Self { fleet, total: 0, stores: HashMap::new(), targets: HashMap::new() };
        for job in running {
            slots.count(&job.target, &job.store, 1);
        }
        for instance in instances {
            // Jobs that somebody else started take slots as well.
            let ours = slots.targets.get(instance.target).copied().unwrap_or(0);
            let foreign = instance.sample.active_jobs.saturating_sub(ours);
            if instance.foreign_since.is_some() {
                slots.count(instance.target, instance.store, foreign);
            }
        }
        slots
    }

    fn count(&mut self, target: &'a TargetId, store: &'a StoreKey, jobs: usize) {
        self.total += jobs;
        *self.stores.entry(store).or_default() += jobs;
        *self.targets.entry(target).or_default() += jobs;
    }

    fn take(&mut self, instance: &Instance<'a>) -> bool {
        let free = self.total < self.fleet.fleet
            && self.stores.get(instance.store).copied().unwrap_or(0) < self.fleet.per_store
            && self.targets.get(instance.target).copied().unwrap_or(0) < instance.limits.max_concurrent;
        if free {
            self.count(instance.target, instance.store, 1);
        }
        free
    }
}
