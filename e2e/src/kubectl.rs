//! `kubectl` by process: the client that a user has.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;

use crate::wait::{self, Seen};

/// The arguments by which `kubectl` says why something does not come up.
const LOG_TAIL: &str = "--tail=40";

/// One cluster, and the Kubernetes namespace in which commands run.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    namespace: String,
}

impl Kubectl {
    /// Speaks to the cluster of `context`; without a kubeconfig, kubectl finds its own.
    pub fn new(program: PathBuf, kubeconfig: Option<PathBuf>, context: Option<String>) -> Self {
        Self { program, kubeconfig, context, namespace: "default".to_owned() }
    }

    /// The same cluster, in another Kubernetes namespace.
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// The Kubernetes namespace in which commands run.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The command with its fixed arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command.args(["--namespace", &self.namespace]);
        command
    }

    /// Runs it and returns what it printed.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.run_with_input(args, "")
    }

    /// Applies YAML.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.run_with_input(&["apply", "--filename", "-"], yaml)
    }

    /// One object, or nothing where it does not exist.
    pub fn get(&self, kind: &str, name: &str) -> Result<Option<Json>> {
        let text = self.run(&["get", kind, name, "--ignore-not-found", "--output", "json"])?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text).map(Some).with_context(|| format!("failed to read {kind} {name} as JSON"))
    }

    /// All objects of a kind.
    pub fn list(&self, kind: &str) -> Result<Vec<Json>> {
        let text = self.run(&["get", kind, "--output", "json"])?;
        let list: Json = serde_json::from_str(&text).with_context(|| format!("failed to read the {kind} as JSON"))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// One value of a Secret, as text.
    pub fn secret(&self, name: &str, key: &str) -> Result<String> {
        let template = format!("{{{{index .data {key:?} | base64decode}}}}");
        self.run(&["get", "secret", name, "--output", &format!("go-template={template}")])
            .with_context(|| format!("failed to read key {key} of Secret {}/{name}", self.namespace))
    }

    /// Waits until the object is there and `look` is content with it.
    pub fn wait_for<T>(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Json) -> Result<Seen<T>>,
    ) -> Result<T> {
        let waited = wait::until(what, limit, || match self.get(kind, name)? {
            Some(object) => look(&object),
            None => Ok(Seen::Waiting(format!("no {kind} named {name} in {}", self.namespace))),
        });
        waited.with_context(|| self.account(kind, name))
    }

    /// What `kubectl` has to say about an object, its events and its Kubernetes namespace's pods: for the error of a test
    /// or a demo that waited in vain.
    pub fn account(&self, kind: &str, name: &str) -> String {
        let pods = ["get", "pods,pvc,services", "--output", "wide"];
        let mut parts = vec![
            self.told(&["describe", kind, name]),
            self.told(&pods),
            self.told(&["get", "events", "--sort-by", ".lastTimestamp"]),
        ];
        for pod in self.list("pods").unwrap_or_default() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            parts.push(self.told(&["logs", name, "--all-containers", LOG_TAIL]));
            parts.push(self.told(&["logs", name, "--all-containers", "--previous", LOG_TAIL]));
        }
        parts.join("\n")
    }

    fn told(&self, args: &[&str]) -> String {
        let text = self.run(args).unwrap_or_else(|error| format!("{error:#}"));
        format!("--- kubectl --namespace {} {}\n{}", self.namespace, args.join(" "), text.trim_end())
    }

    fn run_with_input(&self, args: &[&str], input: &str) -> Result<String> {
        let program = self.program.display();
        let mut child = self
            .command()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {program}: is kubectl installed?"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that ends without reading tells why by its status.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().with_context(|| format!("failed to wait for {program}"))?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("`kubectl {}` failed: {}", args.join(" "), complaint.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The condition of that type in an object's status.
pub fn condition<'a>(object: &'a Json, kind: &str) -> Option<&'a Json> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// The state of a `KalamDB` in one line: its phase, and what the conditions that do not hold say.
pub fn summary(object: &Json) -> String {
    let phase = object["status"]["phase"].as_str().unwrap_or("no phase yet");
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let troubles: Vec<String> = conditions
        .iter()
        .filter(|condition| condition["status"] == "False" && condition["type"] != "Progressing")
        .map(|condition| format!("{}: {}", text(condition, "type"), text(condition, "message")))
        .collect();
    if troubles.is_empty() { phase.to_owned() } else { format!("{phase} ({})", troubles.join("; ")) }
}

fn text<'a>(condition: &'a Json, key: &str) -> &'a str {
    condition[key].as_str().unwrap_or_default()
}
