//! The Helm charts: checked, and installed into a cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
pub use kalamdb_e2e::operator::{NAMESPACE as OPERATOR_NAMESPACE, RELEASE};
use serde_json::{Value as Json, json};

use crate::cache::{self, Cache};
use crate::cluster::{self, Cluster};
use crate::console;
use crate::images::{self, Products};
use crate::program::Program;
use crate::tools::go::{GoTool, Tools};
use crate::workspace;

/// The definition that the chart brings along.
const DEFINITION: &str = "kalamdbs.kalamdb.io";
const CHARTS: [&str; 2] = ["kalamdb-crds", "kalamdb-operator"];

/// The charts as they are in the checkout, copied to where `helm dependency build` may write.
#[derive(Debug)]
pub struct Charts {
    folder: PathBuf,
    helm: PathBuf,
    kubeconform: PathBuf,
}

/// Builds the images from the programs that are there and installs the operator into the local cluster.
pub fn deploy(cache: &Cache, tools: &Tools, cluster: &Cluster) -> Result<()> {
    let images = images::build_products(cache)?;
    console::step("load the images", || images::load(cluster, &images.all()))?;
    let charts = Charts::stage(cache, tools)?;
    let kubeconfig = cluster.kubeconfig();
    let target = Target { kubeconfig: Some(&kubeconfig), context: cluster::CONTEXT, registry: None, images: &images };
    console::step("install the operator", || charts.install(&target))
}

/// Lints and renders the charts, and sees that the definition outlives the operator's release.
pub fn test(cache: &Cache, tools: &Tools, cluster: &Cluster) -> Result<()> {
    let charts = Charts::stage(cache, tools)?;
    console::step("check the charts", || charts.check(|| cluster.kubectl()))?;
    console::step("uninstall the operator: the definition stays", || {
        uninstall(tools, cluster::CONTEXT, Some(&cluster.kubeconfig()))?;
        let kept = cluster.kubectl().args(["get", "crd", DEFINITION]).output();
        kept.map(drop).context("the definition went with the release, and with it every KalamDB")
    })
}

/// Removes the operator's release.
pub fn uninstall(tools: &Tools, context: &str, kubeconfig: Option<&Path>) -> Result<()> {
    let mut program = Program::new(tools.program(GoTool::Helm))
        .args(["uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--ignore-not-found", "--wait"])
        .args(["--kube-context", context]);
    if let Some(kubeconfig) = kubeconfig {
        program = program.env("KUBECONFIG", kubeconfig);
    }
    program.output().map(drop)
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
        self.check_values()
    }

    /// What the values' schema refuses, and what a value changes.
    fn check_values(&self) -> Result<()> {
        for (setting, name) in BAD_VALUES {
            let Err(refusal) = self.render(setting) else { bail!("the chart takes {setting}") };
            ensure!(
                format!("{refusal:#}").contains(name),
                "the refusal of {setting} does not name {name}: {refusal:#}"
            );
        }
        let definition = |manifests: &str| manifests.contains("kind: CustomResourceDefinition");
        let whole = self.render("crds.enabled=true")?;
        ensure!(definition(&whole), "crds.enabled=true renders no definition");
        ensure!(whole.contains("helm.sh/resource-policy: keep"), "the definition would go with its release");
        ensure!(!definition(&self.render("crds.enabled=false")?), "crds.enabled=false renders the definition");
        let set = self.render("flush.interval=1h30m,flush.maxFleet=7,instanceImage=here/instance:9")?;
        for value in ["value: \"1h30m\"", "value: \"7\"", "value: \"here/instance:9\""] {
            ensure!(set.contains(value), "no {value} in what the chart renders");
        }
        Ok(())
    }

    fn render(&self, setting: &str) -> Result<String> {
        self.helm().args(["template", "check"]).arg(self.chart(RELEASE)).args(["--set", setting]).output()
    }

    /// Installs the operator, or upgrades it; the tags name what the images were made from, so a changed one restarts it.
    pub fn install(&self, target: &Target<'_>) -> Result<()> {
        let mut program = self
            .helm()
            .args(["upgrade", "--install", RELEASE])
            .arg(self.chart("kalamdb-operator"))
            .args(["--namespace", OPERATOR_NAMESPACE, "--create-namespace", "--wait", "--timeout", "180s"])
            .args(["--kube-context", target.context])
            .args(image_settings(target.images, target.registry));
        if let Some(kubeconfig) = target.kubeconfig {
            program = program.env("KUBECONFIG", kubeconfig);
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
    pub images: &'a Products,
}

/// What Helm is told of the images: their names in `registry`, or as the nodes of the cluster have them.
pub fn image_settings(images: &Products, registry: Option<&str>) -> [String; 3] {
    let place = registry.map_or_else(String::new, |registry| format!("{registry}/"));
    [
        format!("--set-string=image.repository={place}{RELEASE}"),
        format!("--set-string=image.tag={}", images.operator.tag()),
        format!("--set-string=instanceImage={place}{}", images.instance.name()),
    ]
}

/// Settings that the values' schema refuses, and the name by which the refusal tells what is wrong.
const BAD_VALUES: [(&str, &str); 8] = [
    ("flush.interval=0s", "interval"),
    ("flush.interval=5", "interval"),
    ("flush.maxFleet=0", "maxFleet"),
    ("flush.diskFullPercent=101", "diskFullPercent"),
    ("image.pullPolicy=Sometimes", "pullPolicy"),
    ("image.repository=", "repository"),
    ("concurrency=many", "concurrency"),
    ("flushh.interval=5s", "flushh"),
];

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
