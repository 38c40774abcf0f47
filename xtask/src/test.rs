//! `cargo xtask test`: all checks and all tests, against a real cluster and a real S3 server.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::charts;
use crate::cluster::{self, Cluster};
use crate::console;
use crate::demo;
use crate::interruption;
use crate::program::Program;
use crate::tools::go::{GoTool, Tools};
use crate::tools::{debian, python};
use crate::workspace::{self, Warnings};

/// What the test programs reported.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// The names of those that failed, to be found without searching the whole output.
    failures: Vec<String>,
}

/// Formatting, lints, charts, unit, integration and end-to-end tests.
pub fn run(cache: &Cache) -> Result<()> {
    let started = Instant::now();
    cluster::check_ground()?;
    check_formatting()?;
    debian::ensure(debian::BUILD)?;
    debian::ensure(debian::CLUSTER)?;
    let readers = python::ensure(cache, python::READERS)?;
    let tools = workspace::build_beside_tools(cache, Warnings::Denied)?;
    let cluster = Running::start(Cluster::new(cache, tools.clone()))?;
    let result = test_on(cache, &tools, &readers, &cluster.cluster);
    drop(cluster);
    console::say(&format!("\nall steps took {}", console::duration(started.elapsed())));
    let summary = result?;
    if summary.ignored > 0 {
        console::say(&format!("{} ignored", summary.ignored));
    }
    summary.failures.iter().for_each(|test| console::say(&format!("failed: {test}")));
    let counts = format!("{} passed, {} failed", summary.passed, summary.failed);
    // An error is printed last as well.
    if summary.failed > 0 {
        bail!("{counts}");
    }
    console::say(&counts);
    Ok(())
}

/// Formatting and lints alone.
pub fn lint(cache: &Cache) -> Result<()> {
    check_formatting()?;
    debian::ensure(debian::BUILD)?;
    workspace::build(cache, Warnings::Denied)
}

fn check_formatting() -> Result<()> {
    console::step("check the formatting", || {
        let check = Program::new("cargo").directory(workspace::root()).args(["fmt", "--all", "--check"]);
        check.output().context("run `cargo fmt --all` to mend the formatting").map(drop)
    })
}

/// A cluster that is removed at the end, unless it ran before.
struct Running {
    cluster: Cluster,
    was_running: bool,
}

impl Running {
    fn start(cluster: Cluster) -> Result<Self> {
        let running = Self { was_running: cluster.is_running(), cluster };
        running.cluster.up()?;
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.was_running {
            console::say("the local cluster ran before and is left running");
        } else if let Err(error) = interruption::shielded(|| self.cluster.down()) {
            console::say(&format!("failed to remove the local cluster: {error:#}"));
        }
    }
}

fn test_on(cache: &Cache, tools: &Tools, readers: &Path, cluster: &Cluster) -> Result<Summary> {
    charts::deploy(cache, tools, cluster)?;
    charts::test(cache, tools, cluster)?;
    // The second time over the definition that was kept.
    charts::deploy(cache, tools, cluster)?;
    console::headline("the demo without a cluster");
    demo::check_embedded(cache)?;
    console::headline("tests");
    run_tests(cache, tools, readers, cluster)
}

fn run_tests(cache: &Cache, tools: &Tools, readers: &Path, cluster: &Cluster) -> Result<Summary> {
    let s3 = cluster.s3()?;
    let mut child = workspace::cargo(cache)
        .args(["test", "--workspace", "--all-targets", "--locked", "--no-fail-fast"])
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("KALAMDB_TEST_CONTEXT", cluster::CONTEXT)
        .env("KALAMDB_TEST_KUBECTL", tools.kubectl())
        .env("KALAMDB_TEST_S3_ENDPOINT", &s3.endpoint)
        .env("KALAMDB_TEST_S3_ACCESS_KEY", &s3.access_key)
        .env("KALAMDB_TEST_S3_SECRET_KEY", &s3.secret_key)
        .env("KALAMDB_TEST_S3_BUCKET", &s3.bucket)
        // Errors of tests say what was wrong; forty lines of the test runner's own calls below each would only hide it.
        .env("RUST_LIB_BACKTRACE", "0")
        .env("KALAMDB_TEST_PYTHON", "python3")
        .env("PYTHONPATH", readers)
        .env("KALAMDB_TEST_VERSITYGW", tools.program(GoTool::Versitygw))
        .piped()?;
    let _remembered = interruption::Child::remember_group(child.id());
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut summary = Summary::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("failed to read what cargo test prints")?;
        summary.add(&line);
        console::say(&line);
    }
    let status = child.wait().context("failed to wait for cargo test")?;
    interruption::check()?;
    if !status.success() && summary.failed == 0 {
        bail!("cargo test failed ({status}) though no test did: a test program ended before its summary");
    }
    Ok(summary)
}

impl Summary {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …` or `test name ... FAILED`; any other line
    /// changes nothing.
    fn add(&mut self, line: &str) {
        self.failures
            .extend(line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")).map(str::to_owned));
        let Some(counts) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else { return };
        for count in counts.1.split("; ") {
            let Some((number, what)) = count.split_once(' ') else { continue };
            let number: u64 = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn the_summaries_of_all_test_programs_are_added() {
        let mut summary = Summary::default();
        summary.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s");
        summary
            .add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s");
        summary.add("test hot::reads ... ok");
        summary.add("test hot::writes ... FAILED");
        let failures = vec!["hot::writes".to_owned()];
        assert_eq!(summary, Summary { passed: 4, failed: 2, ignored: 1, failures });
    }
}
