//! The Kubernetes objects of a `KalamDB`, as pure functions: a resource and what it refers to come in, objects come out.
//!
//! [`Database::resolve`] validates and can fail; [`build`] cannot. Nothing here knows an API client, a clock or a source of
//! randomness: what is random comes in from outside.

mod config;
mod credentials;
mod database;
mod desired;
mod names;
mod services;
mod workload;

#[cfg(test)]
mod tests;

pub use credentials::{
    Generated, JWT_SECRET_KEY, RANDOM_BYTES, ROOT_PASSWORD_KEY, SCHEDULER_TOKEN_KEY, missing_credentials,
    new_credentials,
};
pub use database::{
    Database, Defaults, Existing, Invalid, ObjectStore, References, S3Credentials, SecretContent, build,
};
pub use desired::{Desired, HASH_ANNOTATION, ObjectKind};
pub use names::{
    CONTAINER_NAME, FIELD_MANAGER, INSTANCE_LABEL, MANAGED_BY_LABEL, Names, PORT, ROLE_LABEL, config_selector,
    managed_selector,
};

/// The claim of the database's volume, with the size that the spec asks for.
pub fn volume_claim(database: &Database) -> Desired {
    Desired::new(ObjectKind::PersistentVolumeClaim, workload::volume_claim(database))
}

/// The labels and owner of the generated Secret, without its content, which only its creation writes.
pub fn credentials_metadata(database: &Database) -> Desired {
    Desired::new(ObjectKind::Secret, credentials::metadata_only(database))
}
