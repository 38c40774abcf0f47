//! What is answered over HTTP past the planner, by a plan from before, and as a stream.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::instance::Instance;
use crate::peers::{self, EmptyHandler};
use crate::report::Report;
use crate::timed;
use crate::workload::{TABLE, Workload};

/// Rows of the streamed result, if there are so many.
const STREAMED: i64 = 100_000;
const STREAMS: usize = 10;
const ARROW: &str = "application/vnd.apache.arrow.stream";

/// Inserts of one row, as `(id, moment, kind, value, payload)`.
pub async fn single_inserts(workload: &Workload, instance: &Instance, report: &mut Report) -> anyhow::Result<()> {
    let handler = EmptyHandler::start().await?;
    let sql = format!("INSERT INTO {TABLE} VALUES ($1, $2, 'single', 1.5, 'payload')");
    let (mut ours, mut theirs) = (vec![], vec![]);
    for at in 0..workload.reads.min(500) {
        let params = vec![(-1 - at).into(), (1_700_000_000_000_000 + at).into()];
        ours.push(timed(instance.sql(&sql, params.clone())).await?);
        theirs.push(timed(handler.ask(&sql, params)).await?);
    }
    report.latencies("insert of one row", "empty axum handler", &ours, &theirs);
    Ok(())
}

/// A query that is planned, with one text and new values each time; tells what was parsed and planned by the instance's own counts.
pub async fn planned_again(workload: &Workload, instance: &Instance, report: &mut Report) -> anyhow::Result<()> {
    let handler = EmptyHandler::start().await?;
    let sql = format!("SELECT kind, value FROM {TABLE} WHERE id >= $1 AND id < $2 ORDER BY value");
    instance.sql(&sql, vec![0.into(), 1.into()]).await?;
    let before = misses(instance).await?;
    let (mut ours, mut theirs) = (vec![], vec![]);
    for id in workload.sampled_ids().take(300) {
        let params = vec![id.into(), (id + 10).into()];
        ours.push(timed(instance.sql(&sql, params.clone())).await?);
        theirs.push(timed(handler.ask(&sql, params)).await?);
    }
    let after = misses(instance).await?;
    ensure!(before == after, "it was parsed or planned again: {before:?}, then {after:?}");
    report.latencies("query of ten rows, planned before (0 parsed, 0 planned)", "empty axum handler", &ours, &theirs);
    Ok(())
}

async fn misses(instance: &Instance) -> anyhow::Result<Vec<String>> {
    let metrics = instance.metrics().await?;
    let wanted = ["kalamdb_cache_misses_total{cache=\"statement\"}", "kalamdb_cache_misses_total{cache=\"plan\"}"];
    Ok(metrics.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect())
}

/// A large result of rows in that tier as Arrow IPC, beside a server that has the same bytes already.
pub async fn streams(instance: &Instance, tier: &str, report: &mut Report) -> anyhow::Result<()> {
    let sql = format!("SELECT id, moment, kind, value, payload FROM {TABLE} LIMIT {STREAMED}");
    let bytes = instance.bytes(&sql, ARROW).await?;
    let copy = peers::Copier::start(bytes.clone()).await?;
    let (mut ours, mut theirs): (Vec<Duration>, Vec<Duration>) = (vec![], vec![]);
    for _ in 0..STREAMS {
        let began = Instant::now();
        ensure!(instance.bytes(&sql, ARROW).await?.len() > bytes.len() / 2, "the result is shorter now");
        ours.push(began.elapsed());
        theirs.push(timed(copy.take()).await?);
    }
    report.rates(
        &format!("result of {tier} rows as Arrow IPC"),
        "the same bytes copied to the socket",
        STREAMED,
        &ours,
        &theirs,
    );
    Ok(())
}
