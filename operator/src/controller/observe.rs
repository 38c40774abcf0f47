//! How the instance is: its pod, and what it says itself. Also tells the flush scheduler where it is.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kalamdb_crds::KalamDB;
use kalamdb_flush::{Limits, StoreKey, Target, TargetId};
use kalamdb_resources::{CONTAINER_NAME, Names, ObjectStore, PORT};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde::Deserialize;
use std::time::Duration;

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
    NotReady(Cause),
    /// The instance takes writes.
    Ready,
}

/// Why something is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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

/// The reason while the volume has not been made.
pub const VOLUME_PENDING: &str = "VolumePending";

pub async fn observe(kalamdb: &KalamDB, outcome: &Outcome, context: &Context) -> Result<Observed, Error> {
    let (namespace, name) = (namespace(kalamdb), Names::of(&kalamdb.name_any()).pod());
    let pod = Api::<Pod>::namespaced(context.client.clone(), &namespace)
        .get_opt(&name)
        .await
        .map_err(Error::api(format!("read the pod {name}")))?;
    let state = pod.as_ref().map_or(PodState::Missing, pod_state);
    if let Outcome::Applied(applied) = outcome {
        place(kalamdb, applied, &state, context);
    }
    Ok(match state {
        PodState::Missing => Observed::NoPod,
        PodState::Waiting(cause) => Observed::Waiting(cause),
        PodState::Running { ready: true, .. } => Observed::Ready,
        PodState::Running { ready: false, address } => Observed::NotReady(ask(&address, &context.http).await),
    })
}

/// What the pod's status tells.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PodState {
    Missing,
    Waiting(Cause),
    Running { address: String, ready: bool },
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

fn pod_state(pod: &Pod) -> PodState {
    let cause = |reason: &str, message: &str| {
        PodState::Waiting(Cause { reason: reason.to_owned(), message: message.to_owned() })
    };
    if pod.metadata.deletion_timestamp.is_some() {
        return cause("Terminating", "the pod is going down, and a new one follows");
    }
    let Some(status) = &pod.status else { return cause("Pending", "the pod was just made") };
    let condition = |wanted: &str| {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        conditions.iter().find(|condition| condition.type_ == wanted)
    };
    if let Some(scheduled) = condition("PodScheduled").filter(|condition| condition.status == "False") {
        let message = scheduled.message.as_deref().unwrap_or("no node takes the pod");
        // Every database begins like this; it is a fault only where it stays, and then the claim's own Events say why.
        let reason =
            if message.contains("unbound immediate PersistentVolumeClaims") { VOLUME_PENDING } else { "Unschedulable" };
        return cause(reason, message);
    }
    let container = status.container_statuses.as_deref().unwrap_or_default();
    let Some(container) = container.iter().find(|container| container.name == CONTAINER_NAME) else {
        return cause("Pending", "the pod's volume is being mounted");
    };
    let state = container.state.clone().unwrap_or_default();
    if let Some(waiting) = state.waiting {
        let message = waiting.message.unwrap_or_default();
        let message = [message, last_end(container)].join(" ").trim().to_owned();
        // The two take turns while an image cannot be pulled; one name keeps the status still.
        let reason = match waiting.reason.as_deref() {
            Some("ErrImagePull") => "ImagePullBackOff",
            other => other.unwrap_or("Waiting"),
        };
        return cause(reason, &message);
    }
    match (&state.running, &status.pod_ip) {
        (Some(_), Some(ip)) => {
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
            let ready = condition("Ready").is_some_and(|condition| condition.status == "True");
            PodState::Running { address: format!("http://{host}:{PORT}"), ready }
        }
        _ => cause("Stopped", &last_end(container)),
    }
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

/// Asks an instance that is not ready why.
async fn ask(address: &str, http: &reqwest::Client) -> Cause {
    let starting = |message: String| Cause { reason: "Starting".to_owned(), message };
    let answer = http.get(format!("{address}/readyz")).timeout(READYZ_TIMEOUT).send().await;
    match answer {
        Ok(answer) if answer.status().is_success() => starting("the instance has just become ready".to_owned()),
        Ok(answer) => {
            let status = answer.status().as_u16();
            answer.json::<Cause>().await.unwrap_or_else(|_| {
                starting(format!("the instance answers /readyz with status {status} and gives no reason"))
            })
        }
        Err(_) => starting("the instance does not answer yet".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn state(status: Value) -> PodState {
        pod_state(
            &serde_json::from_value(json!({ "metadata": { "name": "chat-0" }, "status": status })).expect("a pod"),
        )
    }

    fn reason(status: Value) -> String {
        match state(status) {
            PodState::Waiting(cause) => cause.reason,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_tells_why_it_does_not_run() {
        assert_eq!(reason(json!({ "conditions": [{ "type": "PodScheduled", "status": "False" }] })), "Unschedulable");
        assert_eq!(
            reason(json!({ "containerStatuses": [{ "name": "kalamdb", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": { "waiting": { "reason": "ImagePullBackOff" } } }] })),
            "ImagePullBackOff"
        );
    }

    #[tokio::test]
    async fn an_instance_that_is_not_ready_is_asked_why() {
        use axum::{Json, Router, http::StatusCode, routing::get};
        let body = json!({ "ready": false, "reason": "ObjectStoreUnavailable", "message": "the bucket is gone" });
        let routes = Router::new()
            .route("/readyz", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, Json(body)) }))
            .route("/mute/readyz", get(|| async { StatusCode::SERVICE_UNAVAILABLE }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, routes).await });

        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let cause = ask(&address, &http).await;
        assert_eq!((cause.reason.as_str(), cause.message.as_str()), ("ObjectStoreUnavailable", "the bucket is gone"));
        assert_eq!(ask(&format!("{address}/mute"), &http).await.reason, "Starting");
    }

    #[test]
    fn a_pod_that_runs_has_an_address() {
        let running = json!({ "podIP": "10.0.0.7", "conditions": [{ "type": "Ready", "status": "True" }],
            "containerStatuses": [{ "name": "kalamdb", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": { "running": {} } }] });
        assert_eq!(state(running), PodState::Running { address: "http://10.0.0.7:8080".to_owned(), ready: true });
    }
}
