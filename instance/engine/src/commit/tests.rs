//! The committer over a real RocksDB: single commits, groups, restarts, damage; and random programs against a model.

mod programs;
mod streams;
mod volume;
mod world;

use std::time::Duration;

use super::*;
use crate::engine::LookUp;
use crate::hot::changes::Operation;
use crate::schema::TableKind;
use crate::seq::Seq;
use world::{World, block_on};

#[test]
fn of_two_writes_that_read_the_same_one_is_stale() {
    block_on(async {
        let world = World::new(TableKind::Shared).await;
        let (first, second) = (world.look_up(1), world.look_up(1));
        let (a, b) = tokio::join!(world.put(&first, 10), world.put(&second, 20));
        assert!(a.is_ok());
        assert!(matches!(b, Err(EngineError::Stale)), "judged by the one before it, be it in the same group: {b:?}");
        assert_eq!(world.read(1), Some(10));
        let again = world.look_up(1);
        world.put(&again, 30).await.unwrap();
        assert_eq!(world.read(1), Some(30));
        world.close().await;
    });
}

#[test]
fn a_commit_is_all_or_nothing() {
    block_on(async {
        let world = World::new(TableKind::User).await;
        let (stale, fresh) = (world.look_up(1), world.look_up(2));
        world.put(&stale, 1).await.unwrap();
        let rows = vec![world.record(&fresh, Some(2)), world.record(&stale, Some(3))];
        assert!(matches!(world.committer().rows(rows).await, Err(EngineError::Stale)));
        let twice = vec![world.record(&fresh, Some(2)), world.record(&fresh, Some(3))];
        let error = world.committer().rows(twice).await.unwrap_err().to_string();
        assert_eq!(error, "a commit names a key of table default.t twice");
        assert_eq!((world.read(1), world.read(2)), (Some(1), None));
        let rows = vec![world.record(&world.look_up(3), Some(3)), world.record(&fresh, Some(2))];
        let committed = world.committer().rows(rows).await.unwrap();
        let seqs = world.changes().into_iter().map(|change| change.seq).collect::<Vec<_>>();
        assert_eq!(
            seqs[1..],
            [Seq(committed.last_seq.0 - 1), committed.last_seq],
            "consecutive, in the order of the writes"
        );
        world.close().await;
    });
}

#[test]
fn a_hundred_writers_share_groups_and_lose_nothing() {
    block_on(async {
        let mut world = World::new(TableKind::Shared).await;
        let writes = (0..100).map(|key| {
            let found = world.look_up(key);
            let record = world.record(&found, Some(key));
            let committer = world.committer().clone();
            tokio::spawn(async move { committer.rows(vec![record]).await.map(|committed| committed.last_seq) })
        });
        let mut seqs = Vec::new();
        for write in writes.collect::<Vec<_>>() {
            seqs.push(write.await.unwrap().unwrap());
        }
        let logged: Vec<_> = world.changes().into_iter().map(|change| change.seq).collect();
        seqs.sort();
        assert_eq!(seqs, logged);
        world.restart().await;
        assert!((0..100).all(|key| world.read(key) == Some(key)));
        world.close().await;
    });
}

#[test]
fn generated_keys_need_no_look_up_and_old_images_are_logged() {
    block_on(async {
        let world = World::new(TableKind::Shared).await;
        let generated = (7, LookUp::Generated);
        world.put(&generated, 1).await.unwrap();
        let found = world.look_up(7);
        world.put(&found, 2).await.unwrap();
        let found = world.look_up(7);
        world.delete(&found).await.unwrap();
        let logged: Vec<_> = world.changes().iter().map(|change| (change.operation, world.old_value(change))).collect();
        let expected = [(Operation::Insert, None), (Operation::Update, Some(1)), (Operation::Delete, Some(2))];
        assert_eq!(logged, expected);
        let error = world.try_record(&world.look_up(7), None).unwrap_err();
        assert!(matches!(error, EngineError::Invalid(_)), "nothing was found to delete: {error}");
        world.close().await;
    });
}

#[test]
fn a_dropped_table_leaves_nothing_and_its_writers_are_told() {
    block_on(async {
        let mut world = World::new(TableKind::User).await;
        let found = world.look_up(1);
        world.put(&found, 1).await.unwrap();
        let (id, name) = (world.table().id, world.table().name.clone());
        world.committer().catalog_change(CatalogChange::DropTable { name, id }, Vec::new()).await.unwrap();
        let error = world.put(&world.look_up(2), 1).await.unwrap_err();
        assert!(matches!(error, EngineError::NotFound { .. }), "{error}");
        assert!(world.changes().is_empty() && world.read(1).is_none() && world.committer().unflushed().is_empty());
        world.restart().await;
        assert!(world.committer().catalog().tables.is_empty());
        world.close().await;
    });
}

#[test]
fn the_change_log_is_trimmed_and_its_floor_stays() {
    block_on(async {
        let mut world = World::new(TableKind::User).await;
        for key in 0..10 {
            let found = world.look_up(key);
            world.put(&found, key).await.unwrap();
        }
        let middle = world.changes()[4].seq;
        let table = world.table().id;
        let shared = world.committer().shared.clone();
        let queue = world.committer().queue.clone();
        tokio::task::spawn_blocking(move || trim::trim(&queue, &shared, table, middle)).await.unwrap().unwrap();
        assert_eq!(world.changes().len(), 5);
        world.restart().await;
        assert_eq!(world.changes().len(), 5);
        assert_eq!(world.hot().snapshot().tier_record(table).unwrap().change_floor, middle);
        world.close().await;
    });
}

#[test]
fn unflushed_ages_by_the_clock_of_the_commit() {
    block_on(async {
        let world = World::new(TableKind::Shared).await;
        let first = world.look_up(1);
        let begun = world.put(&first, 1).await.unwrap();
        world.clock().advance(Duration::from_secs(60));
        let second = world.look_up(2);
        let later = world.put(&second, 1).await.unwrap();
        let oldest = |world: &World| world.committer().unflushed()[0].oldest;
        assert_eq!(oldest(&world), begun.updated);
        let again = world.look_up(1);
        world.put(&again, 2).await.unwrap();
        assert_eq!(oldest(&world), later.updated, "the oldest version is gone");
        world.close().await;
    });
}
