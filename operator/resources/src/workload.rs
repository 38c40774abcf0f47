//! The StatefulSet with its pod, the pod's ServiceAccount, and the claim of its volume.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretKeySelector, SecurityContext, ServiceAccount,
    Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kalamdb_crds::{AccessMode, DeletionPolicy, Quantity};

use crate::config::{CONFIG_FILE, CONFIG_FOLDER, DATA_FOLDER};
use crate::credentials::{JWT_SECRET_KEY, ROOT_PASSWORD_KEY, SCHEDULER_TOKEN_KEY};
use crate::database::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use crate::desired::owned_metadata;
use crate::names::{CONTAINER_NAME, PORT};
use crate::{Database, Existing, ObjectStore, S3Credentials};

/// The user and group of the instance's image: nobody's, and not root's.
const USER: i64 = 65532;

/// How long a pod may take to finish what it acknowledged before it is killed, in seconds.
const TERMINATION_GRACE: i64 = 120;

/// How often, every two seconds, a start is asked whether it has come up: three hours. A recovery that is slow must not be
/// killed, since the next start would begin it anew.
const STARTUP_ATTEMPTS: i32 = 5400;

/// The annotation of the pod that changes with the keys of the object store.
const STORE_KEYS_ANNOTATION: &str = "kalamdb.io/object-store-keys-hash";

const DATA_VOLUME: &str = "data";
const CONFIG_VOLUME: &str = "config";
const TEMPORARY_VOLUME: &str = "tmp";

/// The pod's identity. An instance never talks to the API server, so it gets no token.
pub(crate) fn service_account(database: &Database) -> ServiceAccount {
    ServiceAccount {
        metadata: owned_metadata(database, database.names.database().to_owned(), "instance"),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

pub(crate) fn stateful_set(database: &Database, existing: &Existing, config: &ConfigMap) -> StatefulSet {
    let names = &database.names;
    StatefulSet {
        metadata: owned_metadata(database, names.database().to_owned(), "instance"),
        spec: Some(StatefulSetSpec {
            replicas: Some(1),
            service_name: Some(names.headless_service()),
            // With the other policy a pod that never became ready is not replaced by one that would: a mended spec would
            // wait for ever for the pod of the broken one.
            pod_management_policy: Some("Parallel".to_owned()),
            selector: LabelSelector { match_labels: Some(names.pod_labels()), ..LabelSelector::default() },
            template: pod_template(database, config),
            volume_claim_templates: Some(vec![claim_template(database, existing)]),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some(retention(database.deletion_policy).to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

/// The claim with the size that the spec asks for. It holds nothing else, so that all the rest stays as it was made.
pub(crate) fn volume_claim(database: &Database) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(database.names.volume_claim()),
            namespace: Some(database.namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            resources: Some(size_request(&database.storage.size)),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn retention(policy: DeletionPolicy) -> &'static str {
    match policy {
        DeletionPolicy::Retain => "Retain",
        DeletionPolicy::Delete => "Delete",
    }
}

fn access_mode(mode: AccessMode) -> &'static str {
    match mode {
        AccessMode::ReadWriteOnce => "ReadWriteOnce",
        AccessMode::ReadWriteOncePod => "ReadWriteOncePod",
    }
}

fn claim_template(database: &Database, existing: &Existing) -> PersistentVolumeClaim {
    let size = existing.claim_template_size.as_ref().unwrap_or(&database.storage.size);
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(DATA_VOLUME.to_owned()),
            labels: Some(database.names.pod_labels()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![access_mode(database.storage.access_mode).to_owned()]),
            resources: Some(size_request(size)),
            storage_class_name: database.storage.storage_class_name.clone(),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn size_request(size: &Quantity) -> VolumeResourceRequirements {
    let requests = BTreeMap::from([("storage".to_owned(), ApiQuantity(size.to_string()))]);
    VolumeResourceRequirements { requests: Some(requests), ..VolumeResourceRequirements::default() }
}

fn pod_template(database: &Database, config: &ConfigMap) -> PodTemplateSpec {
    let annotations = store_credentials(database)
        .map(|credentials| BTreeMap::from([(STORE_KEYS_ANNOTATION.to_owned(), credentials.hash.clone())]));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(database.names.labels("instance")),
            annotations,
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(database.names.database().to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(TERMINATION_GRACE),
            security_context: Some(pod_security()),
            containers: vec![container(database)],
            volumes: Some(volumes(config)),
            ..PodSpec::default()
        }),
    }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        // A large volume whose files belong to the group already is not walked at every start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
        ..PodSecurityContext::default()
    }
}

fn container(database: &Database) -> Container {
    Container {
        name: CONTAINER_NAME.to_owned(),
        image: Some(database.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        env: Some(environment(database)),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        startup_probe: Some(probe("/healthz", 2, STARTUP_ATTEMPTS)),
        liveness_probe: Some(probe("/healthz", 10, 6)),
        readiness_probe: Some(probe("/readyz", 3, 2)),
        resources: Some(resources(database)),
        // What an instance says before it ends reaches the KalamDB's conditions by this.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            mount(DATA_VOLUME, DATA_FOLDER, None),
            mount(CONFIG_VOLUME, CONFIG_FOLDER, Some(true)),
            mount(TEMPORARY_VOLUME, "/tmp", None),
        ]),
        ..Container::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn resources(database: &Database) -> ResourceRequirements {
    let amounts = |amounts: &BTreeMap<String, Quantity>| {
        let amounts: BTreeMap<_, _> =
            amounts.iter().map(|(name, amount)| (name.clone(), ApiQuantity(amount.to_string()))).collect();
        (!amounts.is_empty()).then_some(amounts)
    };
    ResourceRequirements {
        requests: amounts(&database.resources.requests),
        limits: amounts(&database.resources.limits),
        ..ResourceRequirements::default()
    }
}

fn environment(database: &Database) -> Vec<EnvVar> {
    let generated = database.names.credentials();
    let mut environment = vec![
        EnvVar {
            name: "KALAMDB_CONFIG".to_owned(),
            value: Some(format!("{CONFIG_FOLDER}/{CONFIG_FILE}")),
            ..EnvVar::default()
        },
        from_secret("KALAMDB_ROOT_PASSWORD", &generated, ROOT_PASSWORD_KEY),
        from_secret("KALAMDB_JWT_SECRET", &generated, JWT_SECRET_KEY),
        from_secret("KALAMDB_SCHEDULER_TOKEN", &generated, SCHEDULER_TOKEN_KEY),
    ];
    if let Some(credentials) = store_credentials(database) {
        environment.push(from_secret("AWS_ACCESS_KEY_ID", &credentials.secret, ACCESS_KEY_ID));
        environment.push(from_secret("AWS_SECRET_ACCESS_KEY", &credentials.secret, SECRET_ACCESS_KEY));
    }
    environment
}

fn store_credentials(database: &Database) -> Option<&S3Credentials> {
    match &database.object_store {
        ObjectStore::S3 { credentials, .. } => credentials.as_ref(),
        ObjectStore::Volume => None,
    }
}

fn from_secret(variable: &str, secret: &str, key: &str) -> EnvVar {
    EnvVar {
        name: variable.to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.to_owned(),
                key: key.to_owned(),
                ..SecretKeySelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn mount(volume: &str, path: &str, read_only: Option<bool>) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), read_only, ..VolumeMount::default() }
}

fn volumes(config: &ConfigMap) -> Vec<Volume> {
    let config_map = ConfigMapVolumeSource {
        name: config.metadata.name.clone().unwrap_or_default(),
        ..ConfigMapVolumeSource::default()
    };
    vec![
        Volume { name: CONFIG_VOLUME.to_owned(), config_map: Some(config_map), ..Volume::default() },
        // The root file system is read-only, and a library may want a place for a temporary file. Queries spill onto the
        // data volume.
        Volume {
            name: TEMPORARY_VOLUME.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        },
    ]
}
