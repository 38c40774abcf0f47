//! Events: what a person should see with `kubectl describe`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kalamdb_crds::{Condition, ConditionStatus, ConditionType, GROUP, KalamDB, KalamDBStatus};
use kalamdb_flush::Outcome;
use kalamdb_resources::FIELD_MANAGER;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::observe::{DISK_FULL, SCHEDULING, VOLUME_PENDING};
use super::status::{APPLY_REFUSED, is_about_the_store};
use super::{Context, Error};
use crate::fleet::{FlushEnded, describe};

/// Flushes that succeed are told this often at most for one database; those that fail are all told.
const TELL_SUCCESS_EVERY: Duration = Duration::from_secs(30);

/// The longest text that an Event may hold is 1 KiB.
const MAX_NOTE: usize = 1000;

/// Publishes Events.
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Events under the operator's name.
    pub fn new(client: Client) -> Self {
        let reporter =
            Reporter { controller: format!("{GROUP}/{FIELD_MANAGER}"), instance: std::env::var("POD_NAME").ok() };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Tells each condition whose status or reason is another than before.
    pub async fn conditions_changed(&self, kalamdb: &KalamDB, before: Option<&KalamDBStatus>, after: &KalamDBStatus) {
        for condition in &after.conditions {
            let known = before
                .and_then(|before| before.conditions.iter().find(|known| known.type_ == condition.type_))
                .map(|known| (known.status, known.reason.as_str()));
            if known == Some((condition.status, condition.reason.as_str())) {
                continue;
            }
            if let Some(type_) = severity(condition, known.map(|(status, _)| status)) {
                let action = format!("{:?}", condition.type_);
                self.publish(&kalamdb.object_ref(&()), type_, &condition.reason, &action, &condition.message).await;
            }
        }
    }

    /// Tells why a reconcile failed, where the API server said so.
    pub async fn reconcile_failed(&self, kalamdb: &KalamDB, error: &Error) {
        let Error::Api { source, .. } = error else { return };
        // A conflict or an API server that is away passes by itself, and is in the log; an object that is refused is
        // reported as a condition.
        if matches!(source.as_ref(), kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 409 && status.code != 429)
        {
            let note = error.to_string();
            self.publish(&kalamdb.object_ref(&()), EventType::Warning, "ReconcileFailed", "Reconcile", &note).await;
        }
    }

    async fn publish(&self, regarding: &ObjectReference, type_: EventType, reason: &str, action: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.chars().take(128).collect(),
            note: Some(note.chars().take(MAX_NOTE).collect()),
            action: action.chars().take(128).collect(),
            secondary: None,
        };
        // Conditions and metrics say the same; an Event that is lost is no reason to fail.
        if let Err(error) = self.recorder.publish(&event, regarding).await {
            tracing::debug!(%error, reason, "an Event was not published");
        }
    }
}

/// Whether a change of a condition is told, and how. What merely has not happened yet is not.
fn severity(condition: &Condition, before: Option<ConditionStatus>) -> Option<EventType> {
    use ConditionStatus::{False, True};
    match (condition.type_, condition.status, before) {
        (ConditionType::Progressing, False, _) if condition.reason == APPLY_REFUSED => Some(EventType::Warning),
        (ConditionType::Progressing, ..) => None,
        (ConditionType::Ready, True, _) => Some(EventType::Normal),
        // A restart that somebody asked for is worth a line, and no warning.
        (ConditionType::Ready, False, Some(True)) if !is_fault(&condition.reason) => Some(EventType::Normal),
        (ConditionType::Ready, False, _) => is_fault(&condition.reason).then_some(EventType::Warning),
        (ConditionType::StorageResized, False, _) if condition.reason == "Growing" => Some(EventType::Normal),
        (_, False, _) => Some(EventType::Warning),
        (_, True, Some(False)) => Some(EventType::Normal),
        _ => None,
    }
}

/// Reasons for which an instance is not ready that pass by themselves, or that another condition tells.
fn is_fault(reason: &str) -> bool {
    let passing = [
        "Starting",
        "Pending",
        VOLUME_PENDING,
        SCHEDULING,
        "NoPod",
        "ContainerCreating",
        "PodInitializing",
        "Terminating",
        "Recovering",
    ];
    let told_elsewhere =
        is_about_the_store(reason) || reason.starts_with("Secret") || [DISK_FULL, APPLY_REFUSED].contains(&reason);
    !passing.contains(&reason) && !told_elsewhere
}

/// Tells how flushes ended, until `shutdown`.
pub async fn tell_flushes(context: Arc<Context>, mut news: mpsc::Receiver<FlushEnded>, shutdown: CancellationToken) {
    let mut told: HashMap<String, Instant> = HashMap::new();
    loop {
        let ended = tokio::select! {
            ended = news.recv() => ended,
            () = shutdown.cancelled() => None,
        };
        let Some(ended) = ended else { return };
        let (type_, reason) = match &ended.outcome {
            Outcome::Skipped => continue,
            Outcome::Completed { .. } => {
                if told.get(&ended.uid).is_some_and(|told| told.elapsed() < TELL_SUCCESS_EVERY) {
                    continue;
                }
                told.retain(|_, told| told.elapsed() < TELL_SUCCESS_EVERY);
                told.insert(ended.uid.clone(), Instant::now());
                (EventType::Normal, "Flushed")
            }
            Outcome::Failed { .. } | Outcome::Refused { .. } | Outcome::Lost { .. } => {
                (EventType::Warning, "FlushFailed")
            }
        };
        let regarding = ObjectReference { uid: Some(ended.uid), ..ObjectReference::from(ended.database) };
        let (action, note) = (format!("Flush {}", ended.job.table), describe(&ended.job, &ended.outcome));
        context.events.publish(&regarding, type_, reason, &action, &note).await;
    }
}
