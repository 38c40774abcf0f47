//! Brings the cluster's objects to what they should be, by server-side apply, and only where they differ.

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kalamdb_flush::Token;
use kalamdb_resources::{
    Database, Desired, FIELD_MANAGER, ObjectKind, SCHEDULER_TOKEN_KEY, build, config_selector, credentials_metadata,
    missing_credentials, new_credentials, volume_claim,
};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt};
use metrics::counter;
use serde_json::json;

use super::fetch::{Found, content};
use super::{Context, Error};
use crate::telemetry::WRITES;

/// A database whose objects are in the cluster as they should be. Only [`apply`] makes one.
pub struct Applied {
    /// What was applied.
    pub database: Database,
    /// The StatefulSet as the API server holds it now.
    pub workload: StatefulSet,
    /// The token for flush jobs.
    pub token: Token,
    /// How the volume's size stands.
    pub volume: VolumeSize,
    /// Whether the newest form of the pod waits until other databases have restarted.
    pub waits_for_turn: bool,
    _made_by_apply: (),
}

/// How the volume's size stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSize {
    /// As asked for, or not there yet.
    AsAsked,
    /// It was asked to grow, and has not yet.
    Growing,
    /// It cannot grow.
    Refused {
        /// What the API server says.
        message: String,
    },
}

/// Makes the objects of `database`, and reads back what a report needs.
pub async fn apply(database: Database, found: &Found, context: &Context) -> Result<Applied, Error> {
    let uid = database.owner.uid.clone();
    // What the API server refuses never comes up: it must not keep others from their restart.
    write_all(database, found, context).await.inspect_err(|_| context.rollouts.settled(&uid))
}

async fn write_all(database: Database, found: &Found, context: &Context) -> Result<Applied, Error> {
    let token = credentials(&database, context).await?;
    let mut workload = None;
    let mut waits_for_turn = false;
    let mut config = String::new();
    for desired in build(&database, &found.existing()) {
        match desired.kind {
            ObjectKind::StatefulSet => {
                waits_for_turn = must_wait(&database, found, &desired, context);
                workload = Some(match &found.workload {
                    Some(workload) if waits_for_turn || desired.is_met_by(&as_value(workload)) => workload.clone(),
                    _ => typed(write(&database, &desired, context).await?)?,
                });
            }
            ObjectKind::ConfigMap => {
                config = desired.name.clone();
                ensure(&database, &desired, context).await?;
            }
            _ => ensure(&database, &desired, context).await?,
        }
    }
    let workload = workload.expect("every database has a StatefulSet");
    let volume = grow_volume(&database, context).await?;
    if is_settled(&workload) {
        context.rollouts.settled(&database.owner.uid);
        remove_outdated_configs(&database, &config, context).await?;
    }
    Ok(Applied { database, workload, token, volume, waits_for_turn, _made_by_apply: () })
}

/// Whether the pod runs in its newest form and is ready.
pub fn is_settled(workload: &StatefulSet) -> bool {
    let Some(status) = &workload.status else { return false };
    status.observed_generation == workload.metadata.generation
        && status.ready_replicas == Some(1)
        && status.updated_replicas == Some(1)
}

/// A change of the pod that the user did not ask for waits its turn.
fn must_wait(database: &Database, found: &Found, desired: &Desired, context: &Context) -> bool {
    let Some(workload) = &found.workload else { return false };
    let live = as_value(workload);
    let template =
        Desired { body: json!({ "spec": { "template": desired.body["spec"]["template"] } }), ..desired.clone() };
    let asked_by_user = !found.spec_was_reported;
    !asked_by_user && !template.is_met_by(&live) && !context.rollouts.may_begin(&database.owner.uid)
}

async fn ensure(database: &Database, desired: &Desired, context: &Context) -> Result<(), Error> {
    let live = api(desired.kind, database, context).get_opt(&desired.name).await.map_err(Error::api(format!(
        "read the {} {}",
        desired.kind.api().2,
        desired.name
    )))?;
    if !live.is_some_and(|live| desired.is_met_by(&as_value(&live))) {
        write(database, desired, context).await?;
    }
    Ok(())
}

async fn write(database: &Database, desired: &Desired, context: &Context) -> Result<DynamicObject, Error> {
    let kind = desired.kind.api().2;
    tracing::info!(namespace = database.namespace, kind, name = desired.name, "applying");
    counter!(WRITES, "kind" => kind).increment(1);
    api(desired.kind, database, context)
        .patch(&desired.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&desired.body))
        .await
        .map_err(Error::api(format!("apply the {kind} {}", desired.name)))
}

fn api(kind: ObjectKind, database: &Database, context: &Context) -> Api<DynamicObject> {
    let (group, version, kind, plural) = kind.api();
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    Api::namespaced_with(context.client.clone(), &database.namespace, &resource)
}

/// Makes the credentials where there are none, adds what is missing, and never touches what is there.
async fn credentials(database: &Database, context: &Context) -> Result<Token, Error> {
    let name = database.names.credentials();
    let secrets = Api::<Secret>::namespaced(context.client.clone(), &database.namespace);
    let live = secrets.get_opt(&name).await.map_err(Error::api(format!("read the Secret {name}")))?;
    let live = match live {
        None => create_credentials(database, &secrets, context).await?,
        Some(live) => complete_credentials(live, &secrets, context).await?,
    };
    // Only labels and owner are applied: the content belongs to its creation.
    let metadata = credentials_metadata(database);
    if !metadata.is_met_by(&as_value(&live)) {
        write(database, &metadata, context).await?;
    }
    let token = content(live).remove(SCHEDULER_TOKEN_KEY).unwrap_or_default();
    Ok(Token::new(&String::from_utf8_lossy(&token)))
}

async fn create_credentials(database: &Database, secrets: &Api<Secret>, context: &Context) -> Result<Secret, Error> {
    let secret = new_credentials(database, &(context.random)());
    counter!(WRITES, "kind" => "Secret").increment(1);
    // The manager's name differs from the applying one, or a later apply without content would take the content away.
    let parameters =
        PostParams { field_manager: Some(format!("{FIELD_MANAGER}-credentials")), ..PostParams::default() };
    secrets.create(&parameters, &secret).await.map_err(Error::api(format!("create the Secret {}", secret.name_any())))
}

async fn complete_credentials(live: Secret, secrets: &Api<Secret>, context: &Context) -> Result<Secret, Error> {
    let name = live.name_any();
    let missing = missing_credentials(&content(live.clone()), &(context.random)());
    if missing.is_empty() {
        return Ok(live);
    }
    counter!(WRITES, "kind" => "Secret").increment(1);
    let data: std::collections::BTreeMap<_, _> =
        missing.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes()))).collect();
    // The resource version lets the patch fail where somebody else added a key meanwhile.
    let patch = json!({ "metadata": { "resourceVersion": live.metadata.resource_version }, "data": data });
    secrets
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(Error::api(format!("complete the Secret {name}")))
}

/// The claim is asked directly: the StatefulSet's template cannot change, and growing needs no pod that is well.
async fn grow_volume(database: &Database, context: &Context) -> Result<VolumeSize, Error> {
    let name = database.names.volume_claim();
    let claims = Api::<PersistentVolumeClaim>::namespaced(context.client.clone(), &database.namespace);
    let Some(claim) = claims.get_opt(&name).await.map_err(Error::api(format!("read the claim {name}")))? else {
        return Ok(VolumeSize::AsAsked);
    };
    let asked = database.storage.size.thousandths();
    let amount = |amounts: Option<std::collections::BTreeMap<String, _>>| -> Option<u128> {
        let amount: k8s_openapi::apimachinery::pkg::api::resource::Quantity = amounts?.remove("storage")?;
        amount.0.parse::<kalamdb_crds::Quantity>().ok().map(|amount| amount.thousandths())
    };
    let requested = amount(claim.spec.and_then(|spec| spec.resources).and_then(|resources| resources.requests));
    let capacity = amount(claim.status.and_then(|status| status.capacity));
    if requested.is_some_and(|requested| requested < asked) {
        return match write(database, &volume_claim(database), context).await {
            Ok(_) => Ok(VolumeSize::Growing),
            Err(Error::Api { source, .. }) if is_refusal(&source) => {
                Ok(VolumeSize::Refused { message: super::brief(&source) })
            }
            Err(error) => Err(error),
        };
    }
    Ok(if capacity.is_some_and(|capacity| capacity < asked) { VolumeSize::Growing } else { VolumeSize::AsAsked })
}

fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 || status.code == 422)
}

/// Removes ConfigMaps that no pod uses any more, once for each configuration. They are listed by asking the API server, not
/// a cache that may still be filling.
async fn remove_outdated_configs(database: &Database, current: &str, context: &Context) -> Result<(), Error> {
    let key = (database.owner.uid.clone(), current.to_owned());
    let swept = |key: &_| context.swept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(key);
    if swept(&key) {
        return Ok(());
    }
    let configs = Api::<ConfigMap>::namespaced(context.client.clone(), &database.namespace);
    let parameters = ListParams::default().labels(&config_selector(&database.names));
    let list = configs.list_metadata(&parameters).await.map_err(Error::api("list the ConfigMaps"))?;
    for config in list.items.iter().map(ResourceExt::name_any).filter(|name| name != current) {
        counter!(WRITES, "kind" => "ConfigMap").increment(1);
        match configs.delete(&config, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(Error::api(format!("delete the outdated ConfigMap {config}"))(error)),
            Ok(_) => tracing::info!(namespace = database.namespace, name = config, "deleted an outdated ConfigMap"),
        }
    }
    context.swept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key);
    Ok(())
}

fn as_value(object: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(object).expect("objects of Kubernetes are plain data")
}

fn typed(object: DynamicObject) -> Result<StatefulSet, Error> {
    let name = object.name_any();
    object
        .try_parse()
        .map_err(|error| Error::api(format!("read the StatefulSet {name}"))(kube::Error::Service(Box::new(error))))
}
