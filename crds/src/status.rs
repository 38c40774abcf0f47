//! What the operator reports about a `KalamDB`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::Quantity;

/// The state of the database as the operator last saw it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KalamDBStatus {
    /// One word for the state of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Where SQL is answered inside the cluster, as host:port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The Secret that holds the generated credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<String>,
    /// The image that the instance runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What waits to be flushed, and how the last flush went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush: Option<FlushStatus>,
    /// What is true of the database, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// One word for the state of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Something outside the operator is missing or refused: see the conditions.
    Pending,
    /// The objects are there and the instance is on its way up.
    Starting,
    /// The instance takes writes.
    Ready,
    /// The instance was ready and is not any more.
    Unavailable,
}

/// What waits to be flushed, and how the last flush went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlushStatus {
    /// About how many bytes are in the hot tier only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "amount_schema")]
    pub pending_bytes: Option<Quantity>,
    /// About how many row versions are in the hot tier only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_rows: Option<u64>,
    /// When the last flush job completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub last_time: Option<Time>,
    /// How the last flush job ended, with the table and, where it failed, the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_result: Option<String>,
}

/// One statement about the database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the statement is about.
    #[serde(rename = "type")]
    pub type_: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One word for programs.
    pub reason: String,
    /// A sentence for people: what is wrong, and how to mend it.
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// The generation of the spec that this is about.
    pub observed_generation: Option<i64>,
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionType {
    /// The instance takes writes.
    Ready,
    /// The operator or the cluster is still at work on what the spec asks for.
    Progressing,
    /// All that the spec refers to exists and is complete.
    ReferencesResolved,
    /// The instance can read and write its object store.
    ObjectStoreReachable,
    /// The volume has the size that the spec asks for.
    StorageResized,
    /// The volume has room for writes.
    DiskAvailable,
    /// A condition of another version of the operator. It must not make the whole resource unreadable to this one.
    #[serde(other)]
    Other,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell at present.
    Unknown,
}

fn time_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

fn amount_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 20 })
}

/// Conditions merge by their type, so that two writers of different conditions do not overwrite each other.
fn conditions_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "type": "string", "description": "What the condition is about." },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds." },
                "reason": { "type": "string", "description": "One word for programs." },
                "message": { "type": "string", "description": "What is wrong, and how to mend it." },
                "lastTransitionTime": {
                    "type": "string", "format": "date-time", "description": "When status last changed."
                },
                "observedGeneration": {
                    "type": "integer", "format": "int64", "description": "The generation of the spec that this is about."
                }
            }
        }
    })
}
