//! The S3 server goes away while rows wait to be flushed, and comes back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kalamdb_e2e::kubectl::condition;
use kalamdb_e2e::sql::Client;
use kalamdb_e2e::wait::{self, Seen};
use serde_json::Value as Json;

use crate::environment::{FLIGHTS, Place};
use crate::s3::Server;

/// The operator looks every few seconds at a database that misses its store.
const SEVERAL_LOOKS: Duration = Duration::from_secs(20);
const STILL_LIMIT: Duration = Duration::from_secs(180);
/// Retries of the operator pause for up to five minutes.
const MADE_UP_LIMIT: Duration = Duration::from_secs(420);

#[test]
fn writes_go_on_without_the_object_store_and_the_flush_is_made_up_for() -> Result<()> {
    let mut place = Place::new("s3-gone")?;
    let mut server = Server::start_for(&mut place)?;
    place.create_s3_secret()?;
    place.kubectl.apply(&place.s3_example()?)?;
    let mut database = place.database(FLIGHTS);
    database.wait_until_ready(|_| {})?;
    let root = database.root()?;
    root.batch(
        "CREATE NAMESPACE app;
         CREATE TABLE app.events (id BIGINT PRIMARY KEY, body TEXT) WITH (FLUSH_POLICY = 'rows:100');
         INSERT INTO app.events VALUES (0, 'reached the store')",
    )?;

    server.stop();
    for id in 1..=200 {
        root.run(&format!("INSERT INTO app.events VALUES ({id}, 'written while the store was away')"))?;
    }
    database.wait_for("the operator to report a failed flush", |_| {
        let warned = place.was_warned_of(FLIGHTS, "app.events")?;
        Ok(if warned { Seen::Ready(()) } else { Seen::Waiting("no Event of it".to_owned()) })
    })?;
    ensure!(root.integer("SELECT COUNT(*) FROM app.events")? == 201, "rows are missing while the store is away");
    // A connection that was open when the server went tells less; the next look finds out more.
    database.wait_for("the operator to say that nobody listens", |object| {
        let told = condition(object, "ObjectStoreReachable").cloned().unwrap_or_default();
        let nobody = told["message"].as_str().is_some_and(|why| why.contains("nothing listens"));
        Ok(if told["status"] == "False" && nobody { Seen::Ready(()) } else { Seen::Waiting(told.to_string()) })
    })?;
    check_that_the_status_stands_still(&place, &root)?;

    server.resume()?;
    database.wait_for_condition("ObjectStoreReachable", "True", |_| {})?;
    wait::until("the flush to be made up for", MADE_UP_LIMIT, || {
        let files = place.cold_files()?.into_iter().filter(|file| file.ends_with(".parquet")).count();
        Ok(if files > 0 { Seen::Ready(()) } else { Seen::Waiting("no Parquet file".to_owned()) })
    })
    .with_context(|| database.account())?;
    // The database may have been called not ready meanwhile; its Service answers again once it is ready.
    database.wait_until_ready(|_| {})?;
    ensure!(database.root()?.integer("SELECT COUNT(*) FROM app.events")? == 201, "rows were lost or doubled");
    place.remove()
}

/// Each attempt fails with other words, at another object: that must not make the operator write the status again and again.
fn check_that_the_status_stands_still(place: &Place, root: &Client) -> Result<()> {
    wait::until("a while in which nothing but the store is amiss", STILL_LIMIT, || {
        let before = Conditions::of(place)?;
        // A flush writes a file, and a new table makes a new mirror of the catalog.
        root.batch("STORAGE FLUSH TABLE app.events; CREATE TABLE IF NOT EXISTS app.later (id BIGINT PRIMARY KEY)")?;
        std::thread::sleep(SEVERAL_LOOKS);
        let after = Conditions::of(place)?;
        if before.ready != after.ready {
            return Ok(Seen::Waiting(format!(
                "the database was not ready meanwhile: {} {}",
                before.ready, after.ready
            )));
        }
        ensure!(before.all == after.all, "the conditions changed:\n{}\n{}", before.all, after.all);
        Ok(Seen::Ready(()))
    })
}

/// The conditions of the database as they stand in the cluster.
struct Conditions {
    /// A machine that is short of time makes a probe of the kubelet fail: then there is other news than that of the store.
    ready: Json,
    all: Json,
}

impl Conditions {
    fn of(place: &Place) -> Result<Self> {
        let object = place.kubectl.get("kalamdb", FLIGHTS)?.context("the KalamDB is gone")?;
        let ready = condition(&object, "Ready").cloned().unwrap_or_default();
        Ok(Self { ready, all: object["status"]["conditions"].clone() })
    }
}
