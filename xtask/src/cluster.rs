//! A real one-node Kubernetes on this machine, with an S3 server beside it: start, stop, and what it looks like.
//!
//! Starting is idempotent: each piece that runs is left alone. A cluster whose configuration this xtask would write
//! differently, or of which nothing runs any more (after a reboot, say), is removed first and made anew.

mod addons;
mod certificates;
pub mod network;
mod pieces;
pub mod processes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cache::{self, Cache};
use crate::cluster::network::NODE_ADDRESS;
use crate::cluster::pieces::PIECES;
use crate::cluster::processes::Processes;
use crate::console;
use crate::images;
use crate::interruption;
use crate::program::Program;
use crate::tools::debian;
use crate::tools::go::Tools;

/// The name of the context in the kubeconfig.
pub const CONTEXT: &str = "kalamdb-local";
/// The name of the node.
pub const NODE: &str = "kalamdb-local";
/// The storage class whose volumes are folders of the node.
pub const STORAGE_CLASS: &str = "kalamdb-local";
/// Sockets live here, because their paths must be short; nothing else does.
const RUN: &str = "/run/kalamdb-local";
/// Raise it when a change of the start-up needs a new cluster.
const LAYOUT: &str = "1";
const S3_PORT: u16 = 7070;

/// The local cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    state: PathBuf,
    tools: Tools,
    processes: Processes,
}

/// The S3 server: where it is, and how to get in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct S3 {
    /// URL, the same for the host and for pods.
    pub endpoint: String,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
    /// A bucket that exists.
    pub bucket: String,
    /// The folder behind the bucket: a bucket is a folder, an object is a file.
    pub root: PathBuf,
}

/// What keeps a cluster from running here, for people; empty where it can run.
pub fn obstacles() -> Vec<String> {
    let mut found = Vec::new();
    if !cfg!(target_os = "linux") {
        found.push("the local cluster needs Linux".to_owned());
    } else if !debian::is_root() {
        found
            .push("the local cluster needs root (network bridge, containers): run the command with sudo -E".to_owned());
    }
    let missing = debian::missing(debian::CLUSTER);
    if !missing.is_empty() && crate::program::which("apt-get").is_none() {
        found.push(format!("missing, and there is no apt-get to install it:\n{}", debian::purposes(&missing)));
    }
    found
}

/// Fails where a cluster can't run: asked before a quarter of an hour is spent on its tools.
pub fn check_ground() -> Result<()> {
    let obstacles = obstacles();
    anyhow::ensure!(obstacles.is_empty(), "{}", obstacles.join("\n"));
    Ok(())
}

impl Cluster {
    /// The cluster whose state is in the cache.
    pub fn new(cache: &Cache, tools: Tools) -> Self {
        let state = cache.cluster();
        Self { processes: Processes::in_folder(state.join("processes")), state, tools }
    }

    /// Starts what does not run and waits until pods can be scheduled.
    pub fn up(&self) -> Result<()> {
        check_ground()?;
        debian::ensure(debian::CLUSTER)?;
        let _lock = self.lock()?;
        if !self.is_usable() {
            self.remove();
            self.prepare()?;
        }
        network::set_up()?;
        console::step("start the S3 server", || pieces::start_s3(self))?;
        console::step("start the Kubernetes components", || pieces::start_all(self))?;
        console::step("load the cluster's own images", || images::load_own(self, &self.tools))?;
        console::step("wait for the node and cluster DNS", || addons::install(self))
    }

    /// Whether there is anything of it. What runs has its sockets, should somebody have removed the cache.
    pub fn exists(&self) -> bool {
        self.state.exists() || Path::new(RUN).exists()
    }

    /// Removes everything: processes, containers, mounts, network, data.
    pub fn down(&self) -> Result<()> {
        if !self.exists() {
            console::say("there is no local cluster to remove");
            return Ok(());
        }
        if !debian::is_root() {
            bail!("failed to remove the local cluster: root started it; run the command with sudo -E");
        }
        let _lock = self.lock()?;
        console::step("remove the local cluster", || {
            interruption::shielded(|| self.remove());
            Ok(())
        })
    }

    /// Prints which pieces run and how to reach the cluster.
    pub fn status(&self) {
        if !self.exists() {
            console::say("there is no local cluster; `cargo xtask cluster up` makes one");
            return;
        }
        for piece in PIECES.iter().map(|piece| piece.name).chain([pieces::S3]) {
            let pid =
                self.processes.pid(piece).map_or_else(|| "stopped".to_owned(), |pid| format!("running, pid {pid}"));
            console::say(&format!("{piece:<20} {pid}"));
        }
        console::say(&format!("kubeconfig           {}", self.kubeconfig().display()));
        console::say(&format!("context              {CONTEXT}"));
        console::say(&format!("containerd           {}", self.containerd_socket().display()));
        if let Ok(s3) = self.s3() {
            console::say(&format!(
                "S3 server            {} bucket {} in {}",
                s3.endpoint,
                s3.bucket,
                s3.root.display()
            ));
        }
    }

    /// Whether every piece runs.
    pub fn is_running(&self) -> bool {
        PIECES.iter().all(|piece| self.processes.is_running(piece.name))
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        certificates::kubeconfig_path(&self.certificates(), "admin")
    }

    /// The S3 server's address and keys.
    pub fn s3(&self) -> Result<S3> {
        let path = self.state.join("s3.json");
        let text =
            std::fs::read(&path).with_context(|| format!("failed to read {}: is the cluster up?", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("failed to understand {}", path.display()))
    }

    /// Where containerd listens.
    pub fn containerd_socket(&self) -> PathBuf {
        Path::new(RUN).join("containerd.sock")
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self) -> Program {
        Program::new(self.tools.kubectl()).env("KUBECONFIG", self.kubeconfig())
    }

    fn certificates(&self) -> PathBuf {
        self.state.join("certificates")
    }

    fn is_usable(&self) -> bool {
        let layout = std::fs::read_to_string(self.state.join("layout")).unwrap_or_default();
        layout == LAYOUT && PIECES.iter().any(|piece| self.processes.is_running(piece.name))
    }

    /// Everything that is made once a cluster; the layout's mark comes last, so that half a state is never used.
    fn prepare(&self) -> Result<()> {
        cache::create(&self.state)?;
        certificates::make(&self.certificates())?;
        pieces::write_configuration(self)?;
        let s3 = S3 {
            endpoint: format!("http://{NODE_ADDRESS}:{S3_PORT}"),
            access_key: random_word()?,
            secret_key: random_word()? + &random_word()?,
            bucket: "kalamdb".to_owned(),
            root: self.state.join("s3/kalamdb"),
        };
        cache::create(&s3.root)?;
        cache::write_secret(&self.state.join("s3.json"), serde_json::to_vec_pretty(&s3)?)?;
        cache::write(&self.state.join("layout"), LAYOUT)
    }

    /// Best effort, in an order that keeps each step from being undone by what still runs.
    fn remove(&self) {
        for piece in PIECES.iter().rev().map(|piece| piece.name).chain([pieces::S3]) {
            self.processes.stop(piece);
        }
        let shims = ["containerd-shim-runc-v2", "containerd-shim"];
        processes::sweep(Path::new(RUN), &shims);
        processes::sweep(&self.state, &pieces::programs());
        network::tear_down();
        for mount in self.mounts() {
            let _ = Program::new("umount").arg("-l").arg(&mount).outcome();
        }
        remove_control_groups();
        let _ = std::fs::remove_dir_all(RUN);
        let _ = std::fs::remove_dir_all(&self.state);
    }

    /// What is mounted below our folders, the innermost first.
    fn mounts(&self) -> Vec<String> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned);
        let mut ours: Vec<String> = points
            .filter(|point| Path::new(point).starts_with(&self.state) || Path::new(point).starts_with(RUN))
            .collect();
        ours.sort_by_key(|point| std::cmp::Reverse(point.len()));
        ours
    }

    /// One start or stop at a time; the lock ends with the process, however that ends.
    fn lock(&self) -> Result<std::fs::File> {
        let path = self.state.with_extension("lock");
        cache::create(self.state.parent().unwrap_or(&self.state))?;
        let file = std::fs::File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
        interruption::wait_until("another xtask that starts or stops the cluster", Duration::from_secs(300), || {
            Ok(file.try_lock().is_ok())
        })?;
        Ok(file)
    }
}

/// Pods leave empty control groups; a group in use refuses to go, which is right where another cluster runs.
fn remove_control_groups() {
    let roots = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for group in roots.map(|root| root.join("kubepods")).chain([PathBuf::from("/sys/fs/cgroup/kubepods")]) {
        if group.is_dir() {
            let _ =
                Program::new("find").arg(&group).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]).outcome();
        }
    }
}

/// Twenty random hexadecimal digits, for keys and passwords.
pub fn random_word() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0u8; 10];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("no random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
