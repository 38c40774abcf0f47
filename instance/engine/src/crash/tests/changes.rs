//! The change log: above its floor it has every acknowledged change, and nothing else; what was trimmed stays away.

use std::collections::BTreeMap;

use rand::seq::IteratorRandom;

use super::ledger::{Changed, Entry};
use super::life::Life;
use crate::flush::tests::USERS;
use crate::hot::row::{RowReader, decode_row};
use crate::hot::{HotSnapshot, RowKey, key};
use crate::seq::Seq;
use crate::value::Value;

/// What the log says: by the end of the statement, and the row.
type Logged = BTreeMap<(Seq, String, i32, String), Changed>;

impl Life {
    /// What came of the steps that the process before died in: the log begins where it did, or where it was to begin.
    pub async fn settle_floor(&mut self) {
        let (history, floor) = (&self.history, self.floor());
        let is_new = history.losing && floor != history.floor && floor >= history.last_seq();
        assert!(
            is_new || floor == history.floor || Some(floor) == history.trimming,
            "the change log begins at {floor}, instead of at {} or {:?}",
            history.floor,
            history.trimming
        );
        self.note(Entry::Floor(floor, is_new));
    }

    /// Above the floor each acknowledged change is there as it was, and nothing else.
    pub fn check_changes(&self, when: &str) {
        assert_eq!(self.floor(), self.history.floor, "the floor {when}");
        let logged = self.logged(self.history.floor);
        let mut wanted = Logged::new();
        for (end, changed) in self.history.changes.iter().filter(|(end, _)| **end > self.history.floor) {
            let rows = changed.iter();
            wanted.extend(
                rows.map(|((user, first, second), change)| ((*end, user.clone(), *first, second.clone()), *change)),
            );
        }
        assert_eq!(logged, wanted, "the change log above {} {when}", self.history.floor);
    }

    /// Lets some of the oldest changes go.
    pub async fn trim(&mut self) {
        let ends = self.history.changes.keys().copied().filter(|end| *end > self.history.floor);
        let Some(floor) = ends.choose(&mut self.random) else { return };
        self.note(Entry::Trimming(floor));
        let (engine, table) = (self.world.engine().clone(), self.world.table.id);
        tokio::task::spawn_blocking(move || engine.committer().trim(table, floor)).await.unwrap().unwrap();
        self.note(Entry::Floor(floor, false));
        assert_eq!(self.logged(Seq::ZERO), self.logged(floor), "what was trimmed is gone");
    }

    pub fn floor(&self) -> Seq {
        self.hot().tier_record(self.world.table.id).unwrap().change_floor
    }

    fn hot(&self) -> HotSnapshot {
        self.world.engine().hot().snapshot()
    }

    fn logged(&self, after: Seq) -> Logged {
        let (hot, table) = (self.hot(), &self.world.table);
        let mut logged = Logged::new();
        for user in USERS {
            for change in hot.changes(table, self.world.user(user).as_ref(), after, usize::MAX).unwrap() {
                let row = RowKey::from_bytes(table.kind, &change.key).unwrap();
                let [Value::Int(first), Value::Text(second)] = &key::decode_key(table, &row.key).unwrap()[..] else {
                    panic!("a key that nobody wrote: {row:?}");
                };
                let old = change.old.and_then(|image| decode_row(table, &RowReader::of_all(table), &image).unwrap().1);
                let old = old.map(|row| match row[2] {
                    Value::BigInt(value) => value,
                    _ => panic!("{row:?}"),
                });
                let end = self.history.changes.range(change.seq..).next().map_or(Seq::MAX, |(end, _)| *end);
                let known = logged.insert((end, user.into(), *first, second.to_string()), (change.operation, old));
                assert_eq!(known, None, "a statement changes a row once");
            }
        }
        logged
    }
}
