//! Reconciles against a scenario of the API server, which keeps objects in memory and counts what is written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use k8s_openapi::jiff::Timestamp;
use kalamdb_crds::KalamDB;
use kalamdb_flush::Discovery;
use kalamdb_resources::Defaults;
use kube::Client;
use kube::client::Body;
use kube::runtime::controller::Action;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::service_fn;

use super::events::Events;
use super::report::Reported;
use super::rollouts::Rollouts;
use super::{Context, Error, RECHECK_READY, RECHECK_REFUSED, RECHECK_UNREADY, reconcile};
use crate::fleet::Fleet;
use crate::health::Health;

const DATABASE: &str = "/apis/kalamdb.io/v1alpha1/namespaces/shop/kalamdbs/chat";
const WORKLOAD: &str = "/apis/apps/v1/namespaces/shop/statefulsets/chat";
const CREDENTIALS: &str = "/api/v1/namespaces/shop/secrets/chat-credentials";
const STORE_KEYS: &str = "/api/v1/namespaces/shop/secrets/chat-s3";
const POD: &str = "/api/v1/namespaces/shop/pods/chat-0";

/// Nothing answers at this port.
const NOBODY: &str = "http://127.0.0.1:1";

/// Objects by path, every write in its order, and what is refused.
#[derive(Default)]
struct Cluster {
    objects: BTreeMap<String, Value>,
    writes: Vec<String>,
    /// The path of an object whose writes are refused, with the status and the message.
    refused: Option<(&'static str, u16, &'static str)>,
}

impl Cluster {
    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (StatusCode, Value) {
        match *method {
            Method::GET => self.read(path),
            Method::POST => {
                let name = body["metadata"]["name"].as_str().expect("a name");
                self.write(&format!("{path}/{name}"), body)
            }
            Method::PATCH => self.write(path.trim_end_matches("/status"), body),
            Method::DELETE => {
                self.writes.push(format!("delete {path}"));
                (StatusCode::OK, self.objects.remove(path).unwrap_or_default())
            }
            _ => unreachable!("the operator does not {method}"),
        }
    }

    fn read(&self, path: &str) -> (StatusCode, Value) {
        if let Some(object) = self.objects.get(path) {
            return (StatusCode::OK, object.clone());
        }
        let below = format!("{path}/");
        match path.rsplit('/').next() {
            Some("configmaps") => {
                let items: Vec<_> = self
                    .objects
                    .iter()
                    .filter(|(path, _)| path.starts_with(&below))
                    .map(|(_, object)| object)
                    .collect();
                (StatusCode::OK, json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items }))
            }
            _ => (
                StatusCode::NOT_FOUND,
                json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "message": "not found", "code": 404 }),
            ),
        }
    }

    fn write(&mut self, path: &str, body: &Value) -> (StatusCode, Value) {
        if path.contains("/events") {
            return (StatusCode::CREATED, body.clone());
        }
        if let Some((_, code, message)) = self.refused.filter(|(refused, ..)| *refused == path) {
            let status =
                json!({ "kind": "Status", "status": "Failure", "reason": "Refused", "message": message, "code": code });
            return (StatusCode::from_u16(code).expect("a status"), status);
        }
        self.writes.push(path.rsplit('/').take(2).collect::<Vec<_>>().join(" "));
        let object = self
            .objects
            .entry(path.to_owned())
            .or_insert_with(|| json!({ "metadata": { "uid": path, "generation": 1 } }));
        merge(object, body);
        (StatusCode::OK, object.clone())
    }
}

fn merge(object: &mut Value, change: &Value) {
    match (object, change) {
        (Value::Object(object), Value::Object(change)) => {
            for (name, change) in change {
                merge(object.entry(name).or_insert(Value::Null), change);
            }
        }
        (object, change) => *object = change.clone(),
    }
}

struct Scenario {
    cluster: Arc<Mutex<Cluster>>,
    context: Context,
    // The receiving ends stay open, as they do in the operator.
    _nudges: mpsc::Receiver<kube::runtime::reflector::ObjectRef<KalamDB>>,
    _ended: mpsc::Receiver<crate::fleet::FlushEnded>,
}

impl Scenario {
    /// A cluster that holds a `KalamDB` in a bucket, and nothing else.
    fn new() -> Self {
        let cluster = Arc::new(Mutex::new(Cluster::default()));
        let database = json!({
            "apiVersion": "kalamdb.io/v1alpha1", "kind": "KalamDB",
            "metadata": { "name": "chat", "namespace": "shop", "uid": "0b5f", "generation": 1 },
            "spec": { "objectStore": { "type": "S3", "s3": { "bucket": "kalam", "credentialsSecretRef": { "name": "chat-s3" } } } },
        });
        cluster.lock().expect("not poisoned").objects.insert(DATABASE.to_owned(), database);
        let client = client(cluster.clone());
        let (nudges, _nudges) = mpsc::channel(8);
        let (ended, _ended) = mpsc::channel(8);
        let context = Context {
            defaults: Defaults { image: "kalamdb-instance:1".to_owned() },
            fleet: Arc::new(Fleet::new(nudges, ended, Arc::new(Health::default()))),
            events: Events::new(client.clone()),
            rollouts: Rollouts::new(1),
            // Instances of the scenario are silent until `answering` makes them speak.
            http: client_of_instances(NOBODY),
            now: || Timestamp::from_second(1_700_000_000).expect("a time"),
            random: || [7; kalamdb_resources::RANDOM_BYTES],
            reported: Reported::default(),
            swept: Mutex::default(),
            client,
        };
        Self { cluster, context, _nudges, _ended }
    }

    /// Every instance answers `/readyz` with 200 and this from now on.
    async fn answering(&mut self, body: Value) {
        self.answering_with(200, body).await;
    }

    async fn answering_with(&mut self, status: u16, body: Value) {
        use axum::{Json, Router, routing::get};
        let status = StatusCode::from_u16(status).expect("a status");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let routes = Router::new().route("/readyz", get(move || async move { (status, Json(body)) }));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        self.context.http = client_of_instances(&address);
    }

    /// No instance answers from now on.
    fn silent(&mut self) {
        self.context.http = client_of_instances(NOBODY);
    }

    /// The API server answers writes of that object with this status and message; with none it takes all again.
    fn refuse(&self, refused: Option<(&'static str, u16, &'static str)>) {
        self.cluster.lock().expect("not poisoned").refused = refused;
    }

    fn with_store_keys(self) -> Self {
        // "key" in base64
        self.put(STORE_KEYS, json!({ "metadata": {}, "data": { "accessKeyId": "a2V5", "secretAccessKey": "a2V5" } }));
        self
    }

    fn put(&self, path: &str, object: Value) {
        merge(self.cluster.lock().expect("not poisoned").objects.entry(path.to_owned()).or_default(), &object);
    }

    fn get(&self, path: &str) -> Value {
        self.cluster.lock().expect("not poisoned").objects.get(path).cloned().unwrap_or_default()
    }

    /// What the rest of the cluster does: the StatefulSet's controller and the kubelet.
    fn bring_up(&self) {
        self.put(
            WORKLOAD,
            json!({ "status": { "observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1 } }),
        );
        self.put(POD, json!({
            "metadata": { "name": "chat-0" },
            "status": {
                "podIP": "10.244.0.7", "conditions": [{ "type": "Ready", "status": "True" }],
                "containerStatuses": [{ "name": "kalamdb", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": { "running": {} } }],
            },
        }));
    }

    /// Reconciles the database as it is now; the answer is what was written.
    async fn reconcile(&self) -> Vec<String> {
        self.try_reconcile().await.expect("a reconcile");
        self.cluster.lock().expect("not poisoned").writes.clone()
    }

    async fn try_reconcile(&self) -> Result<Action, Error> {
        let database: KalamDB = serde_json::from_value(self.get(DATABASE)).expect("a KalamDB");
        self.cluster.lock().expect("not poisoned").writes.clear();
        reconcile(&database, &self.context).await
    }

    fn condition(&self, type_: &str) -> (String, String) {
        (self.of_condition(type_, "status"), self.of_condition(type_, "reason"))
    }

    fn of_condition(&self, type_: &str, field: &str) -> String {
        let status = self.get(DATABASE);
        let conditions = status["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default();
        condition[field].as_str().unwrap_or_default().to_owned()
    }
}

/// A client for which every address of an instance leads to `address`.
fn client_of_instances(address: &str) -> reqwest::Client {
    let leading = reqwest::Proxy::http(address).expect("an address");
    reqwest::Client::builder().proxy(leading).build().expect("a client")
}

fn client(cluster: Arc<Mutex<Cluster>>) -> Client {
    let service = service_fn(move |request: Request<Body>| {
        let cluster = cluster.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (status, answer) = cluster.lock().expect("not poisoned").answer(&parts.method, parts.uri.path(), &body);
            let answer = Body::from(answer.to_string().into_bytes());
            Ok::<_, tower::BoxError>(Response::builder().status(status).body(answer).expect("a response"))
        }
    });
    Client::new(service, "shop")
}

#[tokio::test]
async fn a_database_comes_up_and_an_unchanged_one_writes_nothing() {
    let scenario = Scenario::new().with_store_keys();
    let written = scenario.reconcile().await;
    assert_eq!(written.last().map(String::as_str), Some("chat kalamdbs"), "{written:?}");
    assert_eq!(written.len(), 8, "{written:?}");
    assert_eq!(scenario.condition("Ready"), ("False".into(), "NoPod".into()));

    scenario.bring_up();
    assert_eq!(scenario.reconcile().await, ["chat kalamdbs"]);
    assert_eq!(scenario.condition("Ready"), ("True".into(), "Ready".into()));
    assert_eq!(scenario.get(DATABASE)["status"]["phase"], "Ready");
    assert_eq!(scenario.context.fleet.targets().len(), 1, "the flush scheduler knows where it is");

    assert_eq!(scenario.reconcile().await, [""; 0], "nothing changed");
}

#[tokio::test]
async fn a_missing_secret_is_told_and_its_arrival_mends_it() {
    let scenario = Scenario::new();
    assert_eq!(scenario.reconcile().await, ["chat kalamdbs"], "nothing but the status");
    assert_eq!(scenario.condition("ReferencesResolved"), ("False".into(), "SecretNotFound".into()));
    assert_eq!(scenario.get(DATABASE)["status"]["phase"], "Pending");

    let scenario = scenario.with_store_keys();
    assert!(scenario.reconcile().await.contains(&"chat statefulsets".to_owned()));
    assert_eq!(scenario.condition("ReferencesResolved"), ("True".into(), "Resolved".into()));
}

#[tokio::test]
async fn credentials_are_never_made_twice() {
    let mut scenario = Scenario::new().with_store_keys();
    scenario.reconcile().await;
    let before = scenario.get(CREDENTIALS)["data"].clone();
    scenario.context.random = || [8; kalamdb_resources::RANDOM_BYTES];
    scenario.put(DATABASE, json!({ "metadata": { "generation": 2 }, "spec": { "deletionPolicy": "Delete" } }));
    assert!(scenario.reconcile().await.contains(&"chat-credentials secrets".to_owned()), "it has an owner now");
    assert_eq!(scenario.get(CREDENTIALS)["data"], before);
}

#[tokio::test]
async fn an_object_that_somebody_changed_is_mended() {
    let scenario = Scenario::new().with_store_keys();
    scenario.reconcile().await;
    scenario.put("/api/v1/namespaces/shop/services/chat", json!({ "spec": { "type": "NodePort" } }));
    assert_eq!(scenario.reconcile().await, ["chat services"]);
}

#[tokio::test]
async fn a_new_default_image_waits_until_other_databases_have_restarted() {
    let mut scenario = Scenario::new().with_store_keys();
    scenario.reconcile().await;
    scenario.bring_up();
    scenario.reconcile().await;

    assert!(scenario.context.rollouts.may_begin("another database"));
    scenario.context.defaults.image = "kalamdb-instance:2".to_owned();
    assert_eq!(scenario.reconcile().await, ["chat kalamdbs"], "only the status");
    assert_eq!(scenario.condition("Progressing"), ("True".into(), "WaitsForTurn".into()));

    scenario.context.rollouts.settled("another database");
    assert!(scenario.reconcile().await.contains(&"chat statefulsets".to_owned()));
}

const TOO_MUCH: &str = "StatefulSet.apps \"chat\" is invalid: must be less than or equal to cpu limit";

#[tokio::test]
async fn an_object_that_the_api_server_refuses_is_told_and_a_mended_spec_is_applied() {
    let scenario = Scenario::new().with_store_keys();
    scenario.refuse(Some((WORKLOAD, 422, TOO_MUCH)));
    let action = scenario.try_reconcile().await.expect("a refusal is a result");
    assert_eq!(action, Action::requeue(RECHECK_REFUSED));
    assert_eq!(scenario.condition("Ready"), ("False".into(), "ApplyRefused".into()));
    assert_eq!(scenario.condition("Progressing"), ("False".into(), "ApplyRefused".into()));
    assert!(scenario.of_condition("Ready", "message").contains("less than or equal to cpu limit"));
    assert_eq!(scenario.condition("ReferencesResolved"), ("True".into(), "Resolved".into()));
    assert_eq!(scenario.get(DATABASE)["status"]["phase"], "Pending");
    assert_eq!(scenario.get(DATABASE)["status"]["observedGeneration"], 1);

    scenario.refuse(None);
    assert!(scenario.reconcile().await.contains(&"chat statefulsets".to_owned()));
    assert_eq!(scenario.condition("Ready"), ("False".into(), "NoPod".into()));
}

#[tokio::test]
async fn a_refused_change_leaves_a_ready_database_ready_and_lets_others_restart() {
    let mut scenario = Scenario::new().with_store_keys();
    scenario.reconcile().await;
    scenario.bring_up();
    scenario.reconcile().await;

    scenario.context.defaults.image = "kalamdb-instance:2".to_owned();
    scenario.refuse(Some((WORKLOAD, 403, "exceeded quota")));
    scenario.reconcile().await;
    assert_eq!(scenario.condition("Ready"), ("True".into(), "Ready".into()));
    assert_eq!(scenario.condition("Progressing"), ("False".into(), "ApplyRefused".into()));
    assert_eq!(scenario.context.fleet.targets().len(), 1, "its flushes go on");
    assert!(scenario.context.rollouts.may_begin("another database"), "it holds no turn");

    scenario.put(POD, json!({ "status": { "podIP": "10.244.0.8" } }));
    scenario.reconcile().await;
    assert_eq!(scenario.context.fleet.targets()[0].url, "http://10.244.0.8:8080", "its token follows it");
}

#[tokio::test]
async fn a_conflict_or_an_api_server_that_is_busy_is_tried_again() {
    let scenario = Scenario::new().with_store_keys();
    for code in [404, 409, 429, 500] {
        scenario.refuse(Some((WORKLOAD, code, "not now")));
        assert!(scenario.try_reconcile().await.is_err(), "{code}");
    }
    assert_eq!(scenario.get(DATABASE)["status"], Value::Null, "nothing is reported as refused");
}

#[tokio::test]
async fn a_ready_instance_tells_whether_it_reaches_its_object_store() {
    let mut scenario = Scenario::new().with_store_keys();
    scenario.reconcile().await;
    scenario.bring_up();
    let away = |id: &str| json!({ "ready": true, "objectStore": { "reachable": false, "message": format!("no route, request {id}") } });

    scenario.answering(away("4442587FB7D0A2F9")).await;
    let action = scenario.try_reconcile().await.expect("a reconcile");
    assert_eq!(action, Action::requeue(RECHECK_UNREADY), "its return is noticed soon");
    assert_eq!(scenario.condition("ObjectStoreReachable"), ("False".into(), "ObjectStoreUnavailable".into()));
    assert_eq!(scenario.condition("Ready"), ("True".into(), "Ready".into()), "writes go on");
    scenario.answering(away("9D31AB72C10E55F0")).await;
    assert_eq!(scenario.reconcile().await, [""; 0], "another request id is no news");
    scenario.silent();
    let action = scenario.try_reconcile().await.expect("a reconcile");
    assert_eq!(action, Action::requeue(RECHECK_UNREADY), "it is asked again soon");
    assert_eq!(scenario.reconcile().await, [""; 0], "a look in vain says nothing of the store");

    scenario.answering(json!({ "ready": true, "objectStore": { "reachable": true, "message": null } })).await;
    let action = scenario.try_reconcile().await.expect("a reconcile");
    assert_eq!(action, Action::requeue(RECHECK_READY));
    assert_eq!(scenario.condition("ObjectStoreReachable"), ("True".into(), "Reachable".into()));
    scenario.answering(json!({ "ready": true })).await;
    assert_eq!(scenario.reconcile().await, [""; 0], "an older instance is ready only with its store");
}

#[tokio::test]
async fn an_instance_that_starts_has_not_asked_its_store_and_is_not_blamed() {
    let mut scenario = Scenario::new().with_store_keys();
    scenario.reconcile().await;
    scenario.bring_up();
    scenario.put(POD, json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } }));
    let body = json!({ "ready": false, "reason": "Starting", "message": "the database is starting",
        "objectStore": { "reachable": false, "message": "it was not asked yet" } });
    scenario.answering_with(503, body).await;
    scenario.reconcile().await;
    assert_eq!(scenario.condition("ObjectStoreReachable"), ("Unknown".into(), "InstanceNotReady".into()));
}

#[tokio::test]
async fn a_full_disk_and_a_foreign_volume_have_conditions_of_their_own() {
    for (reason, condition) in [
        ("DiskFull", "DiskAvailable"),
        ("VolumeForeign", "ObjectStoreReachable"),
        ("VolumeEmpty", "ObjectStoreReachable"),
        ("VolumeBehind", "ObjectStoreReachable"),
    ] {
        let mut scenario = Scenario::new().with_store_keys();
        scenario.reconcile().await;
        scenario.bring_up();
        scenario.put(POD, json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } }));
        scenario.answering_with(503, json!({ "ready": false, "reason": reason, "message": "do this" })).await;
        scenario.reconcile().await;
        assert_eq!(scenario.condition("Ready"), ("False".into(), reason.into()));
        assert_eq!(scenario.condition(condition), ("False".into(), reason.into()));
        assert_eq!(scenario.of_condition(condition, "message"), "do this");
    }
}
