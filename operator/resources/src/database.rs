//! A database that can be built: a `KalamDB` whose references were found complete, and the objects that it becomes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kalamdb_crds::{
    DeletionPolicy, FlushSpec, KalamDB, MAX_NAME_LENGTH, ObjectStoreType, Quantity, Resources, S3Spec, StorageSpec,
};

use crate::desired::short_hash;
use crate::{Desired, Names, ObjectKind, config, services, workload};

/// The key of the access key's id in the Secret of `credentialsSecretRef`.
pub(crate) const ACCESS_KEY_ID: &str = "accessKeyId";
/// The key of the secret access key in the Secret of `credentialsSecretRef`.
pub(crate) const SECRET_ACCESS_KEY: &str = "secretAccessKey";

/// What the operator fills in where a spec is silent.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The instance's image that belongs to this version of the operator.
    pub image: String,
}

/// What the spec refers to, as it was found.
#[derive(Debug, Clone, Default)]
pub struct References {
    /// The Secret of `credentialsSecretRef`; `None` where it was looked for and is not there, or was not asked for.
    pub s3_credentials: Option<SecretContent>,
}

/// The decoded content of a Secret.
pub type SecretContent = BTreeMap<String, Vec<u8>>;

/// A database that can be built.
#[derive(Debug, Clone)]
pub struct Database {
    /// The names of its objects.
    pub names: Names,
    /// The Kubernetes namespace.
    pub namespace: String,
    /// The `KalamDB` as owner of its objects.
    pub owner: OwnerReference,
    /// The image to run.
    pub image: String,
    /// The volume.
    pub storage: StorageSpec,
    /// Processor and memory.
    pub resources: Resources,
    /// Where the cold tier lies.
    pub object_store: ObjectStore,
    /// When rows move to the cold tier.
    pub flush: FlushSpec,
    /// What becomes of the volume and the credentials.
    pub deletion_policy: DeletionPolicy,
}

/// Where the cold tier lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectStore {
    /// A folder on the instance's own volume.
    Volume,
    /// A place in a bucket.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix, which ends with a slash.
        prefix: String,
        /// The endpoint; empty for Amazon S3.
        endpoint: String,
        /// The region.
        region: String,
        /// The keys; the pod's own identity where there are none.
        credentials: Option<S3Credentials>,
    },
}

/// The Secret that holds the keys of an S3 store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Credentials {
    /// The Secret's name.
    pub secret: String,
    /// A hash of the keys, so that new keys reach the instance by a new pod.
    pub hash: String,
}

/// Why a `KalamDB` cannot be built as it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The Secret is not there.
    #[error(
        "the Secret {name:?} of spec.objectStore.s3.credentialsSecretRef does not exist: create it in the Kubernetes namespace {namespace:?} with the keys accessKeyId and secretAccessKey"
    )]
    SecretNotFound {
        /// The Secret's name.
        name: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// The Secret lacks a key.
    #[error(
        "the Secret {name:?} of spec.objectStore.s3.credentialsSecretRef has no key {key:?}, or an empty one: add it"
    )]
    SecretKeyMissing {
        /// The Secret's name.
        name: String,
        /// The key that is missing.
        key: &'static str,
    },
    /// The definition in the cluster let a spec pass that this one refuses.
    #[error("{0}: the KalamDB definition in the cluster is older than the operator; upgrade the chart kalamdb-crds")]
    Refused(&'static str),
}

impl Invalid {
    /// One word for the condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::SecretNotFound { .. } => "SecretNotFound",
            Self::SecretKeyMissing { .. } => "SecretKeyMissing",
            Self::Refused(_) => "SpecRefused",
        }
    }
}

impl Database {
    /// Validates `kalamdb` against what it refers to.
    pub fn resolve(kalamdb: &KalamDB, references: &References, defaults: &Defaults) -> Result<Self, Invalid> {
        let name = kalamdb.metadata.name.clone().unwrap_or_default();
        let namespace = kalamdb.metadata.namespace.clone().unwrap_or_default();
        if name.is_empty() || name.len() > MAX_NAME_LENGTH {
            return Err(Invalid::Refused("metadata.name must have 1 to 52 characters"));
        }
        let spec = &kalamdb.spec;
        Ok(Self {
            object_store: object_store(kalamdb, references, &namespace, &name)?,
            owner: owner_reference(kalamdb, &name),
            names: Names::of(&name),
            namespace,
            image: spec.image.clone().unwrap_or_else(|| defaults.image.clone()),
            storage: spec.storage.clone(),
            resources: spec.resources.clone().unwrap_or_default(),
            flush: spec.flush.clone(),
            deletion_policy: spec.deletion_policy,
        })
    }
}

/// What the cluster already holds and cannot be changed any more.
#[derive(Debug, Clone, Default)]
pub struct Existing {
    /// The size in the StatefulSet's volume claim template, once there is one. The volume itself grows by its claim.
    pub claim_template_size: Option<Quantity>,
}

/// All objects of a database in the order in which they are applied: what a pod needs stands before the pod.
///
/// The credentials are not among them, since their content is made once and never again: see [`crate::new_credentials`].
pub fn build(database: &Database, existing: &Existing) -> Vec<Desired> {
    let config = config::config_map(database);
    let workload = workload::stateful_set(database, existing, &config);
    vec![
        Desired::new(ObjectKind::ServiceAccount, workload::service_account(database)),
        Desired::new(ObjectKind::ConfigMap, config),
        Desired::new(ObjectKind::Service, services::headless(database)),
        Desired::new(ObjectKind::Service, services::client(database)),
        Desired::new(ObjectKind::StatefulSet, workload),
    ]
}

fn owner_reference(kalamdb: &KalamDB, name: &str) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/v1alpha1", kalamdb_crds::GROUP),
        kind: "KalamDB".to_owned(),
        name: name.to_owned(),
        uid: kalamdb.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn object_store(
    kalamdb: &KalamDB,
    references: &References,
    namespace: &str,
    name: &str,
) -> Result<ObjectStore, Invalid> {
    match (kalamdb.spec.object_store.type_, &kalamdb.spec.object_store.s3) {
        (ObjectStoreType::Volume, _) => Ok(ObjectStore::Volume),
        (ObjectStoreType::S3, None) => {
            Err(Invalid::Refused("objectStore.s3 must be given where objectStore.type is S3"))
        }
        (ObjectStoreType::S3, Some(s3)) => Ok(ObjectStore::S3 {
            bucket: s3.bucket.clone(),
            prefix: s3.prefix.clone().unwrap_or_else(|| format!("{namespace}/{name}/")),
            endpoint: s3.endpoint.as_deref().unwrap_or_default().trim_end_matches('/').to_owned(),
            region: s3.region.clone(),
            credentials: s3_credentials(s3, references, namespace)?,
        }),
    }
}

fn s3_credentials(s3: &S3Spec, references: &References, namespace: &str) -> Result<Option<S3Credentials>, Invalid> {
    let Some(reference) = &s3.credentials_secret_ref else {
        return match s3.endpoint {
            // An instance would ask a cloud's metadata service for keys to somebody else's store: it refuses to start.
            Some(_) => Err(Invalid::Refused("objectStore.s3.credentialsSecretRef must be given with an endpoint")),
            None => Ok(None),
        };
    };
    let name = reference.name.clone();
    let Some(content) = &references.s3_credentials else {
        return Err(Invalid::SecretNotFound { name, namespace: namespace.to_owned() });
    };
    let mut hashed = Vec::new();
    for key in [ACCESS_KEY_ID, SECRET_ACCESS_KEY] {
        match content.get(key) {
            Some(value) if !value.is_empty() => {
                // The length stands before the value, so that two different pairs never hash the same bytes.
                hashed.extend_from_slice(&(value.len() as u64).to_be_bytes());
                hashed.extend_from_slice(value);
            }
            _ => return Err(Invalid::SecretKeyMissing { name, key }),
        }
    }
    Ok(Some(S3Credentials { secret: name, hash: short_hash(&hashed) }))
}
