//! Which files of a table somebody in this process may still read: a version in memory, a reader with an older one, a query that
//! runs, a compaction that reads its inputs. Each of them holds the files themselves, and what is held is not deleted.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use uuid::Uuid;

use super::snapshot::ColdFile;

/// Every file that was in memory and may still be, by table.
#[derive(Debug, Default)]
pub struct Pins {
    tables: Mutex<HashMap<Uuid, HashMap<usize, Weak<ColdFile>>>>,
}

impl Pins {
    /// Watches the files. A weak reference keeps the address, so that no other file takes it while it is watched.
    pub fn add(&self, table: Uuid, files: &[Arc<ColdFile>]) {
        let mut tables = self.tables.lock();
        let known = tables.entry(table).or_default();
        for file in files {
            known.entry(Arc::as_ptr(file).addr()).or_insert_with(|| Arc::downgrade(file));
        }
    }

    /// The names of files that are still held, those of their deletion vectors among them.
    pub fn names(&self, table: Uuid) -> HashSet<String> {
        let mut tables = self.tables.lock();
        let Some(known) = tables.get_mut(&table) else { return HashSet::new() };
        known.retain(|_, file| file.strong_count() > 0);
        let held = known.values().filter_map(Weak::upgrade).flat_map(|file| file.names().collect::<Vec<_>>()).collect();
        if known.is_empty() {
            tables.remove(&table);
        }
        held
    }
}
