//! Crash points: places between two steps, each with a name, at which a test kills the process.
//!
//! They are compiled into this crate's own unit tests alone; the shipped binary has none. What is done at them, and the list of all of them,
//! is in the tests.

/// A place where a test may kill the process.
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(test)]
        ::fail::fail_point!($name);
    };
}

#[cfg(test)]
mod tests;
