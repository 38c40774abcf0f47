//! Where the rows of a flush lie, told by their numbers.

use super::{USERS, World};
use crate::hot::RowKey;
use crate::hot::ordinals::Ordinals;
use crate::schema::TableKind;

/// Rows of one user.
const ROWS: i32 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_the_number_of_its_row_and_none_without_one() {
    for kind in [TableKind::User, TableKind::Shared] {
        let mut world = World::new(kind).await;
        // What was flushed and is still there counts for nothing: the job dies before it deletes it.
        let old: Vec<_> = (0..ROWS).step_by(7).map(|id| (id, "old", Some(0))).collect();
        world.write(USERS[0], &old).await;
        world.die_in_flush(super::Step::Ended).await;
        world.restart().await;
        for user in USERS {
            let rows: Vec<_> = (0..ROWS).map(|id| (id, "new", Some(i64::from(id)))).collect();
            world.write(user, &rows).await;
            let deleted: Vec<_> = (0..ROWS).step_by(3).map(|id| (id, "new", None)).collect();
            world.write(user, &deleted).await;
        }
        let snapshot = world.engine().hot().snapshot();
        let rows: Vec<_> = snapshot.rows(&world.table, None).map(Result::unwrap).collect();
        let live: Vec<Vec<u8>> = rows.iter().filter(|row| row.row.is_some()).map(|row| row.key.bytes()).collect();
        let mut keys: Vec<Vec<u8>> = rows.iter().map(|row| row.key.bytes()).collect();
        keys.extend(old_keys(&world, &old));
        keys.sort();
        keys.dedup();
        assert!(live.len() > 200 && keys.len() > live.len() + 100);
        let expected: Vec<_> = keys.iter().map(|key| live.binary_search(key).ok().map(|at| at as u64)).collect();
        for kept in [1, 2, 7, 100, 10_000] {
            let mut ordinals = Ordinals::keeping(kept);
            live.iter().for_each(|key| ordinals.add(key));
            assert_eq!(ordinals.find(&snapshot, &world.table, &keys).unwrap(), expected, "{kept} keys kept");
            let few: Vec<_> = keys.iter().step_by(41).cloned().collect();
            let expected: Vec<_> = expected.iter().step_by(41).copied().collect();
            assert_eq!(ordinals.find(&snapshot, &world.table, &few).unwrap(), expected, "{kept} keys kept");
        }
    }
}

fn old_keys(world: &World, rows: &[(i32, &str, Option<i64>)]) -> Vec<Vec<u8>> {
    let key = |row: &(i32, &str, Option<i64>)| {
        let values = [crate::value::Value::Int(row.0), crate::value::Value::Text(row.1.into())];
        let key = crate::Engine::key_of(&world.table, &values).unwrap();
        RowKey { user: world.user(USERS[0]), key }.bytes()
    };
    rows.iter().map(key).collect()
}
