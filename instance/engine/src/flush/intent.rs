//! Intents: what is stored before each Delta commit, so that whoever finds the commit later knows it for its own.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::seq::Seq;

/// One life of an owner of the object store's prefix, from 1. Every start claims the next; whoever has a lower one is displaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a Delta commit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntentKind {
    /// Takes a version and changes nothing, so that no earlier epoch can take it any more. A table's version 0 is one.
    Fence,
    /// Adds flushed rows and hides those that they replace.
    Flush,
    /// Rewrites files without changing what they say.
    Compaction,
}

impl IntentKind {
    /// `fence`, `flush` or `compaction`, as it stands in the Delta log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Flush => "flush",
            Self::Compaction => "compaction",
        }
    }
}

/// A Delta commit that was begun. It stays stored until something has taken its version: only then is it known which commit did.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Intent {
    /// What the commit does.
    pub kind: IntentKind,
    /// The epoch of the process that began it.
    pub epoch: Epoch,
    /// Unique for ever; names the job's files too.
    pub job: Uuid,
    /// The version that the commit must take: the one after the table's cold version. It is never rebased onto another.
    pub version: i64,
    /// The last `_seq` that the cold tier holds once the commit has landed.
    pub w: Seq,
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of epoch {} at version {}", self.kind.as_str(), self.job, self.epoch, self.version)
    }
}
