//! Whether a store can be used: an object is written, read, listed and deleted again.

use std::time::Instant;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use uuid::Uuid;

use super::ColdStore;

/// Where probes are written.
const FOLDER: &str = "probe";

/// What a store did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Probe {
    /// An object was written.
    pub writable: bool,
    /// It was read.
    pub readable: bool,
    /// It was found in its folder.
    pub listable: bool,
    /// It was deleted.
    pub deletable: bool,
    /// What all of it took, in milliseconds.
    pub latency_ms: u64,
    /// Bytes of all objects, where they were asked for.
    pub used_bytes: Option<u64>,
    /// The first thing that failed.
    pub error: Option<String>,
}

impl ColdStore {
    /// Tries everything that a table needs; `extended` also adds up what is there.
    pub async fn probe(&self, extended: bool) -> Probe {
        let (begun, mut probe) = (Instant::now(), Probe::default());
        let (folder, path) = (Path::from(FOLDER), Path::from(format!("{FOLDER}/{}", Uuid::new_v4())));
        let body = Bytes::from_static(b"kalamdb");
        probe.writable = noted(self.put(&path, body.clone()).await, &mut probe.error).is_some();
        if probe.writable {
            probe.readable = noted(self.get(&path).await, &mut probe.error) == Some(Some(body));
            let listed = self.objects().list(Some(&folder)).try_collect::<Vec<_>>().await;
            let listed = noted(listed, &mut probe.error);
            probe.listable = listed.is_some_and(|objects| objects.iter().any(|object| object.location == path));
            probe.deletable = noted(self.objects().delete(&path).await, &mut probe.error).is_some();
        }
        if extended && probe.listable {
            let sizes = self.objects().list(None).try_fold(0, async |sum, object| Ok(sum + object.size)).await;
            probe.used_bytes = noted(sizes, &mut probe.error);
        }
        probe.latency_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        probe
    }
}

fn noted<T, E: std::fmt::Display>(result: Result<T, E>, first: &mut Option<String>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            first.get_or_insert_with(|| error.to_string());
            None
        }
    }
}
