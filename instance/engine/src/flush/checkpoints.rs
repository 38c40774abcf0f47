//! When the checkpoint of a Delta log is due. Pure.

/// What one process knows of a log's checkpoints.
#[derive(Debug, Default)]
pub struct Checkpoints {
    /// The version of the last one; 0 before the first of this process.
    written: i64,
    /// The tries that failed since then.
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    /// Versions from the last try to the next.
    pause: i64,
    /// The version at which it is tried again.
    next: i64,
}

impl Checkpoints {
    /// Whether one is to be written of that version: once a multiple of the interval, in versions, was passed, for that version itself may
    /// be a fence's.
    ///
    /// Each try reads all entries since the last checkpoint, which grow while it fails: so it is tried at the next version, and then
    /// after twice as many as the time before. However long it fails, about two entries are read for each that is put.
    pub fn is_due(&self, version: i64, interval: i64) -> bool {
        match &self.failed {
            Some(failed) => version >= failed.next,
            None => version / interval != self.written / interval,
        }
    }

    /// That of the version was written.
    pub fn written(&mut self, version: i64) {
        *self = Self { written: version, failed: None };
    }

    /// That of the version was not.
    pub fn failed(&mut self, version: i64) {
        let pause = self.failed.as_ref().map_or(1, |failed| failed.pause * 2);
        self.failed = Some(Failed { pause, next: version + pause });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::schema::CHECKPOINT_INTERVAL;

    /// The versions from the first on at which it is tried, of `versions` of them.
    fn tried(checkpoints: &mut Checkpoints, versions: std::ops::Range<i64>, succeeds: bool) -> Vec<i64> {
        let mut tried = Vec::new();
        for version in versions {
            if checkpoints.is_due(version, CHECKPOINT_INTERVAL) {
                tried.push(version);
                if succeeds { checkpoints.written(version) } else { checkpoints.failed(version) }
            }
        }
        tried
    }

    #[test]
    fn one_is_due_for_each_interval_from_the_first_version_on_that_passes_it() {
        let mut checkpoints = Checkpoints::default();
        assert_eq!(tried(&mut checkpoints, 1..35, true), [10, 20, 30]);
        assert_eq!(tried(&mut checkpoints, 47..48, true), [47], "those between were fences");
        assert_eq!(tried(&mut checkpoints, 48..51, true), [50]);
    }

    #[test]
    fn one_that_always_fails_reads_no_more_than_a_few_entries_for_each_commit() {
        let mut checkpoints = Checkpoints::default();
        assert_eq!(tried(&mut checkpoints, 1..50, false), [10, 11, 13, 17, 25, 41]);
        for commits in [100, 1000, 100_000] {
            // A try reads the whole log, for no checkpoint was ever written.
            let read: i64 = tried(&mut Checkpoints::default(), 1..commits, false).into_iter().sum();
            assert!(read <= 2 * commits + 200, "{read} entries are read for {commits} commits");
        }
    }

    #[test]
    fn a_failure_that_passes_is_made_good_by_the_next_commit() {
        let mut checkpoints = Checkpoints::default();
        assert_eq!(tried(&mut checkpoints, 1..11, false), [10]);
        assert_eq!(tried(&mut checkpoints, 11..31, true), [11, 20, 30]);
        assert_eq!(tried(&mut checkpoints, 40..42, false), [40, 41], "the pauses begin anew");
    }
}
