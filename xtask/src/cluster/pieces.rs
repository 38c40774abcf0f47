//! The processes that make up the cluster: their configuration, order and readiness.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache;
use crate::cluster::network::{API_PORT, NETWORK, NODE_ADDRESS, POD_RANGE, cni_configuration};
use crate::cluster::{Cluster, NODE, RUN, S3_PORT, STORAGE_CLASS};
use crate::interruption;
use crate::program::{Program, tail};
use crate::tools::go::GoTool;

/// The record of the S3 server.
pub const S3: &str = "versitygw";
const ETCD: &str = "http://127.0.0.1:12379";
const START_LIMIT: Duration = Duration::from_secs(90);

/// One process.
pub struct Piece {
    /// The name of its record and log.
    pub name: &'static str,
    program: fn(&Cluster) -> Program,
    ready: fn(&Cluster) -> bool,
}

/// In the order in which they start.
pub const PIECES: &[Piece] = &[
    Piece { name: "etcd", program: etcd, ready: |_| answers("127.0.0.1", 12379) },
    Piece { name: "containerd", program: containerd, ready: |cluster| cluster.containerd_socket().exists() },
    Piece { name: "kube-apiserver", program: api_server, ready: api_is_ready },
    Piece { name: "kube-controller-manager", program: controller_manager, ready: |_| true },
    Piece { name: "kube-scheduler", program: scheduler, ready: |_| true },
    Piece { name: "kube-proxy", program: proxy, ready: |_| true },
    Piece { name: "kubelet", program: kubelet, ready: |_| answers("127.0.0.1", 10248) },
    Piece { name: "provisioner", program: provisioner, ready: |_| true },
];

/// The names of all programs, to find those that no record names.
pub fn programs() -> Vec<&'static str> {
    PIECES.iter().map(|piece| piece.name).chain([S3]).collect()
}

/// Starts each piece that does not run, and waits for it.
pub fn start_all(cluster: &Cluster) -> Result<()> {
    PIECES.iter().try_for_each(|piece| start(cluster, piece.name, (piece.program)(cluster), piece.ready))
}

/// Starts the S3 server.
pub fn start_s3(cluster: &Cluster) -> Result<()> {
    let s3 = cluster.s3()?;
    let program = Program::new(cluster.tools.program(GoTool::Versitygw))
        .env("ROOT_ACCESS_KEY_ID", &s3.access_key)
        .env("ROOT_SECRET_ACCESS_KEY", &s3.secret_key)
        .arg(format!("--port={NODE_ADDRESS}:{S3_PORT}"))
        .args(["--quiet", "posix"])
        .arg(cluster.state.join("s3"));
    start(cluster, S3, program, |_| answers(NODE_ADDRESS, S3_PORT))
}

/// Writes the files that the pieces read.
pub fn write_configuration(cluster: &Cluster) -> Result<()> {
    let state = &cluster.state;
    let file = |name: &str, text: String| cache::write(&state.join(name), text);
    file("containerd.toml", containerd_configuration(state))?;
    file("cni/10-kalamdb.conflist", cni_configuration(state))?;
    file("kubelet.yaml", kubelet_configuration(state))?;
    file("proxy.yaml", proxy_configuration(state))?;
    // Pods resolve names by cluster DNS alone: nothing is asked outside.
    file("resolv.conf", String::new())
}

fn start(cluster: &Cluster, name: &str, program: Program, ready: fn(&Cluster) -> bool) -> Result<()> {
    cluster.processes.start(name, program)?;
    let log = cluster.processes.log(name);
    interruption::wait_until(&format!("{name} to be ready"), START_LIMIT, || {
        anyhow::ensure!(cluster.processes.is_running(name), "{name} has ended");
        Ok(ready(cluster))
    })
    .with_context(|| format!("{name} does not start; the end of {}:\n{}", log.display(), tail(&log)))
}

fn answers(address: &str, port: u16) -> bool {
    let Ok(address) = format!("{address}:{port}").parse() else {
        return false;
    };
    std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}

fn api_is_ready(cluster: &Cluster) -> bool {
    cluster.kubectl().args(["get", "--raw", "/readyz"]).output().is_ok()
}

fn etcd(cluster: &Cluster) -> Program {
    Program::new(cluster.tools.program(GoTool::Etcd))
        .arg(format!("--data-dir={}", cluster.state.join("etcd").display()))
        .args([format!("--listen-client-urls={ETCD}"), format!("--advertise-client-urls={ETCD}")])
        .args(["--listen-peer-urls=http://127.0.0.1:12380", "--unsafe-no-fsync", "--log-level=warn"])
}

fn containerd(cluster: &Cluster) -> Program {
    Program::new("containerd").arg("--config").arg(cluster.state.join("containerd.toml"))
}

fn api_server(cluster: &Cluster) -> Program {
    let file = |name: &str| cluster.certificates().join(name).display().to_string();
    Program::new(cluster.tools.kubernetes("kube-apiserver"))
        .args([format!("--etcd-servers={ETCD}"), format!("--secure-port={API_PORT}")])
        .args([format!("--bind-address={NODE_ADDRESS}"), format!("--advertise-address={NODE_ADDRESS}")])
        .args(["--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true"])
        .args(["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"])
        .args(["--kubelet-preferred-address-types=InternalIP"])
        .args([format!("--client-ca-file={}", file("ca.crt"))])
        .args([format!("--tls-cert-file={}", file("apiserver.crt"))])
        .args([format!("--tls-private-key-file={}", file("apiserver.key"))])
        .args([format!("--kubelet-certificate-authority={}", file("ca.crt"))])
        .args([format!("--kubelet-client-certificate={}", file("admin.crt"))])
        .args([format!("--kubelet-client-key={}", file("admin.key"))])
        .args(["--service-account-issuer=https://kubernetes.default.svc.cluster.local"])
        .args([format!("--service-account-key-file={}", file("service-accounts.pub"))])
        .args([format!("--service-account-signing-key-file={}", file("service-accounts.key"))])
}

fn controller_manager(cluster: &Cluster) -> Program {
    let file = |name: &str| cluster.certificates().join(name).display().to_string();
    Program::new(cluster.tools.kubernetes("kube-controller-manager"))
        .args([format!("--kubeconfig={}", file("controller-manager.kubeconfig"))])
        .args([format!("--root-ca-file={}", file("ca.crt"))])
        .args([format!("--service-account-private-key-file={}", file("service-accounts.key"))])
        .args(["--use-service-account-credentials=true", "--leader-elect=false", "--bind-address=127.0.0.1"])
}

fn scheduler(cluster: &Cluster) -> Program {
    let kubeconfig = cluster.certificates().join("scheduler.kubeconfig");
    Program::new(cluster.tools.kubernetes("kube-scheduler"))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .args(["--leader-elect=false", "--bind-address=127.0.0.1"])
}

fn proxy(cluster: &Cluster) -> Program {
    Program::new(cluster.tools.kubernetes("kube-proxy"))
        .arg(format!("--config={}", cluster.state.join("proxy.yaml").display()))
}

fn kubelet(cluster: &Cluster) -> Program {
    let kubeconfig = cluster.certificates().join("kubelet.kubeconfig");
    Program::new(cluster.tools.kubernetes("kubelet"))
        .arg(format!("--config={}", cluster.state.join("kubelet.yaml").display()))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--root-dir={}", cluster.state.join("kubelet").display()))
        .args([format!("--hostname-override={NODE}"), format!("--node-ip={NODE_ADDRESS}")])
}

fn provisioner(cluster: &Cluster) -> Program {
    Program::new(cluster.tools.program(GoTool::Provisioner))
        .arg(format!("--kubeconfig={}", cluster.kubeconfig().display()))
        .arg(format!("--root={}", cluster.state.join("volumes").display()))
        .args([format!("--storage-class={STORAGE_CLASS}"), format!("--node={NODE}")])
}

/// `restrict_oom_score_adj`: without it sandboxes fail where this process itself may not lower its score.
fn containerd_configuration(state: &Path) -> String {
    let pause = crate::images::PAUSE;
    let state = state.display();
    format!(
        r#"version = 2
root = "{state}/containerd"
state = "{RUN}/containerd"
[grpc]
  address = "{RUN}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#
    )
}

/// Images can't be pulled again here, so none is ever collected, and a full disk evicts late.
fn kubelet_configuration(state: &Path) -> String {
    let state = state.display();
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
failSwapOn: false
oomScoreAdj: 0
containerRuntimeEndpoint: unix://{RUN}/containerd.sock
address: {NODE_ADDRESS}
healthzBindAddress: 127.0.0.1
tlsCertFile: {state}/certificates/kubelet-server.crt
tlsPrivateKeyFile: {state}/certificates/kubelet-server.key
authentication: {{ anonymous: {{ enabled: false }}, webhook: {{ enabled: true }}, x509: {{ clientCAFile: {state}/certificates/ca.crt }} }}
authorization: {{ mode: Webhook }}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: {state}/resolv.conf
podLogsDir: {state}/pod-logs
imageMaximumGCAge: 0s
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {{ memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1% }}
maxPods: 200
"
    )
}

fn proxy_configuration(state: &Path) -> String {
    let state = state.display();
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
# The network {NETWORK}.
mode: iptables
clusterCIDR: {POD_RANGE}
hostnameOverride: {NODE}
bindAddress: {NODE_ADDRESS}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clientConnection: {{ kubeconfig: {state}/certificates/proxy.kubeconfig }}
conntrack: {{ maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }}
"
    )
}
