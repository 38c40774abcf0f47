//! `CREATE STORAGE` as written, to the storage that it makes.

use std::path::{Component, Path};

use kalamdb_engine::storage::{AccessKey, LOCAL_STORAGE, Location, Storage};
use serde::Deserialize;

use super::names::{check_new_name, fold};
use crate::parse::CreateStorage;
use crate::{ErrorCode, SqlError};

/// The region where none is said.
const REGION: &str = "us-east-1";

/// `CONFIG '<json>'`: what an S3 store needs beside its bucket.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    endpoint: Option<String>,
    region: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
}

/// The storage.
pub fn bind(written: &CreateStorage, now_ms: i64) -> Result<Storage, SqlError> {
    let id = fold(&written.id);
    check_new_name("storage", &id)?;
    if id == LOCAL_STORAGE {
        return Err(SqlError::new(ErrorCode::AlreadyExists, format!("storage '{id}' already exists")));
    }
    // The message of a JSON error would quote the text, secret and all.
    let config: Config = match written.config.as_deref().map(serde_json::from_str).transpose() {
        Ok(config) => config.unwrap_or_default(),
        Err(_) => {
            let known = "endpoint, region, access_key_id and secret_access_key";
            return Err(invalid(format!("CONFIG of storage '{id}' is a JSON object that may have {known}")));
        }
    };
    let (location, access_key) = match written.kind.to_ascii_lowercase().as_str() {
        "filesystem" => (filesystem(&written.path)?, None),
        "s3" => s3(&written.path, config)?,
        other => return Err(invalid(format!("TYPE {other}: a storage is of type filesystem or s3"))),
    };
    Ok(Storage {
        id,
        name: written.name.clone(),
        description: written.description.clone(),
        location,
        access_key,
        created_at: now_ms,
        updated_at: now_ms,
    })
}

fn filesystem(path: &str) -> Result<Location, SqlError> {
    let goes_up = Path::new(path).components().any(|part| matches!(part, Component::ParentDir | Component::CurDir));
    if !Path::new(path).is_absolute() || goes_up || path.contains('\0') {
        return Err(invalid(format!("PATH '{path}' is not the absolute path of a folder on the instance's machine")));
    }
    Ok(Location::Filesystem { path: path.trim_end_matches('/').to_owned() })
}

fn s3(path: &str, config: Config) -> Result<(Location, Option<AccessKey>), SqlError> {
    let rest = path.strip_prefix("s3://").unwrap_or(path);
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if bucket.is_empty() || !bucket.chars().all(good) || prefix.chars().any(char::is_control) {
        return Err(invalid(format!("PATH '{path}' is not of the form s3://bucket/prefix")));
    }
    let access_key = match (config.access_key_id, config.secret_access_key) {
        (Some(id), Some(secret)) => Some(AccessKey { id, secret }),
        (None, None) => None,
        _ => return Err(invalid("CONFIG has one of access_key_id and secret_access_key: it needs both, or neither")),
    };
    if config.endpoint.as_deref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
        return Err(invalid("the endpoint in CONFIG is not an http or https URL"));
    }
    let location = Location::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        endpoint: config.endpoint,
        region: config.region.unwrap_or_else(|| REGION.to_owned()),
    };
    Ok((location, access_key))
}

fn invalid(text: impl Into<String>) -> SqlError {
    SqlError::new(ErrorCode::InvalidValue, text)
}
