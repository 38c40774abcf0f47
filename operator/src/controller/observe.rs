//! How the instance is: its pod, and what it says itself. Also tells the flush scheduler where it is.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStateWaiting, ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::jiff::Timestamp;
use kalamdb_crds::KalamDB;
use kalamdb_flush::{Limits, StoreKey, Target, TargetId};
use kalamdb_resources::{CONTAINER_NAME, Names, ObjectStore, PORT};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde::Deserialize;

use super::apply::Applied;
use super::status::Outcome;
use super::{Context, Error, namespace};

/// How long an instance may take to say whether it is ready.
const READYZ_TIMEOUT: Duration = Duration::from_secs(2);

/// How the instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// There is no pod.
    NoPod,
    /// The pod cannot run yet, or not any more.
    Waiting(Cause),
    /// The process runs and does not take writes.
    NotReady {
        /// Why.
        cause: Cause,
        /// What it says of its object store.
        store: Store,
    },
    /// The instance takes writes.
    Ready {
        /// What it says of its object store: writes go on for a while without it.
        store: Store,
    },
}

/// What an instance says of its object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// Whether it reaches it, as of its last attempts.
    Told {
        /// Whether it does.
        reachable: bool,
        /// Why not.
        message: String,
    },
    /// Nothing: it is of a version that does not tell.
    NotTold,
    /// It did not answer at all.
    NoAnswer,
}

/// Why something is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// How much is kept of an instance's last words, in characters.
const MAX_WORDS: usize = 400;

/// How the reasons begin that an instance gives while its object store is to blame, such as `ObjectStoreUnavailable`.
pub const STORE_REASONS: &str = "ObjectStore";

/// The reasons that an instance gives where its volume and its object store do not belong together.
pub const FOREIGN_VOLUME_REASONS: [&str; 3] = ["VolumeEmpty", "VolumeForeign", "VolumeBehind"];

/// The reason that an instance gives where its disk is too full for writes.
pub const DISK_FULL: &str = "DiskFull";

/// The reason that an instance gives while it comes up; it has asked its object store nothing yet.
pub const STARTING: &str = "Starting";

/// The reason while the volume has not been made.
pub const VOLUME_PENDING: &str = "VolumePending";

/// The reason while no node has taken the pod, and it is too early to call that a fault.
pub const SCHEDULING: &str = "Scheduling";

/// How long a pod may be without a node before that is called a fault. A first attempt that comes before the volume is
/// seen everywhere fails, and the next one goes well.
const SCHEDULING_PATIENCE: Duration = Duration::from_secs(10);

/// Looks at the pod, asks the instance, and tells the flush scheduler where it is.
pub async fn observe(kalamdb: &KalamDB, outcome: &Outcome, context: &Context) -> Result<Observed, Error> {
    let (namespace, name) = (namespace(kalamdb), Names::of(&kalamdb.name_any()).pod());
    let pod = Api::<Pod>::namespaced(context.client.clone(), &namespace)
        .get_opt(&name)
        .await
        .map_err(Error::api(format!("read the pod {name}")))?;
    let state = pod.as_ref().map_or(PodState::Missing, |pod| pod_state(pod, (context.now)()));
    match outcome {
        Outcome::Applied(applied) => place(kalamdb, applied, &state, context),
        Outcome::Refused { .. } => context.fleet.moved(&kalamdb.uid().unwrap_or_default(), state.address()),
    }
    Ok(match state {
        PodState::Missing => Observed::NoPod,
        PodState::Waiting(cause) => Observed::Waiting(cause),
        PodState::Running { ready, address } => {
            let (cause, store) = ask(&address, &context.http).await;
            if ready { Observed::Ready { store } } else { Observed::NotReady { cause, store } }
        }
    })
}

/// What the pod's status tells.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PodState {
    Missing,
    Waiting(Cause),
    Running { address: String, ready: bool },
}

impl PodState {
    fn address(&self) -> Option<&str> {
        match self {
            Self::Running { address, .. } => Some(address),
            Self::Missing | Self::Waiting(_) => None,
        }
    }
}

/// An instance that runs is scraped even while it is not ready: one whose disk is full must be flushed to become so.
fn place(kalamdb: &KalamDB, applied: &Applied, state: &PodState, context: &Context) {
    let uid = kalamdb.uid().unwrap_or_default();
    let database = &applied.database;
    let (target, ready) = match state {
        PodState::Running { address, ready } => {
            let target = Target {
                id: TargetId(uid.clone()),
                url: address.clone(),
                token: applied.token.clone(),
                store: store_key(&database.object_store, &uid),
                limits: Limits {
                    max_bytes: database.flush.max_bytes.value().max(1),
                    max_rows: u64::try_from(database.flush.max_rows).unwrap_or(1).max(1),
                    max_age: Duration::from(&database.flush.max_age),
                    max_concurrent: usize::try_from(database.flush.max_concurrent).unwrap_or(1).max(1),
                },
            };
            (Some(target), *ready)
        }
        PodState::Missing | PodState::Waiting(_) => (None, false),
    };
    context.fleet.place(&uid, ObjectRef::from_obj(kalamdb), target, ready);
}

/// Instances that write to the same bucket share its limit.
fn store_key(store: &ObjectStore, uid: &str) -> StoreKey {
    StoreKey(match store {
        ObjectStore::Volume => format!("volume/{uid}"),
        ObjectStore::S3 { endpoint, bucket, region, .. } => format!("{endpoint}/{region}/{bucket}"),
    })
}

fn pod_state(pod: &Pod, now: Timestamp) -> PodState {
    if pod.metadata.deletion_timestamp.is_some() {
        return waiting("Terminating", "the pod is going down, and a new one follows");
    }
    let Some(status) = &pod.status else { return waiting("Pending", "the pod was just made") };
    if let Some(scheduled) = condition(status, "PodScheduled").filter(|condition| condition.status == "False") {
        return unscheduled(scheduled, now);
    }
    let container = status.container_statuses.as_deref().unwrap_or_default();
    let Some(container) = container.iter().find(|container| container.name == CONTAINER_NAME) else {
        return waiting("Pending", "the pod's volume is being mounted");
    };
    let state = container.state.clone().unwrap_or_default();
    if let Some(told) = state.waiting {
        return held_up(&told, container);
    }
    match (&state.running, &status.pod_ip) {
        (Some(_), Some(ip)) => {
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
            let ready = condition(status, "Ready").is_some_and(|condition| condition.status == "True");
            PodState::Running { address: format!("http://{host}:{PORT}"), ready }
        }
        _ => waiting("Stopped", &last_end(container)),
    }
}

fn waiting(reason: &str, message: &str) -> PodState {
    PodState::Waiting(Cause { reason: reason.to_owned(), message: message.to_owned() })
}

fn condition<'a>(status: &'a PodStatus, wanted: &str) -> Option<&'a PodCondition> {
    status.conditions.as_deref().unwrap_or_default().iter().find(|condition| condition.type_ == wanted)
}

/// No node has taken the pod.
fn unscheduled(scheduled: &PodCondition, now: Timestamp) -> PodState {
    let message = scheduled.message.as_deref().unwrap_or("no node takes the pod");
    // Every database begins like this; it is a fault only where it stays, and then the claim's own Events say why.
    if message.contains("unbound immediate PersistentVolumeClaims") {
        return waiting(VOLUME_PENDING, message);
    }
    let since = scheduled.last_transition_time.as_ref().map(|time| time.0);
    let is_new = since.is_some_and(|since| now.duration_since(since).unsigned_abs() < SCHEDULING_PATIENCE);
    waiting(if is_new { SCHEDULING } else { "Unschedulable" }, message)
}

/// The container cannot start yet, or not again.
fn held_up(told: &ContainerStateWaiting, container: &ContainerStatus) -> PodState {
    let message = [told.message.clone().unwrap_or_default(), last_end(container)].join(" ").trim().to_owned();
    // The two take turns while an image cannot be pulled; one name keeps the status still.
    let reason = match told.reason.as_deref() {
        Some("ErrImagePull") => "ImagePullBackOff",
        other => other.unwrap_or("Waiting"),
    };
    let message = if message.is_empty() { "the pod's container is being made" } else { &message };
    waiting(reason, message)
}

/// How the container ended the last time, if it did.
fn last_end(container: &ContainerStatus) -> String {
    let ended = container.state.clone().and_then(|state| state.terminated);
    let ended = ended.or_else(|| container.last_state.clone().and_then(|state| state.terminated));
    match ended {
        Some(ended) => {
            let reason = ended.reason.as_deref().unwrap_or("no reason given");
            let words = last_line(ended.message.as_deref().unwrap_or_default());
            format!("the instance ended with exit code {} ({reason}): {words}", ended.exit_code)
        }
        None => String::new(),
    }
}

/// The end of what an instance said, which tells why it ended.
fn last_line(log: &str) -> String {
    match log.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => line.chars().take(MAX_WORDS).collect(),
        None => "see kubectl logs --previous".to_owned(),
    }
}

/// The body of `/readyz`, with the status 200 and with any other.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    reason: String,
    message: String,
    object_store: Option<StoreAnswer>,
}

/// What `/readyz` says of the object store.
#[derive(Debug, Deserialize)]
struct StoreAnswer {
    reachable: bool,
    /// Why not.
    message: Option<String>,
}

impl Answer {
    fn store(&self) -> Store {
        match &self.object_store {
            Some(told) => Store::Told { reachable: told.reachable, message: told.message.clone().unwrap_or_default() },
            None => Store::NotTold,
        }
    }
}

/// Asks an instance why it is not ready, should it not be, and how its object store is.
async fn ask(address: &str, http: &reqwest::Client) -> (Cause, Store) {
    let starting = |message: &str| Cause { reason: STARTING.to_owned(), message: message.to_owned() };
    let answer = http.get(format!("{address}/readyz")).timeout(READYZ_TIMEOUT).send().await;
    let Ok(answer) = answer else { return (starting("the instance does not answer yet"), Store::NoAnswer) };
    let status = answer.status();
    let told = answer.json::<Answer>().await.unwrap_or_default();
    let store = told.store();
    let cause = match (status.is_success(), told.reason.is_empty()) {
        (true, _) => starting("the instance has just become ready"),
        (false, false) => Cause { reason: told.reason, message: told.message },
        (false, true) => {
            let status = status.as_u16();
            starting(&format!("the instance answers /readyz with status {status} and gives no reason"))
        }
    };
    (cause, store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A minute after `2026-01-01T00:00:00Z`.
    fn now() -> Timestamp {
        "2026-01-01T00:01:00Z".parse().expect("a time")
    }

    fn state(status: Value) -> PodState {
        pod_state(
            &serde_json::from_value(json!({ "metadata": { "name": "chat-0" }, "status": status })).expect("a pod"),
            now(),
        )
    }

    fn waits(status: Value) -> (String, String) {
        match state(status) {
            PodState::Waiting(cause) => (cause.reason, cause.message),
            other => (format!("{other:?}"), String::new()),
        }
    }

    fn container(state: Value) -> Value {
        json!({ "containerStatuses": [{ "name": "kalamdb", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": state }] })
    }

    #[test]
    fn a_pod_tells_why_it_does_not_run() {
        let pulling = container(json!({ "waiting": { "reason": "ErrImagePull", "message": "no such image" } }));
        assert_eq!(waits(pulling), ("ImagePullBackOff".into(), "no such image".into()));
        let creating = container(json!({ "waiting": { "reason": "ContainerCreating" } }));
        assert_eq!(waits(creating), ("ContainerCreating".into(), "the pod's container is being made".into()));
    }

    #[test]
    fn a_pod_without_a_node_is_a_fault_only_after_a_while() {
        let unscheduled = |since: &str, message: &str| {
            waits(json!({ "conditions": [{ "type": "PodScheduled", "status": "False", "message": message,
                "lastTransitionTime": since }] }))
            .0
        };
        assert_eq!(unscheduled("2026-01-01T00:00:55Z", "0/1 nodes are available"), SCHEDULING);
        assert_eq!(unscheduled("2026-01-01T00:00:30Z", "0/1 nodes are available"), "Unschedulable");
        let unbound = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims";
        assert_eq!(unscheduled("2026-01-01T00:00:30Z", unbound), VOLUME_PENDING);
    }

    #[tokio::test]
    async fn an_instance_tells_why_it_is_not_ready_and_how_its_store_is() {
        use axum::{Json, Router, http::StatusCode, routing::get};
        let body = json!({ "ready": false, "reason": "ObjectStoreUnavailable", "message": "the bucket is gone",
            "objectStore": { "reachable": false, "message": "no such bucket" } });
        let routes = Router::new()
            .route("/readyz", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, Json(body)) }))
            .route("/older/readyz", get(|| async { Json(json!({ "ready": true })) }))
            .route("/mute/readyz", get(|| async { StatusCode::SERVICE_UNAVAILABLE }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, routes).await });

        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (cause, store) = ask(&address, &http).await;
        assert_eq!((cause.reason.as_str(), cause.message.as_str()), ("ObjectStoreUnavailable", "the bucket is gone"));
        assert_eq!(store, Store::Told { reachable: false, message: "no such bucket".to_owned() });
        assert_eq!(ask(&format!("{address}/older"), &http).await.1, Store::NotTold);
        let (cause, store) = ask(&format!("{address}/mute"), &http).await;
        assert_eq!((cause.reason.as_str(), store), ("Starting", Store::NotTold));
        assert_eq!(ask("http://127.0.0.1:1", &http).await.1, Store::NoAnswer);
    }

    #[test]
    fn a_pod_that_runs_has_an_address() {
        let mut running = container(json!({ "running": {} }));
        running["podIP"] = json!("10.0.0.7");
        running["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
        assert_eq!(state(running), PodState::Running { address: "http://10.0.0.7:8080".to_owned(), ready: true });
    }
}
