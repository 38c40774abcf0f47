//! The rows, statements and ranges of the benchmark: the same for us and for each peer.

use anyhow::Context;
use serde_json::{Value as Json, json};

use crate::instance::Instance;

/// The table that the benchmark fills.
pub const TABLE: &str = "bench.events";
const FIRST_AT: i64 = 1_700_000_000_000_000;
const STEP: i64 = 1_000_000;

/// How much is done.
pub struct Workload {
    /// Rows in all.
    pub rows: i64,
    /// Rows of one INSERT.
    pub batch_rows: i64,
    /// Point reads.
    pub reads: i64,
    /// Time-range queries.
    pub ranges: i64,
}

/// One row.
pub struct Event {
    /// The key.
    pub id: i64,
    /// Microseconds since the Unix epoch.
    pub at: i64,
    /// One of a few words.
    pub kind: &'static str,
    /// A number.
    pub value: f64,
    /// Some text that compresses badly.
    pub payload: String,
}

impl Event {
    fn numbered(id: i64) -> Self {
        let scrambled = (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            id,
            at: FIRST_AT + id * STEP,
            kind: ["click", "view", "order", "login"][(scrambled >> 62) as usize],
            value: (scrambled >> 40) as f64 / 1000.0,
            payload: format!("{scrambled:016x}{:016x}", scrambled.rotate_left(17)),
        }
    }
}

impl Workload {
    /// 200,000 rows, or what `KALAMDB_BENCH_ROWS` says.
    pub fn from_environment() -> anyhow::Result<Self> {
        let rows = match std::env::var("KALAMDB_BENCH_ROWS") {
            Ok(rows) => rows.parse().context("KALAMDB_BENCH_ROWS is no number of rows")?,
            Err(_) => 200_000,
        };
        Ok(Self { rows, batch_rows: 1000, reads: 2000, ranges: 30 })
    }

    /// Creates the namespace and the table.
    pub async fn create_table(&self, instance: &Instance) -> anyhow::Result<()> {
        instance.sql("CREATE NAMESPACE bench", vec![]).await?;
        let columns = "id BIGINT PRIMARY KEY, moment TIMESTAMP NOT NULL, kind TEXT, value DOUBLE, payload TEXT";
        instance.sql(&format!("CREATE SHARED TABLE {TABLE} ({columns})"), vec![]).await?;
        Ok(())
    }

    /// The rows, a statement's worth at a time.
    pub fn batches(&self) -> impl Iterator<Item = Vec<Event>> {
        let (rows, step) = (self.rows, self.batch_rows);
        (0..rows)
            .step_by(step as usize)
            .map(move |first| (first..(first + step).min(rows)).map(Event::numbered).collect())
    }

    /// One INSERT of all these rows.
    pub fn insert_statement(&self, events: &[Event]) -> String {
        let row = |e: &Event| format!("({},{},'{}',{},'{}')", e.id, e.at, e.kind, e.value, e.payload);
        let rows = events.iter().map(row).collect::<Vec<_>>().join(",");
        format!("INSERT INTO {TABLE} (id, moment, kind, value, payload) VALUES {rows}")
    }

    /// Ids spread over the table.
    pub fn sampled_ids(&self) -> impl Iterator<Item = i64> {
        let rows = self.rows;
        (0..self.reads).map(move |n| (n * 7919) % rows)
    }

    /// A read of one row by its key.
    pub fn point_read(&self, id: i64) -> (&'static str, Vec<Json>) {
        ("SELECT * FROM bench.events WHERE id = $1", vec![json!(id)])
    }

    /// Ranges of 1 % of the time, as microseconds.
    pub fn time_ranges(&self) -> impl Iterator<Item = (i64, i64)> {
        let (rows, ranges, width) = (self.rows, self.ranges, self.rows / 100);
        (0..ranges).map(move |n| {
            let first = FIRST_AT + (rows - width) * n / ranges * STEP;
            (first, first + width * STEP)
        })
    }

    /// Counts and averages the rows of a range.
    pub fn time_range_query(&self, table: &str, (from, to): &(i64, i64)) -> String {
        let timestamp = |micros: &i64| {
            let time = chrono::DateTime::from_timestamp_micros(*micros).expect("the benchmark's times are in range");
            format!("TIMESTAMP '{}'", time.format("%Y-%m-%d %H:%M:%S%.6f"))
        };
        let bounds = format!("moment >= {} AND moment < {}", timestamp(from), timestamp(to));
        format!("SELECT count(*) AS n, avg(value) AS mean FROM {table} WHERE {bounds}")
    }
}

/// The `n` of a reply to a time-range query.
pub fn count_of(reply: &Json) -> anyhow::Result<i64> {
    let cell = &reply["results"][0]["rows"][0][0];
    cell.as_str().and_then(|text| text.parse().ok()).with_context(|| format!("no count in {reply}"))
}
