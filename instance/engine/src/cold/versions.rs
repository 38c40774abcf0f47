//! Versions of tables in memory, within a bound of bytes: their files, statistics and deletion vectors. The tables that were used last stay;
//! what was let go of is loaded from its log when it is needed again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use uuid::Uuid;

use super::snapshot::ColdSnapshot;

/// Versions of a table that stay in memory beside the newest: a reader that took its RocksDB snapshot just before the end of a
/// flush still needs the one before. Readers hold theirs themselves from then on.
const OLD_VERSIONS: usize = 2;

/// What is in memory at one time.
pub type Tables = HashMap<Uuid, Arc<KeptTable>>;

/// The versions of one table.
#[derive(Debug)]
pub struct KeptTable {
    /// Oldest first.
    versions: Vec<Arc<ColdSnapshot>>,
    /// About what they take; it grows as deletion vectors are read.
    bytes: AtomicUsize,
    /// When the table was used last, counted in uses of all tables.
    used: Arc<AtomicU64>,
}

impl KeptTable {
    fn new(versions: Vec<Arc<ColdSnapshot>>, used: Arc<AtomicU64>) -> Self {
        Self { bytes: bytes_of(&versions).into(), versions, used }
    }
}

/// All that is in memory.
#[derive(Debug)]
pub struct Versions {
    limit: usize,
    uses: AtomicU64,
    tables: ArcSwap<Tables>,
}

impl Versions {
    /// Nothing yet, and at most so many bytes: the table that was used last may be larger.
    pub fn new(limit: usize) -> Self {
        Self { limit, uses: AtomicU64::default(), tables: ArcSwap::default() }
    }

    /// What is in memory now; it stays for whoever holds it.
    pub fn load(&self) -> Arc<Tables> {
        self.tables.load_full()
    }

    /// A version, if it is there.
    pub fn find(&self, table: Uuid, version: i64) -> Option<Arc<ColdSnapshot>> {
        self.find_in(&self.tables.load(), table, version)
    }

    /// A version among what was in memory earlier.
    pub fn find_in(&self, tables: &Tables, table: Uuid, version: i64) -> Option<Arc<ColdSnapshot>> {
        let kept = tables.get(&table)?;
        kept.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        kept.versions.iter().find(|known| known.version == version).cloned()
    }

    /// Keeps a version.
    pub fn put(&self, table: Uuid, snapshot: &Arc<ColdSnapshot>) {
        self.change(table, |versions| {
            versions.retain(|known| known.version != snapshot.version);
            versions.push(snapshot.clone());
            versions.sort_by_key(|known| known.version);
            let old = versions.len().saturating_sub(OLD_VERSIONS + 1);
            versions.drain(..old);
        });
    }

    /// Lets go of the versions before that one.
    pub fn forget_before(&self, table: Uuid, version: i64) {
        if self.tables.load().contains_key(&table) {
            self.change(table, |versions| versions.retain(|known| known.version >= version));
        }
    }

    /// Lets go of a table.
    pub fn forget(&self, table: Uuid) {
        self.tables.rcu(|tables| {
            let mut tables = Tables::clone(tables);
            tables.remove(&table);
            tables
        });
    }

    /// Counts the table anew, for a deletion vector of it was read.
    pub fn has_grown(&self, table: Uuid) {
        let tables = self.tables.load();
        let Some(kept) = tables.get(&table) else { return };
        kept.bytes.store(bytes_of(&kept.versions), Ordering::Relaxed);
        if total(&tables) > self.limit {
            self.tables.rcu(|tables| self.bounded(Tables::clone(tables), table));
        }
    }

    fn change(&self, table: Uuid, change: impl Fn(&mut Vec<Arc<ColdSnapshot>>)) {
        let now = self.uses.fetch_add(1, Ordering::Relaxed);
        self.tables.rcu(|tables| {
            let mut tables = Tables::clone(tables);
            let (mut versions, used) = match tables.get(&table) {
                Some(kept) => (kept.versions.clone(), kept.used.clone()),
                None => (Vec::new(), Arc::default()),
            };
            used.store(now, Ordering::Relaxed);
            change(&mut versions);
            tables.insert(table, Arc::new(KeptTable::new(versions, used)));
            self.bounded(tables, table)
        });
    }

    /// Where they take too much: without those that were not used for longest, until a quarter is free. The one in use stays.
    fn bounded(&self, mut tables: Tables, in_use: Uuid) -> Tables {
        let mut bytes = total(&tables);
        if bytes <= self.limit {
            return tables;
        }
        let others = tables.iter().filter(|(table, _)| **table != in_use);
        let mut by_use: Vec<_> = others.map(|(table, kept)| (kept.used.load(Ordering::Relaxed), *table)).collect();
        by_use.sort_unstable();
        for (_, table) in by_use {
            if bytes <= self.limit / 4 * 3 {
                break;
            }
            bytes -= tables.remove(&table).map_or(0, |kept| kept.bytes.load(Ordering::Relaxed)).min(bytes);
        }
        tables
    }
}

fn total(tables: &Tables) -> usize {
    tables.values().map(|kept| kept.bytes.load(Ordering::Relaxed)).sum()
}

/// What versions of one table take together: most of their files are the same.
fn bytes_of(versions: &[Arc<ColdSnapshot>]) -> usize {
    let (mut seen, mut bytes) = (HashSet::new(), 0);
    for version in versions {
        bytes += size_of::<ColdSnapshot>() + version.files.len() * size_of::<usize>();
        for file in &version.files {
            bytes += if seen.insert(Arc::as_ptr(file).addr()) { file.bytes() } else { 0 };
            bytes += if seen.insert(Arc::as_ptr(&file.stats).addr()) { file.stats.bytes() } else { 0 };
            if let Some(vector) = &file.vector {
                bytes += if seen.insert(Arc::as_ptr(vector).addr()) { vector.bytes() } else { 0 };
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use deltalake_core::kernel::{DeletionVectorDescriptor, StorageType};
    use roaring::RoaringTreemap;

    use super::super::snapshot::{ColdFile, Vector};
    use super::super::stats::FileStats;
    use super::*;

    fn descriptor(path: &str) -> DeletionVectorDescriptor {
        DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: path.into(),
            offset: Some(1),
            size_in_bytes: 1,
            cardinality: 1,
        }
    }

    fn snapshot(version: i64, files: usize) -> Arc<ColdSnapshot> {
        let file = |number: usize| {
            Arc::new(ColdFile {
                path: format!("part-{version}-{number}").into(),
                size: 1,
                modified: 0,
                stats: Arc::new(FileStats::default()),
                vector: Some(Arc::new(Vector::new(descriptor("x")))),
            })
        };
        Arc::new(ColdSnapshot { version, files: (0..files).map(file).collect(), ..ColdSnapshot::default() })
    }

    fn tables(versions: &Versions, of: std::ops::Range<u128>) -> Vec<u128> {
        of.filter(|table| versions.load().contains_key(&Uuid::from_u128(*table))).collect()
    }

    #[test]
    fn the_tables_used_last_stay_within_the_bound() {
        let one = bytes_of(&[snapshot(0, 10)]);
        let versions = Versions::new(one * 4 + one / 2);
        for table in 0..4 {
            versions.put(Uuid::from_u128(table), &snapshot(0, 10));
        }
        assert_eq!(tables(&versions, 0..5), [0, 1, 2, 3]);
        let first = versions.find(Uuid::from_u128(0), 0).expect("it is there");
        versions.put(Uuid::from_u128(4), &snapshot(0, 10));
        assert_eq!(tables(&versions, 0..5), [0, 3, 4], "the first was used, and a quarter is free");
        assert!(total(&versions.load()) <= versions.limit);
        versions.put(Uuid::from_u128(5), &snapshot(0, 100));
        assert_eq!(tables(&versions, 0..6), [5], "what is in use stays, however large");
        assert_eq!(first.files.len(), 10, "whoever holds a version keeps it");
    }

    #[test]
    fn deletion_vectors_count_once_they_are_read() {
        let (first, second) = (snapshot(0, 1), snapshot(0, 1));
        let versions = Versions::new(bytes_of(std::slice::from_ref(&first)) * 2 + 1000);
        versions.put(Uuid::from_u128(1), &first);
        versions.put(Uuid::from_u128(2), &second);
        let rows: RoaringTreemap = (0..10_000).map(|row| row * 3).collect();
        second.files[0].vector.as_ref().unwrap().rows.set(rows).unwrap();
        versions.has_grown(Uuid::from_u128(2));
        assert_eq!(tables(&versions, 0..3), [2]);
    }

    #[test]
    fn files_that_two_versions_share_count_once_and_old_versions_go() {
        let (table, versions) = (Uuid::from_u128(1), Versions::new(1 << 30));
        let mut last = snapshot(0, 100);
        let alone = bytes_of(&[last.clone()]);
        versions.put(table, &last);
        for version in 1..6 {
            last = Arc::new(ColdSnapshot { version, ..ColdSnapshot::clone(&last) });
            versions.put(table, &last);
        }
        assert!(total(&versions.load()) < alone + 3 * 2000, "{} and {alone}", total(&versions.load()));
        let known = |version: &i64| versions.find(table, *version).is_some();
        assert_eq!((0..6).filter(known).collect::<Vec<_>>(), [3, 4, 5]);
        versions.forget_before(table, 5);
        assert_eq!((0..6).filter(known).collect::<Vec<_>>(), [5]);
        versions.forget(table);
        assert!(versions.load().is_empty());
    }
}
