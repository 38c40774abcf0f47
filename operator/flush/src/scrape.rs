//! Reads an instance's `/metrics`: the request, the Prometheus text format, and the few metrics that matter here.

use std::collections::BTreeMap;
use std::time::Duration;

use kalamdb_api::flush::FlushState;
use kalamdb_api::metrics::{
    DISK_FREE, DISK_USED, FLUSH_JOBS, LAST_FLUSH, OTHER, TABLE_NAME, TABLE_POLICY_INTERVAL, TABLE_POLICY_ROWS,
    UNFLUSHED_BYTES, UNFLUSHED_OLDEST_AGE, UNFLUSHED_ROWS,
};

use crate::job::Epoch;
use crate::{TableName, Target};

/// What one scrape tells about an instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Tables with unflushed rows.
    pub tables: BTreeMap<TableName, TableSample>,
    /// Flush jobs that wait or run.
    pub active_jobs: usize,
    /// Seconds since the Unix epoch at which the last job completed.
    pub last_flush: Option<f64>,
    /// How full the disk is; `None` where the instance does not tell.
    pub disk: Option<Disk>,
}

/// What waits in one table.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TableSample {
    /// Row versions.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// Age of the oldest.
    pub oldest_age: Duration,
    /// The row limit of the table's own `FLUSH_POLICY`.
    pub policy_rows: Option<u64>,
    /// The interval of the table's own `FLUSH_POLICY`.
    pub policy_interval: Option<Duration>,
}

/// The file system that holds the hot tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disk {
    /// Bytes used.
    pub used: u64,
    /// Bytes free.
    pub free: u64,
}

/// Why an instance could not be scraped.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// It did not answer in time, or not at all.
    #[error("failed to scrape {url}: {}", with_causes(source))]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It answered with an error.
    #[error("failed to scrape {url}: the instance answered with status {status}")]
    Status {
        /// What was asked.
        url: String,
        /// What it answered.
        status: u16,
    },
    /// It answered with more than anybody should have to read.
    #[error("failed to scrape {url}: the answer is longer than {limit} bytes")]
    TooLong {
        /// What was asked.
        url: String,
        /// The limit.
        limit: usize,
    },
    /// It answered with something else.
    #[error("failed to scrape {url}: line {line} is no metric in Prometheus text format: {text:?}")]
    Malformed {
        /// What was asked.
        url: String,
        /// The line's number, from 1.
        line: usize,
        /// The line, cut.
        text: String,
    },
}

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 << 20;

impl Sample {
    /// All unflushed bytes.
    pub fn bytes(&self) -> u64 {
        self.tables.values().map(|table| table.bytes).sum()
    }

    /// All unflushed row versions.
    pub fn rows(&self) -> u64 {
        self.tables.values().map(|table| table.rows).sum()
    }

    /// The epoch that job ids are derived from.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.last_flush.map_or(0, |seconds| (seconds * 1000.0) as u64))
    }

    /// Reads the text of `/metrics`; an error is the number and text of the line that could not be read.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut sample = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let metric = Metric::parse(line).ok_or_else(|| (index + 1, line.chars().take(120).collect()))?;
            sample.add(&metric);
        }
        Ok(sample)
    }

    fn add(&mut self, metric: &Metric<'_>) {
        let count = metric.value.max(0.0) as u64;
        match metric.name {
            LAST_FLUSH => self.last_flush = Some(metric.value),
            DISK_USED => self.disk.get_or_insert_default().used = count,
            DISK_FREE => self.disk.get_or_insert_default().free = count,
            FLUSH_JOBS => {
                let active = [FlushState::Queued, FlushState::Running].map(FlushState::as_str);
                if metric.label("state").is_some_and(|state| active.contains(&state.as_str())) {
                    self.active_jobs += count as usize;
                }
            }
            UNFLUSHED_ROWS | UNFLUSHED_BYTES | UNFLUSHED_OLDEST_AGE | TABLE_POLICY_ROWS | TABLE_POLICY_INTERVAL => {
                self.add_to_table(metric, count);
            }
            _ => {}
        }
    }

    fn add_to_table(&mut self, metric: &Metric<'_>, count: u64) {
        let Some(name) = metric.label(TABLE_NAME) else { return };
        let table = self.tables.entry(TableName(name)).or_default();
        let seconds = || Duration::try_from_secs_f64(metric.value.max(0.0)).unwrap_or(Duration::MAX);
        match metric.name {
            UNFLUSHED_ROWS => table.rows = count,
            UNFLUSHED_BYTES => table.bytes = count,
            UNFLUSHED_OLDEST_AGE => table.oldest_age = seconds(),
            TABLE_POLICY_ROWS => table.policy_rows = Some(count),
            TABLE_POLICY_INTERVAL => table.policy_interval = Some(seconds()),
            _ => {}
        }
    }
}

impl TableName {
    /// Whether this stands for the tables beyond the instance's cap on label values. No job can be posted for it; its tables
    /// get their own label as the more urgent ones are flushed.
    pub fn is_other(&self) -> bool {
        self.0 == OTHER
    }
}

/// Asks `target` for its metrics. The token tells the instance that its scheduler is alive.
pub async fn scrape(client: &reqwest::Client, target: &Target, timeout: Duration) -> Result<Sample, ScrapeError> {
    let url = format!("{}/metrics", target.url);
    let unreachable =
        |source: reqwest::Error| ScrapeError::Unreachable { url: url.clone(), source: source.without_url() };
    let mut answer =
        client.get(&url).bearer_auth(target.token.expose()).timeout(timeout).send().await.map_err(unreachable)?;
    if !answer.status().is_success() {
        return Err(ScrapeError::Status { url, status: answer.status().as_u16() });
    }
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        if text.len() + chunk.len() > MAX_ANSWER {
            return Err(ScrapeError::TooLong { url, limit: MAX_ANSWER });
        }
        text.extend_from_slice(&chunk);
    }
    Sample::parse(&String::from_utf8_lossy(&text)).map_err(|(line, text)| ScrapeError::Malformed { url, line, text })
}

/// The error with its causes: a client's own text says only that a request failed.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// One line: `name{label="value",…} value [timestamp]`.
struct Metric<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

impl<'a> Metric<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let end = line.find(|character: char| character == '{' || character.is_whitespace())?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => {
                let end = labels_end(rest)?;
                (&rest[..end], &rest[end + 1..])
            }
            None => ("", rest),
        };
        let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
        (!name.is_empty()).then_some(Self { name, labels, value })
    }

    /// The value of the label `wanted`, with its escapes resolved.
    fn label(&self, wanted: &str) -> Option<String> {
        let mut rest = self.labels;
        loop {
            let (name, after) = rest.split_once("=\"")?;
            let end = quote_end(after)?;
            if name.trim_start_matches([',', ' ']) == wanted {
                return Some(unescape(&after[..end]));
            }
            rest = &after[end + 1..];
        }
    }
}

/// The place of the brace that ends the labels: the first one outside quotes.
fn labels_end(text: &str) -> Option<usize> {
    let mut start = 0;
    loop {
        let next = start + text[start..].find(['}', '"'])?;
        if text.as_bytes()[next] == b'}' {
            return Some(next);
        }
        start = next + 1 + quote_end(&text[next + 1..])? + 1;
    }
}

/// The place of the quote that ends a value: the first one without a backslash before it.
fn quote_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(index),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.push(match characters.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => '\\',
            }),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_of_an_instance_become_a_sample() {
        let text = r#"
# HELP kalamdb_unflushed_rows Row versions above flushed_through.
# TYPE kalamdb_unflushed_rows gauge
kalamdb_unflushed_rows{table_name="shop.orders"} 1200
kalamdb_unflushed_bytes{table_name="shop.orders"} 4.5e+06 1700000000000
kalamdb_unflushed_oldest_age_seconds{table_name="shop.orders"} 12.5
kalamdb_table_flush_policy_rows{table_name="shop.orders"} 1000
kalamdb_table_flush_policy_interval_seconds{table_name="shop.orders"} 60
kalamdb_unflushed_rows{zone="a}b",table_name="odd.\"qu}ote\\\n"} 1
kalamdb_flush_jobs{state="queued"} 1
kalamdb_flush_jobs{state="running"} 2
kalamdb_flush_jobs{state="completed"} 40
kalamdb_last_flush_timestamp_seconds 1700000000.25
kalamdb_disk_used_bytes 80
kalamdb_disk_free_bytes 20
kalamdb_query_latency_seconds_bucket{le="+Inf",table_name="shop.orders"} 3
something_without_labels NaN
"#;
        let sample = Sample::parse(text).expect("metrics");
        let orders = TableSample {
            rows: 1200,
            bytes: 4_500_000,
            oldest_age: Duration::from_millis(12_500),
            policy_rows: Some(1000),
            policy_interval: Some(Duration::from_secs(60)),
        };
        assert_eq!(sample.tables[&TableName("shop.orders".into())], orders);
        assert_eq!(sample.tables[&TableName("odd.\"qu}ote\\\n".into())].rows, 1);
        assert_eq!((sample.active_jobs, sample.epoch()), (3, Epoch(1_700_000_000_250)));
        assert_eq!(sample.disk, Some(Disk { used: 80, free: 20 }));
        assert_eq!(sample.rows(), 1201);
    }

    #[test]
    fn a_line_that_is_no_metric_is_named() {
        for text in ["<html>", "name{label=\"open} 1", "name", "name{} x"] {
            assert_eq!(Sample::parse(&format!("up 1\n{text}\n")), Err((2, text.to_owned())));
        }
    }
}
