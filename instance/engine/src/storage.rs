//! Storages: places for the cold tiers of tables beside the database's own. What they are; nothing here reaches them.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::ObjectStoreConfig;

/// The storage that exists from the start: the object store that the instance was started with.
pub const LOCAL_STORAGE: &str = "local";

/// Where a storage is, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Location {
    /// A folder on the instance's machine.
    Filesystem {
        /// Absolute.
        path: String,
    },
    /// S3 or a compatible store.
    S3 {
        /// The bucket.
        bucket: String,
        /// What every object's name begins with; may be empty.
        prefix: String,
        /// The endpoint's URL; none for AWS itself.
        endpoint: Option<String>,
        /// The region.
        region: String,
    },
}

/// A key of an S3 store.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AccessKey {
    /// Its public half.
    pub id: String,
    /// Its secret half, which never leaves the volume.
    pub secret: String,
}

impl fmt::Debug for AccessKey {
    /// Secrets never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessKey(..)")
    }
}

/// A storage that was created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Storage {
    /// Its id, which `STORAGE_ID` names.
    pub id: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Where it is.
    pub location: Location,
    /// Its key; none takes what the environment offers.
    pub access_key: Option<AccessKey>,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
    /// Milliseconds since the Unix epoch.
    pub updated_at: i64,
}

/// Where a table lives, as its own record says it: so a catalog that was recovered finds its tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStorage {
    /// The storage's id.
    pub id: String,
    /// Where that is. It never moves.
    pub location: Location,
}

/// A place with the key to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Placement {
    /// Where.
    pub location: Location,
    /// Its key; none takes what the environment offers.
    pub access_key: Option<AccessKey>,
}

impl Storage {
    /// What is known of a storage from a table that lives there.
    pub fn of_table(storage: &TableStorage, at_ms: i64) -> Self {
        Self {
            id: storage.id.clone(),
            name: storage.id.clone(),
            description: None,
            location: storage.location.clone(),
            access_key: None,
            created_at: at_ms,
            updated_at: at_ms,
        }
    }

    /// The place.
    pub fn placement(&self) -> Placement {
        Placement { location: self.location.clone(), access_key: self.access_key.clone() }
    }
}

impl Location {
    /// `filesystem` or `s3`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Filesystem { .. } => "filesystem",
            Self::S3 { .. } => "s3",
        }
    }
}

impl fmt::Display for Location {
    /// As `BASE_DIRECTORY` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filesystem { path } => f.write_str(path),
            Self::S3 { bucket, prefix, .. } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix, .. } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Placement {
    /// As the object store's client is told.
    pub fn object_store(&self) -> ObjectStoreConfig {
        match self.location.clone() {
            Location::Filesystem { path } => ObjectStoreConfig::Local { path: PathBuf::from(path) },
            Location::S3 { bucket, prefix, endpoint, region } => ObjectStoreConfig::S3 {
                bucket,
                prefix,
                endpoint,
                region,
                access_key_id: self.access_key.as_ref().map(|key| key.id.clone()),
                secret_access_key: self.access_key.as_ref().map(|key| key.secret.clone()),
            },
        }
    }
}
