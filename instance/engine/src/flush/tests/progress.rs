//! What a job that runs tells of itself.

use std::time::Duration;

use kalamdb_api::flush::FlushState;

use super::World;
use crate::cold::faults::Fault;
use crate::schema::TableKind;

const ROWS: i32 = 300;

/// The store hangs at one call after the other, so that the job can be looked at wherever it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_tells_how_many_rows_went_into_files_while_it_runs() {
    let mut world = World::new(TableKind::Shared).await;
    let (mut seen, mut calls) = (Vec::new(), 0);
    loop {
        let rows: Vec<_> = (0..ROWS).map(|id| (id, "a", Some(calls as i64))).collect();
        world.write("", &rows).await;
        world.faults.strike_after(calls, Fault::Hangs);
        let id = world.start_flush().await;
        while !world.faults.hangs() && !world.engine().flush_job(&id).unwrap().state.is_final() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let job = world.engine().flush_job(&id).unwrap();
        seen.push((job.state, job.rows));
        world.faults.revive();
        let ended = world.end_of(&id).await;
        assert_eq!(ended.rows, if ended.state == FlushState::Completed { ROWS as u64 } else { 0 });
        if job.state.is_final() {
            break;
        }
        calls += 1;
    }
    assert!(seen.contains(&(FlushState::Running, 0)), "before the first row: {seen:?}");
    assert!(seen.contains(&(FlushState::Running, ROWS as u64)), "with the file on its way: {seen:?}");
}
