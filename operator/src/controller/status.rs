//! The status of a `KalamDB`, as a pure function of what was applied and observed.
//!
//! A status that says `Ready` takes an [`Applied`], which only the apply step makes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kalamdb_crds::{Condition, ConditionStatus, ConditionType, FlushStatus, KalamDB, KalamDBStatus, Phase};
use kalamdb_resources::{Invalid, Names};
use kube::ResourceExt;

use super::Error;
use super::apply::{Applied, VolumeSize, is_settled};
use super::fetch::Found;
use super::observe::{Cause, DISK_FULL, FOREIGN_VOLUME_REASONS, Observed, STARTING, STORE_REASONS, Store};
use crate::message::says_the_same;
use ConditionStatus::{False, True, Unknown};

/// The reason where the API server refuses an object that a spec asks for.
pub const APPLY_REFUSED: &str = "ApplyRefused";

/// What became of a spec.
pub enum Outcome {
    /// Its objects are in the cluster.
    Applied(Box<Applied>),
    /// It cannot be applied as it stands; what there was before is left alone.
    Refused {
        /// Why.
        refusal: Refusal,
        /// What there was.
        found: Box<Found>,
    },
}

/// Why a spec cannot be applied as it stands.
#[derive(Debug)]
pub enum Refusal {
    /// What it refers to is missing or incomplete.
    Invalid(Invalid),
    /// The API server does not take an object that it asks for.
    ByServer {
        /// Which object, and what the API server says.
        message: String,
    },
}

impl Refusal {
    /// The refusal that `error` is; any other error passes by itself or is the operator's own, and comes back.
    pub fn of(error: Error) -> Result<Self, Error> {
        match &error {
            Error::Api { source, .. } if is_lasting(source) => Ok(Self::ByServer {
                message: format!("{error}; mend the spec, or what in the cluster refuses it, such as a quota"),
            }),
            _ => Err(error),
        }
    }

    fn statement(&self) -> Statement {
        match self {
            Self::Invalid(invalid) => Statement::new(False, invalid.reason(), invalid.to_string()),
            Self::ByServer { message } => Statement::new(False, APPLY_REFUSED, message.clone()),
        }
    }
}

/// Whether the same request would be refused again: not where somebody else was faster, something is still on its way, or
/// the API server is busy or does not know the operator yet.
fn is_lasting(error: &kube::Error) -> bool {
    const PASSING: [u16; 5] = [401, 404, 408, 409, 429];
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && !PASSING.contains(&status.code))
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
                matches!(self.observed, Observed::Ready { .. })
                    && is_settled(&applied.workload)
                    && !applied.waits_for_turn
                    && applied.volume != VolumeSize::Growing
            }
            Outcome::Refused { .. } => false,
        }
    }

    /// Whether the instance works, and its object store does not or is not known to.
    pub fn misses_its_store(&self) -> bool {
        matches!(&self.observed, Observed::Ready { store: Store::Told { reachable: false, .. } | Store::NoAnswer })
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
        (ConditionType::ObjectStoreReachable, object_store(state, before)),
        (ConditionType::StorageResized, storage(state)),
        (ConditionType::DiskAvailable, disk(state)),
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
        let known = before.iter().find(|known| known.type_ == type_ && known.status == self.status);
        let since = known.map(|known| known.last_transition_time.clone());
        let generation = kalamdb.metadata.generation;
        let repeated = known.filter(|known| {
            known.reason == self.reason
                && known.observed_generation == generation
                && says_the_same(&known.message, &self.message)
        });
        // The API server keeps whole seconds; anything finer would differ from what it gives back.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Condition {
            type_,
            status: self.status,
            reason: self.reason,
            message: repeated.map_or(self.message, |known| known.message.clone()),
            last_transition_time: since.unwrap_or(Time(now)),
            observed_generation: generation,
        }
    }
}

fn phase(state: &State, before: Option<Phase>) -> Phase {
    match (&state.outcome, &state.observed) {
        (_, Observed::Ready { .. }) => Phase::Ready,
        (Outcome::Refused { found, .. }, _) if found.workload.is_none() => Phase::Pending,
        (_, _) if matches!(before, Some(Phase::Ready | Phase::Unavailable)) => Phase::Unavailable,
        (Outcome::Refused { .. }, _) => Phase::Pending,
        (Outcome::Applied(_), _) => Phase::Starting,
    }
}

fn ready(state: &State) -> Statement {
    match (&state.observed, &state.outcome) {
        (Observed::Ready { .. }, _) => Statement::new(True, "Ready", "the instance takes writes"),
        (_, Outcome::Refused { refusal, .. }) => refusal.statement(),
        (Observed::NoPod, _) => Statement::new(False, "NoPod", "the pod has not been made yet"),
        (Observed::Waiting(cause) | Observed::NotReady { cause, .. }, _) => cause.statement(False),
    }
}

fn progressing(state: &State) -> Statement {
    match &state.outcome {
        Outcome::Refused { refusal, .. } => refusal.statement(),
        Outcome::Applied(applied) if applied.waits_for_turn => {
            Statement::new(True, "WaitsForTurn", "the pod's newest form waits until other databases have restarted")
        }
        Outcome::Applied(_) if state.is_settled() => Statement::new(False, "Settled", "all is as the spec asks for"),
        Outcome::Applied(_) => Statement::new(True, "RollingOut", "the cluster is bringing the instance up"),
    }
}

fn references(state: &State) -> Statement {
    match &state.outcome {
        Outcome::Refused { refusal: refusal @ Refusal::Invalid(_), .. } => refusal.statement(),
        Outcome::Applied(_) | Outcome::Refused { refusal: Refusal::ByServer { .. }, .. } => {
            Statement::new(True, "Resolved", "all that the spec refers to is there")
        }
    }
}

fn object_store(state: &State, before: Option<&KalamDBStatus>) -> Statement {
    let reachable = || Statement::new(True, "Reachable", "the instance reads and writes its object store");
    match &state.observed {
        Observed::NotReady { cause, .. } if is_about_the_store(&cause.reason) => cause.statement(False),
        Observed::NotReady { cause, .. } if cause.reason == STARTING => not_ready(),
        Observed::Ready { store } | Observed::NotReady { store, .. } => match store {
            Store::Told { reachable: true, .. } => reachable(),
            Store::Told { reachable: false, message } => {
                Statement::new(False, "ObjectStoreUnavailable", message.clone())
            }
            // An instance of a version that does not tell is ready only where it has its store.
            Store::NotTold if matches!(state.observed, Observed::Ready { .. }) => reachable(),
            Store::NotTold => not_ready(),
            // One look in vain says nothing of the store; what was known stands until an answer comes.
            Store::NoAnswer => last_said(ConditionType::ObjectStoreReachable, before).unwrap_or_else(|| {
                Statement::new(Unknown, "NoAnswer", "the instance did not answer; it is asked again")
            }),
        },
        Observed::NoPod | Observed::Waiting(_) => not_running(),
    }
}

/// What a condition said in the last report.
fn last_said(type_: ConditionType, before: Option<&KalamDBStatus>) -> Option<Statement> {
    let known = before?.conditions.iter().find(|known| known.type_ == type_)?;
    Some(Statement::new(known.status, &known.reason, known.message.clone()))
}

/// Whether the reason of an instance that is not ready is its object store, or that the two do not belong together.
pub fn is_about_the_store(reason: &str) -> bool {
    reason.starts_with(STORE_REASONS) || FOREIGN_VOLUME_REASONS.contains(&reason)
}

fn disk(state: &State) -> Statement {
    match &state.observed {
        Observed::Ready { .. } => Statement::new(True, "Enough", "the volume has room for writes"),
        Observed::NotReady { cause, .. } if cause.reason == DISK_FULL => cause.statement(False),
        Observed::NotReady { .. } => not_ready(),
        Observed::NoPod | Observed::Waiting(_) => not_running(),
    }
}

fn not_ready() -> Statement {
    Statement::new(Unknown, "InstanceNotReady", "the instance tells once it is ready")
}

fn not_running() -> Statement {
    Statement::new(Unknown, "InstanceNotRunning", "the instance tells once it runs")
}

impl Cause {
    fn statement(&self, status: ConditionStatus) -> Statement {
        Statement::new(status, &self.reason, self.message.clone())
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
