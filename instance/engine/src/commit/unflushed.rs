//! What a table has above `flushed_through`: rows, bytes and the oldest `_updated`. Kept in memory, exact through overwrites.
//!
//! While a flush runs there are two parts, up to W and above it, so that the end of the flush leaves the right rest.

use std::collections::BTreeMap;

use crate::seq::Seq;

const SECOND: i64 = 1_000_000;

/// The unflushed row versions of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    above: Part,
    flushing: Option<(Seq, Part)>,
}

/// Some row versions. Their times are kept by the second: the oldest is exact as long as it is not overwritten, and at most a second
/// too old after that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Part {
    bytes: u64,
    rows: u64,
    /// Second -> rows of it, and the oldest `_updated` that was seen in it.
    seconds: BTreeMap<i64, (u64, i64)>,
}

/// A row version that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Its commit sequence.
    pub seq: Seq,
    /// Its `_updated`.
    pub updated: i64,
    /// Bytes of key and row.
    pub bytes: u64,
}

impl Counters {
    /// A new version; `superseded` is the visible one that it replaces.
    pub fn put(&mut self, new: Version, superseded: Option<Version>) {
        if let Some(old) = superseded {
            match &mut self.flushing {
                Some((w, part)) if old.seq <= *w => part.remove(old),
                _ => self.above.remove(old),
            }
        }
        self.above.add(new);
    }

    /// A version that was found at the start of the process.
    pub fn recover(&mut self, version: Version) {
        match &mut self.flushing {
            Some((w, part)) if version.seq <= *w => part.add(version),
            _ => self.above.add(version),
        }
    }

    /// A flush up to W begins.
    pub fn begin_flush(&mut self, w: Seq) {
        let part = std::mem::take(&mut self.above);
        self.flushing = Some((w, part));
    }

    /// The flush has ended: what it carried lies in the cold tier.
    pub fn end_flush(&mut self) {
        self.flushing = None;
    }

    /// The flush can never land: all is unflushed again.
    pub fn give_up_flush(&mut self) {
        if let Some((_, part)) = self.flushing.take() {
            self.above.merge(part);
        }
    }

    /// Row versions above `flushed_through`.
    pub fn rows(&self) -> u64 {
        self.parts().map(|part| part.rows).sum()
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.parts().map(|part| part.bytes).sum()
    }

    /// `_updated` of the oldest.
    pub fn oldest(&self) -> Option<i64> {
        self.parts().filter_map(Part::oldest).min()
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.above).chain(self.flushing.as_ref().map(|(_, part)| part))
    }
}

impl Part {
    fn add(&mut self, version: Version) {
        self.rows += 1;
        self.bytes += version.bytes;
        let second = self.seconds.entry(version.updated.div_euclid(SECOND)).or_insert((0, version.updated));
        second.0 += 1;
        second.1 = second.1.min(version.updated);
    }

    fn remove(&mut self, version: Version) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(version.bytes);
        let at = version.updated.div_euclid(SECOND);
        if let Some(second) = self.seconds.get_mut(&at) {
            second.0 -= 1;
            if second.0 == 0 {
                self.seconds.remove(&at);
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        for (second, (rows, oldest)) in other.seconds {
            let mine = self.seconds.entry(second).or_insert((0, oldest));
            mine.0 += rows;
            mine.1 = mine.1.min(oldest);
        }
    }

    fn oldest(&self) -> Option<i64> {
        self.seconds.first_key_value().map(|(_, (_, oldest))| *oldest)
    }
}
