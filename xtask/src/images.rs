//! Container images: built from scratch by buildah, kept as archives, imported into the local cluster.
//!
//! An image holds a program, the shared libraries that it names, CA certificates, and a user that is not root. It is built
//! again only when its program has changed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cache::{self, Cache};
use crate::cluster::Cluster;
use crate::console;
use crate::program::Program;
use crate::tools::go::{GoTool, Tools};
use crate::workspace;

/// The image of the process that holds a pod's namespaces.
pub const PAUSE: &str = "localhost/kalamdb-pause:1";
/// The image of cluster DNS.
pub const COREDNS: &str = "localhost/kalamdb-coredns:1";
/// The image of the S3 server.
pub const S3: &str = "localhost/kalamdb-s3:1";
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// One of the two images that KalamDB publishes.
#[derive(Debug, Clone, Copy)]
pub enum Product {
    /// The database.
    Instance,
    /// The operator.
    Operator,
}

impl Product {
    /// The name of the program, which is the image's name too.
    pub fn program(self) -> &'static str {
        match self {
            Self::Instance => "kalamdb-instance",
            Self::Operator => "kalamdb-operator",
        }
    }

    fn reference(self, fingerprint: &str) -> String {
        format!("docker.io/library/{}:{}-{fingerprint}", self.program(), workspace::VERSION)
    }

    fn containerfile(self) -> PathBuf {
        let folder = match self {
            Self::Instance => "instance",
            Self::Operator => "operator",
        };
        workspace::root().join(folder).join("Containerfile")
    }
}

/// Both products' images.
#[derive(Debug, Clone)]
pub struct Products {
    /// The database.
    pub instance: Archive,
    /// The operator.
    pub operator: Archive,
}

impl Products {
    /// Both.
    pub fn all(&self) -> [Archive; 2] {
        [self.instance.clone(), self.operator.clone()]
    }
}

/// An image as an archive, and what it was made from.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The image's name with its tag, as Kubernetes resolves it.
    pub reference: String,
    /// The archive.
    pub path: PathBuf,
    fingerprint: String,
}

impl Archive {
    /// The image's name with its tag, without the registry.
    pub fn name(&self) -> &str {
        self.reference.rsplit('/').next().unwrap_or(&self.reference)
    }

    /// The tag alone.
    pub fn tag(&self) -> &str {
        self.reference.rsplit(':').next().unwrap_or_default()
    }
}

/// Builds both products' images from the programs that are there.
pub fn build_products(cache: &Cache) -> Result<Products> {
    Ok(Products {
        instance: build_product(cache, Product::Instance)?,
        operator: build_product(cache, Product::Operator)?,
    })
}

/// The fingerprint is part of the tag: a pod whose image was built anew is another pod, and restarts.
fn build_product(cache: &Cache, product: Product) -> Result<Archive> {
    console::step(&format!("build the image {}", product.program()), || {
        let program = workspace::binary(cache, product.program());
        let build = Build { folder: &cache.images(), name: product.program(), program: &program };
        let containerfile = product.containerfile();
        let fingerprint = build.fingerprint(&containerfile)?;
        build.run(&product.reference(&fingerprint), fingerprint, &containerfile)
    })
}

/// Imports images into the local cluster, unless it has the very same.
pub fn load(cluster: &Cluster, archives: &[Archive]) -> Result<()> {
    for archive in archives {
        let label = format!("fingerprint={}", archive.fingerprint);
        let known = ctr(cluster).args(["images", "ls"]).arg(format!("name=={}", archive.reference)).output()?;
        if known.contains(&label) {
            continue;
        }
        ctr(cluster).args(["images", "import", "--no-unpack"]).arg(&archive.path).output()?;
        ctr(cluster).args(["images", "label", &archive.reference, &label]).output()?;
    }
    Ok(())
}

/// Builds and imports the images that the cluster itself needs.
pub fn load_own(cluster: &Cluster, tools: &Tools) -> Result<()> {
    let archives = [build_tool(tools, GoTool::Pause, PAUSE)?, build_tool(tools, GoTool::Coredns, COREDNS)?];
    load(cluster, &archives)
}

/// Builds the image of the S3 server, for a cluster that can't reach this machine.
pub fn build_s3(tools: &Tools) -> Result<Archive> {
    console::step(&format!("build the image {S3}"), || build_tool(tools, GoTool::Versitygw, S3))
}

fn build_tool(tools: &Tools, tool: GoTool, reference: &str) -> Result<Archive> {
    let folder = tools.folder(tool).with_extension("image");
    let containerfile = folder.join("Containerfile");
    cache::write(&containerfile, "FROM scratch\nCOPY root/ /\nENTRYPOINT [\"/program\"]\n")?;
    let program = tools.program(tool);
    let build = Build { folder: &folder, name: tool.name(), program: &program };
    build.run(reference, build.fingerprint(&containerfile)?, &containerfile)
}

/// Pushes the archives to a registry of the user's.
pub fn push(archives: &[Archive], registry: &str) -> Result<()> {
    for archive in archives {
        let name = archive.name();
        console::step(&format!("push {registry}/{name}"), || {
            let push = buildah().arg("push").arg(format!("--tls-verify={}", !is_on_this_machine(registry)));
            push.arg(&archive.reference).arg(format!("docker://{registry}/{name}")).output()
        })?;
    }
    Ok(())
}

/// Such a registry has no certificate as a rule, and nobody but this machine is between it and us.
fn is_on_this_machine(registry: &str) -> bool {
    let host = registry.split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

/// An image that is to be built.
struct Build<'a> {
    /// Where its archive lies.
    folder: &'a Path,
    /// The archive's name.
    name: &'a str,
    /// The program that it holds.
    program: &'a Path,
}

impl Build<'_> {
    /// What it is made from: changes with the program and the Containerfile.
    fn fingerprint(&self, containerfile: &Path) -> Result<String> {
        if !self.program.exists() {
            bail!("{} is missing: `cargo xtask build` makes it", self.program.display());
        }
        let sums = Program::new("sha256sum").arg(self.program).arg(containerfile).output()?;
        let digests: Vec<&str> = sums.lines().filter_map(|line| line.get(..12)).collect();
        Ok(digests.join("-"))
    }

    fn run(&self, reference: &str, fingerprint: String, containerfile: &Path) -> Result<Archive> {
        let Self { folder, name, program } = self;
        let path = folder.join(format!("{name}-{fingerprint}.tar"));
        let archive = Archive { reference: reference.to_owned(), path: path.clone(), fingerprint };
        if path.exists() {
            return Ok(archive);
        }
        let context = folder.join(format!("{name}-context"));
        lay_out(&context, program)?;
        remove_older(folder, name)?;
        buildah()
            .args(["bud", "--isolation", "chroot", "--layers=false", "--tag", reference, "--file"])
            .arg(containerfile)
            .arg(&context)
            .output()?;
        let draft = folder.join(format!("{name}.draft"));
        let _ = std::fs::remove_file(&draft);
        buildah().args(["push", reference]).arg(format!("oci-archive:{}:{reference}", draft.display())).output()?;
        std::fs::rename(&draft, &path).with_context(|| format!("failed to put {} in place", path.display()))?;
        std::fs::remove_dir_all(&context).with_context(|| format!("failed to remove {}", context.display()))?;
        Ok(archive)
    }
}

/// The folder that becomes the image's root: program, libraries, certificates, and a writable `/tmp`.
fn lay_out(context: &Path, program: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(context);
    let root = context.join("root");
    cache::create(&root)?;
    Program::new("strip").arg("-o").arg(root.join("program")).arg(program).output()?;
    for library in libraries(program)? {
        let target = root.join(library.trim_start_matches('/'));
        cache::create(target.parent().unwrap_or(&root))?;
        std::fs::copy(&library, &target).with_context(|| format!("failed to copy {library}"))?;
    }
    if Path::new(CERTIFICATES).exists() {
        cache::create(&root.join("etc/ssl/certs"))?;
        std::fs::copy(CERTIFICATES, root.join(CERTIFICATES.trim_start_matches('/')))
            .context("failed to copy the CA certificates")?;
    }
    cache::write(&root.join("etc/passwd"), "kalamdb:x:65532:65532::/:/\n")?;
    cache::write(&root.join("etc/group"), "kalamdb:x:65532:\n")
}

/// The libraries that the loader would bring; a static program has none.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let listed = Program::new("ldd").arg(program).outcome()?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    if let Some(lost) = text.lines().find(|line| line.contains("not found")) {
        bail!("{} needs a library that is not there: {}", program.display(), lost.trim());
    }
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

/// Archives of earlier builds, and what buildah keeps of them.
fn remove_older(folder: &Path, name: &str) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    for file in entries.flatten().map(|entry| entry.path()) {
        let stem = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if stem.starts_with(&format!("{name}-")) && stem.ends_with(".tar") {
            std::fs::remove_file(&file).with_context(|| format!("failed to remove {}", file.display()))?;
            let fingerprint = stem.trim_start_matches(&format!("{name}-")).trim_end_matches(".tar");
            let older = format!("docker.io/library/{name}:{}-{fingerprint}", workspace::VERSION);
            // It is only disk space, and an image of another version has another name.
            let _ = buildah().args(["rmi", &older]).outcome();
        }
    }
    Ok(())
}

fn buildah() -> Program {
    Program::new("buildah").args(["--storage-driver", "vfs"])
}

fn ctr(cluster: &Cluster) -> Program {
    Program::new("ctr").arg("--address").arg(cluster.containerd_socket()).args(["--namespace", "k8s.io"])
}

#[cfg(test)]
mod tests {
    use super::is_on_this_machine;

    #[test]
    fn only_a_registry_of_this_machine_is_spoken_to_without_a_certificate() {
        for registry in ["localhost:5000", "localhost/team", "127.0.0.1:5001/a/b", "[::1]:5000"] {
            assert!(is_on_this_machine(registry), "{registry}");
        }
        for registry in ["ghcr.io/localhost", "localhost.example:5000", "10.244.0.1:5000"] {
            assert!(!is_on_this_machine(registry), "{registry}");
        }
    }
}
