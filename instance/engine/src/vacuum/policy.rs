//! Which objects of a table's folder may go. Pure. Nothing goes for its age alone.

use std::collections::{HashMap, HashSet};

use crate::cold::name::JobName;
use crate::cold::tombstones::Removed;
use crate::flush::Epoch;
use crate::plant::{Plant, planted};

/// What is known of a table's objects. Read after the objects were listed, so that none of them is newer than this.
#[derive(Debug, Default)]
pub struct Knowledge {
    /// The newest version.
    pub version: i64,
    /// Names that the newest version needs.
    pub live: HashSet<String>,
    /// Names that the version needs which was the newest one when the retention began. What a tombstone says is when its commit was prepared,
    /// and a job that stalls before its put may land it much later.
    pub promised: HashSet<String>,
    /// Names that somebody in this process may still read.
    pub pinned: HashSet<String>,
    /// Names that left the table, and when the last time: milliseconds since the Unix epoch.
    pub removed: HashMap<String, i64>,
    /// This process's epoch, where it has taken a version of the table: no earlier epoch can commit any more.
    pub fenced: Option<Epoch>,
    /// Jobs of this process that run, and jobs whose intent is stored: they may still commit.
    pub alive: HashSet<uuid::Uuid>,
}

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keeps,
    /// It left the table long enough ago.
    Expired,
    /// No version names it, and none ever will.
    Orphan,
}

impl Knowledge {
    /// Takes the log's tombstones; a name that left more than once counts from the last time.
    pub fn learn_removed(&mut self, removed: Vec<Removed>) {
        for Removed { name, at_ms } in removed {
            let last = self.removed.entry(name).or_insert(at_ms);
            *last = (*last).max(at_ms);
        }
    }

    /// Judges an object by its name. `before_ms` is the moment before which what was removed has expired.
    pub fn judge(&self, name: &str, before_ms: i64) -> Verdict {
        let is_read = self.pinned.contains(name) && !planted(Plant::VacuumIgnoresReaders);
        let is_promised = self.promised.contains(name) && !planted(Plant::RemovedWhenPrepared);
        if self.live.contains(name) || is_read || is_promised {
            return Verdict::Keeps;
        }
        match self.removed.get(name) {
            Some(at_ms) if *at_ms <= before_ms => Verdict::Expired,
            Some(_) => Verdict::Keeps,
            None if self.is_of_dead_job(name) => Verdict::Orphan,
            None => Verdict::Keeps,
        }
    }

    /// The job that wrote it is known dead, and its epoch is fenced or this process's own. What is not ours is nobody's orphan.
    pub fn is_of_dead_job(&self, name: &str) -> bool {
        let (Some(writer), Some(own)) = (JobName::parse(name), self.fenced) else { return false };
        planted(Plant::VacuumForAgeAlone) || writer.epoch <= own && !self.alive.contains(&writer.job)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn file(epoch: u64, job: u128) -> String {
        format!("{}-00000.parquet", JobName { epoch: Epoch(epoch), job: Uuid::from_u128(job) }.file_prefix())
    }

    #[test]
    fn what_left_the_table_goes_after_its_retention_unless_it_is_read() {
        let mut known = Knowledge::default();
        let removed = |job, at_ms| Removed { name: file(1, job), at_ms };
        known.learn_removed(vec![
            removed(1, 100),
            removed(2, 101),
            removed(3, 50),
            removed(4, 50),
            removed(5, 101),
            removed(5, 9),
        ]);
        known.learn_removed(vec![removed(6, 50)]);
        known.pinned.insert(file(1, 3));
        known.live.insert(file(1, 4));
        known.promised.insert(file(1, 6));
        let judged: Vec<_> = (1..=6).map(|job| known.judge(&file(1, job), 100)).collect();
        use Verdict::{Expired, Keeps};
        assert_eq!(judged, [Expired, Keeps, Keeps, Keeps, Keeps, Keeps]);
    }

    #[test]
    fn a_file_that_no_version_names_goes_only_when_its_job_is_dead_and_its_epoch_fenced() {
        let mut known = Knowledge::default();
        known.alive.insert(Uuid::from_u128(2));
        let judge = |known: &Knowledge, epoch, job| known.judge(&file(epoch, job), i64::MAX);
        assert_eq!(judge(&known, 1, 1), Verdict::Keeps, "not fenced");
        known.fenced = Some(Epoch(5));
        assert_eq!(judge(&known, 4, 1), Verdict::Orphan);
        assert_eq!(judge(&known, 5, 1), Verdict::Orphan, "of a dead job of our own");
        assert_eq!(judge(&known, 5, 2), Verdict::Keeps, "of a job that runs");
        assert_eq!(judge(&known, 4, 2), Verdict::Keeps, "of a job whose intent is stored");
        assert_eq!(judge(&known, 6, 1), Verdict::Keeps, "of an owner after us");
        assert_eq!(known.judge("readme.txt", i64::MAX), Verdict::Keeps, "not ours");
        known.live.insert(file(4, 1));
        assert_eq!(judge(&known, 4, 1), Verdict::Keeps);
    }
}
