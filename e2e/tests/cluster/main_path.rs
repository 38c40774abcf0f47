//! The path that every user takes: apply, write, let the operator flush, read both tiers, lose the pod, lose nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use kalamdb_e2e::flights::{self, Flight, ROWS_PER_INSERT};
use kalamdb_e2e::metrics::sample;
use kalamdb_e2e::operator;
use kalamdb_e2e::sql::{Client, integer};
use kalamdb_e2e::wait::{self, Seen};

use crate::environment::{FLIGHTS, Place, example, example_path};

const TABLE: &str = "nyc.flights";
const EVENT_LIMIT: Duration = Duration::from_secs(120);

#[test]
fn rows_reach_the_bucket_by_the_operators_schedule_and_survive_the_pod() -> Result<()> {
    let place = Place::new("main-path")?;
    place.create_s3_secret()?;
    place.kubectl.apply(&place.s3_example()?)?;
    let mut database = place.database(FLIGHTS);
    database.wait_until_ready(|_| {})?;

    let flights = flights::read(&example_path("flights.csv"))?;
    let (early, late): (Vec<Flight>, Vec<Flight>) = flights.iter().cloned().partition(|flight| flight.month <= 10);
    let root = database.root()?;
    root.batch(&example("flights-schema.sql")?)?;
    insert(&root, &early)?;

    // Nobody has asked for a flush: the operator has seen the table's FLUSH_POLICY reached.
    let result = database.wait_for("the operator to report a flush", |object| {
        let result = object["status"]["flush"]["lastResult"].as_str();
        Ok(result.map_or(Seen::Waiting(object["status"].to_string()), |result| Seen::Ready(result.to_owned())))
    })?;
    ensure!(result.contains(TABLE), "the status does not name the table: {result}");
    let files = place.cold_files()?;
    ensure!(files.iter().any(|file| file.ends_with(".parquet")), "no Parquet file in {files:?}");
    ensure!(
        files.iter().any(|file| file.ends_with("_delta_log/00000000000000000000.json")),
        "no Delta log in {files:?}"
    );

    check_what_the_operator_tells(&place)?;

    insert(&root, &late)?;
    let delete = "DELETE FROM nyc.flights WHERE flight_date = '2013-02-08' AND dep_time IS NULL";
    let deleted = i64::try_from(root.run(delete)?.row_count)?;
    let cancelled = |flight: &&Flight| (flight.month, flight.day) == (2, 8) && flight.cancelled;
    ensure!(deleted == flights::totals(flights.iter().filter(cancelled)).flights, "{deleted} rows were deleted");
    check(&root, &flights)?;

    database.kill_pod()?;
    let root = database.root()?;
    check(&root, &flights)?;
    // A key that exists is refused wherever it lies, so that a client's retry never makes a second row.
    let (_, again) = flights::inserts(TABLE, &flights[..1]).next().expect("a flight");
    ensure!(root.run(&again).is_err(), "a flight that is there was inserted again");
    check(&root, &flights)?;
    place.remove()
}

/// Events of what went well, no warning on a normal first start, and the operator's own metrics.
fn check_what_the_operator_tells(place: &Place) -> Result<()> {
    for reason in ["Ready", "Flushed"] {
        // An Event is written after what it tells of.
        wait::until(&format!("an Event {reason}"), EVENT_LIMIT, || {
            let told = place.was_told(FLIGHTS, "Normal", reason)?;
            Ok(if told { Seen::Ready(()) } else { Seen::Waiting("no such Event".to_owned()) })
        })?;
    }
    ensure!(!place.was_warned_of(FLIGHTS, "")?, "a normal start was warned of: {}", place.database(FLIGHTS).account());

    let metrics = operator::metrics(&place.kubectl)?;
    let at_least_one = |name: &str, labels: &[&str]| {
        let value = sample(&metrics, name, labels);
        ensure!(value.is_some_and(|value| value >= 1.0), "{name} {labels:?} is {value:?} in:\n{metrics}");
        Ok(())
    };
    at_least_one("kalamdb_operator_flush_jobs_total", &["result=\"completed\""])?;
    at_least_one("kalamdb_operator_flush_duration_seconds_count", &["result=\"completed\""])?;
    at_least_one("kalamdb_operator_reconcile_duration_seconds_count", &["result=\"ok\""])?;
    at_least_one("kalamdb_operator_writes_total", &["kind=\"StatefulSet\""])
}

fn insert(root: &Client, flights: &[Flight]) -> Result<()> {
    for (rows, insert) in flights::inserts(TABLE, flights) {
        let answer = root.run(&insert)?;
        ensure!(answer.row_count == rows as u64 && rows <= ROWS_PER_INSERT, "{} of {rows} rows", answer.row_count);
    }
    Ok(())
}

/// Totals, each month, and a time range that lies in both tiers; no key is there twice.
fn check(root: &Client, flights: &[Flight]) -> Result<()> {
    let left: Vec<&Flight> =
        flights.iter().filter(|flight| (flight.month, flight.day) != (2, 8) || !flight.cancelled).collect();
    let totals = flights::totals(left.iter().copied());
    let row = root.row(&flights::totals_query(TABLE))?;
    ensure!(row.iter().filter_map(integer).eq([totals.flights, totals.miles]), "{row:?} instead of {totals:?}");
    let distinct = "SELECT COUNT(*) FROM (SELECT DISTINCT time_hour, carrier, flight FROM nyc.flights)";
    ensure!(root.integer(distinct)? == totals.flights, "a key is there twice");

    let months =
        root.run("SELECT date_part('month', flight_date) AS m, COUNT(*) FROM nyc.flights GROUP BY m ORDER BY m")?;
    let counted: Vec<i64> = months.rows.iter().filter_map(|row| integer(row.get(1)?)).collect();
    let expected: Vec<i64> = (1..=12)
        .map(|month| flights::totals(left.iter().copied().filter(|flight| flight.month == month)).flights)
        .collect();
    ensure!(counted == expected, "{counted:?} flights by month instead of {expected:?}");

    let range = "SELECT COUNT(*) FROM nyc.flights WHERE time_hour >= '2013-10-31 04:00:00' AND time_hour < '2013-11-02 04:00:00'";
    let in_range = |flight: &&&Flight| matches!((flight.month, flight.day), (10, 31) | (11, 1));
    let expected = left.iter().filter(in_range).count();
    ensure!(
        root.integer(range)? == i64::try_from(expected)?,
        "the range over both tiers does not have {expected} rows"
    );
    Ok(())
}
