//! Cargo on the workspace. Every build uses the same flags, features and target folder, so that nothing is compiled twice.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::console;
use crate::program::{Program, which};
use crate::tools::go::Tools;

/// The version of the workspace, which names images and charts.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the checkout")
}

/// A program of the workspace, built in the development profile.
pub fn binary(cache: &Cache, name: &str) -> PathBuf {
    cache.target().join("debug").join(name)
}

/// Cargo with the flags that every build shares.
///
/// `clippy-driver` as wrapper of the workspace's own crates checks them in the very build that makes them; plain `cargo
/// clippy` would check all dependencies a second time.
pub fn cargo(cache: &Cache) -> Program {
    let mut program = Program::new("cargo")
        .directory(root())
        .env("CARGO_TARGET_DIR", cache.target())
        .env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver");
    for (name, _) in std::env::vars_os() {
        // What `cargo run` tells xtask about xtask would look like a changed environment to build scripts.
        let inherited = name.to_string_lossy().into_owned();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "LD_LIBRARY_PATH"]
            .iter()
            .any(|prefix| inherited.starts_with(prefix))
        {
            program = program.env_remove(inherited);
        }
    }
    if which("mold").is_some() {
        program = program.env(linker_variable(), "-Clink-arg=-fuse-ld=mold");
    }
    program
}

/// Whether a build minds warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warnings {
    /// They are shown by nobody.
    Ignored,
    /// They fail the build, once all of them are shown.
    Denied,
}

/// Builds everything, tests included: one build for tests, images and the demo.
pub fn build(cache: &Cache, warnings: Warnings) -> Result<()> {
    let log = cache.log("cargo-build");
    // What an earlier build wrote is no progress of this one.
    let _ = std::fs::remove_file(&log);
    console::step_with_progress("build the workspace", Box::new(progress(&log)), || {
        let found = compile(cache, &log)?;
        if warnings == Warnings::Denied && found > 0 {
            bail!("warnings in {found} crate(s): mend them, they count as errors");
        }
        Ok(())
    })
}

/// Builds everything and the Go tools side by side: the tools are built at a low priority beside the Rust workspace; the
/// slower of the two decides.
pub fn build_beside_tools(cache: &Cache, warnings: Warnings) -> Result<Tools> {
    std::thread::scope(|scope| {
        let tools = scope.spawn(|| crate::tools::for_cluster(cache));
        let built = build(cache, warnings);
        let tools = tools.join().map_err(|_| anyhow::anyhow!("the build of the Go tools panicked"))?;
        built.and(tools)
    })
}

/// Denying warnings by flags would change the hash of every crate; so cargo's own count of them is read. Cargo repeats the
/// warnings of crates that it did not compile again, so a warm build finds the same ones.
fn compile(cache: &Cache, log: &Path) -> Result<usize> {
    cargo(cache).args(["build", "--workspace", "--all-targets", "--locked"]).logged(log)?;
    let text = std::fs::read_to_string(log).with_context(|| format!("failed to read {}", log.display()))?;
    let warned = text.lines().filter(|line| line.starts_with("warning: `") && line.contains(" generated ")).count();
    if warned > 0 {
        console::say(&text);
    }
    Ok(warned)
}

/// How many crates have begun to compile, as cargo writes into `log`, or that it waits for another build. `Cargo.lock` holds some more than are built: those of
/// other platforms.
fn progress(log: &Path) -> impl Fn() -> Option<String> + Send + use<> {
    let log = log.to_owned();
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap_or_default();
    let all = lock.lines().filter(|line| *line == "[[package]]").count();
    move || told(&std::fs::read_to_string(&log).ok()?, all)
}

fn told(log: &str, all: usize) -> Option<String> {
    let begun = log.lines().filter(|line| line.trim_start().starts_with("Compiling ")).count();
    let waits = log.lines().last().is_some_and(|line| line.trim_start().starts_with("Blocking waiting for file lock"));
    match (waits, begun) {
        (true, _) => Some("waiting for another cargo that builds into the same folder".to_owned()),
        (false, 0) => None,
        (false, begun) => Some(format!("{begun} of at most {all} crates")),
    }
}

fn linker_variable() -> String {
    let triple = format!("{}_unknown_linux_gnu", std::env::consts::ARCH).to_uppercase();
    format!("CARGO_TARGET_{triple}_RUSTFLAGS")
}

#[cfg(test)]
mod tests {
    use super::told;

    #[test]
    fn crates_that_begin_to_compile_are_counted_and_a_build_that_waits_says_so() {
        let log = "  Downloaded a v1.0.0\n   Compiling a v1.0.0\nwarning: unused\n   Compiling b v2.0.0 (/work)\n";
        assert_eq!(told(log, 9).as_deref(), Some("2 of at most 9 crates"));
        assert_eq!(told("", 9), None);
        let waits = told("    Blocking waiting for file lock on artifact directory\n", 9);
        assert_eq!(waits.as_deref(), Some("waiting for another cargo that builds into the same folder"));
    }
}
