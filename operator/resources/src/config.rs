//! The instance's configuration file and the ConfigMap that carries it.

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::desired::{owned_metadata, short_hash};
use crate::names::PORT;
use crate::{Database, ObjectStore};

/// The file's name in the ConfigMap.
pub(crate) const CONFIG_FILE: &str = "config.toml";
/// Where the ConfigMap is mounted.
pub(crate) const CONFIG_FOLDER: &str = "/etc/kalamdb";
/// Where the volume is mounted.
pub(crate) const DATA_FOLDER: &str = "/var/lib/kalamdb";

/// The hash of the content is part of the name: a pod never meets a configuration that it was not made for, and a changed
/// one reaches the instance by a new pod.
pub(crate) fn config_map(database: &Database) -> ConfigMap {
    let content = config_file(database);
    let name = database.names.config(&short_hash(content.as_bytes()));
    ConfigMap {
        metadata: owned_metadata(database, name, "config"),
        data: Some(BTreeMap::from([(CONFIG_FILE.to_owned(), content)])),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

fn config_file(database: &Database) -> String {
    let mut file = format!(
        "[server]\nhost = \"0.0.0.0\"\nport = {PORT}\n\n[data]\ndir = {}\n\n[object_store]\n",
        text(DATA_FOLDER)
    );
    match &database.object_store {
        ObjectStore::Volume => file.push_str("type = \"local\"\n"),
        ObjectStore::S3 { bucket, prefix, endpoint, region, credentials: _ } => {
            file.push_str("type = \"s3\"\n");
            for (key, value) in [("bucket", bucket), ("prefix", prefix), ("endpoint", endpoint), ("region", region)] {
                writeln!(file, "{key} = {}", text(value)).expect("writing to a string cannot fail");
            }
        }
    }
    let flush = &database.flush;
    writeln!(
        file,
        "\n[flush]\nmax_bytes = {}\nmax_rows = {}\nmax_age_seconds = {}\nmax_concurrent = {}",
        flush.max_bytes.value(),
        flush.max_rows,
        flush.max_age.seconds(),
        flush.max_concurrent
    )
    .expect("writing to a string cannot fail");
    file
}

/// A TOML basic string. JSON escapes the same characters in the same way.
fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}
