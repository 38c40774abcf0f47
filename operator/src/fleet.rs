//! The instances of the cluster as the flush scheduler sees them, and what it found out about them.
//!
//! Reconciles write down where an instance is and how it is reached; the scheduler reads that and writes down what waits and
//! how flushes went; reconciles report it. Where something worth reporting changed, the scheduler nudges a reconcile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kalamdb_crds::{FlushStatus, KalamDB, Quantity};
use kalamdb_flush::{Discovery, Job, Observer, Outcome, Sample, ScrapeError, Target, TargetId};
use kube::runtime::reflector::ObjectRef;
use metrics::counter;
use tokio::sync::mpsc;

use crate::health::Health;
use crate::message::says_the_same;
use crate::schedule::{count_flush, log_flush};
use crate::telemetry::SCRAPE_FAILURES;

/// How often at most a change of what waits is reported: it changes all the time.
const REPORT_PENDING_EVERY: Duration = Duration::from_secs(15);

/// How often at most the end of a flush is reported.
const REPORT_FLUSH_EVERY: Duration = Duration::from_secs(2);

/// A flush job that ended, for an Event.
#[derive(Debug)]
pub struct FlushEnded {
    /// The database.
    pub database: ObjectRef<KalamDB>,
    /// The database's UID.
    pub uid: String,
    /// The job.
    pub job: Job,
    /// How it ended.
    pub outcome: Outcome,
}

/// All instances of the cluster.
pub struct Fleet {
    members: Mutex<HashMap<TargetId, Member>>,
    nudges: mpsc::Sender<ObjectRef<KalamDB>>,
    ended: mpsc::Sender<FlushEnded>,
    health: Arc<Health>,
}

/// One instance.
struct Member {
    database: ObjectRef<KalamDB>,
    /// How it is reached, while it is up.
    target: Option<Target>,
    /// Whether it should answer: an instance that is starting may not.
    ready: bool,
    /// Whether it did not answer the last time: only the first silence is worth a warning.
    silent: bool,
    flush: FlushStatus,
    reported: FlushStatus,
    nudged: Option<Instant>,
}

impl Fleet {
    /// An empty fleet that tells its news through the two channels.
    pub fn new(nudges: mpsc::Sender<ObjectRef<KalamDB>>, ended: mpsc::Sender<FlushEnded>, health: Arc<Health>) -> Self {
        Self { members: Mutex::default(), nudges, ended, health }
    }

    /// Writes down where an instance is; `None` while it is not up. What is known of its flushes stays.
    pub fn place(&self, uid: &str, database: ObjectRef<KalamDB>, target: Option<Target>, ready: bool) {
        let mut members = self.members();
        let member = members.entry(TargetId(uid.to_owned())).or_insert_with(|| Member {
            database: database.clone(),
            target: None,
            ready,
            silent: false,
            flush: FlushStatus::default(),
            reported: FlushStatus::default(),
            nudged: None,
        });
        member.target = target;
        member.ready = ready;
    }

    /// Writes down that an instance answers elsewhere now, or nowhere, while a spec that is refused tells nothing new of it.
    /// Its token must not go to whatever has got its old address.
    pub fn moved(&self, uid: &str, address: Option<&str>) {
        let mut members = self.members();
        let Some(member) = members.get_mut(&TargetId(uid.to_owned())) else { return };
        member.target = member.target.take().zip(address).map(|(target, url)| Target { url: url.to_owned(), ..target });
        member.ready &= member.target.is_some();
    }

    /// Only the databases for which `exists` is true are there any more.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.members().retain(|id, _| exists(&id.0));
    }

    /// What is known of an instance's flushes, over what was reported before the operator started.
    pub fn flush_status(&self, uid: &str, before: Option<&FlushStatus>) -> Option<FlushStatus> {
        let before = before.cloned().unwrap_or_default();
        let mut members = self.members();
        let status = match members.get_mut(&TargetId(uid.to_owned())) {
            Some(member) => {
                member.reported = member.flush.clone();
                let known = member.flush.clone();
                FlushStatus {
                    pending_bytes: known.pending_bytes.or(before.pending_bytes),
                    pending_rows: known.pending_rows.or(before.pending_rows),
                    last_time: known.last_time.or(before.last_time),
                    last_result: known.last_result.or(before.last_result),
                }
            }
            None => before,
        };
        (status != FlushStatus::default()).then_some(status)
    }

    fn members(&self) -> MutexGuard<'_, HashMap<TargetId, Member>> {
        // Members are plain values, whole even where a panic left the lock poisoned.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a reconcile where there is something new to report, and not too often.
    fn nudge(&self, member: &mut Member) {
        if member.flush == member.reported {
            return;
        }
        let flushed = member.flush.last_time != member.reported.last_time
            || member.flush.last_result != member.reported.last_result;
        let pause = if flushed { REPORT_FLUSH_EVERY } else { REPORT_PENDING_EVERY };
        let due = member.nudged.is_none_or(|nudged| nudged.elapsed() >= pause);
        // A full channel means that reconciles are behind; the next scrape nudges again.
        if due && self.nudges.try_send(member.database.clone()).is_ok() {
            member.nudged = Some(Instant::now());
        }
    }
}

impl Discovery for Fleet {
    fn targets(&self) -> Vec<Target> {
        self.members().values().filter_map(|member| member.target.clone()).collect()
    }

    fn target(&self, id: &TargetId) -> Option<Target> {
        self.members().get(id).and_then(|member| member.target.clone())
    }
}

impl Observer for Fleet {
    fn turned(&self) {
        self.health.flush_loop_turned();
    }

    fn scraped(&self, target: &TargetId, result: Result<&Sample, &ScrapeError>) {
        let mut members = self.members();
        let Some(member) = members.get_mut(target) else { return };
        match result {
            Ok(sample) => {
                member.silent = false;
                member.flush.pending_bytes = Some(Quantity::approximate_bytes(sample.bytes()));
                member.flush.pending_rows = Some(approximate(sample.rows()));
                member.flush.last_time = sample.last_flush.and_then(time).or(member.flush.last_time.take());
                self.nudge(member);
            }
            Err(error) if member.ready => {
                counter!(SCRAPE_FAILURES).increment(1);
                if !std::mem::replace(&mut member.silent, true) {
                    tracing::warn!(database = %member.database, %error, "an instance was not scraped; trying on");
                }
            }
            Err(error) => {
                tracing::debug!(database = %member.database, %error, "an instance that is not ready was not scraped")
            }
        }
    }

    fn started(&self, job: &Job) {
        tracing::info!(target = %job.target, table = %job.table, reason = ?job.reason, "flush is due");
    }

    fn ended(&self, job: &Job, outcome: &Outcome, took: Duration) {
        count_flush(outcome, took);
        let mut members = self.members();
        let Some(member) = members.get_mut(&job.target) else { return };
        log_flush(&member.database.name, job, outcome, took);
        let result = describe(job, outcome);
        // The ids in a store's errors differ each time: a result that says the same as the one before is no news.
        if !member.flush.last_result.as_deref().is_some_and(|known| says_the_same(known, &result)) {
            member.flush.last_result = Some(result);
        }
        let ended = FlushEnded {
            database: member.database.clone(),
            uid: job.target.0.clone(),
            job: job.clone(),
            outcome: outcome.clone(),
        };
        // Events are for people; where they come faster than they can be written, the metrics count what is lost here.
        let _ = self.ended.try_send(ended);
        self.nudge(member);
    }
}

/// How a flush went, for people.
pub fn describe(job: &Job, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Completed { rows, bytes } => {
            format!("Completed: {}, {rows} rows, {}B", job.table, Quantity::approximate_bytes(*bytes))
        }
        Outcome::Skipped => format!("Skipped: {} had nothing to flush", job.table),
        Outcome::Failed { message } => format!("Failed: {}: {message}", job.table),
        Outcome::Refused { message } => format!("Refused: {}: {message}", job.table),
        Outcome::Lost { message } => format!("Unknown: {}: {message}", job.table),
    }
}

/// Cut to two digits, so that the status does not change with every row.
fn approximate(rows: u64) -> u64 {
    let mut digits = 1;
    while rows / digits >= 100 {
        digits *= 10;
    }
    rows / digits * digits
}

fn time(seconds: f64) -> Option<Time> {
    Timestamp::from_second(seconds as i64).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_of_an_instance_are_nudged_once_and_stand_over_what_was_known_before() {
        let (nudges, mut nudged) = mpsc::channel(8);
        let (ended, _ended) = mpsc::channel(8);
        let fleet = Fleet::new(nudges, ended, Arc::new(Health::default()));
        let uid = TargetId("0b5f".to_owned());
        fleet.place(&uid.0, ObjectRef::new("chat").within("shop"), None, true);

        let sample = Sample::parse(
            "kalamdb_unflushed_rows{table_name=\"a.b\"} 1234\nkalamdb_last_flush_timestamp_seconds 1700000000\n",
        )
        .expect("metrics");
        fleet.scraped(&uid, Ok(&sample));
        fleet.scraped(&uid, Ok(&sample));
        assert!(nudged.try_recv().is_ok());
        assert!(nudged.try_recv().is_err(), "not twice for the same news");

        let before = FlushStatus { last_result: Some("Completed: a.b".to_owned()), ..FlushStatus::default() };
        let status = fleet.flush_status(&uid.0, Some(&before)).expect("something is known");
        assert_eq!((status.pending_rows, status.last_result), (Some(1200), before.last_result));
        fleet.scraped(&uid, Ok(&sample));
        assert!(nudged.try_recv().is_err(), "it is reported");
    }
}
