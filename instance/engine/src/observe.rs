//! News of changes that whoever keeps copies of the engine's state must hear of before the change is acknowledged.

use std::sync::{Arc, OnceLock};

use crate::schema::TableName;

/// What changed. A change of several things is told as several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A namespace: made, altered or dropped.
    Namespace(String),
    /// A table's definition: made, altered or dropped.
    Table(TableName),
    /// A user.
    User,
    /// A storage location: made, altered or dropped.
    Storage,
    /// A job: added, or another state of it.
    Job,
    /// All of it: the volume was recovered.
    Everything,
}

/// Is told of each change after it can be read and before it is acknowledged. It runs on the committer's thread or under the lock of
/// the jobs: it must be quick, and call nothing of the engine.
pub type ChangeObserver = Arc<dyn Fn(&Changed) + Send + Sync>;

/// Where the one observer stands, once there is one.
#[derive(Default)]
pub(crate) struct Observing(OnceLock<ChangeObserver>);

impl Observing {
    /// The first one stays.
    pub(crate) fn set(&self, observer: ChangeObserver) {
        let _ = self.0.set(observer);
    }

    pub(crate) fn tell(&self, changed: &Changed) {
        if let Some(observer) = self.0.get() {
            observer(changed);
        }
    }
}
