//! Medians and their ratios, as the Markdown table of docs/benchmarks.md.

use std::fmt;
use std::time::Duration;

/// The table, line by line.
#[derive(Default)]
pub struct Report {
    lines: Vec<String>,
}

impl Report {
    /// Rows a second, of batches that have `rows` rows each: the ratio is ours to theirs, more is better.
    pub fn rates(&mut self, what: &str, peer: &str, rows: i64, ours: &[Duration], theirs: &[Duration]) {
        self.throughput(what, peer, rows, median(ours), median(theirs));
    }

    /// Rows a second of one piece of work.
    pub fn throughput(&mut self, what: &str, peer: &str, rows: i64, ours: Duration, theirs: Duration) {
        let rate = |took: Duration| rows as f64 / took.as_secs_f64();
        let ratio = rate(ours) / rate(theirs);
        let line = format!(
            "| {what} | {peer} | {:.0} rows/s | {:.0} rows/s | {ratio:.2} of the peer |",
            rate(ours),
            rate(theirs)
        );
        self.lines.push(line);
    }

    /// Rows a second with nothing beside it.
    #[allow(dead_code, reason = "one of the two benchmarks that share this needs it")]
    pub fn alone(&mut self, what: &str, rows: i64, took: &[Duration]) {
        self.lines.push(format!("| {what} | | {:.0} rows/s | | |", rows as f64 / median(took).as_secs_f64()));
    }

    /// The most that was held in memory.
    #[allow(dead_code, reason = "one of the two benchmarks that share this needs it")]
    pub fn held(&mut self, what: &str, heap: usize, resident: usize) {
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        let line = format!("| {what} | | {:.0} MiB of heap, {:.0} MiB resident | | |", mib(heap), mib(resident));
        self.lines.push(line);
    }

    /// The most requests that one read made, and the median of how long one took.
    #[allow(dead_code, reason = "one of the two benchmarks that share this needs it")]
    pub fn requests(&mut self, what: &str, most: usize, took: &[Duration]) {
        self.lines.push(format!("| {what} | | at most {most} range request(s), {:.2?} | | |", median(took)));
    }

    /// Median latencies: the ratio is ours to theirs, less is better.
    pub fn latencies(&mut self, what: &str, peer: &str, ours: &[Duration], theirs: &[Duration]) {
        let (ours, theirs) = (median(ours), median(theirs));
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        self.lines.push(format!("| {what} | {peer} | {ours:.2?} | {theirs:.2?} | {ratio:.2} times the peer |"));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | beside | KalamDB | peer | ratio |\n|---|---|---|---|---|")?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn median(durations: &[Duration]) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
