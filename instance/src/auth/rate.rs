//! Authentication requests a second and address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Instant;

/// Addresses remembered at most; beyond that the second's counts are forgotten, which is generous but bounded.
const ADDRESSES: usize = 10_000;

/// Counts requests in windows of one second.
pub struct RateLimit {
    per_second: u32,
    window: Mutex<Window>,
}

struct Window {
    began: Instant,
    counts: HashMap<IpAddr, u32>,
}

impl RateLimit {
    /// At most so many a second and address.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, window: Mutex::new(Window { began: Instant::now(), counts: HashMap::new() }) }
    }

    /// Whether one more is allowed at that moment.
    pub fn allows(&self, address: IpAddr, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if now.duration_since(window.began).as_secs() >= 1 || window.counts.len() >= ADDRESSES {
            window.began = now;
            window.counts.clear();
        }
        let count = window.counts.entry(address).or_default();
        *count += 1;
        *count <= self.per_second
    }
}
