//! The operator ends while a flush job of its runs.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kalamdb_e2e::operator;
use kalamdb_e2e::sql::{self, Client};
use kalamdb_e2e::wait::{self, Seen};

use crate::environment::{FLIGHTS, Place};
use crate::s3::Server;

/// A request to the S3 server that hangs is given up after half a minute, and its job fails: on a busy machine the new operator
/// may come up later than that, and then it is tried again with new rows.
const ATTEMPTS: i64 = 5;
const ROWS: i64 = 100;
const LIMIT: Duration = Duration::from_secs(420);
/// The operator scrapes every five seconds: so long after a flush it has seen what the flush left.
const SEVERAL_SCRAPES: Duration = Duration::from_secs(20);

#[test]
fn an_operator_that_restarts_during_a_flush_job_repeats_nothing() -> Result<()> {
    let mut place = Place::alone("restart")?;
    let server = Server::start_for(&mut place)?;
    place.create_s3_secret()?;
    place.kubectl.apply(&place.s3_example()?)?;
    let mut database = place.database(FLIGHTS);
    database.wait_until_ready(|_| {})?;
    let root = database.root()?;
    root.batch(&format!(
        "CREATE NAMESPACE app;
         CREATE TABLE app.events (id BIGINT PRIMARY KEY, body TEXT) WITH (FLUSH_POLICY = 'rows:{ROWS}')"
    ))?;
    for attempt in 0..ATTEMPTS {
        let outlived = server.while_it_hangs(|| {
            let before = Jobs::of(&root)?;
            insert(&root, attempt)?;
            wait::until("the operator to post a job", LIMIT, || {
                let now = Jobs::of(&root)?;
                Ok(if now.begun > before.begun { Seen::Ready(()) } else { Seen::Waiting(format!("{now:?}")) })
            })?;
            operator::restart(&place.kubectl)?;
            let now = Jobs::of(&root)?;
            Ok(now.begun == before.begun + 1 && now.active == 1)
        })?;
        let settled = wait_until_all_is_flushed(&root)?;
        if outlived {
            std::thread::sleep(SEVERAL_SCRAPES);
            ensure!(Jobs::of(&root)? == settled, "a flush was repeated: {settled:?}, then {:?}", Jobs::of(&root)?);
            ensure!(
                root.integer("SELECT COUNT(*) FROM app.events")? == (attempt + 1) * ROWS,
                "rows were lost or doubled"
            );
            return place.remove();
        }
    }
    bail!("in {ATTEMPTS} attempts no job outlived the operator that posted it")
}

/// How many flush jobs there were, and how many of them have not ended.
#[derive(Debug, PartialEq, Eq)]
struct Jobs {
    begun: i64,
    active: i64,
    completed: i64,
}

impl Jobs {
    /// All of one moment: a job that ends between two queries would be missed by both.
    fn of(root: &Client) -> Result<Self> {
        let counts = root.row(
            "SELECT COUNT(*), COUNT(*) FILTER (WHERE status IN ('queued', 'running')), COUNT(*) FILTER (WHERE status = 'completed')
             FROM system.flush_jobs",
        )?;
        let count = |place: usize| counts.get(place).and_then(sql::integer).context("jobs are not counted");
        Ok(Self { begun: count(0)?, active: count(1)?, completed: count(2)? })
    }
}

fn insert(root: &Client, attempt: i64) -> Result<()> {
    let values: Vec<String> = (attempt * ROWS..(attempt + 1) * ROWS).map(|id| format!("({id}, 'x')")).collect();
    root.run(&format!("INSERT INTO app.events VALUES {}", values.join(", "))).map(drop)
}

fn wait_until_all_is_flushed(root: &Client) -> Result<Jobs> {
    wait::until("the rows to be flushed", LIMIT, || {
        let jobs = Jobs::of(root)?;
        let metrics = root.metrics().context("the instance tells nothing")?;
        let waiting = kalamdb_e2e::metrics::sample(&metrics, "kalamdb_unflushed_rows", &["table_name=\"app.events\""]);
        let done = jobs.active == 0 && waiting.unwrap_or_default() == 0.0;
        Ok(if done { Seen::Ready(jobs) } else { Seen::Waiting(format!("{jobs:?}, {waiting:?} rows wait")) })
    })
}
