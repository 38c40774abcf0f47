//! The Helm charts: checked, and installed into a cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};

use crate::cache::{self, Cache};
use crate::cluster::{self, Cluster};
use crate::console;
use crate::images::{self, Archive};
use crate::program::Program;
use crate::tools::go::{GoTool, Tools};
use crate::workspace;

/// The release, and the Kubernetes namespace of the operator.
pub const RELEASE: &str = "kalamdb-operator";
/// Where the operator is installed.
pub const OPERATOR_NAMESPACE: &str = "kalamdb-system";
const CHARTS: [&str; 2] = ["kalamdb-crds", "kalamdb-operator"];

/// The charts as they are in the checkout, copied to where `helm dependency build` may write.
#[derive(Debug)]
pub struct Charts {
    folder: PathBuf,
    helm: PathBuf,
    kubeconform: PathBuf,
}

/// Whether the charts are checked before they are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// Lint and schemas.
    All,
    /// None: the API server's own have to do.
    None,
}

/// Builds the images from the programs that are there and installs the operator into the local cluster.
pub fn deploy(cache: &Cache, tools: &Tools, cluster: &Cluster, checks: Checks) -> Result<()> {
    let images = images::build_products(cache)?;
    console::step("load the images", || images::load(cluster, &images))?;
    let charts = Charts::stage(cache, tools)?;
    if checks == Checks::All {
        console::step("check the charts", || charts.check(|| cluster.kubectl()))?;
    }
    let kubeconfig = cluster.kubeconfig();
    let target = Target { kubeconfig: Some(&kubeconfig), context: cluster::CONTEXT, registry: None, images: &images };
    console::step("install the operator", || charts.install(&target))
}

impl Charts {
    /// Copies the charts and puts their dependencies into them.
    pub fn stage(cache: &Cache, tools: &Tools) -> Result<Self> {
        let folder = cache.charts();
        let _ = std::fs::remove_dir_all(&folder);
        cache::create(folder.parent().unwrap_or(&folder))?;
        Program::new("cp").arg("-r").arg(workspace::root().join("charts")).arg(&folder).output()?;
        let (helm, kubeconform) = (tools.program(GoTool::Helm), tools.program(GoTool::Kubeconform));
        let charts = Self { folder, helm, kubeconform };
        charts.helm().args(["dependency", "build", "--skip-refresh"]).arg(charts.chart("kalamdb-operator")).output()?;
        Ok(charts)
    }

    /// Lints the charts and checks what they render against the API server's own schemas.
    pub fn check(&self, kubectl: impl Fn() -> Program) -> Result<()> {
        let schemas = self.folder.join("schemas");
        write_schemas(&schemas, &kubectl().args(["get", "--raw", "/openapi/v2"]).output()?)?;
        for chart in CHARTS {
            self.helm().args(["lint", "--strict"]).arg(self.chart(chart)).output()?;
            let manifests = self.helm().args(["template", "check"]).arg(self.chart(chart)).output()?;
            Program::new(&self.kubeconform)
                .args(["-strict", "-summary", "-schema-location"])
                .arg(schemas.join("{{ .ResourceKind }}-{{ .ResourceAPIVersion }}.json"))
                .input(manifests)
                .output()
                .with_context(|| format!("the chart {chart} renders something that the API server would refuse"))?;
        }
        Ok(())
    }

    /// Installs the operator, or upgrades it; the images' fingerprints make a changed image restart it.
    pub fn install(&self, target: &Target<'_>) -> Result<()> {
        let images: Vec<String> = target.images.iter().map(Archive::fingerprint).collect();
        let mut program = self
            .helm()
            .args(["upgrade", "--install", RELEASE])
            .arg(self.chart("kalamdb-operator"))
            .args(["--namespace", OPERATOR_NAMESPACE, "--create-namespace", "--wait", "--timeout", "180s"])
            .args(["--kube-context", target.context])
            .arg(format!("--set-string=podAnnotations.kalamdb\\.io/images={}", images.join("_")));
        if let Some(kubeconfig) = target.kubeconfig {
            program = program.env("KUBECONFIG", kubeconfig);
        }
        if let Some(registry) = target.registry {
            let version = workspace::VERSION;
            program = program
                .arg(format!("--set=image.repository={registry}/kalamdb-operator"))
                .arg(format!("--set=instanceImage={registry}/kalamdb-instance:{version}"));
        }
        program.output().map(drop)
    }

    fn helm(&self) -> Program {
        Program::new(&self.helm)
    }

    fn chart(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Into which cluster the operator goes, and where that finds the images.
#[derive(Debug)]
pub struct Target<'a> {
    /// The kubeconfig; the user's own where it is not given.
    pub kubeconfig: Option<&'a Path>,
    /// The context in it.
    pub context: &'a str,
    /// The registry that holds the images; none where the nodes have them.
    pub registry: Option<&'a str>,
    /// The images.
    pub images: &'a [Archive],
}

/// One JSON schema for each kind that the API server knows, and one file of definitions to which they refer.
fn write_schemas(folder: &Path, openapi: &str) -> Result<()> {
    let openapi: Json = serde_json::from_str(openapi).context("failed to understand the API server's OpenAPI")?;
    let definitions = openapi["definitions"].as_object().context("the API server's OpenAPI has no definitions")?;
    let mut strict = serde_json::Map::new();
    for (name, definition) in definitions {
        for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let file = format!("{}-{}.json", text(kind, "kind").to_lowercase(), api_version(kind));
            let reference = json!({ "$ref": format!("definitions.json#/definitions/{name}") });
            cache::write(&folder.join(file), reference.to_string())?;
        }
        strict.insert(name.clone(), strictly(definition));
    }
    cache::write(&folder.join("definitions.json"), json!({ "definitions": strict }).to_string())
}

/// Fields that the API server does not know are errors; numbers stand for text where Kubernetes takes both.
fn strictly(definition: &Json) -> Json {
    let mut definition = definition.clone();
    let takes_both = definition["format"] == "int-or-string"
        || definition["description"].as_str().is_some_and(|text| text.starts_with("Quantity is"));
    if takes_both {
        return json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] });
    }
    if definition["properties"].is_object() {
        definition["additionalProperties"] = json!(false);
    }
    definition
}

fn api_version(kind: &Json) -> &str {
    text(kind, "version")
}

fn text<'a>(value: &'a Json, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::strictly;
    use serde_json::json;

    #[test]
    fn unknown_fields_are_refused_and_quantities_may_be_numbers() {
        let object = json!({ "properties": { "a": { "type": "string" } } });
        assert_eq!(strictly(&object)["additionalProperties"], false);
        let port = json!({ "type": "string", "format": "int-or-string" });
        assert_eq!(strictly(&port), json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }));
    }
}
