//! Cases: one seed, one program, one history. A failure is made small before it is told.

use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use proptest::strategy::ValueTree;
use tokio::runtime::Runtime;

use super::bucket::Bucket;
use super::owner::{Owner, Ticks, Volume};
use super::program::{Move, Scenario};
use super::reference::TableHistory;
use super::scheduler::run_alone;
use super::tables::{FIRST_TABLES, fresh};
use super::tasks::{self, Ended, Kind, Wish, Work};
use super::wire::{Fate, Sea};
use super::world::{Trace, Violation, World, violated};
use crate::flush::JobKind;
use crate::schema::{TableKind, TableName};

/// Programs that are tried to make a failing one simpler.
const SIMPLER_TRIES: usize = 150;
/// The environment tells how long to go on, in seconds, in place of the few cases of every run.
const SOAK_SECONDS: &str = "KALAMDB_SOAK_SECONDS";
/// The environment tells the first seed.
const SOAK_SEED: &str = "KALAMDB_SOAK_SEED";

/// What every case begins with: in each of two tables, a row that was flushed twice, a hot one, and rows that do not exist.
struct First {
    volume: Mutex<Volume>,
    bucket: Mutex<Bucket>,
    tables: Vec<TableHistory>,
    line: u32,
}

/// What a case came to.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// What did not hold; none where all did.
    pub violation: Option<Violation>,
    /// What was done.
    pub trace: Vec<String>,
}

/// Makes what every case begins with, soundly: before anything is planted.
pub fn prepare() {
    first();
}

/// What a seed violates.
pub fn violation(runtime: &Runtime, scenario: Scenario, seed: u64) -> Option<Violation> {
    violation_of(runtime, &scenario.program(seed).current())
}

/// What a program violates.
pub fn violation_of(runtime: &Runtime, program: &[Move]) -> Option<Violation> {
    run(runtime, program).violation
}

/// The runtime of a test's cases: turns are polled on the test's own thread.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime can be built")
}

fn first() -> &'static First {
    static FIRST: OnceLock<First> = OnceLock::new();
    FIRST.get_or_init(|| runtime().block_on(make_first()))
}

async fn make_first() -> First {
    let mut world = World::new(Bucket::new(Sea::default()), Ticks::new());
    let (id, line) = (world.number(), world.number());
    let mut owner = Owner::open(id, line, Volume::empty(), world.bucket.sea.clone(), world.clock.clone()).await;
    owner.serves = true;
    let engine = owner.engine.clone();
    world.owners.push(owner);
    run_alone(tasks::start(engine.clone())).await;
    for (name, kind) in FIRST_TABLES {
        let name = TableName::new("default", name);
        world.make(&engine, fresh(name.clone(), kind)).await.expect("a table can be made");
        let made = engine.catalog().tables[&name].clone();
        let user = (kind == TableKind::User).then_some("alice");
        for (key, is_flushed) in [(1, true), (1, true), (2, false)] {
            let wish = Wish { table: made.clone(), row: (user, key), deletes: false };
            let kind = Kind { owner: id, work: Work::Write, about: String::new(), stale_since: None };
            let wrote = run_alone(tasks::write(engine.clone(), vec![wish])).await;
            world.learn_of(&kind, wrote).expect("it is written");
            world.observe().await;
            if is_flushed {
                // Its steps one by one, so that its intent is seen.
                let id = format!("first-{}", world.number());
                let mut flush =
                    super::scheduler::Task::new((), tasks::job(engine.clone(), JobKind::Flush, id, name.clone()));
                let mut ended = flush.begin().await;
                while ended.is_none() {
                    world.observe().await;
                    ended = flush.go_on().await;
                }
                assert!(matches!(ended, Some(Ended::Job(job)) if job.message.is_none()), "the flush succeeds");
                world.observe().await;
            }
        }
    }
    world.check().expect("the first world is sound");
    let owner = world.owners.remove(0);
    let volume = owner.settled_volume();
    First {
        volume: Mutex::new(volume),
        bucket: Mutex::new(world.bucket.fork()),
        tables: owner.tables.values().cloned().collect(),
        line,
    }
}

async fn world() -> World {
    let first = first();
    let (volume, bucket) =
        (first.volume.lock().expect("nobody panics").copy(), first.bucket.lock().expect("nobody panics").fork());
    let mut world = World::new(bucket, Ticks::later());
    world.numbers = 100;
    let id = world.number();
    let mut owner = Owner::open(id, first.line, volume, world.bucket.sea.clone(), world.clock.clone()).await;
    (owner.tables, owner.serves) =
        (first.tables.iter().map(|history| (history.table.name.clone(), history.clone())).collect(), true);
    let engine = owner.engine.clone();
    world.owners.push(owner);
    run_alone(tasks::start(engine)).await;
    world.observe().await;
    world
}

/// Carries a program out in a world of its own.
fn run(runtime: &Runtime, program: &[Move]) -> History {
    first();
    let trace = Trace::default();
    let carried_out = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut world = world().await;
            world.trace = trace.clone();
            world.run(program).await
        })
    }));
    let violation = match carried_out {
        Ok(held) => held.err(),
        Err(panic) => Some(violated("nothing_panics", text_of(&*panic))),
    };
    History { violation, trace: trace.steps() }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_else(|| "it has no text".into())
}

/// Runs one seed; where it fails, a simpler program that fails at the same invariant is told.
pub fn check(runtime: &Runtime, scenario: Scenario, seed: u64) -> Result<(), Box<Failure>> {
    let mut tree = scenario.program(seed);
    let Some(violation) = run(runtime, &tree.current()).violation else { return Ok(()) };
    let fails = |program: &[Move]| {
        let history = run(runtime, program);
        (history.violation.as_ref().map(|found| found.invariant) == Some(violation.invariant)).then_some(history)
    };
    let mut simplest = (tree.current(), None);
    for _ in 0..SIMPLER_TRIES {
        match fails(&tree.current()) {
            Some(history) => {
                simplest = (tree.current(), Some(history));
                if !tree.simplify() {
                    break;
                }
            }
            None if !tree.complicate() => break,
            None => {}
        }
    }
    let (program, history) = simplest;
    let history = history.unwrap_or_else(|| run(runtime, &program));
    Err(Box::new(Failure { scenario, seed, program, history, violation }))
}

/// A seed that fails.
pub struct Failure {
    /// Its scenario.
    pub scenario: Scenario,
    /// The seed.
    pub seed: u64,
    /// What did not hold.
    pub violation: Violation,
    program: Vec<Move>,
    history: History,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let found = self.history.violation.as_ref().unwrap_or(&self.violation);
        writeln!(f, "{:?}, seed {}: {} does not hold: {}", self.scenario, self.seed, found.invariant, found.fault)?;
        for (number, step) in self.history.trace.iter().enumerate() {
            writeln!(f, "{:4}  {step}", number + 1)?;
        }
        write!(f, "the program: {:?}", self.program)
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// So many seeds of a scenario, or as many as the environment gives time for.
fn holds(scenario: Scenario, cases: u64) {
    let (runtime, from) = (runtime(), setting(SOAK_SEED).unwrap_or(0));
    let until = setting(SOAK_SECONDS).map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let began = Instant::now();
    let mut done = 0;
    for seed in from.. {
        if until.map_or(done == cases, |until| Instant::now() >= until) {
            break;
        }
        if let Err(failure) = check(&runtime, scenario, seed) {
            panic!("{failure}");
        }
        done += 1;
    }
    println!("{scenario:?}: {done} cases from seed {from} on in {:?}", began.elapsed());
}

macro_rules! scenarios {
    ($($name:ident: $scenario:ident, $cases:literal;)*) => {
        $(#[test]
        fn $name() {
            holds(Scenario::$scenario, $cases);
        })*

        /// Cases that every run of the tests goes through.
        const CASES: u64 = 0 $(+ $cases)*;
    };
}

scenarios! {
    flushes_survive: Flush, 300;
    readers_see_their_snapshot: Readers, 250;
    compactions_survive: Compaction, 230;
    owners_follow_one_another: Owners, 300;
    lost_volumes_come_back: Lost, 200;
    newcomers_fence_in_order: Newcomers, 150;
    restored_volumes_harm_nothing: Restored, 230;
    clients_resume_or_start_over: Resumed, 300;
    tables_change_beside_jobs: Tables, 200;
    columns_change_beside_writers: Altered, 250;
    dropped_tables_stay_gone: Dropped, 250;
    removed_files_expire: Expired, 220;
    rows_of_streams_expire: Streams, 250;
    everything_at_once: Wide, 120;
}

#[test]
fn one_seed_gives_one_history() {
    assert!(CASES >= 3000 && Scenario::ALL.len() == 14);
    let runtime = runtime();
    let mut lengths = 0;
    for scenario in Scenario::ALL {
        for seed in 1_000_000..1_000_003 {
            let program = scenario.program(seed).current();
            assert_eq!(program, scenario.program(seed).current());
            let history = run(&runtime, &program);
            let again = run(&runtime, &program);
            let differs = history.trace.iter().zip(&again.trace).find(|(one, other)| one != other);
            assert_eq!(differs, None, "{scenario:?}, seed {seed}");
            assert_eq!(history.trace.len(), again.trace.len(), "{scenario:?}, seed {seed}");
            lengths += history.trace.len();
        }
    }
    assert!(lengths > 500, "they do something: {lengths} steps");
}

/// Found by `Tables`: the recovery kept the catalog that it had read before the fence, and the table stayed stopped for good.
#[test]
fn a_recovery_knows_what_the_old_owner_altered_before_its_fence() {
    let (start, compaction) = (1, 0);
    let program = [
        Move::Compact(0, 1),
        Move::AddColumn(1),
        Move::StartEmpty,
        Move::Turn(start, Fate::Lands),
        // The old owner mirrors the new column and commits with it, after the new one has read the mirror and before its fence.
        Move::Run(compaction, 20),
        Move::Run(0, 30),
    ];
    let history = run(&runtime(), &program);
    assert_eq!(history.violation, None);
    let claims = history.trace.iter().filter(|step| step.ends_with("to recovery.claimed")).count();
    assert_eq!(claims, 2, "it begins again with a higher epoch: {:#?}", history.trace);
}

/// Found by `Dropped`: the job took its own commit for another owner's, for a table that is gone has no tier.
#[test]
fn a_job_whose_table_was_dropped_says_so() {
    let history = run(&runtime(), &[Move::Flush(0, 1), Move::Drop(1), Move::Run(0, 20)]);
    assert_eq!(history.violation, None, "{:#?}", history.trace);
    let told = |step: &String| step.contains("Flush default.u") && step.contains("table 'default.u' does not exist");
    assert!(history.trace.iter().any(told), "{:#?}", history.trace);
}

#[test]
fn programs_do_what_they_are_for() {
    let runtime = runtime();
    let happens: [(Scenario, &[&str]); 4] = [
        (
            Scenario::Altered,
            &["can't become NOT NULL", "can't become", "to alter.looked", "goes on from alter.looked to its end"],
        ),
        (Scenario::Dropped, &["to vacuum.dropped_judged", "1 folders are gone", "is made anew"]),
        (Scenario::Expired, &["has a checkpoint of version", "Vacuumed { expired: 1", "goes on from read.holds"]),
        (Scenario::Streams, &["0 rows stay", "1 rows stay", "time goes by: Expiry", "the stream table is dropped"]),
    ];
    for (scenario, all) in happens {
        let mut missing: Vec<_> = all.to_vec();
        for seed in 0..80 {
            let trace = run(&runtime, &scenario.program(seed).current()).trace;
            missing.retain(|text| !trace.iter().any(|step| step.contains(text)));
            if missing.is_empty() {
                break;
            }
        }
        assert!(missing.is_empty(), "{scenario:?}: {missing:?} never happens");
    }
}

#[test]
fn writes_are_committed_while_a_flush_is_on_its_way() {
    let runtime = runtime();
    let is_between = |seed| {
        let trace = run(&runtime, &Scenario::Flush.program(seed).current()).trace;
        let begun = trace.iter().position(|step| step.ends_with("to flush.begun"));
        let written = trace.iter().position(|step| step.contains("goes on from flush.begun"));
        begun.zip(written).is_some_and(|(begun, written)| {
            begun < written && trace[begun..written].iter().any(|step| step.contains(": commits"))
        })
    };
    assert!((0..50).any(is_between), "no seed lets a writer go on between two steps of a flush");
}
