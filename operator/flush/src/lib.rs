//! Flush scheduling for a fleet of instances: scrape, decide, dispatch.
//!
//! [`policy::decide`] is a pure function; [`scrape`] and [`dispatch`] do the I/O; [`scheduler::run`] ties them together over
//! the targets that a [`Discovery`] names, and tells an [`Observer`] what happens. Nothing here knows Kubernetes.

pub mod backoff;
pub mod discovery;
pub mod dispatch;
pub mod job;
pub mod policy;
pub mod scheduler;
pub mod scrape;
pub mod target;

#[cfg(test)]
mod tests;

pub use discovery::{Discovery, StaticTargets};
pub use dispatch::Outcome;
pub use job::{Job, JobId};
pub use scheduler::{Observer, Settings};
pub use scrape::{Sample, ScrapeError};
pub use target::{Limits, StoreKey, TableName, Target, TargetId, Token};
