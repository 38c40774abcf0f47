//! The cluster's processes: recorded when they start, known again by id and start time, and ended by id.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache;
use crate::interruption::{self, Signal};
use crate::program::Program;

/// The folder of records, one for each process.
#[derive(Debug, Clone)]
pub struct Processes {
    folder: PathBuf,
}

/// A process id together with its start time, which tells it from a later process of the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    pid: u32,
    /// As the system writes it: in `/proc` where there is one, else by `ps`.
    started: String,
}

impl Processes {
    /// The records in `folder`.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Starts `program` unless it runs; its log is beside its record.
    pub fn start(&self, name: &str, program: Program) -> Result<()> {
        if self.is_running(name) {
            return Ok(());
        }
        let child = program.background(&self.log(name))?;
        let started = start_time(child.id()).with_context(|| format!("{name} ended at once"))?;
        cache::write(&self.record(name), format!("{} {started}", child.id()))
    }

    /// Whether the recorded process is there.
    pub fn is_running(&self, name: &str) -> bool {
        self.read(name).as_ref().is_some_and(Identity::is_running)
    }

    /// The process id, for people.
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.read(name).filter(Identity::is_running).map(|identity| identity.pid)
    }

    /// Where the process writes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Ends the process: asked first, then killed.
    pub fn stop(&self, name: &str) {
        if let Some(identity) = self.read(name) {
            identity.end();
        }
        let _ = std::fs::remove_file(self.record(name));
    }

    /// Ends the process as a power cut would: it gets no chance to clean up.
    pub fn kill(&self, name: &str) {
        if let Some(identity) = self.read(name) {
            identity.kill();
        }
        let _ = std::fs::remove_file(self.record(name));
    }

    fn record(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pid"))
    }

    fn read(&self, name: &str) -> Option<Identity> {
        let text = std::fs::read_to_string(self.record(name)).ok()?;
        let (pid, started) = text.split_once(' ')?;
        Some(Identity { pid: pid.parse().ok()?, started: started.to_owned() })
    }
}

impl Identity {
    fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, started: start_time(pid)? })
    }

    fn is_running(&self) -> bool {
        start_time(self.pid).as_ref() == Some(&self.started)
    }

    fn end(&self) {
        self.signal(Signal::Terminate);
        let gone = || Ok(!self.is_running());
        if interruption::wait_until("a process to end", Duration::from_secs(5), gone).is_err() {
            self.kill();
        }
    }

    fn kill(&self) {
        self.signal(Signal::Kill);
        let gone = || Ok(!self.is_running());
        let _ = interruption::wait_until("a killed process", Duration::from_secs(5), gone);
    }

    fn signal(&self, signal: Signal) {
        if self.is_running() {
            interruption::send(signal, self.pid);
        }
    }
}

/// Kills what is left of the cluster: processes whose command line names `mark` (the containers' shims name our socket,
/// the components our state folder) and whose program is one of `programs`, with all their descendants.
pub fn sweep(mark: &Path, programs: &[&str]) {
    let mark = mark.to_string_lossy().into_owned();
    let ours = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let program = line.split(' ').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        line.contains(&mark) && programs.contains(&program)
    };
    let all = all_pids();
    let mut doomed: Vec<u32> = all.iter().copied().filter(ours).collect();
    let mut next = 0;
    while next < doomed.len() {
        let parent = doomed[next];
        doomed.extend(all.iter().copied().filter(|pid| stat_field(*pid, 1) == Some(u64::from(parent))));
        next += 1;
    }
    for identity in doomed.into_iter().filter_map(Identity::of) {
        identity.signal(Signal::Kill);
    }
}

fn all_pids() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect()
}

/// When the process started; `None` where it does not run.
fn start_time(pid: u32) -> Option<String> {
    if Path::new("/proc/self/stat").exists() { start_time_by_proc(pid) } else { start_time_by_ps(pid) }
}

/// Where there is no `/proc`. A process that has ended and is not yet reaped (`Z`) does not run.
fn start_time_by_ps(pid: u32) -> Option<String> {
    let told = Program::new("ps").args(["-o", "stat=", "-o", "lstart=", "-p"]).arg(pid.to_string()).output().ok()?;
    let (state, started) = told.trim().split_once(' ')?;
    (!state.starts_with('Z')).then(|| started.trim().to_owned())
}

/// A process that has ended and is not yet reaped does not run; but while any of its threads still ends, its ports are taken.
fn start_time_by_proc(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    if fields.starts_with('Z') && threads() <= 1 {
        return None;
    }
    stat_field(pid, 19).map(|ticks| ticks.to_string())
}

/// A numeric field of `/proc/PID/stat`, counted from the state, which follows the program's name.
fn stat_field(pid: u32, index: usize) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    fields.split(' ').nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Starts a process that sleeps, and calls `check` with its id while it runs and after it was reaped.
    fn check(start_time: fn(u32) -> Option<String>) {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("a process");
        let started = start_time(child.id());
        assert!(started.as_ref().is_some_and(|started| !started.is_empty()), "{started:?}");
        assert_eq!(start_time(child.id()), started, "the same at every look");
        child.kill().expect("the process runs");
        let ended = || Ok(start_time(child.id()).is_none());
        interruption::wait_until("the end of a process that is not reaped", Duration::from_secs(5), ended).expect("Z");
        child.wait().expect("the process ended");
        assert_eq!(start_time(child.id()), None);
    }

    #[test]
    fn a_process_is_known_by_its_start_and_an_ended_one_does_not_run() {
        if Path::new("/proc/self/stat").exists() {
            check(start_time_by_proc);
        }
        if crate::program::which("ps").is_some() {
            check(start_time_by_ps);
        }
    }
}
