//! Where everything lies that outlives a command: tools, build output, the state of the local cluster.
//!
//! Outside the checkout, so that a fresh clone finds what an earlier one has built.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The cache folder.
#[derive(Debug, Clone)]
pub struct Cache(PathBuf);

impl Cache {
    /// `$KALAMDB_CACHE`, else `$XDG_CACHE_HOME/kalamdb`, else `~/.cache/kalamdb`.
    pub fn from_environment() -> Result<Self> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("KALAMDB_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("kalamdb")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/kalamdb")))
            .context("no cache folder: set KALAMDB_CACHE, or HOME")?;
        create(&root)?;
        // Programs in other folders are given these paths, so they must not be relative.
        Ok(Self(root.canonicalize().with_context(|| format!("failed to resolve {}", root.display()))?))
    }

    /// A tool's folder, named by its version.
    pub fn tool(&self, name: &str, version: &str) -> PathBuf {
        self.0.join("tools").join(format!("{name}-{version}"))
    }

    /// Cargo's target folder for the workspace (the caller's own `CARGO_TARGET_DIR` holds xtask alone).
    pub fn target(&self) -> PathBuf {
        self.0.join("target")
    }

    /// Logs of long steps.
    pub fn log(&self, name: &str) -> PathBuf {
        self.0.join("logs").join(format!("{name}.log"))
    }

    /// The state of the local cluster.
    pub fn cluster(&self) -> PathBuf {
        self.0.join("cluster")
    }

    /// Images and what they were made from.
    pub fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    /// The charts, copied to where Helm may write.
    pub fn charts(&self) -> PathBuf {
        self.0.join("charts")
    }

    /// Downloaded data and the files of an embedded demo.
    pub fn demo(&self) -> PathBuf {
        self.0.join("demo")
    }
}

/// Creates a folder and its parents.
pub fn create(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))
}

/// Writes a file, and its folder where that is missing.
pub fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = path.parent() {
        create(folder)?;
    }
    std::fs::write(path, contents).with_context(|| format!("failed to write {}", path.display()))
}

/// Writes a file that only its owner may read.
pub fn write_secret(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    write(path, "")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("failed to protect {}", path.display()))?;
    write(path, contents)
}
