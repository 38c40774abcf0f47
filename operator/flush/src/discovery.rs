//! Where the scheduler learns which instances there are. The operator's source is Kubernetes; this one is a list.

use crate::{Target, TargetId};

/// A source of targets. It answers from memory, since the scheduler asks at every turn.
pub trait Discovery: Send + Sync + 'static {
    /// All instances that should be reachable now.
    fn targets(&self) -> Vec<Target>;

    /// The one instance, as it can be reached now. A pod that was replaced has another address.
    fn target(&self, id: &TargetId) -> Option<Target>;
}

/// A list that never changes.
#[derive(Debug, Clone)]
pub struct StaticTargets(pub Vec<Target>);

impl Discovery for StaticTargets {
    fn targets(&self) -> Vec<Target> {
        self.0.clone()
    }

    fn target(&self, id: &TargetId) -> Option<Target> {
        self.0.iter().find(|target| target.id == *id).cloned()
    }
}
