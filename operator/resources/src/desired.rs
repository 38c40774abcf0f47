//! An object as it should be, and the question whether the one in the cluster is that already.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kalamdb_crds::Quantity;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::Database;

/// The annotation that holds the hash of what was applied. A field that the operator no longer sets is still in the
/// cluster's object; the hash alone tells that it must go.
pub const HASH_ANNOTATION: &str = "kalamdb.io/applied-hash";

/// The kinds of object that a database consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// `v1 ServiceAccount`
    ServiceAccount,
    /// `v1 ConfigMap`
    ConfigMap,
    /// `v1 Secret`
    Secret,
    /// `v1 Service`
    Service,
    /// `v1 PersistentVolumeClaim`
    PersistentVolumeClaim,
    /// `apps/v1 StatefulSet`
    StatefulSet,
}

impl ObjectKind {
    /// Group, version, kind and plural.
    pub fn api(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::Secret => ("", "v1", "Secret", "secrets"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::PersistentVolumeClaim => ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
            Self::StatefulSet => ("apps", "v1", "StatefulSet", "statefulsets"),
        }
    }
}

/// An object as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
    /// What is applied: only the fields that the operator cares for.
    pub body: Value,
}

impl Desired {
    pub(crate) fn new<T: Serialize>(kind: ObjectKind, object: T) -> Self {
        let mut body = serde_json::to_value(object).expect("objects of Kubernetes are plain data");
        let hash = short_hash(body.to_string().as_bytes());
        body["metadata"]["annotations"][HASH_ANNOTATION] = hash.into();
        let name = body["metadata"]["name"].as_str().expect("every object has a name").to_owned();
        Self { kind, name, body }
    }

    /// Whether applying would change nothing: all that is desired is in `live` already. What others added stays.
    pub fn is_met_by(&self, live: &Value) -> bool {
        includes(live, &self.body)
    }
}

/// The metadata of an object that goes with its `KalamDB`.
pub(crate) fn owned_metadata(database: &Database, name: String, role: &str) -> ObjectMeta {
    ObjectMeta { owner_references: Some(vec![database.owner.clone()]), ..metadata(database, name, role) }
}

/// The metadata of an object that outlives its `KalamDB`.
pub(crate) fn metadata(database: &Database, name: String, role: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(database.namespace.clone()),
        labels: Some(database.names.labels(role)),
        ..ObjectMeta::default()
    }
}

/// The first ten hexadecimal digits of the SHA-256: enough to tell a database's few configurations apart.
pub(crate) fn short_hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

fn includes(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => includes_members(live, desired),
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len() && live.iter().zip(desired).all(|(live, desired)| includes(live, desired))
        }
        (Value::String(live), Value::String(desired)) => live == desired || same_amount(live, desired),
        _ => live == desired,
    }
}

fn includes_members(live: &Map<String, Value>, desired: &Map<String, Value>) -> bool {
    desired.iter().all(|(name, desired)| match live.get(name) {
        Some(live) => includes(live, desired),
        // The API server leaves out what is empty.
        None => desired.as_object().is_some_and(Map::is_empty) || desired.is_null(),
    })
}

/// The API server writes amounts its own way: `1000m` comes back as `1`.
fn same_amount(live: &str, desired: &str) -> bool {
    match (live.parse::<Quantity>(), desired.parse::<Quantity>()) {
        (Ok(live), Ok(desired)) => live.thousandths() == desired.thousandths(),
        _ => false,
    }
}
