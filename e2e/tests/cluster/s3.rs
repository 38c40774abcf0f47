//! An S3 server of one test alone, beside the shared one, so that it can go away or hang.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kalamdb_e2e::wait::{self, Seen};

use crate::environment::{Place, variable};

const START_LIMIT: Duration = Duration::from_secs(60);

/// The server; it ends with this.
pub struct Server {
    child: Child,
    address: String,
    folder: PathBuf,
    keys: (String, String),
}

impl Server {
    /// Starts it, and makes it the bucket of `place`.
    pub fn start_for(place: &mut Place) -> Result<Self> {
        let shared = place.bucket.endpoint.trim_start_matches("http://");
        let (host, _) = shared.rsplit_once(':').with_context(|| format!("{shared} is not host:port"))?;
        let port = TcpListener::bind((host, 0)).and_then(|listener| listener.local_addr());
        let port = port.with_context(|| format!("failed to find a free port on {host}"))?.port();
        let address = format!("{host}:{port}");
        let folder = std::env::temp_dir().join(place.kubectl.namespace());
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        let keys = (place.bucket.access_key.clone(), place.bucket.secret_key.clone());
        let child = spawn(&address, &folder, &keys)?;
        let server = Self { child, address, folder, keys };
        server.wait()?;
        place.bucket.endpoint = format!("http://{}", server.address);
        place.bucket.create()?;
        Ok(server)
    }

    /// Ends it; its data stays.
    pub fn stop(&mut self) {
        // A server that has ended by itself needs no signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again.
    pub fn resume(&mut self) -> Result<()> {
        self.child = spawn(&self.address, &self.folder, &self.keys)?;
        self.wait()
    }

    /// Lets it answer nobody for as long as `work` takes: connections come about, and requests hang.
    pub fn while_it_hangs<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.signal("STOP")?;
        let done = work();
        self.signal("CONT")?;
        done
    }

    fn signal(&self, name: &str) -> Result<()> {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        ensure!(sent.context("failed to start kill")?.success(), "failed to send {name} to the S3 server");
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        wait::until("the S3 server to listen", START_LIMIT, || {
            Ok(match std::net::TcpStream::connect(&self.address) {
                Ok(_) => Seen::Ready(()),
                Err(error) => Seen::Waiting(error.to_string()),
            })
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn spawn(address: &str, folder: &Path, keys: &(String, String)) -> Result<Child> {
    let program = variable("KALAMDB_TEST_VERSITYGW")?;
    Command::new(&program)
        .env("ROOT_ACCESS_KEY_ID", &keys.0)
        .env("ROOT_SECRET_ACCESS_KEY", &keys.1)
        .args(["--port", address, "--quiet", "posix"])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("failed to start {program}"))
}
