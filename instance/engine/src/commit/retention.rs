//! How much change log there is by table and time, and from where on it must go. Pure bookkeeping.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::schema::TableId;
use crate::seq::{EPOCH_MS, Seq};

/// Changes are counted, and trimmed, in slices of so many milliseconds of `_seq` time.
const SLICE_MS: i64 = 10_000;
/// Bits of a sequence below its milliseconds.
const SEQ_TIME_SHIFT: u32 = 22;

/// The change logs of all tables.
#[derive(Debug, Default)]
pub struct ChangeLogs {
    tables: HashMap<TableId, ChangeLog>,
}

#[derive(Debug, Default)]
struct ChangeLog {
    bytes: u64,
    slices: BTreeMap<i64, u64>,
}

impl ChangeLogs {
    /// A change was written, or found at the start.
    pub fn add(&mut self, table: TableId, seq: Seq, bytes: u64) {
        let log = self.tables.entry(table).or_default();
        log.bytes += bytes;
        *log.slices.entry(slice_of(seq)).or_default() += bytes;
    }

    /// The table is gone.
    pub fn remove(&mut self, table: TableId) {
        self.tables.remove(&table);
    }

    /// Changes up to the floor were trimmed.
    pub fn trimmed(&mut self, table: TableId, floor: Seq) {
        if let Some(log) = self.tables.get_mut(&table) {
            let kept = log.slices.split_off(&slice_of(Seq(floor.0 + 1)));
            log.bytes -= log.slices.values().sum::<u64>();
            log.slices = kept;
        }
    }

    /// Tables whose log has grown too large or too old, with the sequence up to which it must go. The slice that is being
    /// written stays. `max_age` is asked for each table.
    pub fn due(&self, max_bytes: u64, max_age: impl Fn(TableId) -> Duration, now_ms: i64) -> Vec<(TableId, Seq)> {
        let now = (now_ms - EPOCH_MS).div_euclid(SLICE_MS);
        let floor = |table: TableId, log: &ChangeLog| {
            let oldest = now - (max_age(table).as_millis() as i64).div_euclid(SLICE_MS);
            let mut bytes = log.bytes;
            let drop = log.slices.iter().take_while(|(slice, size)| {
                let goes = **slice < now && (bytes > max_bytes || **slice < oldest);
                bytes -= **size;
                goes
            });
            drop.last().map(|(slice, _)| end_of(*slice))
        };
        self.tables.iter().filter_map(|(table, log)| Some((*table, floor(*table, log)?))).collect()
    }
}

fn slice_of(seq: Seq) -> i64 {
    (seq.0 >> SEQ_TIME_SHIFT).div_euclid(SLICE_MS)
}

/// The last sequence of a slice.
fn end_of(slice: i64) -> Seq {
    Seq((((slice + 1) * SLICE_MS) << SEQ_TIME_SHIFT) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_trimmed_by_bytes_and_by_age() {
        let table = TableId(1);
        let at = |seconds: i64| Seq((seconds * 1000) << SEQ_TIME_SHIFT);
        let mut logs = ChangeLogs::default();
        for seconds in [0, 10, 20, 30] {
            logs.add(table, at(seconds), 100);
        }
        let due = |logs: &ChangeLogs, bytes, age, now: i64| {
            logs.due(bytes, |_| Duration::from_secs(age), EPOCH_MS + now * 1000)
        };
        assert_eq!(due(&logs, 400, 1000, 31), []);
        assert_eq!(due(&logs, 250, 1000, 31), [(table, end_of(1))]);
        assert_eq!(due(&logs, 0, 1000, 31), [(table, end_of(2))], "the slice that is being written stays");
        assert_eq!(due(&logs, 400, 20, 31), [(table, end_of(0))]);
        logs.trimmed(table, end_of(1));
        assert_eq!(logs.tables[&table].bytes, 200);
        assert_eq!(due(&logs, 200, 1000, 31), []);
    }
}
