//! Free space of the data folder's disk, and the reserve that is given up when it runs out.
//!
//! Below `limits.disk_reserve_bytes` writes are refused. Should the disk fill all the same (others may write to it), the file
//! `reserve` is deleted, so that a flush can still end, which frees the space that its rows took; it is made anew when there is
//! room again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::EngineError;

/// How long a measurement of free space holds.
const FRESH: Duration = Duration::from_millis(200);

/// Space on a file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes in use.
    pub used: u64,
    /// Bytes that this process may still write.
    pub free: u64,
}

/// Watches the disk of one folder.
pub struct Disk {
    dir: PathBuf,
    writes_need: u64,
    reserve_bytes: u64,
    reserved: AtomicBool,
    free: AtomicU64,
    measured: Mutex<Instant>,
}

impl Disk {
    /// Watches the folder and sets up its reserve.
    pub fn watch(dir: &Path, writes_need: u64, reserve_bytes: u64) -> Result<Self, EngineError> {
        let free = space(dir).map_err(|error| unreadable(dir, &error))?.free;
        let disk = Self {
            dir: dir.into(),
            writes_need,
            reserve_bytes,
            reserved: AtomicBool::new(dir.join(RESERVE).exists()),
            free: AtomicU64::new(free),
            measured: Mutex::new(Instant::now()),
        };
        disk.keep_reserve(free);
        Ok(disk)
    }

    /// Space on the disk now.
    pub fn space(&self) -> Result<DiskSpace, EngineError> {
        space(&self.dir).map_err(|error| unreadable(&self.dir, &error))
    }

    /// Refuses where too little is left for writes. Measures at most a few times a second.
    pub fn check(&self) -> Result<(), EngineError> {
        let free = self.free_now();
        if free >= self.writes_need {
            return Ok(());
        }
        Err(EngineError::DiskFull(format!(
            "disk of {} has {free} bytes free, writes need {} (limits.disk_reserve_bytes); free space or enlarge the volume",
            self.dir.display(),
            self.writes_need
        )))
    }

    /// Whether so little is left that rows should leave the disk before writes must be refused.
    pub fn is_low(&self) -> bool {
        self.free_now() < self.writes_need.saturating_mul(2)
    }

    fn free_now(&self) -> u64 {
        // Whoever does not get the lock uses the measurement that is being replaced.
        if let Some(mut measured) = self.measured.try_lock()
            && measured.elapsed() >= FRESH
        {
            *measured = Instant::now();
            match self.space() {
                Ok(space) => {
                    self.free.store(space.free, Ordering::Relaxed);
                    self.keep_reserve(space.free);
                }
                Err(error) => tracing::warn!(%error, "free space is unknown, the last measurement is used"),
            }
        }
        self.free.load(Ordering::Relaxed)
    }

    /// Gives the reserve up when the disk is full, and takes it again when there is plenty.
    fn keep_reserve(&self, free: u64) {
        let reserved = self.reserved.load(Ordering::Relaxed);
        let path = self.dir.join(RESERVE);
        let plenty = self.reserve_bytes.saturating_add(self.writes_need.saturating_mul(2));
        if reserved && free < self.writes_need.min(self.reserve_bytes) / 4 {
            match std::fs::remove_file(&path) {
                Ok(()) => {
                    tracing::error!(path = %path.display(), "the disk is full: the reserve was freed, writes are refused")
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "failed to free the reserve of a full disk")
                }
            }
            self.reserved.store(false, Ordering::Relaxed);
        } else if !reserved && self.reserve_bytes > 0 && free > plenty {
            match reserve(&path, self.reserve_bytes) {
                Ok(()) => self.reserved.store(true, Ordering::Relaxed),
                Err(error) => tracing::warn!(path = %path.display(), %error, "failed to set up the reserve"),
            }
        }
    }
}

const RESERVE: &str = "reserve";

fn reserve(path: &Path, bytes: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    let file = std::fs::File::create(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // A file system without the call would need the bytes written; it does without a reserve.
        Err(rustix::io::Errno::OPNOTSUPP) => std::fs::remove_file(path),
        other => other.map_err(Into::into),
    }
}

fn space(dir: &Path) -> io::Result<DiskSpace> {
    let stat = rustix::fs::statvfs(dir)?;
    let (block, total, free) = (stat.f_frsize, stat.f_blocks, stat.f_bfree);
    Ok(DiskSpace { used: (total - free.min(total)) * block, free: stat.f_bavail * block })
}

fn unreadable(dir: &Path, error: &io::Error) -> EngineError {
    EngineError::Unavailable(format!("failed to read free space of {}: {error}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_refuses_writes_and_frees_its_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::watch(dir.path(), 1 << 20, 1 << 16).unwrap();
        let reserve = dir.path().join(RESERVE);
        assert!(disk.check().is_ok());
        assert_eq!(reserve.metadata().unwrap().len(), 1 << 16);
        disk.free.store((1 << 20) - 1, Ordering::Relaxed);
        let error = disk.check().unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("limits.disk_reserve_bytes"), "{error}");
        disk.keep_reserve(10);
        assert!(!reserve.exists(), "the reserve is freed");
        disk.keep_reserve(1 << 30);
        assert!(reserve.exists(), "and taken again");
    }
}
