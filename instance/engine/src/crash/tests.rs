//! The process is killed at every crash point in turn, and what it had acknowledged is there.
//!
//! The test's own program runs itself again as a child, which works a database until it passes the point that is armed, and then kills itself
//! (SIGKILL). The next child goes on with what the one before left: first it checks it, then it dies at the next point. What was acknowledged
//! stands in a ledger beside the database.

mod changes;
mod ledger;
mod life;
mod streams;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use ledger::Ledger;

/// Every crash point there is. Those of a database's first start come first: only the first children meet them.
const POINTS: [&str; 70] = [
    "start.volume_opened",
    "start.life_begun",
    "start.identity_put",
    "start.claimed",
    "start.settled",
    "start.job_judged",
    "catalog.staged",
    "catalog.written",
    "checkpoint.due",
    "checkpoint.written",
    "commit.alone_done",
    "commit.answered",
    "commit.published",
    "commit.staged",
    "commit.written",
    "compaction.begun",
    "compaction.discarded",
    "compaction.files_written",
    "compaction.given_up",
    "compaction.noted",
    "compaction.settled",
    "delta.named",
    "delta.prepared",
    "delta.put",
    "expiry.dropped",
    "expiry.found",
    "expiry.staged",
    "expiry.written",
    "fence.stored",
    "file.encoded",
    "file.uploaded",
    "flush.all_deleted",
    "flush.begun",
    "flush.chunk_deleted",
    "flush.deleted",
    "flush.files_written",
    "flush.noted",
    "flush.settled",
    "flush.vectors_written",
    "folder.placed",
    "folder.staged",
    "intent.stored",
    "job.ended",
    "job.ending",
    "job.running",
    "mirror.pruned",
    "mirror.put",
    "recovery.epoch_claimed",
    "recovery.fenced",
    "recovery.mirrored",
    "recovery.staged",
    "recovery.table_put",
    "recovery.written",
    "settle.installed",
    "settle.places_found",
    "settle.read",
    "settle.staged",
    "settle.written",
    "takeover.settled",
    "trim.chunk_deleted",
    "trim.found",
    "trim.staged",
    "trim.written",
    "vacuum.dropped_forgotten",
    "vacuum.dropped_unnamed",
    "vacuum.folder_deleted",
    "vacuum.judged",
    "vacuum.objects_deleted",
    "vacuum.one_deleted",
    "vacuum.staged_deleted",
];
/// Points that a database meets once in its whole life.
const FIRST: [&str; 3] = ["start.volume_opened", "start.life_begun", "start.identity_put"];
/// Databases that die side by side.
const CHAINS: usize = 3;
/// A child that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where a child is to die; none checks what is there, and ends well.
type Death = Option<(&'static str, usize)>;

/// The place in the environment of a child's orders.
const FOLDER: &str = "KALAMDB_CRASH_FOLDER";
const POINT: &str = "KALAMDB_CRASH_POINT";
const PASSAGE: &str = "KALAMDB_CRASH_PASSAGE";
const SEED: &str = "KALAMDB_CRASH_SEED";

/// Runs a child to its end.
fn run_child(folder: &Path, death: Death, seed: u64) {
    let output = folder.join("output");
    let file = std::fs::File::create(&output).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "crash::tests::life::a_life_that_ends_at_a_crash_point", "--nocapture"])
        // A folder goes on with the next process; a bucket of the environment would be another one for each.
        .env_remove("KALAMDB_TEST_S3_ENDPOINT")
        .env(FOLDER, folder)
        .env(SEED, seed.to_string())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .stdin(Stdio::null());
    if let Some((point, passage)) = death {
        command.env(POINT, point).env(PASSAGE, passage.to_string());
    }
    let (mut child, began) = (command.spawn().unwrap(), Instant::now());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{death:?}, seed {seed}: it hangs: {}", std::fs::read_to_string(output).unwrap());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let told = || std::fs::read_to_string(&output).unwrap();
    match death {
        // The signal's number is none of an exit code.
        Some((point, passage)) => {
            let hit = Ledger::history(folder).hits.pop();
            assert!(status.code() != Some(0), "the point {point} was never reached {passage} time(s): {}", told());
            assert!(status.code().is_none(), "{death:?}, seed {seed}: {status}: {}", told());
            assert_eq!(hit.as_deref(), Some(point), "it was killed elsewhere: {}", told());
        }
        None => assert!(status.success(), "the last check, seed {seed}: {status}: {}", told()),
    }
}

/// One database that dies at each of these points; each child checks what the ones before left.
fn die_in_turn(points: &[&'static str], seed: u64) {
    let (folder, mut random) = (tempfile::tempdir().unwrap(), StdRng::seed_from_u64(seed));
    for (turn, point) in points.iter().enumerate() {
        // A trim's first commit is the one that raises the floor.
        let is_first = FIRST.contains(point) || point.starts_with("trim.");
        let passage = if is_first { 1 } else { random.random_range(1..=2) };
        run_child(folder.path(), Some((point, passage)), seed + turn as u64);
    }
    run_child(folder.path(), None, seed);
    assert_eq!(Ledger::history(folder.path()).hits, points, "every point was hit");
}

#[test]
fn a_process_may_be_killed_at_every_crash_point() {
    let seconds: u64 = std::env::var("KALAMDB_SOAK_SECONDS").map_or(0, |seconds| seconds.parse().unwrap());
    let began = Instant::now();
    for round in 0.. {
        let mut points = POINTS[FIRST.len()..].to_vec();
        points.shuffle(&mut StdRng::seed_from_u64(round));
        std::thread::scope(|scope| {
            for (chain, points) in points.chunks(points.len().div_ceil(CHAINS)).enumerate() {
                let points = [&FIRST[chain..=chain], points].concat();
                scope.spawn(move || die_in_turn(&points, round * 1000 + chain as u64 * 100));
            }
        });
        if began.elapsed().as_secs() >= seconds {
            println!("killed at {} points, {} round(s), {:?}", POINTS.len(), round + 1, began.elapsed());
            return;
        }
    }
}

#[test]
fn the_list_of_crash_points_is_that_of_the_sources() {
    let (mut found, mut folders) = (Vec::new(), vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("crash/tests.rs") {
                let text = std::fs::read_to_string(path).unwrap();
                let names = text.split("crash_point!(\"").skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(names.map(str::to_owned));
            }
        }
    }
    let mut listed = POINTS.to_vec();
    listed.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, listed, "each has a name of its own, and stands in POINTS");
}
