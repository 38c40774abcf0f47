//! The generated credentials: made once, kept for ever.
//!
//! A user who creates the Secret beforehand chooses the password: keys that are there are never touched, and only missing
//! ones are added.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kalamdb_crds::DeletionPolicy;

use crate::desired::{metadata, owned_metadata};
use crate::{Database, SecretContent};

/// The password that root gets at the first start.
pub const ROOT_PASSWORD_KEY: &str = "root-password";
/// The secret that signs tokens.
pub const JWT_SECRET_KEY: &str = "jwt-secret";
/// The token by which the operator asks for flush jobs.
pub const SCHEDULER_TOKEN_KEY: &str = "scheduler-token";

/// How much randomness one set of credentials takes.
pub const RANDOM_BYTES: usize = 3 * 32;

/// Random bytes for one set of credentials.
pub type Generated = [u8; RANDOM_BYTES];

/// The Secret with its content alone, for its creation. Labels and owner are applied afterwards: what creation sets, a later
/// apply could not take away again, and the owner changes with the deletion policy.
pub fn new_credentials(database: &Database, random: &Generated) -> Secret {
    let metadata = ObjectMeta {
        name: Some(database.names.credentials()),
        namespace: Some(database.namespace.clone()),
        ..ObjectMeta::default()
    };
    let data = contents(random).into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())));
    Secret { data: Some(data.collect()), type_: Some("Opaque".to_owned()), metadata, ..Secret::default() }
}

/// What an existing Secret lacks.
pub fn missing_credentials(existing: &SecretContent, random: &Generated) -> BTreeMap<&'static str, String> {
    let mut contents = contents(random);
    contents.retain(|key, _| existing.get(*key).is_none_or(Vec::is_empty));
    contents
}

/// The Secret belongs to the `KalamDB` only where it shall go with it: a volume that stays needs the password that was set
/// in it.
pub(crate) fn metadata_only(database: &Database) -> Secret {
    let name = database.names.credentials();
    let metadata = match database.deletion_policy {
        DeletionPolicy::Retain => metadata(database, name, "credentials"),
        DeletionPolicy::Delete => owned_metadata(database, name, "credentials"),
    };
    Secret { metadata, ..Secret::default() }
}

fn contents(random: &Generated) -> BTreeMap<&'static str, String> {
    let part = |index: usize| &random[index * 32..(index + 1) * 32];
    BTreeMap::from([
        (ROOT_PASSWORD_KEY, password(part(0))),
        (JWT_SECRET_KEY, hex(part(1))),
        (SCHEDULER_TOKEN_KEY, hex(part(2))),
    ])
}

/// Letters and digits that nobody confuses, five bits a byte: 32 characters are 160 bits.
fn password(random: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    random.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

fn hex(random: &[u8]) -> String {
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}
