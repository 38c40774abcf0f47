//! Each rule of [`decide`] in one small case.

use std::time::Duration;

use kalamdb_api::flush::FlushReason::{self, Age, Bytes, Disk, Rows};

use crate::policy::*;
use crate::scrape::{self, TableSample};
use crate::*;

const NOW: Moment = Moment(Duration::from_secs(1000));
const BEFORE: Moment = Moment(Duration::from_secs(990));

struct Case {
    target: TargetId,
    store: StoreKey,
    limits: Limits,
    sample: Sample,
    foreign_since: Option<Moment>,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn table(rows: u64, bytes: u64, age: u64) -> TableSample {
    TableSample { rows, bytes, oldest_age: seconds(age), policy_rows: None, policy_interval: None }
}

/// An instance whose tables are due at 1,000 bytes, 100 rows or 60 seconds.
fn instance(name: &str, tables: &[(&str, TableSample)]) -> Case {
    Case {
        target: TargetId(name.into()),
        store: StoreKey("s3".into()),
        limits: Limits { max_bytes: 1000, max_rows: 100, max_age: seconds(60), max_concurrent: 2 },
        sample: Sample {
            tables: tables.iter().map(|(name, sample)| (TableName((*name).into()), *sample)).collect(),
            ..Sample::default()
        },
        foreign_since: None,
    }
}

fn fleet() -> FleetLimits {
    FleetLimits { per_store: 4, fleet: 16, disk_full_percent: 80, foreign_patience: seconds(600) }
}

fn run(cases: &[Case], running: &[Running], history: &History, fleet: &FleetLimits) -> Vec<(String, FlushReason)> {
    let instances: Vec<_> = cases
        .iter()
        .map(|case| Instance {
            target: &case.target,
            store: &case.store,
            limits: &case.limits,
            sample: &case.sample,
            sampled_at: BEFORE,
            foreign_since: case.foreign_since,
        })
        .collect();
    decide(NOW, &instances, running, history, fleet, |_, _| 0.0)
        .into_iter()
        .map(|job| (format!("{}/{}", job.target, job.table), job.reason))
        .collect()
}

fn check(cases: &[Case], expected: &[(&str, FlushReason)]) {
    let expected: Vec<_> = expected.iter().map(|(name, reason)| ((*name).to_owned(), *reason)).collect();
    assert_eq!(run(cases, &[], &History::new(), &fleet()), expected);
}

#[test]
fn a_table_below_all_limits_is_not_due() {
    check(&[instance("a", &[("t", table(99, 999, 59))])], &[]);
}

#[test]
fn each_limit_alone_makes_a_table_due() {
    check(&[instance("a", &[("t", table(1, 1000, 0))])], &[("a/t", Bytes)]);
    check(&[instance("a", &[("t", table(100, 1, 0))])], &[("a/t", Rows)]);
    check(&[instance("a", &[("t", table(1, 1, 60))])], &[("a/t", Age)]);
}

#[test]
fn a_table_without_rows_is_never_due() {
    check(&[instance("a", &[("t", table(0, 5000, 500))])], &[]);
}

#[test]
fn the_tighter_of_the_two_policies_wins() {
    let own = |rows, interval| TableSample {
        policy_rows: Some(rows),
        policy_interval: Some(seconds(interval)),
        ..table(50, 1, 30)
    };
    check(&[instance("a", &[("rows", own(50, 600))])], &[("a/rows", Rows)]);
    check(&[instance("a", &[("interval", own(1000, 30))])], &[("a/interval", Age)]);
    check(&[instance("a", &[("looser", TableSample { rows: 100, ..own(1000, 600) })])], &[("a/looser", Rows)]);
}

#[test]
fn the_most_urgent_table_of_the_fleet_goes_first() {
    let cases = [
        instance("a", &[("little", table(100, 1, 0)), ("much", table(1, 9000, 0))]),
        instance("b", &[("middle", table(1, 1, 300))]),
    ];
    check(&cases, &[("a/much", Bytes), ("b/middle", Age), ("a/little", Rows)]);
}

#[test]
fn limits_hold_per_instance_per_store_and_for_the_fleet() {
    let tables = [("t1", table(500, 1, 0)), ("t2", table(400, 1, 0)), ("t3", table(300, 1, 0))];
    check(&[instance("a", &tables)], &[("a/t1", Rows), ("a/t2", Rows)]);

    let mut elsewhere = instance("c", &tables);
    elsewhere.store = StoreKey("another".into());
    let cases = [instance("a", &tables), instance("b", &tables), elsewhere];
    let names = |limits: &FleetLimits| {
        run(&cases, &[], &History::new(), limits).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names(&FleetLimits { per_store: 1, ..fleet() }), ["a/t1", "c/t1"]);
    assert_eq!(names(&FleetLimits { fleet: 3, ..fleet() }), ["a/t1", "b/t1", "c/t1"]);
}

#[test]
fn what_runs_takes_its_slots_and_is_not_started_again() {
    let cases = [instance("a", &[("t1", table(500, 1, 0)), ("t2", table(400, 1, 0)), ("t3", table(300, 1, 0))])];
    let running =
        [Running { target: TargetId("a".into()), store: StoreKey("s3".into()), table: TableName("t1".into()) }];
    assert_eq!(run(&cases, &running, &History::new(), &fleet()), [("a/t2".to_owned(), Rows)]);
}

#[test]
fn a_sample_from_before_the_end_of_a_job_is_not_believed() {
    let cases = [instance("a", &[("t", table(100, 1, 0))])];
    let ended = |at, not_before| {
        let ended = Ended { at: Moment(seconds(at)), failures: 0, not_before: Moment(seconds(not_before)) };
        History::from([((TargetId("a".into()), TableName("t".into())), ended)])
    };
    assert!(run(&cases, &[], &ended(995, 995), &fleet()).is_empty(), "sampled at 990");
    assert_eq!(run(&cases, &[], &ended(985, 985), &fleet()).len(), 1);
    assert!(run(&cases, &[], &ended(985, 1001), &fleet()).is_empty(), "backs off until 1001");
}

#[test]
fn a_full_disk_makes_every_table_due_the_largest_first() {
    let mut full = instance("a", &[("small", table(1, 10, 0)), ("large", table(1, 20, 0))]);
    full.sample.disk = Some(scrape::Disk { used: 80, free: 20 });
    let pressing = instance("b", &[("t", table(99_999, 1, 0))]);
    check(&[full, pressing], &[("a/large", Disk), ("a/small", Disk), ("b/t", Rows)]);
}

#[test]
fn jobs_of_others_hold_an_instance_back_for_a_while_and_then_only_take_slots() {
    let tables = [("t1", table(500, 1, 0)), ("t2", table(400, 1, 0))];
    let foreign = |since| {
        let mut case = instance("a", &tables);
        case.sample.active_jobs = 1;
        case.foreign_since = Some(Moment(seconds(since)));
        case
    };
    check(&[foreign(900), instance("b", &tables[..1])], &[("b/t1", Rows)]);
    check(&[foreign(300)], &[("a/t1", Rows)]);
}

#[test]
fn the_label_for_tables_beyond_the_cap_names_no_table() {
    check(&[instance("a", &[("other", table(500, 1, 0))])], &[]);
}

#[test]
fn stagger_brings_a_table_forward_by_a_tenth_of_its_age_limit() {
    let case = instance("a", &[("t", table(1, 1, 55))]);
    let instances = [Instance {
        target: &case.target,
        store: &case.store,
        limits: &case.limits,
        sample: &case.sample,
        sampled_at: BEFORE,
        foreign_since: None,
    }];
    let due = |stagger| decide(NOW, &instances, &[], &History::new(), &fleet(), |_, _| stagger).len();
    assert_eq!((due(0.0), due(1.0)), (0, 1));
}
