//! Bloom filters in memory within a bound of bytes. Those that were used last stay.

use std::collections::HashMap;
use std::sync::Arc;

use object_store::path::Path;
use parking_lot::Mutex;
use parquet::bloom_filter::Sbbf;

const BLOCK_BYTES: usize = 32;

/// What a filter is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Over {
    /// The values of a column, by its place.
    Column(usize),
    /// Whole keys.
    Key,
}

/// The filters. Cheap to clone: all clones are one.
#[derive(Debug, Clone)]
pub struct Blooms(Arc<Mutex<Kept>>);

type Key = (Path, usize, Over);

#[derive(Debug)]
struct Kept {
    limit: usize,
    bytes: usize,
    /// Counts uses; an entry's last one says how recently it was needed.
    uses: u64,
    filters: HashMap<Key, (Option<Arc<Sbbf>>, u64)>,
}

impl Blooms {
    /// None yet, and at most so many bytes of them.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Kept { limit, bytes: 0, uses: 0, filters: HashMap::new() })))
    }

    /// What is known of the filter of a row group; some none where it has none.
    pub fn get(&self, path: &Path, row_group: usize, over: Over) -> Option<Option<Arc<Sbbf>>> {
        self.0.lock().get(&(path.clone(), row_group, over))
    }

    /// Keeps it.
    pub fn put(&self, path: &Path, row_group: usize, over: Over, filter: Option<Arc<Sbbf>>) {
        self.0.lock().put((path.clone(), row_group, over), filter);
    }

    /// Drops those of a file that is gone.
    pub fn forget(&self, path: &Path) {
        self.0.lock().forget(path);
    }
}

impl Kept {
    fn get(&mut self, key: &Key) -> Option<Option<Arc<Sbbf>>> {
        self.uses += 1;
        let (filter, used) = self.filters.get_mut(key)?;
        *used = self.uses;
        Some(filter.clone())
    }

    fn put(&mut self, key: Key, filter: Option<Arc<Sbbf>>) {
        self.uses += 1;
        self.bytes += size_of_filter(filter.as_deref());
        if let Some((old, _)) = self.filters.insert(key, (filter, self.uses)) {
            self.bytes -= size_of_filter(old.as_deref());
        }
        if self.bytes > self.limit {
            self.evict();
        }
    }

    fn forget(&mut self, path: &Path) {
        let gone = self.filters.extract_if(|(file, ..), _| file == path);
        self.bytes -= gone.map(|(_, (filter, _))| size_of_filter(filter.as_deref())).sum::<usize>();
    }

    /// Drops the least recently used until a quarter is free, so that the next puts need not look again.
    fn evict(&mut self) {
        let mut by_use: Vec<(u64, Key)> = self.filters.iter().map(|(key, (_, used))| (*used, key.clone())).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in by_use {
            if self.bytes <= self.limit / 4 * 3 {
                break;
            }
            if let Some((filter, _)) = self.filters.remove(&key) {
                self.bytes -= size_of_filter(filter.as_deref());
            }
        }
    }
}

fn size_of_filter(filter: Option<&Sbbf>) -> usize {
    filter.map_or(0, |filter| filter.num_blocks() * BLOCK_BYTES) + size_of::<Key>() + BLOCK_BYTES
}
