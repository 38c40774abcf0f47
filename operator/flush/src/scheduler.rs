//! The loop: at each turn all instances are scraped side by side, then one decision is made over the whole fleet, then the
//! jobs are dispatched, each in its own task.
//!
//! An instance that does not answer costs the others nothing: a turn waits for scrapes for a bounded time only, and no
//! instance has more than one scrape under way.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::dispatch::{Dispatcher, Outcome, Patience};
use crate::policy::{Ended, FleetLimits, History, Instance, Moment, Running, decide};
use crate::scrape::{Sample, ScrapeError, scrape};
use crate::{Discovery, Job, TableName, Target, TargetId};

/// Hears what happens. Its functions return at once.
pub trait Observer: Send + Sync + 'static {
    /// A turn began: the loop is alive.
    fn turned(&self) {}
    /// An instance was scraped.
    fn scraped(&self, target: &TargetId, result: Result<&Sample, &ScrapeError>);
    /// A job was decided on.
    fn started(&self, job: &Job);
    /// A job ended.
    fn ended(&self, job: &Job, outcome: &Outcome, took: Duration);
}

/// How often, how many, how long.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// From one turn to the next.
    pub interval: Duration,
    /// How long one scrape may take.
    pub scrape_timeout: Duration,
    /// How long a turn waits for its scrapes before it decides without the late ones.
    pub gather: Duration,
    /// Scrapes at a time.
    pub concurrent_scrapes: usize,
    /// Limits beyond one instance.
    pub fleet: FleetLimits,
    /// Between jobs of a table that fail.
    pub retry: Backoff,
    /// How patient a dispatch is.
    pub patience: Patience,
}

impl Default for Settings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            interval: seconds(5),
            scrape_timeout: seconds(5),
            gather: seconds(1),
            concurrent_scrapes: 64,
            fleet: FleetLimits { per_store: 4, fleet: 16, disk_full_percent: 80, foreign_patience: seconds(600) },
            retry: Backoff { base: seconds(5), cap: seconds(300) },
            patience: Patience {
                request_timeout: seconds(10),
                backoff: Backoff { base: Duration::from_millis(500), cap: seconds(15) },
                poll: Backoff { base: Duration::from_millis(100), cap: seconds(2) },
                silence: seconds(300),
            },
        }
    }
}

/// Random numbers in 0..1 from outside.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// Schedules flushes until `shutdown`. Jobs that run then go on in their instances; the next scheduler finds them there.
pub async fn run(
    settings: Settings,
    discovery: Arc<dyn Discovery>,
    observer: Arc<dyn Observer>,
    jitter: Jitter,
    shutdown: CancellationToken,
) -> Result<(), reqwest::Error> {
    // Instances are reached directly; a proxy of the environment is for the world outside.
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut scheduler = Scheduler {
        dispatcher: Dispatcher { client, discovery, patience: settings.patience, jitter },
        scrape_slots: Arc::new(Semaphore::new(settings.concurrent_scrapes)),
        started: Instant::now(),
        settings,
        observer,
        seen: HashMap::new(),
        scraping: HashSet::new(),
        scrapes: JoinSet::new(),
        running: Vec::new(),
        jobs: JoinSet::new(),
        history: History::new(),
    };
    tokio::select! {
        () = scheduler.turn_for_ever() => Ok(()),
        () = shutdown.cancelled() => Ok(()),
    }
}

struct Scheduler {
    settings: Settings,
    dispatcher: Dispatcher,
    observer: Arc<dyn Observer>,
    started: Instant,
    seen: HashMap<TargetId, Seen>,
    scraping: HashSet<TargetId>,
    scrape_slots: Arc<Semaphore>,
    scrapes: JoinSet<(Target, Moment, Result<Sample, ScrapeError>)>,
    running: Vec<Running>,
    jobs: JoinSet<(Job, Outcome, Duration)>,
    history: History,
}

/// What is known of an instance.
struct Seen {
    target: Target,
    sample: Sample,
    sampled_at: Moment,
    foreign_since: Option<Moment>,
}

impl Scheduler {
    async fn turn_for_ever(&mut self) {
        let mut turns = interval(self.settings.interval);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gathering: Option<Instant> = None;
        loop {
            let deadline = gathering.unwrap_or_else(Instant::now);
            tokio::select! {
                _ = turns.tick() => {
                    self.observer.turned();
                    self.begin_scrapes();
                    gathering = Some(Instant::now() + self.settings.gather);
                }
                Some(scraped) = self.scrapes.join_next() => self.keep(scraped),
                Some(ended) = self.jobs.join_next() => self.settle(ended),
                () = sleep_until(deadline), if gathering.is_some() => {
                    gathering = None;
                    self.start_due_jobs();
                }
            }
            if gathering.is_some() && self.scraping.is_empty() {
                gathering = None;
                self.start_due_jobs();
            }
        }
    }

    fn now(&self) -> Moment {
        Moment(self.started.elapsed())
    }

    fn begin_scrapes(&mut self) {
        let targets = self.dispatcher.discovery.targets();
        let known: HashSet<_> = targets.iter().map(|target| &target.id).collect();
        self.seen.retain(|id, _| known.contains(id));
        self.history.retain(|(id, _), _| known.contains(id));
        for target in targets {
            if !self.scraping.insert(target.id.clone()) {
                continue;
            }
            let (client, slots, timeout) =
                (self.dispatcher.client.clone(), self.scrape_slots.clone(), self.settings.scrape_timeout);
            let started = self.started;
            self.scrapes.spawn(async move {
                let _slot = slots.acquire().await;
                // The moment before the request: what a job changes while the answer travels may not be in it.
                let at = Moment(started.elapsed());
                let result = scrape(&client, &target, timeout).await;
                (target, at, result)
            });
        }
    }

    fn keep(&mut self, scraped: Result<(Target, Moment, Result<Sample, ScrapeError>), tokio::task::JoinError>) {
        let (target, sampled_at, result) = scraped.expect("a scrape neither panics nor is cancelled");
        self.scraping.remove(&target.id);
        self.observer.scraped(&target.id, result.as_ref());
        // What an instance that is silent now told before may be wrong by now.
        let Ok(sample) = result else {
            self.seen.remove(&target.id);
            return;
        };
        let ours = self.running.iter().filter(|job| job.target == target.id).count();
        let before = self.seen.get(&target.id).and_then(|seen| seen.foreign_since);
        let foreign_since = (sample.active_jobs > ours).then(|| before.unwrap_or(sampled_at));
        self.seen.insert(target.id.clone(), Seen { target, sample, sampled_at, foreign_since });
    }

    fn start_due_jobs(&mut self) {
        let instances: Vec<_> = self.seen.values().map(Seen::as_instance).collect();
        let due = decide(self.now(), &instances, &self.running, &self.history, &self.settings.fleet, stagger);
        for job in due {
            self.observer.started(&job);
            let Job { target, store, table, .. } = job.clone();
            self.running.push(Running { target, store, table });
            let dispatcher = self.dispatcher.clone();
            self.jobs.spawn(async move {
                let started = Instant::now();
                let outcome = dispatcher.run(&job).await;
                (job, outcome, started.elapsed())
            });
        }
    }

    fn settle(&mut self, ended: Result<(Job, Outcome, Duration), tokio::task::JoinError>) {
        let (job, outcome, took) = ended.expect("a dispatch neither panics nor is cancelled");
        self.running.retain(|running| running.target != job.target || running.table != job.table);
        self.observer.ended(&job, &outcome, took);
        let key = (job.target, job.table);
        let before = self.history.get(&key).map_or(0, |ended| ended.failures);
        let at = self.now();
        // A table that is due and has nothing to flush would be asked again at every turn: it waits like one that failed.
        let failures = if matches!(outcome, Outcome::Completed { .. }) { 0 } else { before + 1 };
        let wait = match failures {
            0 => Duration::ZERO,
            _ => self.settings.retry.delay(failures, (self.dispatcher.jitter)()),
        };
        self.history.insert(key, Ended { at, failures, not_before: Moment(at.0 + wait) });
    }
}

impl Seen {
    fn as_instance(&self) -> Instance<'_> {
        Instance {
            target: &self.target.id,
            store: &self.target.store,
            limits: &self.target.limits,
            sample: &self.sample,
            sampled_at: self.sampled_at,
            foreign_since: self.foreign_since,
        }
    }
}

/// The same number in 0..1 for the same table at every turn.
fn stagger(target: &TargetId, table: &TableName) -> f64 {
    let mut hasher = DefaultHasher::new();
    (target, table).hash(&mut hasher);
    hasher.finish() as f64 / u64::MAX as f64
}
