//! The `KalamDB` custom resource: its types, its defaults and the rules that the API server itself enforces.
//!
//! Amounts and durations stay as the user wrote them ([`Quantity`], [`Duration`]); whoever needs a number asks for it.
//! Nothing here knows an API client, and nothing decides which objects a database needs: see `kalamdb-resources`.

mod duration;
mod quantity;
mod spec;
mod status;

#[cfg(test)]
mod tests;

pub use duration::{Duration, DurationError};
pub use quantity::{Quantity, QuantityError};
pub use spec::{
    AccessMode, DeletionPolicy, FlushSpec, KalamDB, KalamDBSpec, ObjectStoreSpec, ObjectStoreType, Resources, S3Spec,
    SecretRef, StorageSpec,
};
pub use status::{Condition, ConditionStatus, ConditionType, FlushStatus, KalamDBStatus, Phase};

/// The API group of KalamDB's resources, which is also the prefix of its labels and annotations.
pub const GROUP: &str = "kalamdb.io";

/// The longest name of a `KalamDB`. A StatefulSet of that name gets revision labels of 11 more characters, and a label
/// holds 63.
pub const MAX_NAME_LENGTH: usize = 52;

/// The custom resource definition as YAML, as `kubectl apply` takes it.
pub fn crd_yaml() -> String {
    use kube::CustomResourceExt;
    serde_yaml_ng::to_string(&KalamDB::crd()).expect("a definition holds plain data only")
}
