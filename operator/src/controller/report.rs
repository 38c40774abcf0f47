//! Writes the status where it differs, and tells by Events what changed.

use kalamdb_crds::{GROUP, KalamDB, KalamDBStatus};
use kalamdb_resources::FIELD_MANAGER;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use metrics::counter;
use serde_json::json;

use super::status::{State, status};
use super::{Context, Error, namespace};
use crate::telemetry::WRITES;

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
        // It was deleted meanwhile: there is nobody to report to.
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        other => other.map(drop).map_err(Error::api(format!("write the status of {name}"))),
    }
}
