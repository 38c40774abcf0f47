//! The real binary, started for the benchmark with all defaults, on a folder of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value as Json, json};

const PASSWORD: &str = "benchmark-root-2026";

/// A running instance; it ends with the value.
pub struct Instance {
    process: Child,
    folder: tempfile::TempDir,
    url: String,
    token: String,
    client: reqwest::Client,
}

impl Instance {
    /// Starts it and logs in.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = Command::new(env!("CARGO_BIN_EXE_kalamdb-instance"))
            .env("KALAMDB_DATA_DIR", folder.path().join("data"))
            .env("KALAMDB_SERVER_PORT", port.to_string())
            .env("KALAMDB_ROOT_PASSWORD", PASSWORD)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start kalamdb-instance")?;
        let client = reqwest::Client::new();
        let mut instance =
            Self { process, folder, url: format!("http://127.0.0.1:{port}"), token: String::new(), client };
        instance.wait_until_ready().await?;
        instance.token = instance.login().await?;
        Ok(instance)
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            let reply = self.client.get(format!("{}/readyz", self.url)).send().await;
            if reply.is_ok_and(|reply| reply.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the instance was not ready within 60 s")
    }

    async fn login(&self) -> anyhow::Result<String> {
        let request = self.client.post(format!("{}/v1/api/auth/login", self.url));
        let reply: Json = request.json(&json!({"user": "root", "password": PASSWORD})).send().await?.json().await?;
        Ok(reply["access_token"].as_str().with_context(|| format!("failed to log in: {reply}"))?.to_owned())
    }

    /// Runs one statement over a kept-alive connection.
    pub async fn sql(&self, sql: &str, params: Vec<Json>) -> anyhow::Result<Json> {
        let request = self.client.post(format!("{}/v1/api/sql", self.url)).bearer_auth(&self.token);
        let reply: Json = request.json(&json!({"sql": sql, "params": params})).send().await?.json().await?;
        ensure!(reply["status"] == "success", "{}: {}", sql.chars().take(80).collect::<String>(), reply["error"]);
        Ok(reply)
    }

    /// The body of a statement's result in that form.
    pub async fn bytes(&self, sql: &str, accept: &str) -> anyhow::Result<Vec<u8>> {
        let request = self.client.post(format!("{}/v1/api/sql", self.url)).bearer_auth(&self.token);
        let response = request.header("accept", accept).json(&json!({"sql": sql})).send().await?;
        ensure!(response.status().is_success(), "{sql}: {}", response.text().await?);
        Ok(response.bytes().await?.to_vec())
    }

    /// What `/metrics` shows.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        Ok(self.client.get(format!("{}/metrics", self.url)).send().await?.text().await?)
    }

    /// Flushes a table; answers how long the job ran, by the instance's own clock.
    pub async fn flush(&self, table: &str) -> anyhow::Result<Duration> {
        self.sql(&format!("STORAGE FLUSH TABLE {table}"), vec![]).await?;
        let end = Instant::now() + Duration::from_secs(300);
        let columns = "status, started_at, finished_at";
        while Instant::now() < end {
            let reply = self.sql(&format!("SELECT {columns} FROM system.flush_jobs"), vec![]).await?;
            let job = &reply["results"][0]["rows"][0];
            match job[0].as_str() {
                Some("completed") => {
                    let micros = job[2].as_i64().zip(job[1].as_i64()).map(|(end, start)| end - start);
                    return Ok(Duration::from_micros(micros.context("the job has no times")?.max(1) as u64));
                }
                Some("failed") => bail!("the flush failed: {reply}"),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        bail!("the flush did not end within 300 s")
    }

    /// The Parquet files of the cold tier.
    pub fn parquet_files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let (mut found, mut folders) = (vec![], vec![self.folder.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "parquet")
                    && !path.to_string_lossy().contains("_delta_log")
                {
                    found.push(path);
                }
            }
        }
        ensure!(!found.is_empty(), "the flush left no Parquet file");
        Ok(found)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Nothing can be done about a process that is gone already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
