//! The instance's own safety net: with no scheduler heard from, which tables are due is decided here. Pure.

use std::time::Duration;

use crate::config::FlushConfig;
use crate::engine::Unflushed;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// How far the table is on its way to a flush, by the instance's limits or its own policy, whichever is tighter: due from 1 on.
pub fn urgency(unflushed: &Unflushed, config: &FlushConfig, now_micros: i64) -> f64 {
    let own = unflushed.table.flush_policy;
    let rows = own.rows.map_or(config.max_rows, |rows| rows.min(config.max_rows));
    let age = own.interval_seconds.map_or(config.max_age, |seconds| config.max_age.min(Duration::from_secs(seconds)));
    if unflushed.rows == 0 {
        return 0.0;
    }
    let seconds = (now_micros - unflushed.oldest).max(0) / MICROS_PER_SECOND;
    let share = |of: u64, limit: u64| of as f64 / limit.max(1) as f64;
    share(unflushed.bytes, config.max_bytes)
        .max(share(unflushed.rows, rows))
        .max(share(seconds.unsigned_abs(), age.as_secs()))
}

/// How long a table rests after so many failures in a row.
pub fn pause_after(failures: u32) -> Duration {
    const LONGEST: Duration = Duration::from_secs(60);
    Duration::from_secs(1 << failures.min(6)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::schema::testing::table;
    use crate::schema::{FlushPolicy, SqlType, TableKind};

    #[test]
    fn the_tighter_of_both_policies_decides() {
        let config =
            FlushConfig { max_bytes: 1000, max_rows: 100, max_age: Duration::from_secs(60), ..FlushConfig::default() };
        let check = |rows, bytes, age: i64, own: FlushPolicy, due: bool| {
            let mut table = table(TableKind::Shared, &[SqlType::Int], &[0]);
            table.flush_policy = own;
            let unflushed = Unflushed { table: Arc::new(table), rows, bytes, oldest: -age * MICROS_PER_SECOND };
            assert_eq!(urgency(&unflushed, &config, 0) >= 1.0, due, "{unflushed:?}");
        };
        let none = FlushPolicy::default();
        check(99, 999, 59, none, false);
        check(100, 1, 0, none, true);
        check(1, 1000, 0, none, true);
        check(1, 1, 60, none, true);
        check(0, 0, 600, none, false);
        check(10, 1, 0, FlushPolicy { rows: Some(10), interval_seconds: None }, true);
        check(1, 1, 5, FlushPolicy { rows: None, interval_seconds: Some(5) }, true);
        check(99, 1, 59, FlushPolicy { rows: Some(1000), interval_seconds: Some(600) }, false);
    }
}
