//! Debian's packages: what each is for, how its presence shows, and how it is installed.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::console;
use crate::program::{Program, which};

/// A package and the trace by which its presence is known.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    name: &'static str,
    trace: Trace,
    purpose: &'static str,
    need: Need,
}

/// Whether there is a way without a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Required,
    /// It makes things faster: installed where that can be done at once, and otherwise done without.
    Welcome,
}

/// How a package's presence shows, also where it came from somewhere else than a package.
#[derive(Debug, Clone, Copy)]
enum Trace {
    Program(&'static str),
    File(&'static str),
    Libclang,
}

const fn program(name: &'static str, program: &'static str, purpose: &'static str) -> Package {
    Package { name, trace: Trace::Program(program), purpose, need: Need::Required }
}

/// What the Rust workspace needs to build.
pub const BUILD: &[Package] = &[
    program("g++", "c++", "compiles RocksDB"),
    Package { need: Need::Welcome, ..program("mold", "mold", "links in seconds") },
    Package {
        name: "libclang-dev",
        trace: Trace::Libclang,
        purpose: "generates RocksDB's bindings",
        need: Need::Required,
    },
];

/// What the local cluster and the images need.
pub const CLUSTER: &[Package] = &[
    program("containerd", "containerd", "runs the pods"),
    program("runc", "runc", "starts containers"),
    Package {
        name: "containernetworking-plugins",
        trace: Trace::File("/usr/lib/cni/bridge"),
        purpose: "connects pods to the node's bridge",
        need: Need::Required,
    },
    program("iptables", "iptables", "carries kube-proxy's rules"),
    program("conntrack", "conntrack", "lets kube-proxy forget stale connections"),
    program("iproute2", "ip", "makes the node's bridge"),
    BUILDAH,
];

/// What the images need.
pub const IMAGES: &[Package] = &[BUILDAH];

const BUILDAH: Package = program("buildah", "buildah", "builds the images");

/// What downloads data and peers from the Python package index.
pub const PYTHON: &[Package] =
    &[program("python3-pip", "pip3", "downloads data and peers from the Python package index")];

/// The packages whose traces are missing.
pub fn missing(packages: &[Package]) -> Vec<Package> {
    packages.iter().copied().filter(|package| !package.is_present()).collect()
}

/// Installs what is missing, or says what a person must do.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let can_install = which("apt-get").is_some() && is_root();
    let mut missing = missing(packages);
    missing.retain(|package| package.need == Need::Required || can_install);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let names = names.join(" ");
    if which("apt-get").is_none() {
        bail!("missing; there is no apt-get here, so install these by the system's own means:\n{}", purposes(&missing));
    }
    if !can_install {
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

/// One line a package: what must be there, where Debian has it, and what it is for.
pub fn purposes(packages: &[Package]) -> String {
    let line = |package: &Package| {
        format!("  {} (Debian's package {}): {}", package.trace.thing(), package.name, package.purpose)
    };
    packages.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl Trace {
    /// What it is that must be there, for people whose system has other packages.
    fn thing(self) -> String {
        match self {
            Self::Program(name) => format!("the program `{name}` in PATH"),
            Self::File(path) => format!("the file {path}"),
            Self::Libclang => "libclang in a usual place, or its folder in LIBCLANG_PATH".to_owned(),
        }
    }
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

/// Debian keeps libclang below `/usr/lib/llvm-N/lib`, others in the folders below; `LIBCLANG_PATH` names any other place.
fn has_libclang() -> bool {
    const ELSEWHERE: [&str; 4] =
        ["/usr/lib", "/usr/lib64", "/Library/Developer/CommandLineTools/usr/lib", "/opt/homebrew/opt/llvm/lib"];
    let installed = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let folders = installed.filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm-"));
    let named = std::env::var_os("LIBCLANG_PATH").map(PathBuf::from);
    let elsewhere = ELSEWHERE.map(PathBuf::from);
    folders.map(|entry| entry.path().join("lib")).chain(named).chain(elsewhere).any(|folder| {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.map(|file| file.file_name().to_string_lossy().into_owned()).any(|name| is_libclang(&name))
    })
}

/// The versioned library alone (package libclang1-N) is enough to load; its name need not end in `.so`. `libclang-cpp` is another one,
/// which comes with programs that have nothing to do with bindings.
fn is_libclang(name: &str) -> bool {
    let is_versioned = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit()) && rest.contains(".so");
    name.starts_with("libclang.so")
        || name == "libclang.dylib"
        || name.strip_prefix("libclang-").is_some_and(is_versioned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_for_systems_with_other_packages() {
        let text = purposes(BUILD);
        assert!(text.contains("the program `c++` in PATH (Debian's package g++): compiles RocksDB"), "{text}");
        assert!(text.contains("LIBCLANG_PATH"), "{text}");
        assert!(purposes(CLUSTER).contains("the file /usr/lib/cni/bridge"));
    }

    #[test]
    fn libclang_is_found_by_its_names() {
        for name in ["libclang.so", "libclang.so.1", "libclang-19.so.19", "libclang.dylib"] {
            assert!(is_libclang(name), "{name}");
        }
        for name in ["libclang-cpp.so.14", "libclang-cpp.a", "libLLVM.so"] {
            assert!(!is_libclang(name), "{name}");
        }
    }
}
