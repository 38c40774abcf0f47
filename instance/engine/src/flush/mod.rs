//! Flush jobs: the five steps from hot to cold, and their settlement after a crash.
//!
//! * [`intent`]: what is stored before each Delta commit;
//! * [`owner`]: the epoch, without which nothing is committed;
//! * [`run`], [`settle`]: one flush, and what becomes of it when its end is unknown;
//! * [`checkpoints`]: when a log's checkpoint is due;
//! * `unrecovered`: tables that a recovery of the volume could not read;
//! * [`jobs`]: the jobs as callers see them; [`safety`], [`rests`]: when the instance flushes by itself, and when not.
//!
//! Nothing here retries a job that failed: that is the scheduler's, or the safety net's.

mod checkpoints;
mod intent;
pub(crate) mod jobs;
mod owner;
mod places;
pub(crate) mod rests;
pub(crate) mod run;
pub(crate) mod safety;
mod settle;
mod unrecovered;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use kalamdb_api::flush::{FlushJob, FlushReason, FlushState};
use parking_lot::Mutex;
use tokio::sync::{MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use intent::{Epoch, Intent, IntentKind};
pub use jobs::{Job, JobKind};

use self::jobs::{JobRecord, Jobs};
use self::owner::{Owner, StoppedTables};
use self::rests::Rests;
use self::run::{Flushed, Lane, Runner};
use crate::EngineError;
use crate::cold::ColdTier;
use crate::cold::schema::CHECKPOINT_INTERVAL;
use crate::commit::Committer;
use crate::commit::clock::Clock;
use crate::compaction::{Compacted, Tending};
use crate::config::{EngineConfig, FlushConfig};
use crate::engine::{Readiness, Unflushed};
use crate::hot::Hot;
use crate::observe::ChangeObserver;
use crate::point;
use crate::recovery::keeper::Keeper;
use crate::schema::{Table, TableId, TableName};

/// How often the safety net looks.
const SAFETY_PERIOD: Duration = Duration::from_secs(1);
/// How long a shutdown waits for running jobs; what is cut off then is settled by the next start.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// Is told of each job that ended well and changed something: its kind, the table, and how long it took.
pub type JobObserver = Box<dyn Fn(JobKind, &TableName, Duration) + Send + Sync>;

/// Runs flush jobs, and compactions beside them. One for each engine.
pub struct Flusher {
    pub(crate) runner: Runner,
    pub(crate) jobs: Arc<Jobs>,
    config: FlushConfig,
    /// What keeps cold files few and their folder clean.
    pub(crate) tending: Tending,
    /// As many flushes run at once as it has permits.
    running: Semaphore,
    lanes: Mutex<HashMap<TableId, Arc<tokio::sync::Mutex<Lane>>>>,
    scheduler_seen: Mutex<Instant>,
    observer: OnceLock<JobObserver>,
    tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// What a job came to.
pub(crate) enum Ended {
    Flushed(Flushed),
    Compacted(Compacted),
    NothingToDo,
    /// The job says so already.
    CalledOff,
}

impl Flusher {
    /// Knows the jobs of earlier lives, and does nothing yet.
    pub fn new(
        hot: Arc<Hot>,
        committer: Committer,
        cold: Arc<ColdTier>,
        config: &EngineConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, EngineError> {
        let stopped = StoppedTables::default();
        let owner = Arc::new(Owner::new(hot.clone(), cold.clone(), committer.clone(), clock.clone(), stopped.clone())?);
        let keeper = Keeper::new(hot.clone(), committer.clone(), cold.clone(), clock.clone());
        let flusher = Arc::new(Self {
            jobs: Arc::new(Jobs::load(hot.clone())?),
            runner: Runner {
                hot,
                committer,
                cold,
                owner,
                clock,
                keeper: Arc::new(keeper),
                target_file_bytes: config.flush.target_file_bytes,
                stopped,
                alive: Mutex::default(),
                places: Mutex::default(),
                checkpoint_interval: CHECKPOINT_INTERVAL.into(),
            },
            config: config.flush.clone(),
            tending: Tending::new(config),
            running: Semaphore::new(config.flush.max_concurrent.max(1)),
            lanes: Mutex::default(),
            scheduler_seen: Mutex::new(Instant::now()),
            observer: OnceLock::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        flusher.stop_unrecovered()?;
        Ok(flusher)
    }

    /// Starts to claim the object store, settles what earlier lives left, and starts the safety net. On a new volume it waits for the
    /// first answer of the store, so that a database that can be used is ready at once.
    pub async fn start_up(self: &Arc<Self>) {
        // Before the store is claimed, so that no job of this life is among them.
        let dead = self.jobs.unended();
        self.spawn(self.clone().recover(dead));
        self.spawn(self.clone().watch());
        self.spawn(self.clone().watch_runs());
        self.spawn(self.clone().watch_removed_files());
        if self.runner.owner.not_ready().is_some() {
            self.runner.owner.first_try().await;
        }
    }

    /// Begins a job, or answers with the one that has this id already (then `false`).
    pub fn start_flush(
        self: &Arc<Self>,
        id: &str,
        name: &TableName,
        reason: FlushReason,
    ) -> Result<(FlushJob, bool), EngineError> {
        if let Some(known) = self.known(JobKind::Flush, id, name)? {
            return Ok((known, false));
        }
        let table = self.table(name)?;
        if table.kind == crate::schema::TableKind::Stream {
            return Err(EngineError::Invalid(format!(
                "table {name} is a STREAM table: its rows expire and are never flushed"
            )));
        }
        self.start(JobKind::Flush, id, name, reason)
    }

    /// The job that has the id already. An id that another job has is refused.
    pub(crate) fn known(&self, kind: JobKind, id: &str, name: &TableName) -> Result<Option<FlushJob>, EngineError> {
        match self.jobs.find(id) {
            Some(known) if known.kind == kind && known.job.table == name.to_string() => Ok(Some(known.job)),
            Some(Job { kind, job }) => {
                let name = format!("{id}, a {} of table {}", kind.as_str(), job.table);
                Err(EngineError::AlreadyExists { what: "job", name })
            }
            None => Ok(None),
        }
    }

    /// Begins a job whose table was looked at, or answers with the one that has this id already.
    pub(crate) fn start(
        self: &Arc<Self>,
        kind: JobKind,
        id: &str,
        name: &TableName,
        reason: FlushReason,
    ) -> Result<(FlushJob, bool), EngineError> {
        let (job, new) = self.jobs.add(kind, id, name, reason, self.runner.now_ms())?;
        if new {
            self.spawn(self.clone().run(kind, id.to_owned(), name.clone()));
        }
        Ok((job, new))
    }

    /// The job of that id.
    pub fn flush_job(&self, id: &str) -> Option<FlushJob> {
        self.jobs.get(id)
    }

    /// All flush jobs that are remembered, newest first.
    pub fn flush_jobs(&self) -> Vec<FlushJob> {
        self.jobs.all().into_iter().filter(|job| job.kind == JobKind::Flush).map(|job| job.job).collect()
    }

    /// All jobs that are remembered, newest first.
    pub fn jobs(&self) -> Vec<Job> {
        self.jobs.all()
    }

    /// Calls off a job that waits.
    pub fn cancel(&self, id: &str) -> Result<(), EngineError> {
        self.jobs.cancel(id, self.runner.now_ms())
    }

    /// A scheduler is alive: the safety net rests.
    pub fn scheduler_seen(&self) {
        *self.scheduler_seen.lock() = Instant::now();
    }

    /// From now on `observer` is told of each change of a job.
    pub fn observe_changes(&self, observer: ChangeObserver) {
        self.jobs.observing.set(observer);
    }

    /// From now on `observer` is told of each job that ends well. The first one stays.
    pub fn observe(&self, observer: JobObserver) {
        let _ = self.observer.set(observer);
    }

    pub(crate) fn tell(&self, kind: JobKind, table: &TableName, took: Duration) {
        if let Some(observer) = self.observer.get() {
            observer(kind, table, took);
        }
    }

    /// Tables that have unflushed rows, the most urgent first.
    pub fn unflushed(&self) -> Vec<Unflushed> {
        let now = self.runner.clock.now_micros();
        let mut unflushed = self.runner.committer.unflushed();
        let urgency = |table: &Unflushed| safety::urgency(table, &self.config, now);
        unflushed.sort_by(|a, b| urgency(b).total_cmp(&urgency(a)));
        unflushed
    }

    /// Why the object store can't be used now; none where it can.
    pub fn store_trouble(&self) -> Option<String> {
        self.runner.owner.store_trouble()
    }

    /// Why writes must wait for the object store; none where they need not.
    pub fn not_ready(&self) -> Option<Readiness> {
        self.runner.owner.not_ready()
    }

    /// Fails where the table is stopped: what it took now could never be flushed, and another instance may own it.
    pub fn check_not_stopped(&self, table: &Table) -> Result<(), EngineError> {
        match self.runner.stopped.lock().get(&table.id) {
            Some(reason) => Err(EngineError::TableStopped { table: table.name.clone(), reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Ends what runs, at a point that the next start can settle.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(CLOSE_PATIENCE, self.tasks.wait()).await.is_err() {
            tracing::warn!("a job was cut off by the shutdown; the next start settles it");
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // What outlives the patience of `close` is cut off with the runtime; the protocol takes that for a crash.
        self.tasks.spawn(task);
    }

    pub(crate) fn table(&self, name: &TableName) -> Result<Arc<Table>, EngineError> {
        let catalog = self.runner.committer.catalog();
        let missing = || EngineError::NotFound { what: "table", name: name.to_string() };
        catalog.tables.get(name).cloned().ok_or_else(missing)
    }

    pub(crate) fn lane(&self, table: &Table) -> Arc<tokio::sync::Mutex<Lane>> {
        self.lanes.lock().entry(table.id).or_default().clone()
    }

    pub(crate) async fn run(self: Arc<Self>, kind: JobKind, id: String, name: TableName) {
        let work = async {
            match kind {
                JobKind::Flush => self.run_in_turn(&id, &name).await,
                JobKind::Compact => self.run_compaction(&id, &name).await,
            }
        };
        // A panic must not leave the job running for ever.
        let ended = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(job = %id, table = %name, "a job panicked; this is a bug in KalamDB");
            Err(EngineError::Corrupt { what: format!("job {id}"), reason: "it panicked; see the log".into() })
        });
        if let Err(error) = &ended {
            tracing::warn!(job = %id, table = %name, %error, "a {} job failed; no row is lost by it", kind.as_str());
        }
        let changed = matches!(ended, Ok(Ended::Flushed(_) | Ended::Compacted(_)));
        crash_point!("job.ending");
        self.end(kind, &id, ended);
        crash_point!("job.ended");
        if changed {
            self.tending.consider(&name, kind);
        }
    }

    /// A job that waits can be called off; one that runs goes on to its end.
    async fn run_in_turn(&self, id: &str, name: &TableName) -> Result<Ended, EngineError> {
        let table = self.table(name)?;
        let lane = self.lane(&table);
        tokio::select! {
            (lane, _permit) = self.turn(&lane) => self.run_now(id, &table, lane).await,
            () = self.stop.cancelled() => {
                Err(EngineError::Unavailable("the instance was shut down before the job began".into()))
            }
        }
    }

    /// Commits of one table are serial, and the table's turn comes before the job takes a place among those that run.
    async fn turn<'a>(&'a self, lane: &'a tokio::sync::Mutex<Lane>) -> (MutexGuard<'a, Lane>, SemaphorePermit<'a>) {
        self.runner.owner.first_try().await;
        let lane = point::lock(lane).await;
        (lane, self.running.acquire().await.expect("the semaphore is never closed"))
    }

    async fn run_now(
        &self,
        id: &str,
        table: &Arc<Table>,
        mut lane: MutexGuard<'_, Lane>,
    ) -> Result<Ended, EngineError> {
        let (alive, began) = (self.runner.begin_attempt(table), Instant::now());
        let attempt = alive.id();
        if !self.jobs.begin(id, attempt, self.runner.now_ms())? {
            return Ok(Ended::CalledOff);
        }
        crash_point!("job.running");
        self.check_not_stopped(table)?;
        if !self.runner.has_unflushed(table) {
            return Ok(Ended::NothingToDo);
        }
        let begun = |version| self.jobs.change(id, |record| record.version = Some(version));
        let (jobs, job) = (self.jobs.clone(), id.to_owned());
        let wrote = move |rows| jobs.wrote(&job, rows);
        let flushed = self.runner.flush(table, &mut lane, attempt, begun, wrote).await?;
        self.tell(JobKind::Flush, &table.name, began.elapsed());
        Ok(Ended::Flushed(flushed))
    }

    fn end(&self, kind: JobKind, id: &str, ended: Result<Ended, EngineError>) {
        if matches!(ended, Ok(Ended::CalledOff)) {
            return;
        }
        let stored = self.jobs.change(id, |record| {
            let job = &mut record.job;
            job.finished_at = Some(self.runner.now_ms());
            match ended {
                Ok(Ended::Flushed(flushed)) => {
                    (job.state, job.rows, job.bytes) = (FlushState::Completed, flushed.rows, flushed.bytes);
                }
                Ok(Ended::Compacted(compacted)) => {
                    (job.state, job.rows, job.bytes) = (FlushState::Completed, compacted.rows, compacted.bytes);
                    job.message = Some(format!("{} file(s) became {}", compacted.replaced, compacted.files));
                }
                Ok(Ended::NothingToDo) => {
                    (job.state, job.message) =
                        (FlushState::Skipped, Some(format!("there was nothing to {}", kind.as_str())));
                }
                Ok(Ended::CalledOff) => {}
                Err(error) => {
                    (job.state, job.message, job.rows) = (FlushState::Failed, Some(error.to_string()), 0);
                }
            }
        });
        if let Err(error) = stored {
            tracing::error!(job = %id, %error, "the end of a job was not stored");
        }
    }

    /// Claims the store, then settles what processes before this one left: their intents, and the jobs that they did not end.
    async fn recover(self: Arc<Self>, dead: Vec<JobRecord>) {
        self.runner.owner.claim(&self.stop).await;
        if self.runner.owner.epoch().is_err() {
            return;
        }
        self.settle_earlier(&dead).await;
        tokio::join!(self.runner.owner.probe(&self.stop), self.mirror());
    }

    /// Settles what processes before this one left: their jobs, their intents, and what a recovery could not read.
    pub(crate) async fn settle_earlier(&self, dead: &[JobRecord]) {
        for record in dead {
            self.recover_job(record).await;
        }
        self.recover_tables().await;
        self.recover_unrecovered().await;
    }

    /// Keeps the mirror of the catalog up with it.
    async fn mirror(&self) {
        if let Ok(epoch) = self.runner.owner.epoch() {
            self.runner.keeper.run(epoch, &self.stop).await;
        }
    }

    /// The catalog has changed.
    pub fn catalog_changed(&self) {
        self.runner.keeper.catalog_changed();
    }

    async fn recover_tables(&self) {
        for table in self.runner.committer.catalog().tables.values() {
            if let Err(error) = self.recover_table(table).await {
                tracing::warn!(table = %table.name, %error, "what an earlier job left is not settled yet; the next one will try");
            }
        }
    }

    async fn recover_table(&self, table: &Arc<Table>) -> Result<Vec<Intent>, EngineError> {
        let lane = self.lane(table);
        let mut lane = point::lock(&lane).await;
        if self.runner.hot.snapshot().intents(table.id)?.is_empty() {
            return Ok(Vec::new());
        }
        let settled = self.runner.take_over(table, &mut lane).await?;
        crash_point!("start.settled");
        if settled.iter().any(|intent| intent.kind == IntentKind::Flush) {
            self.runner.delete_flushed(table).await?;
        }
        Ok(settled)
    }

    async fn recover_job(&self, record: &JobRecord) {
        let ended = self.end_of_dead(record).await;
        crash_point!("start.job_judged");
        self.end(record.kind, &record.job.id, ended);
    }

    /// A job whose process died is never continued: what is in the log says whether its rows were moved.
    async fn end_of_dead(&self, record: &JobRecord) -> Result<Ended, EngineError> {
        let left = match record.kind {
            JobKind::Flush => "its rows are still in the hot tier",
            JobKind::Compact => "nothing was changed",
        };
        let died = || EngineError::Unavailable(format!("the instance stopped before the job ended; {left}"));
        let (Some(attempt), Ok(name)) = (record.attempt, record.job.table.parse::<TableName>()) else {
            return Err(died());
        };
        let table = self.table(&name)?;
        let stored = self.runner.hot.snapshot().intents(table.id)?;
        let intent = stored.iter().find(|intent| intent.job == attempt);
        if intent.is_some() {
            self.recover_table(&table).await?;
        }
        // Another job, or a recovery that died, may have settled it before: only the log knows in whose favour.
        let Some(version) = intent.map(|intent| intent.version).or(record.version) else { return Err(died()) };
        match self.runner.cold.log(table.uuid).read(version).await? {
            Some(commit) if commit.is_of(attempt) => {
                Ok(Ended::Flushed(Flushed { rows: record.job.rows, bytes: record.job.bytes }))
            }
            Some(_) => Err(died()),
            None => Err(EngineError::Unavailable(format!(
                "the instance stopped before the job ended; version {version} of the Delta log, which tells how, is not there"
            ))),
        }
    }

    /// The safety net: with no scheduler heard from, the instance keeps its own limits.
    async fn watch(self: Arc<Self>) {
        let mut rests = Rests::default();
        while !self.stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(SAFETY_PERIOD) => {}
                () = self.stop.cancelled() => return,
            }
            rests.learn(&self.jobs);
            let low_disk = self.runner.hot.disk().is_low();
            if low_disk || self.scheduler_seen.lock().elapsed() >= self.config.scheduler_timeout {
                self.flush_due(&mut rests, low_disk);
            }
        }
    }

    /// On a low disk every table is due: a flush is what frees space.
    fn flush_due(self: &Arc<Self>, rests: &mut Rests, low_disk: bool) {
        let now = self.runner.clock.now_micros();
        for unflushed in self.runner.committer.unflushed() {
            let table = &unflushed.table;
            let is_due = low_disk || safety::urgency(&unflushed, &self.config, now) >= 1.0;
            if rests.rests(&table.name) || !is_due || self.jobs.is_active(JobKind::Flush, &table.name) {
                continue;
            }
            let id = Uuid::new_v4().to_string();
            match self.start_flush(&id, &table.name, FlushReason::Safety) {
                Ok(_) => rests.start(&table.name, id),
                Err(error) => tracing::warn!(table = %table.name, %error, "a due flush was not started"),
            }
        }
    }
}
