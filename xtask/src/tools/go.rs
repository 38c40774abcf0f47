//! Tools built from Go modules. Each lies in a folder named by its version and is built once a machine.
//!
//! Two modules of ours (`xtask/go`) pin what can't be installed by version alone: Kubernetes and etcd, whose modules hold
//! replacements. Everything is built at a low priority, because the Rust build runs beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cache::{self, Cache};
use crate::console;
use crate::program::{Program, which};
use crate::workspace;

const KUBERNETES: &str = "1.34.4";
/// The oldest Go that builds all of these.
const GO_AT_LEAST: (u32, u32) = (1, 25);

/// A tool, or a family of tools that one build makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoTool {
    /// The server parts of Kubernetes.
    Kubernetes,
    /// The command line of Kubernetes, where the machine has none.
    Kubectl,
    /// The API server's store.
    Etcd,
    /// The process that holds a pod's namespaces.
    Pause,
    /// Volumes of the local cluster.
    Provisioner,
    /// An S3 server.
    Versitygw,
    /// Cluster DNS.
    Coredns,
    /// Installs charts.
    Helm,
    /// Checks manifests against schemas.
    Kubeconform,
}

/// The places of the Go tools in the cache. Only [`ensure`] makes sure that they are there.
#[derive(Debug, Clone)]
pub struct Tools {
    cache: Cache,
}

impl Tools {
    /// The places alone, built or not: what ends and describes a cluster runs none of them.
    pub fn places(cache: &Cache) -> Self {
        Self { cache: cache.clone() }
    }

    /// The folder that holds a tool.
    pub fn folder(&self, tool: GoTool) -> PathBuf {
        self.cache.tool(tool.name(), tool.version())
    }

    /// The program of a tool that is one program.
    pub fn program(&self, tool: GoTool) -> PathBuf {
        self.folder(tool).join(tool.name())
    }

    /// One of the programs of Kubernetes.
    pub fn kubernetes(&self, program: &str) -> PathBuf {
        self.folder(GoTool::Kubernetes).join(program)
    }

    /// The machine's own kubectl, or ours.
    pub fn kubectl(&self) -> PathBuf {
        which("kubectl").unwrap_or_else(|| self.program(GoTool::Kubectl))
    }
}

/// Builds what is missing, one after another.
pub fn ensure(cache: &Cache, wanted: &[GoTool]) -> Result<Tools> {
    let tools = Tools::places(cache);
    let missing: Vec<GoTool> = wanted.iter().copied().filter(|tool| !tool.is_there(&tools)).collect();
    if !missing.is_empty() {
        check_go()?;
    }
    for tool in missing {
        console::step(&format!("build {} {} (Go)", tool.title(), tool.version()), || tool.build(&tools))?;
    }
    Ok(tools)
}

impl GoTool {
    /// All of them, the slowest first.
    pub const ALL: [Self; 9] = [
        Self::Kubernetes,
        Self::Provisioner,
        Self::Etcd,
        Self::Pause,
        Self::Coredns,
        Self::Versitygw,
        Self::Helm,
        Self::Kubeconform,
        Self::Kubectl,
    ];

    /// The name of its folder and, where it is one program, of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Kubectl => "kubectl",
            Self::Etcd => "etcd",
            Self::Pause => "pause",
            Self::Provisioner => "provisioner",
            Self::Versitygw => "versitygw",
            Self::Coredns => "coredns",
            Self::Helm => "helm",
            Self::Kubeconform => "kubeconform",
        }
    }

    /// What a person calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Kubernetes => "Kubernetes",
            Self::Provisioner => "volume provisioner",
            Self::Versitygw => "versitygw (S3 server)",
            other => other.name(),
        }
    }

    /// The version that names its folder.
    pub fn version(self) -> &'static str {
        match self {
            Self::Kubernetes | Self::Kubectl => KUBERNETES,
            Self::Etcd => "3.6.12",
            Self::Pause => "1",
            Self::Provisioner => "2",
            Self::Versitygw => "1.8.0",
            Self::Coredns => "1.14.7",
            Self::Helm => "3.19.5",
            Self::Kubeconform => "0.8.0",
        }
    }

    fn source(self) -> Source {
        match self {
            Self::Kubernetes => Source::Module(
                "kubernetes",
                &[
                    "k8s.io/kubernetes/cmd/kube-apiserver",
                    "k8s.io/kubernetes/cmd/kube-controller-manager",
                    "k8s.io/kubernetes/cmd/kube-scheduler",
                    "k8s.io/kubernetes/cmd/kubelet",
                    "k8s.io/kubernetes/cmd/kube-proxy",
                ],
            ),
            Self::Kubectl => Source::Module("kubernetes", &["k8s.io/kubernetes/cmd/kubectl"]),
            Self::Provisioner => Source::Module("kubernetes", &["./provisioner"]),
            Self::Etcd => Source::Module("etcd", &["."]),
            Self::Pause => Source::Module("pause", &["."]),
            Self::Versitygw => Source::Published("github.com/versity/versitygw/cmd/versitygw"),
            Self::Coredns => Source::Published("github.com/coredns/coredns"),
            Self::Helm => Source::Published("helm.sh/helm/v3/cmd/helm"),
            Self::Kubeconform => Source::Published("github.com/yannh/kubeconform/cmd/kubeconform"),
        }
    }

    fn is_there(self, tools: &Tools) -> bool {
        tools.folder(self).is_dir() || (self == Self::Kubectl && which("kubectl").is_some())
    }

    /// Builds into a folder beside the final one and renames it: what is in place is whole.
    fn build(self, tools: &Tools) -> Result<()> {
        let target = tools.folder(self);
        let draft = target.with_extension(format!("draft-{}", std::process::id()));
        cache::create(&draft)?;
        let log = tools.cache.log(&format!("go-{}", self.name()));
        let program = match self.source() {
            Source::Module(module, packages) => go()
                .directory(workspace::root().join("xtask/go").join(module))
                .args(["build", "-trimpath", "-ldflags", &self.linker_flags(), "-o"])
                .arg(self.output_path(&draft))
                .args(packages),
            Source::Published(package) => go()
                .directory(&draft)
                .env("GOBIN", &draft)
                .args(["install", "-trimpath", "-ldflags", &self.linker_flags()])
                .arg(format!("{package}@v{}", self.version())),
        };
        program.logged(&log)?;
        std::fs::rename(&draft, &target).with_context(|| format!("failed to put {} in place", target.display()))
    }

    fn output_path(self, draft: &Path) -> PathBuf {
        // With a folder for output, Go names each program after its package.
        if self == Self::Kubernetes { draft.to_path_buf() } else { draft.join(self.name()) }
    }

    fn linker_flags(self) -> String {
        let version = "k8s.io/component-base/version";
        let mut minor = KUBERNETES.split('.').skip(1);
        match self {
            // Without these the components report v0.0.0, which clients take for an ancient version.
            Self::Kubernetes | Self::Kubectl => format!(
                "-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor={}",
                minor.next().unwrap_or_default()
            ),
            _ => "-s -w".to_owned(),
        }
    }
}

/// Where a tool's code comes from.
enum Source {
    /// A module below `xtask/go`, and packages to build in it.
    Module(&'static str, &'static [&'static str]),
    /// A package that can be installed by version.
    Published(&'static str),
}

fn go() -> Program {
    let go = which("go").unwrap_or_else(|| "go".into());
    Program::new("nice").args(["-n", "10"]).arg(go).env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false")
}

fn check_go() -> Result<()> {
    let needed = format!("install Go {}.{} or newer from https://go.dev/dl/", GO_AT_LEAST.0, GO_AT_LEAST.1);
    let Some(go) = which("go") else { bail!("Go is missing: {needed}") };
    let found = Program::new(go).args(["env", "GOVERSION"]).output()?;
    match parse_go_version(found.trim()) {
        Some(version) if version >= GO_AT_LEAST => Ok(()),
        _ => bail!("{} is too old: {needed}", found.trim()),
    }
}

fn parse_go_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("go")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::parse_go_version;

    #[test]
    fn go_versions_compare_by_number() {
        assert_eq!(parse_go_version("go1.26.8"), Some((1, 26)));
        assert!(parse_go_version("go1.9.1") < Some((1, 25)));
        assert_eq!(parse_go_version("devel"), None);
    }
}
