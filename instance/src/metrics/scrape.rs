//! What `/metrics` shows.
//!
//! Figures of tables are written here at each scrape and not kept as gauges: a table without unflushed rows must vanish, and a
//! recorder never forgets a set of labels.

use std::fmt::Write;

use kalamdb_api::flush::FlushState;
use kalamdb_api::metrics::{
    DISK_FREE, DISK_USED, FLUSH_JOBS, LAST_FLUSH, OTHER, TABLE_NAME, TABLE_POLICY_INTERVAL, TABLE_POLICY_ROWS,
    UNFLUSHED_BYTES, UNFLUSHED_OLDEST_AGE, UNFLUSHED_ROWS,
};
use kalamdb_engine::Engine;
use kalamdb_engine::engine::{StorageSizes, Unflushed};
use kalamdb_sql::Database;
use kalamdb_sql::cache::Statistics;

use super::{CACHE_ENTRIES, CACHE_EVICTIONS, CACHE_HITS, CACHE_MISSES, ColumnFamilyType, Exporter, WEBSOCKET_MESSAGES};

/// The text of one scrape. `engine` and `database` are absent while they still open.
pub fn scrape(exporter: &Exporter, engine: Option<&Engine>, database: Option<&Database>, now_us: i64) -> String {
    let sizes = engine.map(Engine::storage_sizes);
    if let Some(sizes) = &sizes {
        measure_families(exporter, sizes);
    }
    exporter.handle.run_upkeep();
    let mut text = exporter.handle.render();
    if !text.contains(WEBSOCKET_MESSAGES) {
        let _ = writeln!(text, "# TYPE {WEBSOCKET_MESSAGES} counter");
    }
    write_caches(&mut text, &database.map(Database::cache_statistics).unwrap_or_default());
    if let (Some(engine), Some(sizes)) = (engine, &sizes) {
        write_unflushed(&mut text, engine.unflushed(), exporter.most_tables, now_us);
        write_jobs(&mut text, engine);
        family(&mut text, DISK_USED, &[(String::new(), sizes.disk_used as f64)]);
        family(&mut text, DISK_FREE, &[(String::new(), sizes.disk_free as f64)]);
    }
    text
}

fn measure_families(exporter: &Exporter, sizes: &StorageSizes) {
    for of in ColumnFamilyType::ALL {
        let bytes = sizes.column_families.get(of.as_str()).copied().unwrap_or_default();
        exporter.update_column_family_size(of, of.as_str(), bytes);
    }
}

/// The most urgent tables by name, and the rest together as `other`: it comes up once those before it are flushed.
fn write_unflushed(text: &mut String, mut tables: Vec<Unflushed>, most: usize, now_us: i64) {
    let rest = tables.split_off(tables.len().min(most));
    let age = |oldest: i64| (now_us - oldest).max(0) as f64 / 1e6;
    let each = |figure: &dyn Fn(&Unflushed) -> Option<f64>| -> Vec<(String, f64)> {
        let sample = |table: &Unflushed| Some((table_label(&table.table.name.to_string()), figure(table)?));
        tables.iter().filter_map(sample).collect()
    };
    let with_rest = |mut samples: Vec<(String, f64)>, figure: f64| {
        if !rest.is_empty() {
            samples.push((table_label(OTHER), figure));
        }
        samples
    };
    let (rows, bytes) = rest.iter().fold((0, 0), |(rows, bytes), table| (rows + table.rows, bytes + table.bytes));
    let oldest = rest.iter().map(|table| table.oldest).min().unwrap_or(now_us);
    family(text, UNFLUSHED_ROWS, &with_rest(each(&|table| Some(table.rows as f64)), rows as f64));
    family(text, UNFLUSHED_BYTES, &with_rest(each(&|table| Some(table.bytes as f64)), bytes as f64));
    family(text, UNFLUSHED_OLDEST_AGE, &with_rest(each(&|table| Some(age(table.oldest))), age(oldest)));
    family(text, TABLE_POLICY_ROWS, &each(&|table| table.table.flush_policy.rows.map(|rows| rows as f64)));
    let interval = |table: &Unflushed| table.table.flush_policy.interval_seconds.map(|seconds| seconds as f64);
    family(text, TABLE_POLICY_INTERVAL, &each(&interval));
}

/// What became of the look-ups in the caches. Label `cache`.
fn write_caches(text: &mut String, caches: &[(&'static str, Statistics)]) {
    let mut counters = |name: &str, figure: fn(&Statistics) -> u64| {
        let samples = caches.iter().map(|(cache, found)| (format!("{{cache=\"{cache}\"}}"), figure(found) as f64));
        family_of(text, "counter", name, &samples.collect::<Vec<_>>());
    };
    counters(CACHE_HITS, |found| found.hits);
    counters(CACHE_MISSES, |found| found.misses);
    counters(CACHE_EVICTIONS, |found| found.evictions);
    let entries = caches.iter().map(|(cache, found)| (format!("{{cache=\"{cache}\"}}"), found.entries as f64));
    family(text, CACHE_ENTRIES, &entries.collect::<Vec<_>>());
}

fn write_jobs(text: &mut String, engine: &Engine) {
    let jobs = engine.flush_jobs();
    let count = |state: FlushState| {
        let of_state = jobs.iter().filter(|job| job.state == state).count();
        (format!("{{state=\"{}\"}}", state.as_str()), of_state as f64)
    };
    family(text, FLUSH_JOBS, &FlushState::ALL.map(count));
    let completed = jobs.iter().filter(|job| job.state == FlushState::Completed).filter_map(|job| job.finished_at);
    let last = completed.max().map(|ms| (String::new(), ms as f64 / 1e3));
    family(text, LAST_FLUSH, &Vec::from_iter(last));
}

fn table_label(name: &str) -> String {
    let escaped = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{{TABLE_NAME}=\"{escaped}\"}}")
}

/// One family of gauges, and nothing at all where it has no sample.
fn family(text: &mut String, name: &str, samples: &[(String, f64)]) {
    family_of(text, "gauge", name, samples);
}

fn family_of(text: &mut String, kind: &str, name: &str, samples: &[(String, f64)]) {
    if samples.is_empty() {
        return;
    }
    let _ = writeln!(text, "# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}
