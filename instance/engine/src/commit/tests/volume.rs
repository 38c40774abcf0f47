//! Volumes over starts: what stays, what is refused, and what damage does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::*;
use super::world::{World, block_on, config, start};
use crate::commit::clock::SystemClock;
use crate::hot::store::Family;
use crate::hot::volume;
use crate::schema::TableKind;

/// Copies a volume that is in use, as a power cut would leave it.
fn copy_of(world: &World) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let to = copy.path().join("hot");
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(world.dir().join("hot")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "LOCK" {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    copy
}

fn log_of(volume: &Path) -> PathBuf {
    let files = fs::read_dir(volume.join("hot")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap()
}

async fn refusal(dir: &Path) -> String {
    match start(&config(dir), Arc::new(SystemClock)).await {
        Ok(_) => panic!("the volume was opened"),
        Err(error) => error.to_string(),
    }
}

async fn with_rows(count: i64) -> World {
    let world = World::new(TableKind::Shared).await;
    for key in 0..count {
        let found = world.look_up(key);
        world.put(&found, key).await.unwrap();
    }
    world
}

#[test]
fn sequences_and_times_never_go_back_over_a_restart_with_an_older_clock() {
    block_on(async {
        let mut world = with_rows(1).await;
        let found = world.look_up(0);
        let before = world.put(&found, 5).await.unwrap();
        let id = world.committer().shared().clock.id();
        let life = world.hot().lives().life;
        world.clock().set_back(Duration::from_secs(3600));
        world.restart().await;
        assert!(world.hot().lives().know(life, before.last_seq) && world.hot().lives().life != life);
        let found = world.look_up(0);
        let after = world.put(&found, 6).await.unwrap();
        assert!(after.last_seq > before.last_seq && after.updated >= before.updated, "{before:?} {after:?}");
        assert!(world.committer().shared().clock.id() > id);
        world.close().await;
    });
}

#[test]
fn a_torn_tail_loses_the_write_that_was_not_acknowledged() {
    block_on(async {
        let world = with_rows(3).await;
        let copy = copy_of(&world);
        let log = log_of(copy.path());
        let length = fs::metadata(&log).unwrap().len();
        fs::File::options().write(true).open(&log).unwrap().set_len(length - 5).unwrap();
        let (hot, committer) = start(&config(copy.path()), Arc::new(SystemClock)).await.unwrap();
        let rows = hot.snapshot().rows(world.table(), None).count();
        assert_eq!(rows, 2, "the last write was cut off, the others are there");
        committer.close().await;
        world.close().await;
    });
}

#[test]
fn rot_in_the_middle_of_the_log_stops_the_start() {
    block_on(async {
        let world = with_rows(20).await;
        let copy = copy_of(&world);
        let log = log_of(copy.path());
        let mut bytes = fs::read(&log).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xFF;
        fs::write(&log, bytes).unwrap();
        let error = refusal(copy.path()).await;
        assert!(error.contains(&copy.path().display().to_string()) && error.contains("damaged"), "{error}");
        world.close().await;
    });
}

#[test]
fn a_volume_that_is_open_elsewhere_is_refused() {
    block_on(async {
        let world = with_rows(0).await;
        let error = refusal(world.dir()).await;
        assert!(error.contains("another process has it open"), "{error}");
        world.close().await;
    });
}

#[test]
fn a_newer_volume_is_refused_and_left_as_it_is() {
    block_on(async {
        let mut world = with_rows(1).await;
        let mut format = volume::format_bytes();
        *format.last_mut().unwrap() += 1;
        let hot = world.hot();
        hot.db().put_cf(hot.family(Family::Meta), volume::FORMAT_KEY, format).unwrap();
        world.stop().await;
        let error = refusal(world.dir()).await;
        assert!(error.contains("its format is version 2, this build reads version 1"), "{error}");
        assert!(error.contains(&world.dir().display().to_string()), "{error}");
    });
}

#[test]
fn a_foreign_database_is_refused() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let foreign = rocksdb::DB::open_default(dir.path().join("hot")).unwrap();
        foreign.put(b"key", b"value").unwrap();
        drop(foreign);
        let error = refusal(dir.path()).await;
        assert!(error.contains("no volume of KalamDB"), "{error}");
    });
}
