//! Starts the real binary in a folder of its own and talks to it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const ROOT_PASSWORD: &str = "the-root-password";
pub const SCHEDULER_TOKEN: &str = "the-scheduler-token";
const START: Duration = Duration::from_secs(60);

/// A running instance; killed when it is dropped.
pub struct Server {
    child: Child,
    pub url: String,
    pub http: Client,
    pub token: String,
    folder: Folder,
}

/// The folder outlives restarts.
pub struct Folder {
    pub data: TempDir,
    pub settings: Vec<(String, String)>,
}

impl Folder {
    pub fn new() -> Result<Self> {
        Ok(Self { data: tempfile::tempdir()?, settings: Vec::new() })
    }

    /// With one more environment variable.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    pub fn log(&self) -> PathBuf {
        self.data.path().join("log")
    }
}

/// Starts an instance that must refuse to come up; answers what it logged.
pub fn refusal(folder: &Folder) -> Result<String> {
    let mut child = command(folder)?.spawn().context("failed to start kalamdb-instance")?;
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > START {
            child.kill()?;
            bail!("it came up: {}", std::fs::read_to_string(folder.log())?);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let (status, log) = (child.wait()?, std::fs::read_to_string(folder.log())?);
    ensure!(status.code().is_some_and(|code| code != 0), "it crashed or ended well, with {status}: {log}");
    Ok(log)
}

/// What a SQL request answered.
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Answer {
    /// Asserts that it is a refusal with that status and code, by a message that holds that part. `sql` is what was asked.
    #[track_caller]
    pub fn assert_refused(&self, sql: &str, status: u16, code: &str, part: &str) {
        let error = &self.body["error"];
        assert_eq!((self.status.as_u16(), &error["code"]), (status, &json!(code)), "{sql}: {}", self.body);
        assert!(error["message"].as_str().is_some_and(|text| text.contains(part)), "{sql}: {}", self.body);
    }
}

impl Server {
    pub async fn start() -> Result<Self> {
        Self::start_in(Folder::new()?).await
    }

    pub async fn start_in(folder: Folder) -> Result<Self> {
        let mut server = Self::launch(folder)?;
        server.begin().await?;
        Ok(server)
    }

    /// Starts it, ready or not.
    pub fn launch(folder: Folder) -> Result<Self> {
        let (child, url) = spawn(&folder)?;
        Ok(Self { child, url, http: Client::new(), token: String::new(), folder })
    }

    /// Waits until it is ready, and logs in.
    pub async fn begin(&mut self) -> Result<()> {
        self.wait_for("").await?;
        self.token = self.login("root", ROOT_PASSWORD).await?;
        Ok(())
    }

    /// Waits until `/readyz` gives that reason, an empty one being ready, and answers its message.
    pub async fn wait_for(&mut self, reason: &str) -> Result<String> {
        let begun = Instant::now();
        loop {
            if let Ok(response) = self.http.get(format!("{}/readyz", self.url)).send().await
                && let Ok(body) = response.json::<Value>().await
                && body["reason"].as_str().unwrap_or_default() == reason
            {
                return Ok(body["message"].as_str().unwrap_or_default().to_owned());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the instance ended with {status}: {}", std::fs::read_to_string(self.folder.log())?);
            }
            ensure!(begun.elapsed() < START, "not ready in time: {}", std::fs::read_to_string(self.folder.log())?);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn login(&self, user: &str, password: &str) -> Result<String> {
        let body = json!({"user": user, "password": password});
        let response = self.http.post(format!("{}/v1/api/auth/login", self.url)).json(&body).send().await?;
        let status = response.status();
        let body: Value = response.json().await?;
        body["access_token"].as_str().map(str::to_owned).with_context(|| format!("login: {status} {body}"))
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> Result<Response> {
        Ok(self.http.post(format!("{}{path}", self.url)).bearer_auth(token).json(body).send().await?)
    }

    pub async fn request_as(&self, token: &str, body: &Value) -> Result<Answer> {
        let response = self.post("/v1/api/sql", token, body).await?;
        Ok(Answer { status: response.status(), body: response.json().await? })
    }

    pub async fn try_sql(&self, sql: &str) -> Result<Answer> {
        self.request_as(&self.token, &json!({"sql": sql})).await
    }

    /// Runs it and answers the last statement's result.
    pub async fn sql(&self, sql: &str) -> Result<Value> {
        self.sql_as(&self.token, sql).await
    }

    pub async fn sql_as(&self, token: &str, sql: &str) -> Result<Value> {
        let mut answer = self.request_as(token, &json!({"sql": sql})).await?;
        ensure!(answer.status == StatusCode::OK, "{sql}: {} {}", answer.status, answer.body);
        let results = answer.body["results"].as_array_mut().context("results")?;
        results.pop().context("a result")
    }

    /// The rows of a query.
    pub async fn rows(&self, sql: &str) -> Result<Value> {
        Ok(self.sql(sql).await?["rows"].take())
    }

    pub async fn metrics(&self) -> Result<String> {
        Ok(self.http.get(format!("{}/metrics", self.url)).send().await?.text().await?)
    }

    /// Flushes the table and waits for the job's end; answers its status.
    pub async fn flush(&self, table: &str) -> Result<String> {
        self.storage_job("FLUSH", table).await
    }

    /// Compacts the table and waits for the job's end; answers its status.
    pub async fn compact(&self, table: &str) -> Result<String> {
        self.storage_job("COMPACT", table).await
    }

    async fn storage_job(&self, what: &str, table: &str) -> Result<String> {
        let result = self.sql(&format!("STORAGE {what} TABLE {table}")).await?;
        let message = result["message"].as_str().context("message")?;
        let Some((_, id)) = message.split_once("Job ID: ") else { return Ok("nothing".into()) };
        self.job_end(id).await
    }

    pub async fn job_end(&self, id: &str) -> Result<String> {
        let begun = Instant::now();
        loop {
            let rows = self.rows(&format!("SELECT status FROM system.jobs WHERE job_id = '{id}'")).await?;
            let status = rows[0][0].as_str().with_context(|| format!("job {id} in {rows}"))?.to_owned();
            if ["completed", "failed", "skipped"].contains(&status.as_str()) {
                return Ok(status);
            }
            ensure!(begun.elapsed() < START, "job {id} is still {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<Folder> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(std::mem::replace(&mut self.folder, Folder::new()?))
    }

    /// SIGTERM; answers the folder once the process has ended well.
    pub fn stop(mut self) -> Result<Folder> {
        let id = self.child.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &id]).status()?.success(), "kill -TERM");
        let status = self.child.wait()?;
        ensure!(status.success(), "ended with {status}: {}", std::fs::read_to_string(self.folder.log())?);
        Ok(std::mem::replace(&mut self.folder, Folder::new()?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Folder) -> Result<(Child, String)> {
    let child = command(folder)?.spawn().context("failed to start kalamdb-instance")?;
    let url = listening(&folder.log())?;
    Ok((child, url))
}

fn command(folder: &Folder) -> Result<Command> {
    let log = std::fs::File::create(folder.log())?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_kalamdb-instance"));
    command
        .env("KALAMDB_SERVER_PORT", "0")
        .env("KALAMDB_DATA_DIR", folder.data.path().join("data"))
        .env("KALAMDB_ROOT_PASSWORD", ROOT_PASSWORD)
        .env("KALAMDB_SCHEDULER_TOKEN", SCHEDULER_TOKEN)
        .env("KALAMDB_AUTH_HASH_MEMORY_KIB", "64")
        .envs(folder.settings.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Ok(command)
}

/// The address stands in the log, since the system chose the port.
fn listening(log: &Path) -> Result<String> {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(log)?;
        if let Some((_, rest)) = text.split_once("listening on ")
            && let Some((url, _)) = rest.split_once('\n')
        {
            return Ok(url.trim().to_owned());
        }
        ensure!(begun.elapsed() < START, "the instance does not listen: {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
