//! Where the tests find the cluster and the S3 server, and the Kubernetes namespace of one test.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use kalamdb_e2e::bucket::Bucket;
use kalamdb_e2e::database::Database;
use kalamdb_e2e::kubectl::Kubectl;
use kalamdb_e2e::wait::{self, Seen};
use serde_json::Value as Json;

/// The database that `examples/kalamdb-s3.yaml` describes, and the Secret that it refers to.
pub const FLIGHTS: &str = "flights";
pub const FLIGHTS_SECRET: &str = "flights-s3";

const GONE_LIMIT: Duration = Duration::from_secs(300);

/// There is one operator for all tests: they share it, and whoever restarts it runs alone.
static OPERATOR: RwLock<()> = RwLock::new(());

/// A test's hold on the operator.
#[expect(dead_code, reason = "held, and never looked at")]
enum Hold {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A test's place: its own Kubernetes namespace on the cluster, and the bucket.
pub struct Place {
    pub kubectl: Kubectl,
    pub bucket: Bucket,
    _operator: Hold,
}

impl Place {
    /// Makes the Kubernetes namespace anew.
    pub fn new(test: &str) -> Result<Self> {
        Self::make(test, Hold::Shared(OPERATOR.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The same, while no other test runs: for those that end the operator itself.
    pub fn alone(test: &str) -> Result<Self> {
        Self::make(test, Hold::Alone(OPERATOR.write().unwrap_or_else(PoisonError::into_inner)))
    }

    fn make(test: &str, operator: Hold) -> Result<Self> {
        let bucket = Bucket {
            endpoint: variable("KALAMDB_TEST_S3_ENDPOINT")?,
            name: variable("KALAMDB_TEST_S3_BUCKET")?,
            access_key: variable("KALAMDB_TEST_S3_ACCESS_KEY")?,
            secret_key: variable("KALAMDB_TEST_S3_SECRET_KEY")?,
        };
        // The time makes each run's namespace, and so its prefix in the bucket, a new one.
        let now = std::time::UNIX_EPOCH.elapsed().context("the clock stands before 1970")?.as_secs();
        let program = std::env::var_os("KALAMDB_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into());
        let kubectl = Kubectl::new(program.into(), None, Some(variable("KALAMDB_TEST_CONTEXT")?));
        let kubectl = kubectl.in_namespace(&format!("e2e-{test}-{now:x}"));
        kubectl.run(&["create", "namespace", kubectl.namespace()])?;
        Ok(Self { kubectl, bucket, _operator: operator })
    }

    /// The database of that name, which a test has applied or is about to.
    pub fn database(&self, name: &str) -> Database {
        Database::new(self.kubectl.clone(), name, || Ok(()))
    }

    /// Creates the Secret with the keys to the bucket.
    pub fn create_s3_secret(&self) -> Result<()> {
        let Bucket { access_key, secret_key, .. } = &self.bucket;
        let literals = [
            format!("--from-literal=accessKeyId={access_key}"),
            format!("--from-literal=secretAccessKey={secret_key}"),
        ];
        self.kubectl.run(&["create", "secret", "generic", FLIGHTS_SECRET, &literals[0], &literals[1]]).map(drop)
    }

    /// `examples/kalamdb-s3.yaml` with the S3 server of this environment.
    pub fn s3_example(&self) -> Result<String> {
        let text = example("kalamdb-s3.yaml")?;
        let text = replaced(&text, "endpoint: http://s3:7070", &format!("endpoint: {}", self.bucket.endpoint));
        Ok(replaced(&text, "bucket: kalamdb", &format!("bucket: {}", self.bucket.name)))
    }

    /// What lies in the bucket for the database `flights`.
    pub fn cold_files(&self) -> Result<Vec<String>> {
        let objects = self.bucket.list(&format!("{}/{FLIGHTS}/", self.kubectl.namespace()))?;
        Ok(objects.into_iter().map(|object| object.key).collect())
    }

    /// Waits until an object is gone.
    pub fn wait_until_gone(&self, kind: &str, name: &str) -> Result<()> {
        let waited = wait::until(&format!("{kind} {name} to be gone"), GONE_LIMIT, || {
            let object = self.kubectl.get(kind, name)?;
            Ok(object.map_or(Seen::Ready(()), |object| Seen::Waiting(object["metadata"].to_string())))
        });
        waited.with_context(|| self.kubectl.account(kind, name))
    }

    /// Whether an Event of type Warning about the database mentions `text`.
    pub fn was_warned_of(&self, database: &str, text: &str) -> Result<bool> {
        self.has_event(database, |event| {
            event["type"] == "Warning" && event["message"].as_str().is_some_and(|message| message.contains(text))
        })
    }

    /// Whether there is an Event of that type and reason about the database.
    pub fn was_told(&self, database: &str, kind: &str, reason: &str) -> Result<bool> {
        self.has_event(database, |event| event["type"] == kind && event["reason"] == reason)
    }

    fn has_event(&self, database: &str, matches: impl Fn(&Json) -> bool) -> Result<bool> {
        let events = self.kubectl.list("events")?;
        // Events of the pod are about another object.
        let about = |event: &&Json| event["involvedObject"]["kind"] == "KalamDB";
        Ok(events.iter().filter(about).any(|event| event["involvedObject"]["name"] == database && matches(event)))
    }

    /// Removes the Kubernetes namespace of a test that passed. Nobody waits for it.
    pub fn remove(self) -> Result<()> {
        self.kubectl.run(&["delete", "namespace", self.kubectl.namespace(), "--wait=false"]).map(drop)
    }
}

/// A file of `examples/`.
pub fn example(name: &str) -> Result<String> {
    let path = example_path(name);
    std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

/// The path of a file of `examples/`.
pub fn example_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// The text with `from` replaced, which must be there: an example that changed must not turn a test into another.
pub fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?} is not once in:\n{text}");
    text.replace(from, to)
}

/// A variable that `cargo xtask test` sets.
pub fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| {
        format!(
            "{name} is not set. The end-to-end tests need a cluster with the operator, and an S3 server: `cargo xtask test` \
             sets up both and runs them. All tests that need neither: cargo test --workspace --exclude kalamdb-e2e"
        )
    })
}
