//! The story itself: rows go in, the scheduler flushes them, queries read both tiers, the instance dies, nothing is lost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kalamdb_e2e::bucket::Object;
use kalamdb_e2e::flights::{self, Flight, Totals};
use kalamdb_e2e::kubectl::InVain;
use kalamdb_e2e::metrics::sample;
use kalamdb_e2e::sql::{Client, integer};
use kalamdb_e2e::wait::{self, Seen};

use crate::console;
use crate::demo::stage::Stage;
use crate::demo::table;
use crate::interruption;
use crate::workspace;

const TABLE: &str = "nyc.flights";
/// The last month that is loaded before the flush; what comes later stays in the hot tier for a while.
const LAST_COLD_MONTH: u8 = 10;
const FLUSH_LIMIT: Duration = Duration::from_secs(180);
/// Passwords of the two travellers. The database is for show and answers this machine alone.
const TRAVELLERS: [(&str, &str, &str); 2] = [("alice", "window-seat-12A", "12A"), ("bob", "aisle-seat-31C", "31C")];

/// Tells it, and checks every answer against the file that the rows came from.
pub fn tell(stage: &mut dyn Stage, flights: &[Flight]) -> Result<()> {
    act(stage, flights).inspect_err(|error| {
        if !error.is::<InVain>() {
            console::say(&stage.account());
        }
    })
}

fn act(stage: &mut dyn Stage, flights: &[Flight]) -> Result<()> {
    let (early, late): (Vec<Flight>, Vec<Flight>) =
        flights.iter().cloned().partition(|flight| flight.month <= LAST_COLD_MONTH);
    let root = stage.root()?;

    console::headline("Rows in");
    create_tables(&root)?;
    insert(&root, "January to October", &early)?;

    console::headline("The operator flushes");
    wait_for_flush(stage, &root)?;
    stage.show_scheduler()?;
    show_jobs(&root)?;
    show_cold_files(stage)?;

    console::headline("Hot and cold as one table");
    insert(&root, "November and December, which stay in the hot tier for now", &late)?;
    let expected = cancel_a_day(&root, flights)?;
    show_tiers(&root)?;
    check_totals(&root, expected)?;
    show_queries(&root)?;

    console::headline("Every user sees their own rows");
    book(stage, &root)?;

    console::headline("The instance dies");
    console::step(stage.ending(), || stage.crash())?;
    let root = stage.root()?;
    check_totals(&root, expected)?;
    for (user, password, seat) in TRAVELLERS {
        check_booking(stage, user, password, seat)?;
    }
    Ok(())
}

/// A demo may run again on a cluster that is still up: it begins with empty tables.
fn create_tables(root: &Client) -> Result<()> {
    console::step("create the tables of examples/flights-schema.sql", || {
        root.run("DROP NAMESPACE IF EXISTS nyc CASCADE")?;
        root.batch(&example("flights-schema.sql")?).map(drop)
    })
}

fn insert(root: &Client, which: &str, flights: &[Flight]) -> Result<()> {
    let rows = table::number(flights.len().try_into()?);
    let started = Instant::now();
    console::step(&format!("insert {rows} flights: {which}"), || {
        for (rows, insert) in flights::inserts(TABLE, flights) {
            interruption::check()?;
            let answer = root.run(&insert)?;
            ensure!(answer.row_count == rows as u64, "{} of {rows} rows were inserted", answer.row_count);
        }
        Ok(())
    })?;
    let rate = flights.len() as f64 / started.elapsed().as_secs_f64();
    console::detail(&format!(
        "over HTTP, {} rows a statement, every statement on disk before its answer: {} rows/s",
        table::number(flights::ROWS_PER_INSERT as i64),
        table::number(rate as i64)
    ));
    Ok(())
}

/// Nobody asks for this flush: the scheduler sees in the scraped metrics that the table has reached its policy.
fn wait_for_flush(stage: &dyn Stage, root: &Client) -> Result<()> {
    let what = "wait for the scheduler to see 5,000 unflushed rows in the metrics, and for its flush job";
    console::step(what, || {
        wait::until("a flush of nyc.flights by the scheduler", FLUSH_LIMIT, || {
            interruption::check()?;
            let metrics = root.metrics()?;
            let jobs = sample(&metrics, "kalamdb_flush_jobs", &["state=\"completed\""]).unwrap_or_default();
            let unflushed = unflushed_rows(&metrics);
            let files = stage.cold_files()?.iter().filter(|file| file.key.ends_with(".parquet")).count();
            if jobs >= 1.0 && files > 0 && unflushed < 5000.0 {
                return Ok(Seen::Ready(()));
            }
            Ok(Seen::Waiting(format!("{unflushed} unflushed rows, {jobs} completed jobs, {files} Parquet files")))
        })
    })
}

fn show_jobs(root: &Client) -> Result<()> {
    let query =
        "SELECT table_name, reason, status, rows, bytes, finished_at FROM system.flush_jobs ORDER BY finished_at";
    let answer = root.run(query)?;
    console::say(&format!("\n{query}"));
    console::detail(&table::render(&answer));
    Ok(())
}

fn show_cold_files(stage: &dyn Stage) -> Result<()> {
    let (mut files, mut others): (Vec<Object>, Vec<Object>) = stage
        .cold_files()?
        .into_iter()
        .partition(|file| file.key.contains("_delta_log/") || file.key.ends_with(".parquet"));
    files.sort_by_key(|file| !file.key.contains("_delta_log/"));
    console::say(&format!(
        "\nIn {}: each table is a Delta Lake table, its log and its Parquet files",
        stage.cold_place()
    ));
    console::detail(&table::files(&files));
    others.retain(|file| file.size > 0);
    console::detail(&format!("({} more objects: identity, epochs, catalog)", others.len()));
    ensure!(files.iter().any(|file| file.key.contains("_delta_log/")), "there is no Delta log among the files");
    Ok(())
}

/// Rows that are cold by now are changed like any others: a day's cancelled flights leave the table.
fn cancel_a_day(root: &Client, flights: &[Flight]) -> Result<Totals> {
    let cancelled = |flight: &&Flight| (flight.month, flight.day) == (2, 8) && flight.cancelled;
    let gone = flights::totals(flights.iter().filter(cancelled));
    let all = flights::totals(flights);
    console::step("delete the flights that the snowstorm of 8 February cancelled (cold rows)", || {
        let delete = "DELETE FROM nyc.flights WHERE flight_date = '2013-02-08' AND dep_time IS NULL";
        let deleted = root.run(delete)?.row_count;
        ensure!(i64::try_from(deleted)? == gone.flights, "{deleted} rows were deleted, not {}", gone.flights);
        Ok(())
    })?;
    Ok(Totals { flights: all.flights - gone.flights, miles: all.miles - gone.miles })
}

fn show_tiers(root: &Client) -> Result<()> {
    let unflushed = unflushed_rows(&root.metrics()?) as i64;
    console::detail(&format!(
        "{} row versions are in the hot tier only, the rest of the table is cold",
        table::number(unflushed)
    ));
    Ok(())
}

fn check_totals(root: &Client, expected: Totals) -> Result<()> {
    let what = format!("count all flights: {} are expected", table::number(expected.flights));
    console::step(&what, || {
        let row = root.row(&flights::totals_query(TABLE))?;
        let [Some(flights), Some(miles)] = [0, 1].map(|at| row.get(at).and_then(integer)) else {
            bail!("the answer {row:?} is not a count and a sum");
        };
        ensure!(
            Totals { flights, miles } == expected,
            "{flights} flights of {miles} miles are there, not {expected:?}"
        );
        Ok(())
    })?;
    console::detail(&format!("all there, {} miles in all", table::number(expected.miles)));
    Ok(())
}

fn show_queries(root: &Client) -> Result<()> {
    for (title, query) in titled_queries(&example("flights-queries.sql")?) {
        let started = Instant::now();
        let answer = root.run(&query)?;
        console::say(&format!("\n{title}  ({} ms)", started.elapsed().as_millis()));
        query.lines().for_each(console::detail);
        console::say("");
        console::detail(&table::render(&answer));
    }
    Ok(())
}

fn book(stage: &mut dyn Stage, root: &Client) -> Result<()> {
    console::step("create the users alice and bob; each books a seat on one flight", || {
        for (user, password, seat) in TRAVELLERS {
            root.run(&format!("DROP USER IF EXISTS {user}"))?;
            root.run(&format!("CREATE USER {user} WITH PASSWORD '{password}' ROLE user"))?;
            stage.login(user, password)?.run(&format!(
                "INSERT INTO nyc.bookings (time_hour, carrier, flight, seat)
                 VALUES ('2013-12-24 22:00:00', 'UA', 1545, '{seat}')"
            ))?;
        }
        Ok(())
    })?;
    for (user, password, seat) in TRAVELLERS {
        check_booking(stage, user, password, seat)?;
    }
    Ok(())
}

fn check_booking(stage: &mut dyn Stage, user: &str, password: &str, seat: &str) -> Result<()> {
    let query = "SELECT flight, seat FROM nyc.bookings";
    let answer = stage.login(user, password)?.run(query)?;
    ensure!(
        answer.rows.len() == 1 && answer.rows[0].get(1).is_some_and(|cell| cell == seat),
        "{user} sees {:?} in nyc.bookings instead of the one seat {seat}",
        answer.rows
    );
    console::detail(&format!("{user}: {query}  ->  seat {seat}, and nothing else"));
    Ok(())
}

fn unflushed_rows(metrics: &str) -> f64 {
    sample(metrics, "kalamdb_unflushed_rows", &["table_name=\"nyc.flights\""]).unwrap_or_default()
}

fn example(name: &str) -> Result<String> {
    let path = workspace::root().join("examples").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

/// Each query of the file with the comment above it.
fn titled_queries(text: &str) -> Vec<(String, String)> {
    let pieces = text.split(';').map(str::trim).filter(|piece| !piece.is_empty());
    let split = |piece: &str| {
        let (titles, lines): (Vec<&str>, Vec<&str>) = piece.lines().partition(|line| line.starts_with("--"));
        (titles.join(" ").replace("-- ", ""), lines.join("\n"))
    };
    pieces.map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_of_the_examples_has_a_title() {
        let queries = titled_queries(&example("flights-queries.sql").expect("the file"));
        assert_eq!(queries.len(), 4);
        assert!(queries.iter().all(|(title, query)| !title.is_empty() && query.starts_with("SELECT")));
    }
}
