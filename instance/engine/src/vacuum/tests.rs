//! What a vacuum deletes of a real table, and what it must leave.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use kalamdb_api::flush::FlushState;
use uuid::Uuid;

use super::*;
use crate::catalog::CatalogChange;
use crate::cold::identity;
use crate::cold::name::JobName;
use crate::flush::Epoch;
use crate::flush::tests::World;
use crate::flush::tests::deaths::Step;
use crate::recovery::mirror::{Mirror, MirrorName};
use crate::recovery::objects;

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

impl World {
    pub(crate) async fn vacuum(&self, retention: Duration) -> Vacuumed {
        self.engine().flusher().vacuum(&self.table, retention).await.unwrap()
    }

    pub(crate) async fn objects(&self) -> BTreeSet<String> {
        self.runner().object_names(&self.table).await.unwrap().into_iter().collect()
    }

    pub(crate) async fn live_objects(&self) -> BTreeSet<String> {
        self.cold().await.files.iter().flat_map(|file| file.names().collect::<Vec<_>>()).collect()
    }

    async fn put_object(&self, epoch: Epoch, job: Uuid) {
        let path = self.runner().cold.log(self.table.uuid).path_of(&object(epoch, job));
        self.runner().cold.store().put(&path, Bytes::from_static(b"rows")).await.unwrap();
    }
}

fn object(epoch: Epoch, job: Uuid) -> String {
    format!("{}-00000.parquet", JobName { epoch, job }.file_prefix())
}

/// Three runs with deletion vectors, replaced by one.
async fn compacted() -> World {
    let mut world = World::new(TableKind::Shared).await;
    for round in 0..3 {
        world.write("", &[(round, "a", Some(1)), (50, "a", Some(i64::from(round))), (round + 1, "b", Some(2))]).await;
        assert_eq!(world.flush().await, FlushState::Completed);
    }
    assert_eq!(world.compact().await, FlushState::Completed);
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_left_their_table_go_after_their_retention_and_their_vectors_too() {
    let world = compacted().await;
    let all = world.objects().await;
    assert!(all.iter().any(|name| name.ends_with(".bin")), "{all:?}");
    assert_eq!(world.vacuum(WEEK).await, Vacuumed::default(), "they stay for readers outside");
    assert_eq!(world.objects().await, all);
    let done = world.vacuum(Duration::ZERO).await;
    assert_eq!((done.expired, done.orphans), (all.len() - 1, 0));
    assert_eq!(world.objects().await, world.live_objects().await);
    assert_eq!(world.vacuum(Duration::ZERO).await, Vacuumed::default(), "once is enough");
    world.check("vacuumed").await;
}

/// Its tombstones bear the time at which the commit was prepared.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_removes_that_stalls_stays_from_when_its_commit_landed() {
    let mut world = compacted().await;
    let log = world.folder.path().join(format!("cold/tables/{}/_delta_log", world.table.uuid));
    if !log.exists() {
        return;
    }
    world.vacuum(Duration::ZERO).await;
    let before = world.objects().await;
    let rows = world.model.keys().map(|(_, first, second)| (*first, second.clone())).collect::<Vec<_>>();
    let gone: Vec<_> = rows.iter().map(|(first, second)| (*first, second.as_str(), None)).collect();
    world.write("", &gone).await;
    let a_week_passes = |world: &World| {
        let week = i64::try_from(WEEK.as_micros()).unwrap() + 1_000_000;
        world.clock.0.fetch_add(week, Ordering::SeqCst);
    };
    assert_eq!(world.flush_that_stalls(a_week_passes).await, FlushState::Completed);
    // The store's clock is the computer's, for which no week has passed.
    let entry = log.join(format!("{:020}.json", world.cold().await.version));
    let now = UNIX_EPOCH + Duration::from_millis(world.runner().now_ms().unsigned_abs());
    std::fs::File::options().write(true).open(entry).unwrap().set_modified(now).unwrap();
    assert_eq!(world.live_objects().await, BTreeSet::new());
    assert_eq!(world.vacuum(WEEK).await, Vacuumed::default());
    assert_eq!(world.objects().await, before, "somebody outside may have begun to read it a moment ago");
    a_week_passes(&world);
    assert_eq!(world.vacuum(WEEK).await, Vacuumed { expired: before.len(), orphans: 0 });
    world.check("vacuumed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dead_jobs_left_goes_once_their_epoch_is_fenced() {
    for (step, left) in [(Step::Written, 1), (Step::Begun, 1), (Step::Committed, 0)] {
        let mut world = compacted().await;
        world.write("", &[(2, "a", Some(9)), (60, "a", Some(9))]).await;
        world.flush().await;
        world.die_in_compaction(step).await;
        let dead = world.objects().await;
        world.restart().await;
        let id = format!("job-{}", world.jobs);
        world.end_of(&id).await;
        if step == Step::Written {
            assert_eq!(world.vacuum(WEEK).await, Vacuumed::default(), "its epoch is not fenced yet");
            assert_eq!(world.objects().await, dead);
        }
        world.write("", &[(3, "a", Some(9))]).await;
        world.flush().await;
        assert_eq!(world.vacuum(WEEK).await, Vacuumed { expired: 0, orphans: left }, "{step:?}");
        world.vacuum(Duration::ZERO).await;
        world.check(&format!("vacuumed after a death at {step:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_still_be_committed_and_what_is_not_ours_stays() {
    let world = compacted().await;
    let own = world.runner().owner.epoch().unwrap();
    let alive = world.runner().begin_attempt(&world.table);
    let running = object(own, alive.id());
    world.put_object(own, alive.id()).await;
    world.put_object(Epoch(own.0 + 1), Uuid::new_v4()).await;
    let foreign = world.runner().cold.log(world.table.uuid).path_of("notes.txt");
    world.runner().cold.store().put(&foreign, Bytes::from_static(b"mine")).await.unwrap();
    let before = world.objects().await;
    assert_eq!(world.vacuum(WEEK).await, Vacuumed::default());
    assert_eq!(world.objects().await, before);
    drop(alive);
    assert_eq!(world.vacuum(WEEK).await, Vacuumed { expired: 0, orphans: 1 }, "its job is dead now");
    assert!(!world.objects().await.contains(&running));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dead_jobs_had_begun_beside_its_name_goes_too() {
    let world = compacted().await;
    let folder = world.folder.path().join("cold").join(log::table_folder(world.table.uuid).as_ref());
    if !folder.exists() {
        return;
    }
    let own = world.runner().owner.epoch().unwrap();
    let alive = world.runner().begin_attempt(&world.table);
    let kept = [object(own, alive.id()), object(Epoch(own.0 + 1), Uuid::new_v4()), "notes.txt".to_owned()];
    for name in kept.iter().chain([&object(own, Uuid::new_v4())]) {
        std::fs::write(folder.join(format!("{name}#1")), b"half").unwrap();
    }
    assert_eq!(world.vacuum(WEEK).await, Vacuumed { expired: 0, orphans: 1 });
    for name in kept {
        assert!(folder.join(format!("{name}#1")).exists(), "{name}");
    }
}

impl World {
    pub(crate) async fn drop_table(&self) {
        let (name, id) = (self.table.name.clone(), self.table.id);
        self.engine().change_catalog(CatalogChange::DropTable { name, id }).await.unwrap();
    }

    /// How the vacuum of each dropped table ended.
    pub(crate) async fn vacuum_dropped(&self, retention: Duration) -> Vec<Option<usize>> {
        let mut done = Vec::new();
        for table in self.runner().hot.snapshot().dropped_tables().unwrap() {
            done.push(self.runner().vacuum_dropped(&table, retention).await.unwrap());
        }
        done
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_of_a_dropped_table_goes_once_its_time_has_come_and_nobody_is_in_it() {
    let mut world = compacted().await;
    let snapshot = world.engine().snapshot();
    let running = world.runner().begin_attempt(&world.table);
    world.drop_table().await;
    assert_eq!(world.vacuum_dropped(WEEK).await, [None]);
    assert_eq!(world.vacuum_dropped(Duration::ZERO).await, [None], "a job runs in it");
    drop(running);
    assert_eq!(world.vacuum_dropped(Duration::ZERO).await, [None], "a snapshot may be read");
    drop(snapshot);
    world.restart().await;
    world.runner().owner.first_try().await;
    assert_eq!(world.vacuum_dropped(WEEK).await, [None], "it is remembered");
    let all = world.objects().await;
    let deleted = world.vacuum_dropped(Duration::ZERO).await;
    assert!(deleted[0].is_some_and(|deleted| deleted > all.len()), "{deleted:?}: the log too");
    assert_eq!(world.objects().await, BTreeSet::new());
    assert_eq!(world.vacuum_dropped(Duration::ZERO).await, [], "once is enough");
    let folder = world.folder.path().join("cold").join(log::table_folder(world.table.uuid).as_ref());
    assert!(!folder.exists(), "no empty folder is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_goes_only_once_the_mirror_does_not_name_its_table() {
    let world = compacted().await;
    world.drop_table().await;
    assert!(matches!(world.vacuum_dropped(Duration::ZERO).await[..], [Some(_)]));
    let mirror = objects::newest(world.runner().cold.store()).await.unwrap();
    let mirror = mirror.expect("there is one");
    assert!(mirror.catalog.versions_of(world.table.id).is_empty(), "a recovery would bring it back without its rows");
}

/// Only the mirror tells the recovered volume that there was such a table.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_was_lost_still_deletes_the_folder_of_a_table_that_was_dropped_before() {
    let mut world = compacted().await;
    world.drop_table().await;
    let (gone, all) = (world.table.clone(), world.objects().await);
    let anew = Table { uuid: Uuid::new_v4(), ..Table::clone(&gone) };
    world.engine().change_catalog(CatalogChange::CreateTable(Box::new(anew))).await.unwrap();
    world.table = world.engine().catalog().tables[&gone.name].clone();
    world.model.clear();
    world.write("", &[(1, "a", Some(7))]).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    world.mirrored().await;
    // Twice, so that the mirror which the recovery itself writes tells it too.
    for life in 0..2 {
        let flushed = world.model.clone();
        world.lose_volume(flushed).await;
        world.recovered().await;
        let store = world.runner().cold.store();
        let first = MirrorName { epoch: world.runner().owner.epoch().unwrap(), number: 1 };
        let first =
            store.get(&objects::path_of(first)).await.unwrap().map(|bytes| Mirror::decode(first, &bytes).unwrap());
        let named: Vec<_> = first.expect("the recovery has written it").dropped.iter().map(|one| one.uuid).collect();
        assert_eq!(named, [gone.uuid], "life {life}");
    }
    let lives = world.objects().await;
    assert_eq!(world.vacuum_dropped(WEEK).await, [None], "its time has not come");
    world.clock.0.fetch_add(i64::try_from(WEEK.as_micros()).unwrap(), Ordering::SeqCst);
    let deleted = world.vacuum_dropped(WEEK).await;
    assert!(deleted[0].is_some_and(|deleted| deleted > all.len()), "{deleted:?}");
    assert_eq!(world.runner().object_names(&gone).await.unwrap(), Vec::<String>::new());
    assert_eq!(world.objects().await, lives, "the table of that name which lives keeps all it has");
    world.check("vacuumed").await;
    assert_eq!(world.flush().await, FlushState::Skipped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_displaced_owner_deletes_no_folder() {
    let world = compacted().await;
    world.drop_table().await;
    let (runner, all) = (world.runner(), world.objects().await);
    let database = runner.hot.volume().database_id;
    identity::claim(runner.cold.store(), database, true, 0).await.unwrap();
    assert_eq!(world.vacuum_dropped(Duration::ZERO).await, [None]);
    assert_eq!(world.objects().await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsettled_commit_holds_the_vacuum_up() {
    let mut world = compacted().await;
    world.write("", &[(2, "a", Some(9))]).await;
    world.die_in_flush(Step::Committed).await;
    let before = world.objects().await;
    assert_eq!(world.vacuum(Duration::ZERO).await, Vacuumed::default());
    assert_eq!(world.objects().await, before);
}
