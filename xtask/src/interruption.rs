//! Ctrl-C and termination: children are told to end, waiting loops notice, and cleaning up runs as after any failure.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static SIGNALS: AtomicU32 = AtomicU32::new(0);
static CHILDREN: Mutex<BTreeSet<Receiver>> = Mutex::new(BTreeSet::new());

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Receiver {
    Process(u32),
    /// The process and all that it started.
    Group(u32),
}

/// A signal to a process.
#[derive(Debug, Clone, Copy)]
pub enum Signal {
    /// Asks it to end.
    Terminate,
    /// Ends it.
    Kill,
}

/// Begins to watch. The first signal ends the children; the third ends this process without cleaning up.
pub fn watch() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("failed to watch for Ctrl-C")?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let before = SIGNALS.fetch_add(1, Ordering::SeqCst);
            eprintln!("\ninterrupted: cleaning up");
            if before >= 2 {
                std::process::exit(130);
            }
            for receiver in children().iter() {
                send_to(Signal::Terminate, *receiver);
            }
        }
    });
    Ok(())
}

/// Sends a signal; a process that has just ended needs none. The shell does it, because the safe bindings would switch on
/// features of crates that the whole workspace shares.
pub fn send(signal: Signal, pid: u32) {
    send_to(signal, Receiver::Process(pid));
}

fn send_to(signal: Signal, receiver: Receiver) {
    let name = match signal {
        Signal::Terminate => "TERM",
        Signal::Kill => "KILL",
    };
    let receiver = match receiver {
        Receiver::Process(pid) => pid.to_string(),
        Receiver::Group(pid) => format!("-{pid}"),
    };
    let command = format!("kill -s {name} -- {receiver} 2>/dev/null");
    let _ = std::process::Command::new("sh").args(["-c", &command]).status();
}

/// Fails once a signal has come: called between steps and in every waiting loop.
pub fn check() -> Result<()> {
    if SIGNALS.load(Ordering::SeqCst) > 0 {
        bail!("interrupted");
    }
    Ok(())
}

/// Runs what must be done even after an interruption: its own children are not refused.
pub fn shielded<T>(work: impl FnOnce() -> T) -> T {
    let signals = SIGNALS.swap(0, Ordering::SeqCst);
    let result = work();
    SIGNALS.fetch_add(signals, Ordering::SeqCst);
    result
}

/// Asks `ready` every 200 ms until it says yes; the error names what was waited for.
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = std::time::Instant::now();
    while !ready()? {
        check()?;
        if started.elapsed() > limit {
            bail!("waited {} s for {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Remembers a child while it runs, so that a signal reaches it.
pub struct Child(Receiver);

impl Child {
    /// Begins to remember `pid`.
    pub fn remember(pid: u32) -> Self {
        Self::of(Receiver::Process(pid))
    }

    /// The same for a child that leads a process group.
    pub fn remember_group(pid: u32) -> Self {
        Self::of(Receiver::Group(pid))
    }

    fn of(receiver: Receiver) -> Self {
        children().insert(receiver);
        Self(receiver)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        children().remove(&self.0);
    }
}

fn children() -> std::sync::MutexGuard<'static, BTreeSet<Receiver>> {
    CHILDREN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
