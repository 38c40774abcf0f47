//! The status of a `KalamDB`, as a pure function of what was applied and observed.
//!
//! A status that says `Ready` takes an [`Applied`], which only the apply step makes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kalamdb_crds::{Condition, ConditionStatus, ConditionType, FlushStatus, KalamDB, KalamDBStatus, Phase};
use kalamdb_resources::{Invalid, Names};
use kube::ResourceExt;

use super::apply::{Applied, VolumeSize, is_settled};
use super::fetch::Found;
use super::observe::{Observed, STORE_REASONS};
use ConditionStatus::{False, True, Unknown};

/// What became of a spec.
pub enum Outcome {
    /// Its objects are in the cluster.
    Applied(Box<Applied>),
    /// It cannot be applied as it stands; what there was before is left alone.
    Refused {
        /// Why.
        invalid: Invalid,
        /// What there was.
        found: Box<Found>,
    },
}

/// All that a report is made of.
pub struct State {
    /// What became of the spec.
    pub outcome: Outcome,
    /// How the instance is.
    pub observed: Observed,
}

impl State {
    /// Whether there is nothing to wait for.
    pub fn is_settled(&self) -> bool {
        match &self.outcome {
            Outcome::Applied(applied) => {
                self.observed == Observed::Ready
                    && is_settled(&applied.workload)
                    && !applied.waits_for_turn
                    && applied.volume != VolumeSize::Growing
            }
            Outcome::Refused { .. } => false,
        }
    }
}

/// The status to report at `now`.
pub fn status(kalamdb: &KalamDB, state: &State, flush: Option<FlushStatus>, now: Timestamp) -> KalamDBStatus {
    let names = Names::of(&kalamdb.name_any());
    let before = kalamdb.status.as_ref();
    let statements = [
        (ConditionType::Ready, ready(state)),
        (ConditionType::Progressing, progressing(state)),
        (ConditionType::ReferencesResolved, references(state)),
        (ConditionType::ObjectStoreReachable, object_store(state)),
        (ConditionType::StorageResized, storage(state)),
    ];
    let conditions =
        statements.into_iter().map(|(type_, statement)| statement.condition(type_, kalamdb, now)).collect();
    KalamDBStatus {
        phase: Some(phase(state, before.and_then(|before| before.phase))),
        endpoint: Some(names.endpoint(&kalamdb.namespace().unwrap_or_default())),
        credentials_secret: Some(names.credentials()),
        image: match &state.outcome {
            Outcome::Applied(applied) => Some(applied.database.image.clone()),
            Outcome::Refused { .. } => before.and_then(|before| before.image.clone()),
        },
        flush,
        conditions,
        observed_generation: kalamdb.metadata.generation,
    }
}

/// What a condition says, without when.
struct Statement {
    status: ConditionStatus,
    reason: String,
    message: String,
}

impl Statement {
    fn new(status: ConditionStatus, reason: &str, message: impl Into<String>) -> Self {
        Self { status, reason: reason.to_owned(), message: message.into() }
    }

    fn condition(self, type_: ConditionType, kalamdb: &KalamDB, now: Timestamp) -> Condition {
        let before = kalamdb.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let since = before
            .iter()
            .find(|condition| condition.type_ == type_ && condition.status == self.status)
            .map(|condition| condition.last_transition_time.clone());
        // The API server keeps whole seconds; anything finer would differ from what it gives back.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Condition {
            type_,
            status: self.status,
            reason: self.reason,
            message: self.message,
            last_transition_time: since.unwrap_or(Time(now)),
            observed_generation: kalamdb.metadata.generation,
        }
    }
}

fn phase(state: &State, before: Option<Phase>) -> Phase {
    match (&state.outcome, &state.observed) {
        (_, Observed::Ready) => Phase::Ready,
        (Outcome::Refused { found, .. }, _) if found.workload.is_none() => Phase::Pending,
        (_, _) if matches!(before, Some(Phase::Ready | Phase::Unavailable)) => Phase::Unavailable,
        (Outcome::Refused { .. }, _) => Phase::Pending,
        (Outcome::Applied(_), _) => Phase::Starting,
    }
}

fn ready(state: &State) -> Statement {
    match (&state.observed, &state.outcome) {
        (Observed::Ready, _) => Statement::new(True, "Ready", "the instance takes writes"),
        (_, Outcome::Refused { invalid, .. }) => Statement::new(False, invalid.reason(), invalid.to_string()),
        (Observed::NoPod, _) => Statement::new(False, "NoPod", "the pod has not been made yet"),
        (Observed::Waiting(cause) | Observed::NotReady(cause), _) => {
            Statement::new(False, &cause.reason, cause.message.clone())
        }
    }
}

fn progressing(state: &State) -> Statement {
    match &state.outcome {
        Outcome::Refused { invalid, .. } => Statement::new(False, invalid.reason(), invalid.to_string()),
        Outcome::Applied(applied) if applied.waits_for_turn => {
            Statement::new(True, "WaitsForTurn", "the pod's newest form waits until other databases have restarted")
        }
        Outcome::Applied(_) if state.is_settled() => Statement::new(False, "Settled", "all is as the spec asks for"),
        Outcome::Applied(_) => Statement::new(True, "RollingOut", "the cluster is bringing the instance up"),
    }
}

fn references(state: &State) -> Statement {
    match &state.outcome {
        Outcome::Applied(_) => Statement::new(True, "Resolved", "all that the spec refers to is there"),
        Outcome::Refused { invalid, .. } => Statement::new(False, invalid.reason(), invalid.to_string()),
    }
}

fn object_store(state: &State) -> Statement {
    match &state.observed {
        Observed::Ready => Statement::new(True, "Reachable", "the instance reads and writes its object store"),
        Observed::NotReady(cause) if cause.reason.starts_with(STORE_REASONS) => {
            Statement::new(False, &cause.reason, cause.message.clone())
        }
        _ => Statement::new(Unknown, "InstanceNotRunning", "the instance tells once it runs"),
    }
}

fn storage(state: &State) -> Statement {
    let volume = match &state.outcome {
        Outcome::Applied(applied) => &applied.volume,
        Outcome::Refused { .. } => &VolumeSize::AsAsked,
    };
    match volume {
        VolumeSize::AsAsked => Statement::new(True, "AsAsked", "the volume has the size that the spec asks for"),
        VolumeSize::Growing => {
            Statement::new(False, "Growing", "the volume is growing to the size that the spec asks for")
        }
        VolumeSize::Refused { message } => Statement::new(
            False,
            "CannotGrow",
            format!(
                "the volume cannot grow: {message}; use a storage class with allowVolumeExpansion, or set spec.storage.size back"
            ),
        ),
    }
}
