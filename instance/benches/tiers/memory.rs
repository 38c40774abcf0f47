//! What a piece of work holds in memory at most: the heap of our own code as its allocator counts it, and the whole process as the kernel
//! does, RocksDB's blocks and memtables included.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting. RocksDB's C++ passes it by.
pub struct Counting;

fn grown(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came.
#[expect(unsafe_code, reason = "an allocator can't be made without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grown(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(block, layout, size) }
    }
}

/// Bytes above those before.
#[derive(Debug, Clone, Copy)]
pub struct Peak {
    /// Of our own heap.
    pub heap: usize,
    /// Of the process.
    pub resident: usize,
}

/// Watches a piece of work.
pub struct Watch {
    heap: usize,
    resident: usize,
}

impl Watch {
    /// Begins.
    pub fn begin() -> anyhow::Result<Self> {
        // 5 resets the highest resident size.
        std::fs::write("/proc/self/clear_refs", "5").context("failed to reset the peak of resident memory")?;
        let heap = LIVE.load(Ordering::Relaxed);
        PEAK.store(heap, Ordering::Relaxed);
        Ok(Self { heap, resident: status("VmRSS:")? })
    }

    /// What the work held at most since then.
    pub fn end(self) -> anyhow::Result<Peak> {
        Ok(Peak {
            heap: PEAK.load(Ordering::Relaxed).saturating_sub(self.heap),
            resident: status("VmHWM:")?.saturating_sub(self.resident),
        })
    }
}

/// Bytes that the kernel tells of this process under that name.
fn status(name: &str) -> anyhow::Result<usize> {
    let text = std::fs::read_to_string("/proc/self/status").context("failed to read this process's memory")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    let kilobytes: usize = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
