//! What makes a database come up for a reconcile. Each watch has its own backoff, so that one that fails stalls no other.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use kalamdb_crds::KalamDB;
use kalamdb_resources::{INSTANCE_LABEL, managed_selector};
use kube::api::{ListParams, PartialObjectMeta};
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client, Resource, ResourceExt};
use metrics::counter;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::Context;
use crate::health::Health;
use crate::telemetry::WATCH_ERRORS;

/// How often a missing definition is looked for.
const DEFINITION_PAUSE: Duration = Duration::from_secs(5);

/// Databases that come up for a reconcile. It never fails: what a watch has to complain of is logged and counted.
pub type Queue = BoxStream<'static, Result<ObjectRef<KalamDB>, std::convert::Infallible>>;

/// Waits until the cluster knows the `KalamDB` definition.
pub async fn wait_for_definition(client: &Client) {
    let databases = Api::<KalamDB>::all(client.clone());
    let mut told = false;
    loop {
        match databases.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 => {
                if !told {
                    tracing::warn!(
                        "the cluster has no KalamDB definition: install the chart kalamdb-crds; waiting for it"
                    );
                    told = true;
                }
            }
            Err(error) => tracing::warn!(%error, "the API server does not list KalamDBs; trying again"),
        }
        tokio::time::sleep(DEFINITION_PAUSE).await;
    }
}

/// The queue: every `KalamDB` that changed, whose objects or pod changed, or that the flush scheduler nudged.
pub fn queue(
    client: Client,
    writer: Writer<KalamDB>,
    nudges: mpsc::Receiver<ObjectRef<KalamDB>>,
    context: Arc<Context>,
    health: Arc<Health>,
) -> Queue {
    let nudges = stream::unfold(nudges, |mut nudges| async move { nudges.recv().await.map(|nudge| (nudge, nudges)) });
    stream::select_all([
        databases(client.clone(), writer, context, health.clone()),
        owned::<StatefulSet>(client.clone(), "StatefulSet", health.clone()),
        owned::<ConfigMap>(client.clone(), "ConfigMap", health.clone()),
        owned::<Service>(client.clone(), "Service", health.clone()),
        owned::<ServiceAccount>(client.clone(), "ServiceAccount", health.clone()),
        pods(client, health),
        nudges.boxed(),
    ])
    .map(Ok)
    .boxed()
}

fn databases(
    client: Client,
    writer: Writer<KalamDB>,
    context: Arc<Context>,
    health: Arc<Health>,
) -> BoxStream<'static, ObjectRef<KalamDB>> {
    let known = writer.as_reader();
    let events = watch_objects(Api::<KalamDB>::all(client), watcher::Config::default()).default_backoff();
    let events = events.reflect(writer).inspect(move |event| {
        // At these two the store is whole: nothing is forgotten because a list has not come to its end.
        if let Ok(Event::Delete(_) | Event::InitDone) = event {
            let uids: HashSet<_> = known.state().iter().filter_map(|database| database.uid()).collect();
            context.fleet.retain(|uid| uids.contains(uid));
            context.rollouts.retain(|uid| uids.contains(uid));
            context.reported.retain(|uid| uids.contains(uid));
        }
    });
    fresh("KalamDB", health, events.touched_objects()).map(|database| ObjectRef::from_obj(&database)).boxed()
}

/// Objects that a `KalamDB` owns, by their metadata alone.
fn owned<K>(client: Client, name: &'static str, health: Arc<Health>) -> BoxStream<'static, ObjectRef<KalamDB>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    metadata::<K>(client, name, health)
        .filter_map(|object| async move {
            let owner = object.metadata.owner_references.as_ref()?.iter().find(|owner| owner.kind == "KalamDB")?;
            Some(ObjectRef::new(&owner.name).within(&object.namespace()?))
        })
        .boxed()
}

/// Pods belong to their StatefulSet; the database is named in a label.
fn pods(client: Client, health: Arc<Health>) -> BoxStream<'static, ObjectRef<KalamDB>> {
    metadata::<Pod>(client, "Pod", health)
        .filter_map(
            |pod| async move { Some(ObjectRef::new(pod.labels().get(INSTANCE_LABEL)?).within(&pod.namespace()?)) },
        )
        .boxed()
}

fn metadata<K>(client: Client, name: &'static str, health: Arc<Health>) -> BoxStream<'static, PartialObjectMeta<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().labels(&managed_selector());
    let events = watch_objects(Api::<PartialObjectMeta<K>>::all(client), config).default_backoff();
    fresh(name, health, events.touched_objects()).boxed()
}

/// What a watch tells, with its errors turned into log lines, a metric and its health.
fn fresh<T: Send + 'static>(
    name: &'static str,
    health: Arc<Health>,
    objects: impl stream::Stream<Item = Result<T, watcher::Error>> + Send + 'static,
) -> impl stream::Stream<Item = T> + Send + 'static {
    objects.filter_map(move |object| {
        let object = match object {
            Ok(object) => {
                health.watch_is_fresh(name);
                Some(object)
            }
            Err(error) => {
                health.watch_failed(name);
                counter!(WATCH_ERRORS, "watch" => name).increment(1);
                tracing::warn!(watch = name, %error, "a watch failed; trying again");
                None
            }
        };
        std::future::ready(object)
    })
}
