//! Debian's packages: what each is for, how its presence shows, and how it is installed.

use std::path::Path;

use anyhow::{Result, bail};

use crate::console;
use crate::program::{Program, which};

/// A package and the trace by which its presence is known.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    name: &'static str,
    trace: Trace,
    purpose: &'static str,
}

/// How a package's presence shows, also where it came from somewhere else than a package.
#[derive(Debug, Clone, Copy)]
enum Trace {
    Program(&'static str),
    File(&'static str),
    Libclang,
}

const fn program(name: &'static str, program: &'static str, purpose: &'static str) -> Package {
    Package { name, trace: Trace::Program(program), purpose }
}

/// What the Rust workspace needs to build.
pub const BUILD: &[Package] = &[
    program("g++", "c++", "compiles RocksDB"),
    program("mold", "mold", "links in seconds"),
    Package { name: "libclang-dev", trace: Trace::Libclang, purpose: "generates RocksDB's bindings" },
];

/// What the local cluster and the images need.
pub const CLUSTER: &[Package] = &[
    program("containerd", "containerd", "runs the pods"),
    program("runc", "runc", "starts containers"),
    Package {
        name: "containernetworking-plugins",
        trace: Trace::File("/usr/lib/cni/bridge"),
        purpose: "connects pods to the node's bridge",
    },
    program("iptables", "iptables", "carries kube-proxy's rules"),
    program("conntrack", "conntrack", "lets kube-proxy forget stale connections"),
    program("iproute2", "ip", "makes the node's bridge"),
    program("buildah", "buildah", "builds the images"),
];

/// What downloads data and peers from the Python package index.
pub const PYTHON: &[Package] =
    &[program("python3-pip", "pip3", "downloads data and peers from the Python package index")];

/// The packages whose traces are missing.
pub fn missing(packages: &[Package]) -> Vec<Package> {
    packages.iter().copied().filter(|package| !package.is_present()).collect()
}

/// Installs what is missing, or says what a person must do.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let names = names.join(" ");
    if which("apt-get").is_none() {
        bail!("missing, and there is no apt-get to install it:\n{}", purposes(&missing));
    }
    if !is_root() {
        bail!("missing:\n{}\ninstall it with: sudo apt-get install -y {names}", purposes(&missing));
    }
    console::step(&format!("install Debian packages: {names}"), || install(&names))
}

/// Whether this process may install packages and make bridges.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // The line reads `Uid: real effective saved file-system`.
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|ids| ids.split_whitespace().nth(1));
    user == Some("0")
}

impl Package {
    fn is_present(&self) -> bool {
        match self.trace {
            Trace::Program(name) => which(name).is_some(),
            Trace::File(path) => Path::new(path).exists(),
            Trace::Libclang => has_libclang(),
        }
    }
}

/// One line a package: what it is for.
pub fn purposes(packages: &[Package]) -> String {
    let lines: Vec<String> =
        packages.iter().map(|package| format!("  {}: {}", package.name, package.purpose)).collect();
    lines.join("\n")
}

fn install(names: &str) -> Result<()> {
    // The lists may be old or absent on a fresh machine; a first attempt without them saves half a minute elsewhere.
    apt_get("install", names).or_else(|_| {
        apt_get("update", "")?;
        apt_get("install", names)
    })
}

fn apt_get(verb: &str, names: &str) -> Result<()> {
    Program::new("apt-get")
        .args(
            [verb, "-y", "--no-install-recommends"]
                .into_iter()
                .filter(|arg| verb == "install" || !arg.starts_with("--")),
        )
        .args(names.split_whitespace())
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .map(drop)
}

/// Debian keeps libclang below `/usr/lib/llvm-N/lib`; `LIBCLANG_PATH` names any other place.
fn has_libclang() -> bool {
    let installed = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let folders = installed.filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm-"));
    let named = std::env::var_os("LIBCLANG_PATH").map(std::path::PathBuf::from);
    folders.map(|entry| entry.path().join("lib")).chain(named).any(|folder| {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.map(|file| file.file_name().to_string_lossy().into_owned()).any(|name| {
            // The versioned library alone (package libclang1-N) is enough to load; its name need not end in `.so`.
            name.starts_with("libclang.so") || (name.starts_with("libclang-") && name.contains(".so"))
        })
    })
}
