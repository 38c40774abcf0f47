//! Flush jobs: the five steps from hot to cold, and their settlement after a crash.

mod intent;

pub use intent::{Epoch, Intent, IntentKind};
