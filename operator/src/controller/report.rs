//! Writes the status where it differs, and tells by Events what changed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kalamdb_crds::{GROUP, KalamDB, KalamDBStatus};
use kalamdb_resources::FIELD_MANAGER;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use metrics::counter;
use serde_json::json;

use super::status::{State, status};
use super::{Context, Error, namespace};
use crate::telemetry::WRITES;

/// The status of each database as it was written last, with the resource version that came of it.
///
/// A reconcile may begin before the watch has brought back what the one before wrote. It would take the old status for the
/// present one, and tell each change a second time.
#[derive(Debug, Default)]
pub struct Reported {
    written: Mutex<HashMap<String, KalamDB>>,
}

impl Reported {
    /// The database with the status that was written last, where `kalamdb` is older than that.
    pub fn over(&self, kalamdb: &KalamDB) -> KalamDB {
        let mut kalamdb = kalamdb.clone();
        let written = self.written();
        let Some(written) = kalamdb.metadata.uid.as_ref().and_then(|uid| written.get(uid)) else { return kalamdb };
        if version(&kalamdb).zip(version(written)).is_some_and(|(seen, written)| seen < written) {
            kalamdb.status = written.status.clone();
        }
        kalamdb
    }

    /// Only the databases for which `exists` is true are there any more.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.written().retain(|uid, _| exists(uid));
    }

    fn keep(&self, kalamdb: KalamDB) {
        if let Some(uid) = kalamdb.metadata.uid.clone() {
            self.written().insert(uid, kalamdb);
        }
    }

    fn written(&self) -> MutexGuard<'_, HashMap<String, KalamDB>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resource versions of one kind grow; where a server writes them in another way, nothing is concluded from them.
fn version(kalamdb: &KalamDB) -> Option<u64> {
    kalamdb.metadata.resource_version.as_ref()?.parse().ok()
}

pub async fn report(kalamdb: &KalamDB, state: &State, context: &Context) -> Result<(), Error> {
    let before = kalamdb.status.as_ref();
    let flush =
        context.fleet.flush_status(&kalamdb.uid().unwrap_or_default(), before.and_then(|before| before.flush.as_ref()));
    let after = status(kalamdb, state, flush, (context.now)());
    if before == Some(&after) {
        return Ok(());
    }
    write(kalamdb, &after, context).await?;
    context.events.conditions_changed(kalamdb, before, &after).await;
    Ok(())
}

async fn write(kalamdb: &KalamDB, status: &KalamDBStatus, context: &Context) -> Result<(), Error> {
    let name = kalamdb.name_any();
    counter!(WRITES, "kind" => "KalamDBStatus").increment(1);
    let body = json!({ "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "KalamDB", "status": status });
    let written = Api::<KalamDB>::namespaced(context.client.clone(), &namespace(kalamdb))
        .patch_status(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(body))
        .await;
    match written {
        Ok(written) => {
            context.reported.keep(written);
            Ok(())
        }
        // It was deleted meanwhile: there is nobody to report to.
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        Err(error) => Err(Error::api(format!("write the status of {name}"))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalamdb_crds::Phase;

    fn database(version: &str, phase: Phase) -> KalamDB {
        serde_json::from_value(json!({
            "apiVersion": "kalamdb.io/v1alpha1", "kind": "KalamDB",
            "metadata": { "name": "chat", "uid": "0b5f", "resourceVersion": version },
            "spec": { "objectStore": { "type": "Volume" } },
            "status": { "phase": phase },
        }))
        .expect("a KalamDB")
    }

    #[test]
    fn what_was_written_last_stands_over_what_the_watch_still_shows() {
        let reported = Reported::default();
        reported.keep(database("20", Phase::Ready));
        let phase = |seen: &KalamDB| reported.over(seen).status.and_then(|status| status.phase);
        assert_eq!(phase(&database("19", Phase::Starting)), Some(Phase::Ready));
        assert_eq!(phase(&database("21", Phase::Pending)), Some(Phase::Pending));
    }
}
