//! The node's bridge, the kernel's settings, and the removal of what Kubernetes leaves in the network.

use std::path::Path;

use anyhow::{Context, Result};

use crate::program::Program;

/// The bridge to which all pods are connected.
pub const BRIDGE: &str = "kalamdb0";
/// The node's address, on the bridge.
pub const NODE_ADDRESS: &str = "10.244.0.1";
/// The pods' addresses.
pub const POD_RANGE: &str = "10.244.0.0/24";
/// Where the API server listens.
pub const API_PORT: u16 = 6443;
/// The name of the CNI network; it also marks its iptables rules.
pub const NETWORK: &str = "kalamdb-local";

/// Makes the bridge and lets the kernel forward between pods and services.
pub fn set_up() -> Result<()> {
    if !Path::new("/sys/class/net").join(BRIDGE).exists() {
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["address", "add", &format!("{NODE_ADDRESS}/24"), "dev", BRIDGE])?;
    }
    ip(&["link", "set", BRIDGE, "up"])?;
    if !Path::new("/proc/sys/net/bridge").exists() {
        // A kernel that has it built in needs no module; the setting below fails with its name where it has neither.
        let _ = Program::new("modprobe").arg("br_netfilter").outcome();
    }
    for setting in ["net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"] {
        let path = Path::new("/proc/sys").join(setting);
        std::fs::write(&path, "1").with_context(|| format!("failed to set {setting} to 1 (kernel setting)"))?;
    }
    Ok(())
}

/// The CNI configuration that puts pods on the bridge.
pub fn cni_configuration(state: &Path) -> String {
    let leases = state.join("cni-leases");
    format!(
        r#"{{"cniVersion":"1.0.0","name":"{NETWORK}","plugins":[
 {{"type":"bridge","bridge":"{BRIDGE}","isGateway":true,"ipMasq":true,"hairpinMode":true,
  "ipam":{{"type":"host-local","dataDir":"{}","ranges":[[{{"subnet":"{POD_RANGE}"}}]],"routes":[{{"dst":"0.0.0.0/0"}}]}}}},
 {{"type":"portmap","capabilities":{{"portMappings":true}}}}
]}}
"#,
        leases.display()
    )
}

/// Deletes the pods' network namespaces, the bridge and the iptables rules; what is gone already is no error.
pub fn tear_down() {
    for namespace in pod_namespaces() {
        let _ = ip(&["netns", "delete", &namespace]);
    }
    let _ = ip(&["link", "delete", BRIDGE]);
    for table in ["nat", "filter", "mangle"] {
        let Ok(rules) = Program::new("iptables-save").args(["-t", table]).output() else {
            continue;
        };
        let _ = Program::new("iptables-restore").args(["-T", table]).input(without_kubernetes(&rules)).output();
    }
}

/// The namespaces whose end of a veth pair hangs on our bridge.
fn pod_namespaces() -> Vec<String> {
    let links = Program::new("ip").args(["-details", "link", "show", "master", BRIDGE]).output().unwrap_or_default();
    let mut words = links.split_whitespace();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        if word == "link-netns" {
            found.extend(words.next().map(str::to_owned));
        }
    }
    found
}

/// Rules without those of kube-proxy, of the kubelet and of our CNI network, whose per-pod chains are found by its name.
fn without_kubernetes(rules: &str) -> String {
    let ours: Vec<&str> = rules
        .lines()
        .filter(|line| line.contains(NETWORK))
        .flat_map(str::split_whitespace)
        .filter(|word| word.starts_with("CNI-"))
        .collect();
    let keep = |line: &&str| {
        !line.contains("KUBE-") && !line.contains(NETWORK) && !ours.iter().any(|chain| line.contains(chain))
    };
    rules.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

fn ip(arguments: &[&str]) -> Result<String> {
    Program::new("ip").args(arguments).output()
}

#[cfg(test)]
mod tests {
    use super::without_kubernetes;

    #[test]
    fn only_our_rules_leave() {
        let rules = "*nat\n:KUBE-SERVICES - [0:0]\n:CNI-ab - [0:0]\n:CNI-zz - [0:0]\n\
            -A POSTROUTING -s 10.244.0.2/32 -m comment --comment \"name: \\\"kalamdb-local\\\"\" -j CNI-ab\n\
            -A CNI-ab -j MASQUERADE\n-A CNI-zz -j MASQUERADE\n-A INPUT -j DOCKER\nCOMMIT\n";
        let left = "*nat\n:CNI-zz - [0:0]\n-A CNI-zz -j MASQUERADE\n-A INPUT -j DOCKER\nCOMMIT\n";
        assert_eq!(without_kubernetes(rules), left);
    }
}
