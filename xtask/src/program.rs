//! Running other programs: quietly with a log, for their output, or before the user's eyes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::interruption;

/// How many lines of a log are shown when the program failed.
const TAIL_LINES: usize = 30;

/// A program to run.
pub struct Program {
    command: Command,
    input: Option<Vec<u8>>,
}

impl Program {
    /// Names the program: a path, or a name to be found in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), input: None }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes a variable out of the environment.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sets the working directory.
    pub fn directory(mut self, path: impl AsRef<Path>) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Gives the program something to read.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Runs it with its output in `log`; a failure shows the log's tail.
    pub fn logged(mut self, log: &Path) -> Result<()> {
        let file = log_file(log)?;
        let errors = file.try_clone().with_context(|| format!("failed to open {}", log.display()))?;
        self.command.stdout(file).stderr(errors);
        let name = self.name();
        let status = self.finish()?.status;
        if !status.success() {
            bail!("{name} failed ({status}); the end of {}:\n{}", log.display(), tail(log));
        }
        Ok(())
    }

    /// Runs it and returns what it printed; a failure carries what it complained about.
    pub fn output(self) -> Result<String> {
        let name = self.name();
        let output = self.outcome()?;
        if !output.status.success() {
            bail!("{name} failed ({}): {}", output.status, complaint(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it and returns its end, whatever it was.
    pub fn outcome(mut self) -> Result<Output> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.finish()
    }

    /// Runs it before the user's eyes.
    pub fn shown(mut self) -> Result<()> {
        let name = self.name();
        self.command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
        let status: ExitStatus = self.finish()?.status;
        if !status.success() {
            bail!("{name} failed ({status})");
        }
        Ok(())
    }

    /// Starts it in a process group of its own, so that a signal reaches all that it starts, and returns the running child,
    /// whose output is piped.
    pub fn piped(mut self) -> Result<Child> {
        use std::os::unix::process::CommandExt;
        let name = self.name();
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
        self.command.spawn().with_context(|| missing(&name))
    }

    /// Starts it so that it outlives this process: own process group, output in `log`.
    pub fn background(mut self, log: &Path) -> Result<Child> {
        use std::os::unix::process::CommandExt;
        let file = log_file(log)?;
        let errors = file.try_clone().with_context(|| format!("failed to open {}", log.display()))?;
        let name = self.name();
        self.command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
        self.command.spawn().with_context(|| missing(&name))
    }

    fn name(&self) -> String {
        Path::new(self.command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn finish(mut self) -> Result<Output> {
        interruption::check()?;
        let name = self.name();
        self.command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = self.command.spawn().with_context(|| missing(&name))?;
        let _remembered = interruption::Child::remember(child.id());
        if let (Some(bytes), Some(mut stdin)) = (self.input, child.stdin.take()) {
            // A program that ends before it has read everything tells why by its status.
            let _ = stdin.write_all(&bytes);
        }
        let output = child.wait_with_output().with_context(|| format!("failed to wait for {name}"))?;
        interruption::check()?;
        Ok(output)
    }
}

/// Where `program` is found in `PATH` (and the folders of system programs, which a user's `PATH` may lack).
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn log_file(log: &Path) -> Result<File> {
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    }
    File::create(log).with_context(|| format!("failed to create {}", log.display()))
}

fn complaint(output: &Output) -> String {
    let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    String::from_utf8_lossy(text).trim().to_owned()
}

fn missing(name: &str) -> String {
    format!("failed to start `{name}`: is it installed and in PATH? (`cargo xtask tools` tells what is needed)")
}
