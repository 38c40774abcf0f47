//! `kubectl port-forward`: the way from here to a Service of any cluster.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::kubectl::Kubectl;

/// How long kubectl may take to say where it listens.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running port-forward; it ends when this is dropped.
pub struct PortForward {
    child: Child,
    port: u16,
}

impl PortForward {
    /// Forwards a free local port to `port` of `target`, such as `service/flights`.
    pub fn start(kubectl: &Kubectl, target: &str, port: u16) -> Result<Self> {
        let mut child = kubectl
            .command()
            .args(["port-forward", "--address", "127.0.0.1", target, &format!(":{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to start kubectl port-forward")?;
        let stdout = child.stdout.take().expect("the output was piped");
        let stderr = child.stderr.take().expect("the errors were piped");
        match local_port(stdout, stderr) {
            Ok(port) => Ok(Self { child, port }),
            Err(error) => {
                end(&mut child);
                Err(error).with_context(|| format!("failed to forward a port to {target} in {}", kubectl.namespace()))
            }
        }
    }

    /// Where the Service now answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for PortForward {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // A child that has ended by itself needs no signal.
    let _ = child.kill();
    let _ = child.wait();
}

/// kubectl says where it listens in its first line. Both pipes are read to their end, or kubectl would stop when they fill.
fn local_port(stdout: ChildStdout, stderr: ChildStderr) -> Result<u16> {
    let (sender, receiver) = mpsc::channel();
    let complaints = sender.clone();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        if reader.read_line(&mut line).is_ok() && !line.is_empty() {
            let _ = sender.send(port_of(&line));
        }
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    });
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = BufReader::new(stderr).read_to_string(&mut text);
        let _ = complaints.send(Err(anyhow!("kubectl ended: {}", text.trim())));
    });
    receiver.recv_timeout(START_LIMIT).context("kubectl said nothing in time")?
}

/// Reads `Forwarding from 127.0.0.1:40123 -> 8080`.
fn port_of(line: &str) -> Result<u16> {
    line.split_once("127.0.0.1:")
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .and_then(|port| port.parse().ok())
        .with_context(|| format!("no local port in {line:?}"))
}
