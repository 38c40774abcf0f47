//! What a disk holds after a power cut, from the journal of what a process did to its files (`journal.c`).
//!
//! Only what a sync that has ended vouches for is certain: of a file the bytes that were written before its sync began, of a folder the names
//! that it had then. That file systems do better, and bring new names along with the file's own sync, is not relied on.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// All that was done, in its order.
pub struct Journal {
    bytes: Vec<u8>,
    records: Vec<Record>,
}

struct Record {
    operation: u8,
    numbers: (u64, u64),
    first: Range<usize>,
    second: Range<usize>,
    /// Where it ends in the journal.
    end: u64,
}

/// What is left of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// Nothing.
    Lost,
    /// Of each file and folder as much as this seed says: the first of the writes, the last of them torn, and the names or not.
    Partly(u64),
}

type FileNumber = usize;

/// A name in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    File(FileNumber),
    Folder,
}

type Entries = BTreeMap<PathBuf, Entry>;

/// A file: its changes, of which so many are on disk.
#[derive(Debug, Default)]
struct File {
    changes: Vec<Change>,
    synced: usize,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Range<usize>),
    Size(u64),
}

/// A folder's names as the process sees them, and as they are on disk.
#[derive(Debug, Default)]
struct Folder {
    now: Entries,
    synced: Entries,
    /// The sync that the latter are of.
    as_of: u64,
}

/// A sync that is under way.
enum Sync {
    File(FileNumber, usize),
    Folder(PathBuf, Entries),
}

/// The disk at one moment.
#[derive(Default)]
struct Disk {
    files: Vec<File>,
    by_inode: HashMap<u64, FileNumber>,
    folders: BTreeMap<PathBuf, Folder>,
    syncs: HashMap<u64, (u64, Sync)>,
    begun: u64,
}

impl Journal {
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        let (mut records, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let number = |at: usize| -> Result<u64> {
                Ok(u64::from_ne_bytes(bytes.get(at..at + 8).context("a number")?.try_into()?))
            };
            let (operation, numbers) = (bytes[at], (number(at + 1)?, number(at + 9)?));
            let first = at + 25..at + 25 + number(at + 17)? as usize;
            let second = first.end + 8..first.end + 8 + number(first.end)? as usize;
            at = second.end;
            records.push(Record { operation, numbers, first, second, end: at as u64 });
        }
        Ok(Self { bytes, records })
    }

    /// Where its records end, each a moment at which the power may go.
    pub fn moments(&self) -> impl Iterator<Item = u64> {
        self.records.iter().map(|record| record.end)
    }

    /// How many syncs have ended well.
    pub fn syncs(&self) -> usize {
        self.records.iter().filter(|record| record.operation == b'E').count()
    }

    /// Makes `to` what would be left of the folder `root` if the power went at that moment.
    pub fn cut(&self, moment: u64, unsynced: Unsynced, root: &Path, to: &Path) -> Result<()> {
        let mut disk = Disk::default();
        for record in self.records.iter().take_while(|record| record.end <= moment) {
            disk.take(record, &self.bytes).with_context(|| format!("the record that ends at {}", record.end))?;
        }
        let mut random = match unsynced {
            Unsynced::Lost => None,
            Unsynced::Partly(seed) => Some(StdRng::seed_from_u64(seed)),
        };
        disk.write_out(root, to, &self.bytes, &mut random)
    }
}

impl Disk {
    fn take(&mut self, record: &Record, bytes: &[u8]) -> Result<()> {
        let path = |range: &Range<usize>| -> PathBuf {
            Path::new(OsStr::from_bytes(&bytes[range.clone()])).components().collect()
        };
        let (one, two) = record.numbers;
        match record.operation {
            b'C' => self.create(one, path(&record.first)),
            b'W' => self.change(one, Change::Write(two, record.second.clone())),
            b'T' => self.change(one, Change::Size(two)),
            b'B' => self.begin_sync(one, two, path(&record.first)),
            b'E' => self.end_sync(one.max(two)),
            b'L' => {
                let file = self.by_inode.get(&one).copied().context("a link to a file that nobody made")?;
                self.name(path(&record.first), Some(Entry::File(file)));
            }
            b'R' => {
                // What the C library wrote by itself, as RocksDB's own log, is not known, and needed by nobody.
                let entry = self.name(path(&record.first), None);
                self.name(path(&record.second), entry);
            }
            b'U' => drop(self.name(path(&record.first), None)),
            b'M' => {
                self.folders.insert(path(&record.first), Folder::default());
                self.name(path(&record.first), Some(Entry::Folder));
            }
            other => anyhow::bail!("operation {other}"),
        }
        Ok(())
    }

    /// Gives a name to something, or takes it away; answers what had it.
    fn name(&mut self, path: PathBuf, entry: Option<Entry>) -> Option<Entry> {
        let (folder, name) = (path.parent()?.to_owned(), PathBuf::from(path.file_name()?));
        let names = &mut self.folders.entry(folder).or_default().now;
        match entry {
            Some(entry) => names.insert(name, entry),
            None => names.remove(&name),
        }
    }

    /// An inode's number is used again once its file is gone: another name means another file.
    fn create(&mut self, inode: u64, path: PathBuf) {
        let known = path
            .parent()
            .zip(path.file_name())
            .and_then(|(folder, name)| self.folders.get(folder)?.now.get(Path::new(name)).copied());
        if let Some(Entry::File(known)) = known
            && self.by_inode.get(&inode) == Some(&known)
        {
            return;
        }
        self.files.push(File::default());
        self.by_inode.insert(inode, self.files.len() - 1);
        self.name(path, Some(Entry::File(self.files.len() - 1)));
    }

    fn change(&mut self, inode: u64, change: Change) {
        if let Some(file) = self.by_inode.get(&inode) {
            self.files[*file].changes.push(change);
        }
    }

    fn begin_sync(&mut self, inode: u64, number: u64, path: PathBuf) {
        let sync = match (self.folders.get(&path), self.by_inode.get(&inode)) {
            (Some(folder), _) => Sync::Folder(path, folder.now.clone()),
            (None, Some(file)) => Sync::File(*file, self.files[*file].changes.len()),
            // A folder in which nothing ever changed.
            (None, None) => return,
        };
        self.begun += 1;
        self.syncs.insert(number, (self.begun, sync));
    }

    fn end_sync(&mut self, number: u64) {
        match self.syncs.remove(&number) {
            Some((_, Sync::File(file, changes))) => {
                let synced = &mut self.files[file].synced;
                *synced = changes.max(*synced);
            }
            Some((begun, Sync::Folder(path, entries))) => {
                let folder = self.folders.entry(path).or_default();
                if begun > folder.as_of {
                    (folder.synced, folder.as_of) = (entries, begun);
                }
            }
            None => {}
        }
    }

    fn write_out(&self, folder: &Path, to: &Path, bytes: &[u8], random: &mut Option<StdRng>) -> Result<()> {
        std::fs::create_dir_all(to)?;
        let Some(known) = self.folders.get(folder) else { return Ok(()) };
        let has_names = random.as_mut().is_some_and(|random| random.random());
        for (name, entry) in if has_names { &known.now } else { &known.synced } {
            match entry {
                Entry::Folder => self.write_out(&folder.join(name), &to.join(name), bytes, random)?,
                Entry::File(file) => std::fs::write(to.join(name), self.files[*file].content(bytes, random))?,
            }
        }
        Ok(())
    }
}

impl File {
    fn content(&self, bytes: &[u8], random: &mut Option<StdRng>) -> Vec<u8> {
        let mut content = Vec::new();
        let mut apply = |change: &Change, share: f64| match change {
            Change::Size(size) => content.resize(*size as usize, 0),
            Change::Write(offset, range) => {
                let written = &bytes[range.clone()][..(range.len() as f64 * share) as usize];
                let (start, end) = (*offset as usize, *offset as usize + written.len());
                content.resize(content.len().max(end), 0);
                content[start..end].copy_from_slice(written);
            }
        };
        let (synced, rest) = self.changes.split_at(self.synced);
        synced.iter().for_each(|change| apply(change, 1.0));
        if let Some(random) = random
            && !rest.is_empty()
        {
            let whole = random.random_range(0..rest.len());
            rest[..whole].iter().for_each(|change| apply(change, 1.0));
            apply(&rest[whole], random.random());
        }
        content
    }
}
