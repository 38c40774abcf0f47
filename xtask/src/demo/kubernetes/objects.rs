//! What the demo puts beside the database: its Kubernetes namespace, the Service `s3`, the Secret with the keys.

use anyhow::{Context, Result, bail, ensure};
use kalamdb_e2e::bucket::Bucket;
use kalamdb_e2e::forward::PortForward;
use kalamdb_e2e::kubectl::Kubectl;
use serde_json::{Value as Json, json};

use crate::cluster::S3;
use crate::console;
use crate::demo::kubernetes::{NAMESPACE, NAMESPACE_LIMIT};
use crate::demo::require;
use crate::images::{self, Archive};
use crate::interruption;
use crate::program::Program;

/// The bucket that `examples/kalamdb-s3.yaml` names.
pub const BUCKET: &str = "kalamdb";
/// The Service of the S3 server, as `examples/kalamdb-s3.yaml` names it, and its port.
const SERVICE: &str = "s3";
const PORT: u16 = 7070;
const SECRET: &str = "flights-s3";
/// Leads the Service to the node.
const NODE_SLICE: &str = "s3-node";

/// Where the S3 server runs.
pub enum S3Server {
    /// On the node, where the local cluster has it.
    Beside(S3),
    /// In a pod: a cluster of the user's can't reach this machine.
    Inside {
        /// The image of the server.
        image: String,
        /// The keys that it is given.
        keys: S3,
    },
}

/// Creates the Kubernetes namespace; one that is still being deleted is waited for.
pub fn create_namespace(kubectl: &Kubectl, name: &str) -> Result<()> {
    interruption::wait_until(&format!("the earlier Kubernetes namespace {name} to be gone"), NAMESPACE_LIMIT, || {
        let namespace = kubectl.get("namespace", name)?;
        Ok(namespace.is_none_or(|namespace| namespace["status"]["phase"] != "Terminating"))
    })?;
    apply(kubectl, &[json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })])
}

/// Creates the Service and the Secret that `examples/kalamdb-s3.yaml` refers to.
pub fn create_s3(kubectl: &Kubectl, server: &S3Server) -> Result<()> {
    match server {
        S3Server::Beside(s3) => {
            let mut objects = vec![secret(s3)];
            objects.extend(service_of_address(s3)?);
            apply(kubectl, &objects)
        }
        S3Server::Inside { image, keys } => {
            // Requests would go to the one server or the other.
            ensure!(
                kubectl.get("endpointslice", NODE_SLICE)?.is_none(),
                "{NAMESPACE} holds a demo of the local cluster, whose S3 server is beside it: run the demo without --context, or \
                 remove it first with `cargo xtask demo --down`"
            );
            // A demo that runs again finds its server with its keys and its data.
            if kubectl.get("secret", SECRET)?.is_none() {
                apply(kubectl, &[secret(keys)])?;
            }
            apply(kubectl, &server_in_a_pod(image))?;
            kubectl.run(&["rollout", "status", "statefulset/s3", "--timeout=120s"]).map(drop)
        }
    }
}

/// The bucket as it is reached from here.
pub fn open_bucket(kubectl: &Kubectl, server: &S3Server) -> Result<(Bucket, Option<PortForward>)> {
    let (endpoint, forward) = match server {
        S3Server::Beside(s3) => (s3.endpoint.clone(), None),
        S3Server::Inside { .. } => {
            let forward = PortForward::start(kubectl, &format!("service/{SERVICE}"), PORT)?;
            (forward.url(), Some(forward))
        }
    };
    let bucket = Bucket {
        endpoint,
        name: BUCKET.to_owned(),
        access_key: kubectl.secret(SECRET, "accessKeyId")?,
        secret_key: kubectl.secret(SECRET, "secretAccessKey")?,
    };
    // The local cluster has made its bucket.
    if forward.is_some() {
        bucket.create()?;
    }
    Ok((bucket, forward))
}

/// Brings the images to a cluster of the user's and returns the reference of the S3 server's image there.
pub fn hand_over(context: &str, registry: Option<&str>, images: &[Archive], s3: &Archive) -> Result<String> {
    let all: Vec<Archive> = images.iter().chain([s3]).cloned().collect();
    if let Some(registry) = registry {
        images::push(&all, registry)?;
        return Ok(format!("{registry}/{}", s3.name()));
    }
    for archive in &all {
        let (program, mut arguments) = loader(context)?;
        arguments.push(archive.path.display().to_string());
        let program = require(program, "hands the images to your cluster")?;
        console::step(&format!("load {} into {context}", archive.reference), || {
            Program::new(&program).args(&arguments).output()
        })?;
    }
    Ok(s3.reference.clone())
}

/// The program that puts an image archive into a cluster on this machine.
fn loader(context: &str) -> Result<(&'static str, Vec<String>)> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    if let Some(name) = context.strip_prefix("kind-") {
        return Ok(("kind", words(&["load", "image-archive", "--name", name])));
    }
    if context == "minikube" {
        return Ok(("minikube", words(&["image", "load"])));
    }
    bail!(
        "the cluster of context {context} must get the images from a registry that it can reach: add --registry, such as \
         --registry ghcr.io/you (and log in to it with `buildah login`)"
    )
}

fn apply(kubectl: &Kubectl, objects: &[Json]) -> Result<()> {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    kubectl.apply(&list.to_string()).with_context(|| format!("failed to prepare {NAMESPACE}")).map(drop)
}

fn secret(s3: &S3) -> Json {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": SECRET },
        "stringData": { "accessKeyId": s3.access_key, "secretAccessKey": s3.secret_key },
    })
}

/// A Service without pods: its name leads to the S3 server on the node.
fn service_of_address(s3: &S3) -> Result<[Json; 2]> {
    let (address, port) = s3
        .endpoint
        .strip_prefix("http://")
        .and_then(|host| host.rsplit_once(':'))
        .with_context(|| format!("{} is not http://address:port", s3.endpoint))?;
    let port: u16 = port.parse().with_context(|| format!("{} has no port", s3.endpoint))?;
    Ok([
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": SERVICE },
            "spec": { "ports": [{ "name": "http", "port": PORT, "targetPort": port }] },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": NODE_SLICE, "labels": { "kubernetes.io/service-name": SERVICE } },
            "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
            "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
        }),
    ])
}

fn server_in_a_pod(image: &str) -> Vec<Json> {
    let labels = json!({ "app.kubernetes.io/name": "s3" });
    let key = |name: &str| json!({ "secretKeyRef": { "name": SECRET, "key": name } });
    vec![
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": SERVICE },
            "spec": { "selector": labels, "ports": [{ "name": "http", "port": PORT, "targetPort": PORT }] },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": SERVICE, "labels": labels },
            "spec": {
                "serviceName": SERVICE, "replicas": 1, "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": {
                    "securityContext": { "runAsUser": 65532, "runAsGroup": 65532, "runAsNonRoot": true, "fsGroup": 65532 },
                    "containers": [{
                        "name": "s3", "image": image, "imagePullPolicy": "IfNotPresent",
                        "args": ["--port", format!(":{PORT}"), "--region", "us-east-1", "posix", "/data"],
                        "env": [
                            { "name": "ROOT_ACCESS_KEY_ID", "valueFrom": key("accessKeyId") },
                            { "name": "ROOT_SECRET_ACCESS_KEY", "valueFrom": key("secretAccessKey") },
                        ],
                        "ports": [{ "name": "http", "containerPort": PORT }],
                        "readinessProbe": { "tcpSocket": { "port": "http" }, "periodSeconds": 2 },
                        "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                    }],
                }},
                "volumeClaimTemplates": [{
                    "metadata": { "name": "data" },
                    "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "2Gi" } } },
                }],
            },
        }),
    ]
}
