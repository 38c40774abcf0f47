//! What a `KalamDB` refers to, and what there is of it already. Secrets are read by name and never listed.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use kalamdb_crds::{KalamDB, Quantity};
use kalamdb_resources::{Existing, References, SecretContent};
use kube::{Api, ResourceExt};

use super::{Context, Error, namespace};

/// What was found.
pub struct Found {
    /// What the spec refers to.
    pub references: References,
    /// The StatefulSet, where there is one.
    pub workload: Option<StatefulSet>,
    /// Whether this generation of the spec was reported on before, so that a change is not the user's.
    pub spec_was_reported: bool,
}

impl Found {
    /// What cannot be changed any more.
    pub fn existing(&self) -> Existing {
        Existing { claim_template_size: self.workload.as_ref().and_then(claim_template_size) }
    }
}

pub async fn fetch(kalamdb: &KalamDB, context: &Context) -> Result<Found, Error> {
    let (namespace, name) = (namespace(kalamdb), kalamdb.name_any());
    let reference = kalamdb.spec.object_store.s3.as_ref().and_then(|s3| s3.credentials_secret_ref.as_ref());
    let s3_credentials = match reference {
        Some(reference) => secret(context, &namespace, &reference.name).await?,
        None => None,
    };
    let workload = Api::<StatefulSet>::namespaced(context.client.clone(), &namespace)
        .get_opt(&name)
        .await
        .map_err(Error::api(format!("read the StatefulSet {name}")))?;
    let observed = kalamdb.status.as_ref().and_then(|status| status.observed_generation);
    let spec_was_reported = observed.is_some() && observed == kalamdb.metadata.generation;
    Ok(Found { references: References { s3_credentials }, workload, spec_was_reported })
}

/// The decoded content of a Secret; `None` where it is not there.
pub async fn secret(context: &Context, namespace: &str, name: &str) -> Result<Option<SecretContent>, Error> {
    let secret = Api::<Secret>::namespaced(context.client.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(Error::api(format!("read the Secret {name}")))?;
    Ok(secret.map(content))
}

/// The decoded content of a Secret.
pub fn content(secret: Secret) -> SecretContent {
    secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()
}

fn claim_template_size(workload: &StatefulSet) -> Option<Quantity> {
    let template = workload.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?;
    template.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.parse().ok()
}
