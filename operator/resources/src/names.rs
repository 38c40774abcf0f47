//! Names and labels of the objects of one database.

use std::collections::BTreeMap;

/// The one field manager under which the operator applies.
pub const FIELD_MANAGER: &str = "kalamdb-operator";

/// The port on which an instance answers HTTP.
pub const PORT: i32 = 8080;

/// The container that runs the instance.
pub const CONTAINER_NAME: &str = "kalamdb";

/// The label that holds the database's name.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";

/// The label that says who made an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// The label that says what an object is for: `instance` or `config`.
pub const ROLE_LABEL: &str = "app.kubernetes.io/component";

const NAME_LABEL: &str = "app.kubernetes.io/name";
const PART_OF_LABEL: &str = "app.kubernetes.io/part-of";

/// The names that follow from a database's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    name: String,
}

impl Names {
    /// The names of the database `name`.
    pub fn of(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// The database itself; its client Service, StatefulSet and ServiceAccount have the same name.
    pub fn database(&self) -> &str {
        &self.name
    }

    /// The headless Service, which gives the pod its address.
    pub fn headless_service(&self) -> String {
        format!("{}-headless", self.name)
    }

    /// The Secret of generated credentials.
    pub fn credentials(&self) -> String {
        format!("{}-credentials", self.name)
    }

    /// The ConfigMap whose content has this hash.
    pub fn config(&self, hash: &str) -> String {
        format!("{}-config-{hash}", self.name)
    }

    /// The instance's pod.
    pub fn pod(&self) -> String {
        format!("{}-0", self.name)
    }

    /// The claim of the instance's volume, as the StatefulSet's controller names it.
    pub fn volume_claim(&self) -> String {
        format!("data-{}-0", self.name)
    }

    /// Where SQL is answered inside the cluster.
    pub fn endpoint(&self, namespace: &str) -> String {
        format!("{}.{namespace}.svc:{PORT}", self.name)
    }

    pub(crate) fn labels(&self, role: &str) -> BTreeMap<String, String> {
        let mut labels = self.pod_labels();
        labels.insert(ROLE_LABEL.to_owned(), role.to_owned());
        labels.insert(MANAGED_BY_LABEL.to_owned(), FIELD_MANAGER.to_owned());
        labels.insert(PART_OF_LABEL.to_owned(), "kalamdb".to_owned());
        labels
    }

    /// The labels that select the instance's pod. A StatefulSet's selector never changes, so these must not either.
    pub(crate) fn pod_labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(NAME_LABEL.to_owned(), "kalamdb".to_owned()), (INSTANCE_LABEL.to_owned(), self.name.clone())])
    }
}

/// Selects all that the operator made, for its watches.
pub fn managed_selector() -> String {
    format!("{MANAGED_BY_LABEL}={FIELD_MANAGER}")
}

/// Selects the ConfigMaps of one database.
pub fn config_selector(names: &Names) -> String {
    format!("{},{INSTANCE_LABEL}={},{ROLE_LABEL}=config", managed_selector(), names.database())
}
