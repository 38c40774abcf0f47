//! The stage without a cluster: one instance, the operator's scheduler, and a local folder as object store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use kalamdb_e2e::bucket::Object;
use kalamdb_e2e::sql::{self, Client};
use kalamdb_e2e::wait::{self, Seen};

use crate::cache::{self, Cache};
use crate::cluster::processes::Processes;
use crate::cluster::random_word;
use crate::console;
use crate::demo::stage::Stage;
use crate::interruption;
use crate::program::{Program, tail};
use crate::tools::debian;
use crate::workspace::{self, Warnings};

const INSTANCE: &str = "kalamdb-instance";
const SCHEDULER: &str = "kalamdb-operator";
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Where a demo without a cluster lies: its data, and the records of its processes.
#[derive(Debug, Clone)]
pub struct Place(PathBuf);

impl Place {
    /// The place of the demo that a person runs.
    pub fn of_the_demo(cache: &Cache) -> Self {
        Self(cache.demo().join("embedded"))
    }

    /// The place of the demo as a test, which leaves that of a person alone.
    pub fn of_a_test(cache: &Cache) -> Self {
        Self(cache.demo().join("embedded-test"))
    }

    fn processes(&self) -> Processes {
        Processes::in_folder(self.0.join("processes"))
    }

    /// Ends the processes of an earlier demo and removes their folder.
    pub fn remove(&self) -> Result<()> {
        for name in [SCHEDULER, INSTANCE] {
            self.processes().stop(name);
        }
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("failed to remove {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The processes and their folder.
pub struct Embedded {
    folder: PathBuf,
    processes: Processes,
    programs: [PathBuf; 2],
    port: u16,
    password: String,
}

impl Embedded {
    /// Builds the programs and starts them on an empty folder.
    pub fn start(cache: &Cache, place: &Place) -> Result<Self> {
        console::headline("What is needed");
        debian::ensure(debian::BUILD)?;
        workspace::build(cache, Warnings::Ignored)?;
        place.remove()?;
        console::headline("A database without a cluster");
        let stage = Self {
            folder: place.0.clone(),
            processes: place.processes(),
            programs: [INSTANCE, SCHEDULER].map(|name| workspace::binary(cache, name)),
            port: free_port()?,
            password: word()?,
        };
        stage.write_secrets()?;
        console::step(&format!("start {INSTANCE} on port {}, data in {}", stage.port, stage.folder.display()), || {
            stage.start_instance()
        })?;
        console::step(&format!("start {SCHEDULER} schedule: it scrapes the instance every 2 s"), || {
            stage.start_scheduler()
        })?;
        Ok(stage)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn cold(&self) -> PathBuf {
        self.folder.join("cold")
    }

    fn secret(&self, name: &str) -> PathBuf {
        self.folder.join("secrets").join(name)
    }

    fn write_secrets(&self) -> Result<()> {
        for (name, value) in
            [("root-password", self.password.clone()), ("jwt-secret", word()?), ("scheduler-token", word()?)]
        {
            cache::write_secret(&self.secret(name), value)?;
        }
        Ok(())
    }

    fn start_instance(&self) -> Result<()> {
        let mut program = Program::new(&self.programs[0])
            .env("KALAMDB_SERVER_PORT", self.port.to_string())
            .env("KALAMDB_DATA_DIR", self.folder.join("data"))
            .env("KALAMDB_OBJECT_STORE_PATH", self.cold())
            .env("NO_COLOR", "1");
        for (variable, name) in [
            ("KALAMDB_ROOT_PASSWORD", "root-password"),
            ("KALAMDB_JWT_SECRET", "jwt-secret"),
            ("KALAMDB_SCHEDULER_TOKEN", "scheduler-token"),
        ] {
            let path = self.secret(name);
            let value = std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
            program = program.env(variable, value);
        }
        self.processes.start(INSTANCE, program)?;
        self.wait_until_ready()
    }

    fn start_scheduler(&self) -> Result<()> {
        let program = Program::new(&self.programs[1])
            .env("NO_COLOR", "1")
            .args(["schedule", "--interval", "2s", "--target", &self.url(), "--token-file"])
            .arg(self.secret("scheduler-token"));
        self.processes.start(SCHEDULER, program)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let waited = wait::until("the instance to be ready", READY_LIMIT, || {
            interruption::check()?;
            if !self.processes.is_running(INSTANCE) {
                bail!("{INSTANCE} ended");
            }
            Ok(sql::ready(&self.url()).map_or_else(Seen::Waiting, Seen::Ready))
        });
        waited.map_err(|error| anyhow!("{error:#}; the end of its log:\n{}", tail(&self.processes.log(INSTANCE))))
    }
}

impl Stage for Embedded {
    fn login(&mut self, user: &str, password: &str) -> Result<Client> {
        Client::login(&self.url(), user, password)
    }

    fn root(&mut self) -> Result<Client> {
        Client::login(&self.url(), "root", &self.password)
    }

    fn cold_files(&self) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        walk(&self.cold(), &self.cold(), &mut objects)?;
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(objects)
    }

    fn cold_place(&self) -> String {
        format!("the folder {}", self.cold().display())
    }

    fn show_scheduler(&self) -> Result<()> {
        let log = std::fs::read_to_string(self.processes.log(SCHEDULER)).unwrap_or_default();
        console::say("What the scheduler logged:");
        log.lines().filter(|line| line.contains("nyc.flights")).for_each(console::detail);
        Ok(())
    }

    fn ending(&self) -> &'static str {
        "kill -9 the instance, and start it again"
    }

    fn crash(&mut self) -> Result<()> {
        self.processes.kill(INSTANCE);
        self.start_instance()
    }

    fn account(&self) -> String {
        let part =
            |name| format!("the end of {}:\n{}", self.processes.log(name).display(), tail(&self.processes.log(name)));
        [INSTANCE, SCHEDULER].map(part).join("\n")
    }

    fn next_commands(&self) -> Result<String> {
        let (url, password) = (self.url(), self.secret("root-password"));
        Ok(format!(
            "The instance and the scheduler go on running.

  log in:     TOKEN=$(curl -s {url}/v1/api/auth/login -H 'content-type: application/json' \\
                -d \"{{\\\"user\\\":\\\"root\\\",\\\"password\\\":\\\"$(cat {password})\\\"}}\" | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')
  ask:        curl -s {url}/v1/api/sql -H \"authorization: Bearer $TOKEN\" -H 'content-type: application/json' \\
                -d '{{\"sql\":\"SELECT origin, COUNT(*) FROM nyc.flights GROUP BY origin\"}}'
  metrics:    curl -s {url}/metrics | grep kalamdb_
  scheduler:  cat {log}
  remove all: cargo xtask demo --embedded --down",
            password = password.display(),
            log = self.processes.log(SCHEDULER).display(),
        ))
    }
}

/// The port that people know, or any other where it is taken.
fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:8080")
        .or_else(|_| std::net::TcpListener::bind("127.0.0.1:0"))
        .context("failed to find a free port on 127.0.0.1")?;
    Ok(listener.local_addr().context("failed to read the free port")?.port())
}

/// A random word for a password or a token, long enough to sign with.
fn word() -> Result<String> {
    Ok(random_word()? + &random_word()?)
}

fn walk(root: &Path, folder: &Path, objects: &mut Vec<Object>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        // Files come and go while the instance works: what is gone by now is no object.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            walk(root, &path, objects)?;
        } else {
            let key = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            objects.push(Object { key, size: metadata.len() });
        }
    }
    Ok(())
}
