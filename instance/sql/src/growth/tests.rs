//! Calls that would make far more than they are given, within a session of DataFusion's own functions.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionConfig;
use futures::TryStreamExt;

use super::*;
use crate::planner;

/// A call may make so much, its query hold four times that.
const MOST: usize = 1 << 20;

struct Session {
    state: SessionState,
    pool: Arc<dyn MemoryPool>,
}

impl Session {
    fn new() -> Self {
        let config = SessionConfig::new().with_target_partitions(1);
        let mut state = SessionStateBuilder::new().with_config(config).with_default_features().build();
        bound(&mut state, MOST).unwrap();
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(4 * MOST));
        state.config_mut().options_mut().extensions.insert(Account::new(Arc::clone(&pool)));
        state.mark_start_execution();
        Self { state, pool }
    }

    async fn rows(&self, sql: &str) -> Result<Vec<RecordBatch>, crate::SqlError> {
        Account::begin_planning(self.state.config_options());
        let plan = self.state.create_logical_plan(sql).await?;
        let physical = planner::physical_of_optimised(&self.state, &self.state.optimize(&plan)?).await?;
        Ok(execute_stream(physical, self.state.task_ctx())?.try_collect().await?)
    }

    /// What is counted still when the statement has ended.
    fn held(self) -> usize {
        drop(self.state);
        self.pool.reserved()
    }

    async fn cell(&self, sql: &str) -> String {
        let rows = self.rows(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let text = pretty_format_batches(&rows).unwrap().to_string();
        text.lines().nth(3).unwrap().trim_matches(|side: char| side == '|' || side == ' ').to_owned()
    }
}

#[tokio::test]
async fn what_would_be_far_larger_than_its_arguments_is_refused() {
    for sql in [
        "SELECT repeat('x', 2000000000)",
        "SELECT length(repeat('x', 400000000))",
        "SELECT 1 WHERE length(repeat('x', 400000000)) > 5",
        "SELECT length(lpad('x', 2000000000))",
        "SELECT length(rpad('x', 2000000000, 'ü'))",
        "SELECT length(replace(repeat('a', 50000), 'a', repeat('b', 50000)))",
        "SELECT length(replace(repeat('a', 50000), '', repeat('b', 50000)))",
        "SELECT length(regexp_replace(repeat('a', 50000), 'a', repeat('b', 50000), 'g'))",
        "SELECT length(concat(repeat('a', 900000), repeat('b', 900000)))",
        "SELECT length(concat_ws(repeat('x', 500000), 'a', 'b', 'c', 'd'))",
        "SELECT cardinality(range(1, 1000000000))",
        "SELECT cardinality(generate_series(1000000000, 1, -1))",
        "SELECT cardinality(range(TIMESTAMP '2000-01-01', TIMESTAMP '2030-01-01', INTERVAL '1 millisecond'))",
        "SELECT cardinality(range(DATE '2000-01-01', DATE '2000-02-01', INTERVAL '1 month -30 days'))",
        "SELECT cardinality(array_repeat(1, 1000000000))",
        "SELECT cardinality(array_repeat(array_repeat('abc', 1000), 100000))",
        "SELECT cardinality(array_resize([1], 1000000000))",
        "SELECT cardinality(array_replace_all(array_repeat('', 50000), '', repeat('x', 50000)))",
        "SELECT length(array_to_string(range(1, 50000), repeat('x', 50000)))",
        "SELECT length(to_char(TIMESTAMP '2000-01-01', repeat('%c', 200000)))",
        "SELECT levenshtein(repeat('a', 100000), repeat('b', 100000))",
        "SELECT array_has_all(range(1, 100000), range(200000, 300000))",
        // By rows.
        "SELECT count(repeat('x', value)) FROM range(1, 1000000)",
        "SELECT count(lpad('x', value)) FROM range(1, 1000000)",
        "SELECT count(range(1, value)) FROM range(1, 1000000)",
        "SELECT count(array_repeat(value, 10000)) FROM range(1, 1000000)",
        // A constant, laid out once a row.
        "SELECT repeat('x', 600000), value FROM range(1, 1000)",
        // None of the calls goes beyond its bound.
        "SELECT repeat('a', 500000), repeat('b', 500000), repeat('c', 500000), repeat('d', 500000), repeat('e', 500000), \
         repeat('f', 500000), repeat('g', 500000), repeat('h', 500000), repeat('i', 500000), repeat('j', 500000)",
        "SELECT repeat('a', v), repeat('b', v), repeat('c', v), repeat('d', v), repeat('e', v), repeat('f', v) \
         FROM (SELECT value % 10 + 900000 AS v FROM range(0, 1))",
    ] {
        let session = Session::new();
        let error = session.rows(sql).await.map(|rows| rows.len()).expect_err(sql);
        assert_eq!(error.code, crate::ErrorCode::ResourcesExhausted, "{sql}: {error}");
        assert!(error.message.contains("sql.query_memory_bytes"), "{sql}: {error}");
        assert_eq!(session.held(), 0, "{sql}");
    }
}

#[tokio::test]
async fn what_is_within_the_bounds_is_answered_as_ever() {
    for (sql, expected) in [
        ("SELECT repeat('ab', 3)", "ababab"),
        ("SELECT length(repeat('x', 1000000))", "1000000"),
        ("SELECT lpad('x', 3, 'ü')", "üüx"),
        ("SELECT replace('a-b', '-', '+')", "a+b"),
        ("SELECT regexp_replace('a1b22', '[0-9]+', '<$0>', 'g')", "a<1>b<22>"),
        ("SELECT concat('a', 1, NULL, 'b')", "a1b"),
        ("SELECT concat_ws('-', 'a', NULL, 'b')", "a-b"),
        ("SELECT range(1, 4)", "[1, 2, 3]"),
        ("SELECT generate_series(3, 1, -1)", "[3, 2, 1]"),
        ("SELECT cardinality(range(DATE '2024-01-01', DATE '2024-03-01', INTERVAL '1 day'))", "60"),
        ("SELECT array_repeat([1, 2], 2)", "[[1, 2], [1, 2]]"),
        ("SELECT array_resize([1], 3, 7)", "[1, 7, 7]"),
        ("SELECT array_to_string([1, 2], '-')", "1-2"),
        ("SELECT list_to_string(['a', NULL], '-', '?')", "a-?"),
        ("SELECT string_to_array('a-b', '-')", "[a, b]"),
        ("SELECT to_char(TIMESTAMP '2024-02-03', '%Y/%m')", "2024/02"),
        ("SELECT levenshtein('kitten', 'sitting')", "3"),
        ("SELECT array_has_all([1, 2, 3], [1, 3])", "true"),
        ("SELECT sum(length(repeat('x', value))) FROM range(0, 1000)", "499500"),
        ("SELECT sum(cardinality(range(0, value % 10))) FROM range(0, 10000)", "45000"),
        // Too pessimistic an estimate for all rows at once.
        (
            "SELECT sum(length(regexp_replace(concat('abc', value), 'b', repeat('y', 50)))) FROM range(0, 8000)",
            "446890",
        ),
    ] {
        let session = Session::new();
        assert_eq!(session.cell(sql).await, expected, "{sql}");
        assert_eq!(session.held(), 0, "{sql}");
    }
}

#[tokio::test]
async fn a_text_that_is_doubled_again_and_again_is_refused() {
    let doubled = |times: usize, from: &str| {
        let begin = format!("SELECT CAST({from} AS TEXT) AS v FROM range(0, 3)");
        (0..times).fold(begin, |inner, at| format!("SELECT v || v AS v FROM ({inner}) AS t{at}"))
    };
    let session = Session::new();
    for from in ["'x'", "value"] {
        let few = format!("SELECT max(length(v)), min(v || NULL) FROM ({})", doubled(10, from));
        assert_eq!(session.cell(&few).await.split_whitespace().next(), Some("1024"), "{from}");
        let error = session.rows(&doubled(22, from)).await.map(|rows| rows.len()).expect_err(from);
        assert_eq!(error.code, crate::ErrorCode::ResourcesExhausted, "{from}: {error}");
    }
    assert_eq!(session.cell("SELECT 'a' || 1 || 'b' WHERE 'a' || NULL IS NULL").await, "a1b");
    let rows = session.rows("SELECT 'a' || 'b'").await.unwrap();
    assert_eq!(rows[0].schema().field(0).name(), "Utf8(\"a\") || Utf8(\"b\")", "the name stays that of the operator");
}

#[tokio::test]
async fn large_constants_do_not_stay_in_a_plan() {
    let session = Session::new();
    Account::begin_planning(session.state.config_options());
    let plan = session.state.create_logical_plan("SELECT concat(repeat('x', 900000), repeat('y', 3))").await.unwrap();
    let text = session.state.optimize(&plan).unwrap().to_string();
    assert!(text.len() < 1000 && text.contains("repeat(Utf8(\"x\")") && text.contains("yyy"), "{text:.2000}");
}
