//! The process dies at each call of the object store in turn, before the call or after it: whatever it was doing, nothing is lost, doubled
//! or resurrected, and nothing is left behind.

use std::time::Duration;

use kalamdb_api::flush::FlushState;

use crate::cold::faults::Dies;
use crate::flush::tests::World;
use crate::flush::tests::deaths::Step;
use crate::schema::TableKind;

/// Databases that die side by side.
const AT_ONCE: usize = 6;

/// What the process does when it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Flush,
    Compaction,
    Vacuum,
}

impl World {
    /// Does the work up to that call; false where it has fewer calls.
    async fn die_in(&mut self, work: Work, calls: usize, dies: Dies) -> bool {
        self.faults.die_after(calls, dies);
        let id = match work {
            Work::Flush => self.start_flush().await,
            Work::Compaction => self.start_compaction().await,
            // A real one would have died.
            Work::Vacuum => {
                let _ = self.engine().flusher().vacuum(&self.table, Duration::ZERO).await;
                return self.faults.died();
            }
        };
        self.end_of(&id).await;
        // A process that died would have written nothing of how the job ended.
        let still_runs = self.engine().flusher().jobs.change(&id, |record| {
            (record.job.state, record.job.finished_at, record.job.message) = (FlushState::Running, None, None);
        });
        still_runs.unwrap();
        self.faults.died()
    }

    async fn live_again(&mut self) {
        self.stop().await;
        self.faults.revive();
        self.restart().await;
    }
}

/// Dies at one call, in a copy of the database, and goes on from there; false where it has fewer calls.
async fn die_at(base: &World, rows: u64, work: Work, calls: usize, dies: Dies) -> bool {
    let when = format!("{work:?}, {dies:?} call {calls}");
    let Some(mut world) = base.copy().await else { return false };
    let died = world.die_in(work, calls, dies).await;
    // While their keys have hot versions, none is looked up in files that can't be reached.
    if !world.engine().unflushed().is_empty() {
        world.write("alice", &[(1, "a", None), (2, "a", Some(72))]).await;
    }
    world.live_again().await;
    if work != Work::Vacuum {
        let id = format!("job-{}", world.jobs);
        world.end_of(&id).await;
    }
    world.check(&when).await;
    if work == Work::Compaction {
        assert_eq!(world.flushed_rows().await, rows, "{when}");
    }
    world.write("alice", &[(3, "a", Some(30)), (9, "a", None)]).await;
    assert_ne!(world.compact().await, FlushState::Failed, "{when}");
    world.check(&format!("{when}, compacted")).await;
    assert_eq!(world.flush().await, FlushState::Completed, "{when}");
    world.check(&format!("{when}, flushed")).await;
    world.vacuum(Duration::ZERO).await;
    world.check(&format!("{when}, vacuumed")).await;
    assert_eq!(world.objects().await, world.live_objects().await, "{when}");
    world.stop().await;
    died
}

/// Dies at every call in turn.
async fn die_everywhere(mut base: World, work: Work, fewest_calls: usize) {
    let rows = base.flushed_rows().await;
    base.stop().await;
    for dies in [Dies::Before, Dies::After] {
        let mut calls = 0;
        loop {
            let some = (calls..calls + AT_ONCE).map(|calls| die_at(&base, rows, work, calls, dies));
            let died = futures::future::join_all(some).await;
            calls += died.iter().filter(|died| **died).count();
            if died.contains(&false) {
                break;
            }
        }
        println!("{work:?} died {dies:?} each of its {calls} calls");
        let is_folder = base.copy().await.is_some();
        assert!(!is_folder || calls >= fewest_calls, "{work:?} has {calls} calls");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_may_die_at_any_call_of_the_object_store() {
    die_everywhere(World::with_runs(TableKind::User).await, Work::Flush, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_may_die_at_any_call_of_the_object_store() {
    die_everywhere(World::with_runs(TableKind::User).await, Work::Compaction, 10).await;
}

/// There are files that left the table, their deletion vectors, and what a dead compaction wrote.
#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_may_die_at_any_call_of_the_object_store() {
    let mut world = World::with_runs(TableKind::Shared).await;
    assert_eq!(world.compact().await, FlushState::Completed);
    world.write("", &[(4, "a", Some(5)), (8, "a", None)]).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    world.die_in_compaction(Step::Written).await;
    world.restart().await;
    world.write("", &[(5, "a", Some(5)), (1, "a", Some(1)), (2, "a", Some(1))]).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    world.restart().await;
    world.write("", &[(1, "a", Some(2)), (2, "a", Some(2))]).await;
    die_everywhere(world, Work::Vacuum, 8).await;
}
