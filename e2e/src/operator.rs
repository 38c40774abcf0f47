//! The operator as its chart installs it: where it is, and what it tells about itself.

use std::time::Duration;

use anyhow::{Context, Result};
use ureq::Agent;

use crate::forward::PortForward;
use crate::kubectl::Kubectl;

/// The release of the chart, after which the operator's objects are named.
pub const RELEASE: &str = "kalamdb-operator";
/// The Kubernetes namespace of the operator.
pub const NAMESPACE: &str = "kalamdb-system";

/// Where its `/metrics` and `/healthz` answer.
const PORT: u16 = 8081;
const LIMIT: Duration = Duration::from_secs(30);

/// Ends the operator without a chance to clean up, and waits until its next life is ready.
pub fn restart(kubectl: &Kubectl) -> Result<()> {
    let kubectl = kubectl.in_namespace(NAMESPACE);
    let selector = format!("app.kubernetes.io/name={RELEASE}");
    kubectl.run(&["delete", "pods", "--selector", &selector, "--force", "--grace-period=0"])?;
    kubectl.run(&["rollout", "status", &format!("deployment/{RELEASE}"), "--timeout=300s"]).map(drop)
}

/// The operator's `/metrics`.
pub fn metrics(kubectl: &Kubectl) -> Result<String> {
    let kubectl = kubectl.in_namespace(NAMESPACE);
    let forward = PortForward::start(&kubectl, &format!("deployment/{RELEASE}"), PORT)?;
    let url = format!("{}/metrics", forward.url());
    let agent: Agent = Agent::config_builder().proxy(None).timeout_global(Some(LIMIT)).build().into();
    let mut answer = agent.get(&url).call().with_context(|| format!("failed to scrape the operator at {url}"))?;
    answer.body_mut().read_to_string().with_context(|| format!("failed to read {url}"))
}
