//! Looks after every `KalamDB` of the cluster: fetch, validate, build, apply, report.

mod apply;
mod events;
mod fetch;
mod observe;
mod report;
mod rollouts;
mod status;
mod watches;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{FutureExt, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kalamdb_crds::KalamDB;
use kalamdb_flush::scheduler;
use kalamdb_resources::{Database, Defaults, Generated};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, store};
use kube::runtime::{Config, applier};
use kube::{Client, Resource, ResourceExt};
use metrics::histogram;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::commands::RunArguments;
use crate::fleet::Fleet;
use crate::health::Health;
use crate::telemetry::{RECONCILE_DURATION, serve};
use events::Events;
use report::Reported;
use rollouts::Rollouts;
use status::{Outcome, Refusal, State};

/// No request to the API server may keep a reconcile longer than this.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(60);

/// A database that is well is looked at this often, to notice what no watch tells: a Secret that changed.
const RECHECK_READY: Duration = Duration::from_secs(120);

/// A database that is not ready is looked at this often: its own account of why changes without any watch telling.
const RECHECK_UNREADY: Duration = Duration::from_secs(4);

/// A spec that the API server refuses is tried this often, since what refuses it, such as a quota, may change unseen.
const RECHECK_REFUSED: Duration = Duration::from_secs(30);

/// After a failed reconcile.
const RETRY: Duration = Duration::from_secs(10);

/// News of flushes that wait to be written as Events.
const FLUSH_NEWS: usize = 256;

/// What a reconcile works with. Time and randomness come in from outside.
pub struct Context {
    client: Client,
    defaults: Defaults,
    fleet: Arc<Fleet>,
    events: Events,
    rollouts: Rollouts,
    /// Asks instances whether they are ready.
    http: reqwest::Client,
    now: fn() -> Timestamp,
    random: fn() -> Generated,
    /// What was reported last, for reconciles that begin before the watch has brought it back.
    reported: Reported,
    /// Databases whose outdated ConfigMaps were removed, with the name of the one in use.
    swept: Mutex<HashSet<(String, String)>>,
}

/// Why a reconcile did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not do what was asked.
    #[error("failed to {action}: {}", brief(source))]
    Api {
        /// What was being done, with the object's name.
        action: String,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("failed to finish within {} s", RECONCILE_TIMEOUT.as_secs())]
    TimedOut,
}

impl Error {
    fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Api { action, source: Box::new(source) }
    }
}

/// The sentence of the API server, without the whole of its answer.
fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Runs until `shutdown`.
pub async fn run(arguments: RunArguments, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("failed to find a cluster: run inside one, or set KUBECONFIG")?;
    let health = Arc::new(Health::default());
    let serving = serve(arguments.listen, health.clone(), shutdown.clone());
    let controlling = async {
        tokio::select! {
            () = watches::wait_for_definition(&client) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        control(client.clone(), arguments.clone(), health.clone(), shutdown.clone()).await
    };
    tokio::try_join!(serving, controlling).map(drop)
}

async fn control(
    client: Client,
    arguments: RunArguments,
    health: Arc<Health>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (nudges, nudged) = mpsc::channel(FLUSH_NEWS);
    let (ended, flush_news) = mpsc::channel(FLUSH_NEWS);
    let fleet = Arc::new(Fleet::new(nudges, ended, health.clone()));
    let context = Arc::new(Context {
        defaults: Defaults { image: arguments.instance_image.clone() },
        fleet: fleet.clone(),
        events: Events::new(client.clone()),
        rollouts: Rollouts::new(arguments.max_rollouts),
        http: reqwest::Client::builder().no_proxy().build().context("failed to make an HTTP client")?,
        now: Timestamp::now,
        random: || std::array::from_fn(|_| rand::random()),
        reported: Reported::default(),
        swept: Mutex::default(),
        client: client.clone(),
    });

    let (databases, writer) = store();
    let queue =
        watches::queue(client, writer, nudged, context.clone(), health).take_until(shutdown.clone().cancelled_owned());
    let reconciles = applier(
        |kalamdb, context| measured(kalamdb, context).boxed(),
        |kalamdb, error, _| on_error(&kalamdb, error),
        context.clone(),
        databases,
        queue,
        Config::default().concurrency(arguments.concurrency.max(1)),
    )
    .for_each(|_| std::future::ready(()));
    let flushes =
        scheduler::run(arguments.fleet.settings(), fleet.clone(), fleet, Arc::new(rand::random), shutdown.clone());
    let news = events::tell_flushes(context, flush_news, shutdown);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), image = arguments.instance_image, "looking after KalamDBs");
    let (_, flushes, ()) = tokio::join!(reconciles, flushes, news);
    flushes.context("failed to start the flush scheduler")
}

async fn measured(kalamdb: Arc<KalamDB>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let result =
        tokio::time::timeout(RECONCILE_TIMEOUT, reconcile(&kalamdb, &context)).await.unwrap_or(Err(Error::TimedOut));
    let label = if result.is_ok() { "ok" } else { "error" };
    histogram!(RECONCILE_DURATION, "result" => label).record(started.elapsed().as_secs_f64());
    if let Err(error) = &result {
        context.events.reconcile_failed(&kalamdb, error).await;
    }
    result
}

/// Fetch, validate, build and apply, observe, report.
async fn reconcile(kalamdb: &KalamDB, context: &Context) -> Result<Action, Error> {
    let kalamdb = &context.reported.over(kalamdb);
    if kalamdb.meta().deletion_timestamp.is_some() {
        // Owner references take the objects away, and the StatefulSet's retention policy the volume or not. Nothing outside
        // the cluster is touched, so no finalizer is needed.
        context.fleet.place(&kalamdb.uid().unwrap_or_default(), ObjectRef::from_obj(kalamdb), None, false);
        return Ok(Action::await_change());
    }
    let found = fetch::fetch(kalamdb, context).await?;
    let outcome = match Database::resolve(kalamdb, &found.references, &context.defaults) {
        Ok(database) => match apply::apply(database, &found, context).await {
            Ok(applied) => Outcome::Applied(Box::new(applied)),
            Err(error) => Outcome::Refused { refusal: Refusal::of(error)?, found: Box::new(found) },
        },
        Err(invalid) => Outcome::Refused { refusal: Refusal::Invalid(invalid), found: Box::new(found) },
    };
    let observed = observe::observe(kalamdb, &outcome, context).await?;
    let state = State { outcome, observed };
    report::report(kalamdb, &state, context).await?;
    Ok(Action::requeue(recheck_after(&state)))
}

fn recheck_after(state: &State) -> Duration {
    match &state.outcome {
        Outcome::Refused { refusal: Refusal::ByServer { .. }, .. } => RECHECK_REFUSED,
        _ if state.is_settled() && !state.misses_its_store() => RECHECK_READY,
        _ => RECHECK_UNREADY,
    }
}

fn on_error(kalamdb: &KalamDB, error: &Error) -> Action {
    tracing::warn!(database = %ObjectRef::from_obj(kalamdb), %error, "a reconcile failed; trying again");
    Action::requeue(RETRY)
}

fn namespace(kalamdb: &KalamDB) -> String {
    kalamdb.namespace().unwrap_or_default()
}
