//! Waiting with an end, and with what was seen last in the error.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PAUSE: Duration = Duration::from_millis(300);

/// What a look at the world showed.
pub enum Seen<T> {
    /// What was waited for is there.
    Ready(T),
    /// Not yet; the text says what is there instead.
    Waiting(String),
}

/// Looks again and again until it is there. The error names what was waited for and what was seen last.
///
/// An error of `look` ends the waiting at once: what may pass by itself is [`Seen::Waiting`].
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Seen<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        let seen = match look()? {
            Seen::Ready(value) => return Ok(value),
            Seen::Waiting(seen) => seen,
        };
        if started.elapsed() > limit {
            bail!("waited {} s for {what}; last seen: {seen}", limit.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}
