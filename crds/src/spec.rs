//! What a user asks for. Each rule stands in the schema, so that the API server refuses what cannot be right.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, KalamDBStatus, Quantity};

/// A KalamDB database: one instance with its volume, its object store and its flush policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "kalamdb.io",
    version = "v1alpha1",
    kind = "KalamDB",
    plural = "kalamdbs",
    singular = "kalamdb",
    shortname = "kdb",
    category = "all",
    namespaced,
    status = "KalamDBStatus",
    derive = "PartialEq",
    doc = "A KalamDB database: one instance with its volume, its object store and its flush policy.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint"),
    printcolumn(name = "Pending", type_ = "string", description = "Bytes that wait to be flushed", json_path = ".status.flush.pendingBytes"),
    printcolumn(name = "Last flush", type_ = "date", json_path = ".status.flush.lastTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$')")
        .message("metadata.name must begin with a letter, hold only lower-case letters, digits and '-', end with a letter or digit, and have at most 52 characters: services and pods are named after it")
)]
#[serde(rename_all = "camelCase")]
pub struct KalamDBSpec {
    /// The instance's image. Default: the one that belongs to the operator's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// The volume that holds the hot tier.
    #[serde(default)]
    pub storage: StorageSpec,
    /// Processor and memory of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Where the cold tier lies.
    pub object_store: ObjectStoreSpec,
    /// When rows move from the hot to the cold tier.
    #[serde(default)]
    pub flush: FlushSpec,
    /// What becomes of the volume and the generated credentials when the KalamDB is deleted.
    /// The object store is left as it is in either case.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// The volume that holds the hot tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0")
        .message("storage.size cannot shrink: a volume only grows; keep the old size, or create a new KalamDB of the smaller size and copy the data"),
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
        .message("storage.storageClassName cannot change: the volume that holds the data stays in its class; create a new KalamDB to use another class"),
    validation = Rule::new("self.accessMode == oldSelf.accessMode")
        .message("storage.accessMode cannot change: the volume keeps the mode that it was made with; create a new KalamDB to use another mode"),
    validation = Rule::new("quantity(string(self.size)).compareTo(quantity('1Gi')) >= 0")
        .message("storage.size must be at least 1Gi, and 10Gi is a good start: an instance keeps a quarter of a gigabyte free and refuses writes below that")
)]
pub struct StorageSpec {
    /// Size of the volume. It can grow later where the storage class allows it.
    #[serde(default = "default_storage_size")]
    pub size: Quantity,
    /// The volume's storage class. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Who may use the volume at a time.
    #[serde(default)]
    pub access_mode: AccessMode,
}

/// Who may use a volume at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// The pods of one node. Every storage class can.
    #[default]
    ReadWriteOnce,
    /// One pod of the cluster, and nobody else: the safer choice where the class's CSI driver can (most can).
    ReadWriteOncePod,
}

/// Processor and memory of the instance, as in any container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)")
        .message("resources.requests must not be above resources.limits: lower the request, or raise the limit of the same name")
)]
pub struct Resources {
    /// What the node sets aside: `cpu`, `memory`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    // The bound lets the API server estimate the cost of the rule above.
    #[schemars(extend("maxProperties" = 8))]
    pub requests: BTreeMap<String, Quantity>,
    /// What the instance may use at most: `cpu`, `memory`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub limits: BTreeMap<String, Quantity>,
}

/// Where the cold tier lies: `type` names the kind, and the member of that name describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.type == 'S3') == has(self.s3)")
        .message("objectStore.s3 must be given exactly where objectStore.type is S3: add the s3 member, or set type to Volume and remove it"),
    validation = Rule::new("self.type == oldSelf.type")
        .message("objectStore.type cannot change: flushed rows would be left behind; create a new KalamDB and copy the data")
)]
pub struct ObjectStoreSpec {
    /// `S3` for S3 and compatible stores; `Volume` for a folder on the instance's own volume, to try things out.
    #[serde(rename = "type")]
    pub type_: ObjectStoreType,
    /// The bucket. Required where `type` is `S3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Spec>,
}

/// The kinds of object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ObjectStoreType {
    /// S3, or a store that speaks its protocol and honours conditional puts.
    S3,
    /// A folder on the instance's own volume.
    Volume,
}

/// A place in a bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.bucket == oldSelf.bucket")
        .message("objectStore.s3.bucket cannot change: flushed rows would be left behind; create a new KalamDB and copy the data"),
    validation = Rule::new("has(self.prefix) == has(oldSelf.prefix) && (!has(self.prefix) || self.prefix == oldSelf.prefix)")
        .message("objectStore.s3.prefix cannot change: flushed rows would be left behind; create a new KalamDB and copy the data"),
    validation = Rule::new("!has(self.endpoint) || has(self.credentialsSecretRef)")
        .message("objectStore.s3.credentialsSecretRef must be given with an endpoint: name a Secret with the keys accessKeyId and secretAccessKey; only Amazon S3 knows a pod by its own identity")
)]
pub struct S3Spec {
    /// The bucket's name. The bucket must exist.
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$') && !self.contains('..')")
        .message("a bucket name has 3 to 63 lower-case letters, digits, '-' and '.', begins and ends with a letter or digit, and has no two dots in a row"))]
    #[schemars(length(max = 63))]
    pub bucket: String,
    /// Everything the database stores lies under it; no other database may use it. Ends with a slash.
    /// Default: `<namespace>/<name>/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9_.=-]*(/[A-Za-z0-9_=-][A-Za-z0-9_.=-]*)*/$')")
        .message("a prefix is one or more folder names of letters, digits, '_', '-', '.' and '=', and ends with a slash, such as chat/"))]
    #[schemars(length(max = 256))]
    pub prefix: Option<String>,
    /// Where the store answers. Default: Amazon S3 in `region`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/?#@ ]+/?$')")
        .message("an endpoint is http:// or https:// with a host and a port, and no path, such as http://s3:7070"))]
    #[schemars(length(max = 512))]
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    #[serde(default = "default_region")]
    #[schemars(length(min = 1, max = 64))]
    pub region: String,
    /// A Secret in the same Kubernetes namespace with the keys `accessKeyId` and `secretAccessKey`.
    /// Required with an `endpoint`. Default for Amazon S3: the pod's own identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
}

/// The name of a Secret in the same Kubernetes namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// When rows move from the hot to the cold tier. A table that reaches any of the limits is due; where a table has a
/// `FLUSH_POLICY` of its own, the tighter one wins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlushSpec {
    /// Unflushed bytes of one table.
    #[serde(default = "default_max_bytes")]
    #[x_kube(validation = Rule::new("quantity(string(self)).isGreaterThan(quantity('0'))")
        .message("flush.maxBytes must be above 0: write an amount such as 256Mi"))]
    pub max_bytes: Quantity,
    /// Unflushed row versions of one table.
    #[serde(default = "default_max_rows")]
    #[schemars(range(min = 1))]
    pub max_rows: i64,
    /// Age of a table's oldest unflushed row.
    #[serde(default = "default_max_age")]
    #[x_kube(validation = Rule::new("self.matches('[1-9]')")
        .message("flush.maxAge must be above 0: write a duration such as 10m or 1h30m"))]
    pub max_age: Duration,
    /// Flush jobs that run in the instance at a time.
    #[serde(default = "default_max_concurrent")]
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrent: i32,
}

/// What becomes of the volume and the generated credentials when the KalamDB is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay; a new KalamDB of the same name finds its data again.
    #[default]
    Retain,
    /// They are deleted with it.
    Delete,
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self { size: default_storage_size(), storage_class_name: None, access_mode: AccessMode::default() }
    }
}

impl Default for FlushSpec {
    fn default() -> Self {
        Self {
            max_bytes: default_max_bytes(),
            max_rows: default_max_rows(),
            max_age: default_max_age(),
            max_concurrent: default_max_concurrent(),
        }
    }
}

fn default_storage_size() -> Quantity {
    "10Gi".parse().expect("a literal amount")
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn default_max_bytes() -> Quantity {
    "256Mi".parse().expect("a literal amount")
}

fn default_max_rows() -> i64 {
    1_000_000
}

fn default_max_age() -> Duration {
    "10m".parse().expect("a literal duration")
}

fn default_max_concurrent() -> i32 {
    2
}
