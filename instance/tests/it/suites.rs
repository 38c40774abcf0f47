//! The SQL tests that DataFusion publishes for standard SELECT, against the real binary: `cargo xtask suites` fetches them and runs this
//! with `KALAMDB_TEST_SUITE`. The share that passes is printed, with each class of what does not, and must not fall.
//!
//! An adapter makes their DDL ours ([`dialect`]) and our cells theirs ([`cells`]). Statements that are about DataFusion itself (plans,
//! settings, files of other repositories) are left out, and counted.

mod cells;
mod dialect;
mod tally;

use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use sqllogictest::{DefaultColumnType, Record, RecordOutput, Runner, TestError, TestErrorKind, parse_file};

use crate::server::{Folder, Server};
use dialect::Client;
use tally::{Class, Tally};

/// The files about standard SELECT: joins, windows, CTEs, aggregates, subqueries, set operations, expressions.
const FILES: [&str; 62] = [
    "aggregate.slt",
    "aggregate_any_value.slt",
    "aggregates_simplify.slt",
    "alias.slt",
    "case.slt",
    "cast.slt",
    "coalesce.slt",
    "count_star_rule.slt",
    "cse.slt",
    "cte.slt",
    "decimal.slt",
    "distinct_on.slt",
    "eliminate_outer_join.slt",
    "expr.slt",
    "functional_dependencies.slt",
    "functions.slt",
    "group.slt",
    "group_by.slt",
    "grouping.slt",
    "ident_normalization.slt",
    "identifiers.slt",
    "in_list.slt",
    "intersection.slt",
    "join_disable_repartition_joins.slt",
    "join_is_not_distinct_from.slt",
    "join_limit_pushdown.slt",
    "join_lists.slt",
    "join_only.slt",
    "joins.slt",
    "lateral_join.slt",
    "limit.slt",
    "limit_single_row_batches.slt",
    "math.slt",
    "misc.slt",
    "negative_zero.slt",
    "null_aware_anti_join.slt",
    "nullif.slt",
    "nvl.slt",
    "nvl2.slt",
    "operator.slt",
    "order.slt",
    "predicates.slt",
    "projection.slt",
    "qualify.slt",
    "references.slt",
    "same_column_name_cross_join.slt",
    "scalar.slt",
    "select.slt",
    "simplify_expr.slt",
    "sort_merge_join.slt",
    "string_numeric_coercion.slt",
    "strings.slt",
    "subquery.slt",
    "subquery_sort.slt",
    "table_functions.slt",
    "topk.slt",
    "type_coercion.slt",
    "union.slt",
    "union_by_name.slt",
    "unnest.slt",
    "wildcard.slt",
    "window.slt",
];
/// Least share of the queries that must pass, in percent.
const LEAST_PERCENT: usize = 80;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_select_as_datafusion_tests_it() -> Result<()> {
    let Ok(folder) = std::env::var("KALAMDB_TEST_SUITE") else {
        println!("`cargo xtask suites` runs this: it fetches the files");
        return Ok(());
    };
    let chosen = std::env::var("KALAMDB_SLT").unwrap_or_default();
    let server = Server::start_in(Folder::new()?.with("KALAMDB_SQL_STATEMENT_TIMEOUT_SECONDS", "60")).await?;
    let mut total = Tally::default();
    for (number, name) in FILES.iter().enumerate().filter(|(_, name)| name.contains(&chosen)) {
        let tally = run_file(&server, &Path::new(&folder).join(name), &format!("suite_{number}")).await?;
        println!("{name:<40} {tally}");
        total.add(tally);
    }
    println!("\n{}", total.report());
    ensure!(total.percent() >= LEAST_PERCENT, "less than {LEAST_PERCENT} % of the queries passed");
    Ok(())
}

async fn run_file(server: &Server, file: &Path, namespace: &str) -> Result<Tally> {
    server.sql(&format!("CREATE NAMESPACE {namespace}")).await?;
    let records =
        parse_file::<DefaultColumnType>(file).with_context(|| format!("failed to read {}", file.display()))?;
    let shared = Arc::new(Mutex::new(dialect::Known::default()));
    let mut runner = Runner::new(|| std::future::ready(Ok(Client::new(server, namespace, shared.clone()))));
    runner.with_normalizer(|text| text.trim_end().to_owned());
    runner.with_validator(cells::are_equal);
    let mut tally = Tally::default();
    for record in records {
        if matches!(record, Record::Halt { .. }) {
            break;
        }
        let (Record::Query { sql, .. } | Record::Statement { sql, .. }) = &record else {
            let _ = runner.run_async(record).await;
            continue;
        };
        let (is_query, sql) = (matches!(record, Record::Query { .. }), sql.clone());
        let class = match runner.run_async(record).await {
            Ok(RecordOutput::Nothing) => continue,
            Ok(_) => Class::Passed,
            Err(error) => {
                let class = class_of(&error.kind());
                show(class, &sql, &error);
                class
            }
        };
        if is_query {
            tally.count(class);
        }
    }
    server.sql(&format!("DROP NAMESPACE {namespace} CASCADE")).await?;
    Ok(tally)
}

fn class_of(kind: &TestErrorKind) -> Class {
    match kind {
        // A refusal was expected and came, in our words.
        TestErrorKind::ErrorMismatch { err, .. } => Class::of_error(&err.to_string(), Class::Passed),
        TestErrorKind::Fail { err, .. } => Class::of_error(&err.to_string(), Class::Refused),
        TestErrorKind::QueryResultMismatch { expected, actual, .. } => cells::class_of_difference(expected, actual),
        TestErrorKind::Ok { .. } => Class::Accepted,
        _ => Class::Different,
    }
}

/// With `KALAMDB_TEST_SUITE_SHOW` set, what did not pass.
fn show(class: Class, sql: &str, error: &TestError) {
    if class.is_failure() && std::env::var_os("KALAMDB_TEST_SUITE_SHOW").is_some() {
        println!("{class:?}: {sql}\n{}\n", error.display(false));
    }
}
