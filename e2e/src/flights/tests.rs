//! The slice in the repository is whole, and its key is one.

use std::collections::BTreeSet;
use std::path::Path;

use super::{inserts, parse, read, totals};

#[test]
fn the_slice_is_spread_over_the_year_and_its_primary_key_is_unique() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/flights.csv");
    assert!(file.metadata().expect("the slice exists").len() <= 1_000_000);
    let flights = read(&file).expect("the slice is readable");
    for month in 1..=12 {
        assert!(totals(flights.iter().filter(|flight| flight.month == month)).flights > 500, "month {month}");
    }
    // The key's values stand after the date: time_hour, carrier, flight.
    let keys: BTreeSet<Vec<&str>> =
        flights.iter().map(|flight| flight.values.split(", ").skip(1).take(3).collect()).collect();
    assert_eq!(keys.len(), flights.len());
}

#[test]
fn a_missing_value_is_null_and_a_wrong_one_names_its_line() {
    let header = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour";
    let line = "2013,2,8,NA,1500,NA,NA,1700,NA,O'A,7,NA,JFK,BOS,NA,187,15,0,2013-02-08T20:00:00Z";
    let flights = parse(&format!("{header}\n{line}\n")).expect("a flight");
    assert!(flights[0].cancelled);
    let (rows, insert) = inserts("t", &flights).next().expect("an insert");
    assert_eq!(rows, 1);
    assert!(insert.ends_with(
        "('2013-02-08', '2013-02-08 20:00:00', 'O''A', 7, 'JFK', 'BOS', NULL, 1500, NULL, NULL, 1700, NULL, NULL, NULL, 187)"
    ));
    let error = parse(&format!("{header}\n{line}\n{}", line.replace("187", "far"))).expect_err("no number");
    assert!(format!("{error:#}").starts_with("line 3: distance is \"far\", not a whole number"), "{error:#}");
}
