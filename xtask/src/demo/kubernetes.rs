//! The stage on Kubernetes: the chart, a `KalamDB` from `examples/`, an S3 server, all reached as a user reaches them.

mod objects;

use std::time::Duration;

use anyhow::{Context, Result};
use kalamdb_e2e::bucket::{Bucket, Object};
use kalamdb_e2e::database::{Database, KIND, PORT};
use kalamdb_e2e::forward::PortForward;
use kalamdb_e2e::kubectl::Kubectl;
use kalamdb_e2e::sql::Client;
use kalamdb_e2e::wait::Seen;

use crate::cache::Cache;
use crate::charts::{self, Charts, OPERATOR_NAMESPACE, RELEASE, Target};
use crate::cluster::{self, Cluster, S3};
use crate::console;
use crate::demo::kubernetes::objects::S3Server;
use crate::demo::stage::Stage;
use crate::images::{self, Products};
use crate::interruption;
use crate::tools::go::{GoTool, Tools};
use crate::tools::{self, debian};
use crate::workspace::{self, Warnings};

/// The Kubernetes namespace of the demo.
const NAMESPACE: &str = "kalamdb-demo";
/// The database of `examples/kalamdb-s3.yaml`.
const DATABASE: &str = "flights";
const NAMESPACE_LIMIT: Duration = Duration::from_secs(120);

/// A database on a cluster.
pub struct Kubernetes {
    database: Database,
    /// The words that begin a command on this cluster, for people.
    kubectl_words: String,
    bucket: Bucket,
    /// Keeps the way to an S3 server inside the cluster open.
    _bucket_forward: Option<PortForward>,
    removal: String,
}

/// The cluster that was prepared, before the database is there.
struct Ground {
    kubectl: Kubectl,
    kubectl_words: String,
    removal: String,
    s3: S3Server,
    /// The instance's image as the operator gives it to a database.
    image: String,
}

impl Kubernetes {
    /// On the cluster of this machine, which is started where it does not run.
    pub fn local(cache: &Cache) -> Result<Self> {
        console::headline("What is needed");
        let (tools, images) = build(cache)?;
        console::headline("A cluster and an S3 server");
        let cluster = Cluster::new(cache, tools.clone());
        cluster.up()?;
        console::step("load the images into the cluster", || images::load(&cluster, &images.all()))?;
        let kubeconfig = cluster.kubeconfig();
        let target =
            Target { kubeconfig: Some(&kubeconfig), context: cluster::CONTEXT, registry: None, images: &images };
        install(cache, &tools, &target)?;
        Self::create(Ground {
            kubectl: Kubectl::new(tools.kubectl(), Some(kubeconfig.clone()), Some(cluster::CONTEXT.to_owned())),
            kubectl_words: format!("KUBECONFIG={} kubectl", kubeconfig.display()),
            removal: "cargo xtask demo --down".to_owned(),
            image: images.instance.name().to_owned(),
            s3: S3Server::Beside(cluster.s3()?),
        })
    }

    /// On a cluster of the user's, which gets the images from `registry` or, if it is kind or minikube, by hand.
    pub fn existing(cache: &Cache, context: &str, registry: Option<&str>) -> Result<Self> {
        console::headline("What is needed");
        let (tools, images) = build(cache)?;
        let s3_image = images::build_s3(&tools)?;
        let s3_reference = objects::hand_over(context, registry, &images.all(), &s3_image)?;
        console::headline(&format!("The operator on {context}"));
        let target = Target { kubeconfig: None, context, registry, images: &images };
        install(cache, &tools, &target)?;
        let s3 = S3 {
            endpoint: String::new(),
            access_key: cluster::random_word()?,
            secret_key: cluster::random_word()?,
            bucket: objects::BUCKET.to_owned(),
            root: "/data".into(),
        };
        Self::create(Ground {
            kubectl: Kubectl::new(tools.kubectl(), None, Some(context.to_owned())),
            kubectl_words: format!("kubectl --context {context}"),
            removal: format!("cargo xtask demo --context {context} --down"),
            image: match registry {
                Some(registry) => format!("{registry}/{}", images.instance.name()),
                None => images.instance.name().to_owned(),
            },
            s3: S3Server::Inside { image: s3_reference, keys: s3 },
        })
    }

    fn create(ground: Ground) -> Result<Self> {
        console::headline("A database");
        let kubectl = ground.kubectl.in_namespace(NAMESPACE);
        console::step(
            &format!("create the Kubernetes namespace {NAMESPACE}, with a Service and a Secret for S3"),
            || {
                objects::create_namespace(&ground.kubectl, NAMESPACE)?;
                objects::create_s3(&kubectl, &ground.s3)
            },
        )?;
        let (bucket, bucket_forward) = objects::open_bucket(&kubectl, &ground.s3)?;
        console::step("kubectl apply -f examples/kalamdb-s3.yaml", || {
            let file = workspace::root().join("examples/kalamdb-s3.yaml");
            let text = std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
            kubectl.apply(&text).map(drop)
        })?;
        let mut database = Database::new(kubectl, DATABASE, interruption::check);
        console::step(&format!("wait for KalamDB {DATABASE} to be Ready"), || {
            database.wait_until_it_runs(&ground.image, console::detail)
        })?;
        show(database.kubectl(), &["get", KIND, DATABASE])?;
        console::detail(&format!("SQL over HTTP: Service {DATABASE}, port {PORT}; from here {}", database.url()?));
        let Ground { kubectl_words, removal, .. } = ground;
        Ok(Self { database, kubectl_words, bucket, _bucket_forward: bucket_forward, removal })
    }
}

impl Stage for Kubernetes {
    fn login(&mut self, user: &str, password: &str) -> Result<Client> {
        self.database.login(user, password)
    }

    fn root(&mut self) -> Result<Client> {
        self.database.root()
    }

    fn cold_files(&self) -> Result<Vec<Object>> {
        self.bucket.list(&format!("{NAMESPACE}/{DATABASE}/"))
    }

    fn cold_place(&self) -> String {
        format!("the bucket {} (listed over S3 at {})", self.bucket.name, self.bucket.endpoint)
    }

    fn show_scheduler(&self) -> Result<()> {
        // The operator looks again every few seconds: its status may be a moment behind the flush.
        self.database.wait_for("the operator to report the flush", |object| {
            let flush = &object["status"]["flush"];
            let settled = flush["lastTime"].is_string() && flush["pendingRows"].as_u64().unwrap_or(0) < 5000;
            Ok(if settled { Seen::Ready(()) } else { Seen::Waiting(flush.to_string()) })
        })?;
        show(self.database.kubectl(), &["get", KIND, DATABASE])?;
        let selector = format!("involvedObject.kind=KalamDB,involvedObject.name={DATABASE},reason=Flushed");
        show(self.database.kubectl(), &["get", "events", "--field-selector", &selector, "--sort-by", ".lastTimestamp"])
    }

    fn ending(&self) -> &'static str {
        "kubectl delete pod flights-0 --force --grace-period=0, and wait for the next one"
    }

    fn crash(&mut self) -> Result<()> {
        self.database.kill_pod()
    }

    fn account(&self) -> String {
        self.database.account()
    }

    fn next_commands(&self) -> Result<String> {
        let kubectl = format!("{} -n {NAMESPACE}", self.kubectl_words);
        Ok(format!(
            "The cluster stays up.

  see:        {kubectl} get kalamdb,pods,pvc
              {kubectl} describe kalamdb {DATABASE}
  operator:   {words} -n {OPERATOR_NAMESPACE} logs deployment/{RELEASE}
  reach it:   {kubectl} port-forward service/{DATABASE} {PORT} &
  log in:     PASSWORD=$({kubectl} get secret {DATABASE}-credentials -o go-template='{{{{index .data \"root-password\" | base64decode}}}}')
              TOKEN=$(curl -s localhost:{PORT}/v1/api/auth/login -H 'content-type: application/json' \\
                -d \"{{\\\"user\\\":\\\"root\\\",\\\"password\\\":\\\"$PASSWORD\\\"}}\" | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')
  ask:        curl -s localhost:{PORT}/v1/api/sql -H \"authorization: Bearer $TOKEN\" -H 'content-type: application/json' \\
                -d '{{\"sql\":\"SELECT origin, COUNT(*) FROM nyc.flights GROUP BY origin\"}}'
  another:    {kubectl} apply -f examples/kalamdb-volume.yaml
  remove all: {removal}",
            words = self.kubectl_words,
            removal = self.removal,
        ))
    }
}

/// Removes the local cluster, and with it the demo.
pub fn remove_local(cache: &Cache) -> Result<()> {
    Cluster::new(cache, Tools::places(cache)).down()
}

/// Removes what the demo made on a cluster of the user's. The definition of `KalamDB` stays: other databases may need it.
pub fn remove_from(cache: &Cache, context: &str) -> Result<()> {
    let tools = tools::go::ensure(cache, &[GoTool::Helm])?;
    let kubectl = Kubectl::new(tools.kubectl(), None, Some(context.to_owned()));
    console::step(&format!("delete the Kubernetes namespace {NAMESPACE}"), || {
        kubectl.run(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"])
    })?;
    console::step(&format!("uninstall {RELEASE}"), || charts::uninstall(&tools, context, None))?;
    console::say(&format!(
        "The custom resource definition stays, as other databases may need it; to remove it and all of them:
  kubectl --context {context} delete crd kalamdbs.kalamdb.io"
    ));
    Ok(())
}

fn build(cache: &Cache) -> Result<(Tools, Products)> {
    debian::ensure(debian::BUILD)?;
    debian::ensure(debian::CLUSTER)?;
    let tools = workspace::build_beside_tools(cache, Warnings::Ignored)?;
    let images = images::build_products(cache)?;
    Ok((tools, images))
}

fn install(cache: &Cache, tools: &Tools, target: &Target<'_>) -> Result<()> {
    let charts = Charts::stage(cache, tools)?;
    console::step("helm upgrade --install kalamdb-operator charts/kalamdb-operator", || charts.install(target))
}

fn show(kubectl: &Kubectl, args: &[&str]) -> Result<()> {
    console::say(&format!("\n$ kubectl -n {} {}", kubectl.namespace(), args.join(" ")));
    console::detail(kubectl.run(args)?.trim_end());
    Ok(())
}
