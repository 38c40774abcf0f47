//! What a Delta log tells of jobs and owners, and what it does not tell.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kalamdb_api::flush::FlushState;

use super::deaths::Step;
use super::{World, config, copy_folder, open};
use crate::cold::faults::Faults;
use crate::cold::log::table_folder;
use crate::config::{EngineConfig, ObjectStoreConfig};
use crate::engine::Readiness;
use crate::flush::run::Lane;
use crate::schema::TableKind;

/// A dead job's intent is settled before anybody asks how the job ended: by another job, or by a recovery that dies in its turn.
#[tokio::test(flavor = "multi_thread")]
async fn how_a_dead_job_ended_is_told_by_the_log() {
    let steps = [
        (Step::Begun, FlushState::Failed),
        (Step::Written, FlushState::Failed),
        (Step::Committed, FlushState::Completed),
        (Step::Ended, FlushState::Completed),
    ];
    for (step, ends) in steps {
        let mut world = World::new(TableKind::Shared).await;
        world.write("", &[(1, "a", Some(1)), (2, "a", Some(2))]).await;
        world.flush().await;
        world.write("", &[(1, "a", Some(10)), (3, "a", Some(3))]).await;
        world.die_in_flush(step).await;
        world.engine().flusher().runner.take_over(&world.table, &mut Lane::default()).await.unwrap();
        world.restart().await;
        let job = world.end_of("job-2").await;
        assert_eq!(job.state, ends, "{step:?}: {job:?}");
        assert!(matches!(world.flush().await, FlushState::Completed | FlushState::Skipped), "{step:?}");
        world.check(&format!("after {step:?}")).await;
    }
}

/// S3 may answer 409 to a conditional put that meets another one, and take neither.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_meets_another_is_tried_again() {
    let mut world = World::new(TableKind::Shared).await;
    world.write("", &[(1, "a", Some(1))]).await;
    for version in ["00000000000000000000.json", "00000000000000000001.json"] {
        *world.faults.conflicts.lock() = Some(version);
        let id = world.start_flush().await;
        let job = world.end_of(&id).await;
        assert_eq!(job.state, FlushState::Failed);
        assert!(job.message.as_deref().unwrap_or_default().contains("met another put of its version"), "{job:?}");
    }
    *world.faults.conflicts.lock() = None;
    assert_eq!(world.flush().await, FlushState::Completed);
    world.check("after conflicts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_that_two_begin_at_once_is_claimed_with_patience() {
    let (folder, faults) = (tempfile::tempdir().unwrap(), Arc::new(Faults::default()));
    *faults.conflicts.lock() = Some("identity.json");
    let engine = open(config(folder.path()), &faults).await.unwrap();
    let Readiness::NotReady { reason, message } = engine.readiness() else { panic!("it began with no identity") };
    assert!(reason == "ObjectStoreUnavailable" && message.contains("met another put"), "{reason}: {message}");
    *faults.conflicts.lock() = None;
    for _ in 0..1000 {
        if engine.readiness() == Readiness::Ready {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it stays {:?}", engine.readiness());
}

/// A volume from before: the version that it would write next was taken, and went with Delta's log retention.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_cleaned_away_is_not_free() {
    for (flushes_before, next) in [(0, 0), (2, 3)] {
        let mut world = World::new(TableKind::Shared).await;
        world.write("", &[(1, "a", Some(1))]).await;
        for round in 0..flushes_before {
            world.write("", &[(10, "a", Some(round))]).await;
            assert_eq!(world.flush().await, FlushState::Completed);
        }
        world.stop().await;
        let ObjectStoreConfig::Local { path: cold } = config(world.folder.path()).object_store else { return };
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&world.folder.path().join("data"), copy.path());
        let before = world.model.clone();
        world.restart().await;
        for round in 0..14 {
            world.write("", &[(round, "b", Some(7))]).await;
            assert_eq!(world.flush().await, FlushState::Completed);
        }
        let log = cold.join(table_folder(world.table.uuid).as_ref()).join("_delta_log");
        let newest = clean_up(&log, next);
        world.stop().await;
        let (listed, faults) = (names(&log), world.faults.clone());
        let restored =
            open(EngineConfig { data_dir: copy.path().into(), ..config(world.folder.path()) }, &faults).await.unwrap();
        let mut behind = World {
            running: Some(restored),
            jobs: 100,
            model: before,
            table: world.table.clone(),
            faults,
            clock: Arc::default(),
            folder: copy,
        };
        behind.write("", &[(5, "b", Some(5))]).await;
        let id = behind.start_flush().await;
        let job = behind.end_of(&id).await;
        let message = job.message.clone().unwrap_or_default();
        assert_eq!(job.state, FlushState::Failed, "{job:?}");
        assert!(message.contains("is stopped") && message.contains(&format!("has version {newest}")), "{message}");
        behind.stop().await;
        assert_eq!(names(&log), listed, "nothing was written");
        world.restart().await;
        world.check("after the restored volume").await;
    }
}

/// Its put is refused each time: no commit reads the whole log for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_always_fails_costs_few_reads_of_the_log() {
    const FLUSHES: usize = 45;
    let mut world = World::in_folder(TableKind::Shared).await;
    *world.faults.refuses.lock() = Some(".checkpoint.");
    for round in 0..FLUSHES {
        world.write("", &[(round as i32, "a", Some(1))]).await;
        assert_eq!(world.flush().await, FlushState::Completed);
    }
    let reads = world.faults.log_reads.load(Ordering::SeqCst);
    assert!(reads < 10 * FLUSHES, "{reads} reads of the log for {FLUSHES} flushes");
    *world.faults.refuses.lock() = None;
    let log = world.folder.path().join("cold").join(table_folder(world.table.uuid).as_ref()).join("_delta_log");
    assert!(!names(&log).iter().any(|name| name.contains(".checkpoint.")), "every put was refused");
    world.restart().await;
    world.write("", &[(50, "a", Some(1))]).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    assert!(names(&log).iter().any(|name| name.contains(".checkpoint.")), "a new life tries it at once");
    world.check("after refused checkpoints").await;
}

/// What Delta's log retention leaves: the last checkpoint and the commits after it, and, where it was cut off, some of the first ones.
/// Answers with the newest version.
fn clean_up(log: &std::path::Path, from: u64) -> u64 {
    let version = |name: &str| name.split('.').next().and_then(|version| version.parse::<u64>().ok());
    let checkpoint =
        names(log).iter().filter(|name| name.contains("checkpoint.")).filter_map(|name| version(name)).max();
    for name in names(log) {
        if version(&name).is_some_and(|version| version >= from && Some(version) < checkpoint) {
            std::fs::remove_file(log.join(name)).unwrap();
        }
    }
    names(log).iter().filter_map(|name| version(name)).max().unwrap()
}

fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
