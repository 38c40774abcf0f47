//! One connection of a file: who asks, and the requests that its statements become.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqllogictest::{AsyncDB, DBOutput};

use super::Tiers;
use super::reply::{self, Letter};
use crate::server::Server;

/// Why a statement failed, as a file expects it: `CODE: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Anything that is no refusal of the server: no file expects it.
fn broken(error: impl std::fmt::Display) -> Failure {
    Failure(format!("BROKEN: {error}"))
}

/// What all connections of a file share.
#[derive(Clone)]
pub struct World {
    url: String,
    http: reqwest::Client,
    root: String,
    namespace: String,
    tiers: Tiers,
    progress: Arc<Mutex<Progress>>,
}

#[derive(Default)]
struct Progress {
    statements: u64,
    /// Statements that wrote rows since the last flush.
    unflushed: u64,
}

impl World {
    pub fn new(server: &Server, namespace: &str, tiers: Tiers) -> Self {
        Self {
            url: server.url.clone(),
            http: server.http.clone(),
            root: server.token.clone(),
            namespace: namespace.into(),
            tiers,
            progress: Arc::default(),
        }
    }

    pub fn statements(&self) -> u64 {
        self.with(|progress| progress.statements)
    }

    fn with<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn post(&self, token: &str, body: &Value) -> Result<(StatusCode, Value), Failure> {
        let request = self.http.post(format!("{}/v1/api/sql", self.url)).bearer_auth(token).json(body);
        let response = request.send().await.map_err(broken)?;
        Ok((response.status(), response.json().await.map_err(broken)?))
    }

    async fn as_root(&self, sql: &str) -> Result<Value, Failure> {
        let (status, mut body) = self.post(&self.root, &json!({"sql": sql})).await?;
        if status != StatusCode::OK {
            return Err(broken(format!("{sql}: {body}")));
        }
        Ok(body["results"][0].take())
    }

    async fn login(&self, user: &str, password: &str) -> Result<String, Failure> {
        let request = self.http.post(format!("{}/v1/api/auth/login", self.url));
        let response = request.json(&json!({"user": user, "password": password})).send().await.map_err(broken)?;
        let body: Value = response.json().await.map_err(broken)?;
        let refused = || Failure(format!("{}: {}", body["error"], body["message"]).replace('"', ""));
        body["access_token"].as_str().map(str::to_owned).ok_or_else(refused)
    }

    /// Moves rows as this run asks for, after a statement that wrote some.
    async fn flush_if_due(&self) -> Result<(), Failure> {
        let due = match self.tiers {
            Tiers::Hot => return Ok(()),
            Tiers::Flushed => 1,
            Tiers::Half => 2,
        };
        if self.with(|progress| progress.unflushed < due) {
            return Ok(());
        }
        self.with(|progress| progress.unflushed = 0);
        let flushed = self.as_root(&format!("STORAGE FLUSH ALL IN {}", self.namespace)).await?;
        let message = flushed["message"].as_str().unwrap_or_default();
        let Some((_, ids)) = message.split_once("Job IDs: [") else { return Ok(()) };
        for id in ids.trim_end_matches(']').split(", ") {
            self.wait_for_job(id).await?;
        }
        Ok(())
    }

    async fn wait_for_job(&self, id: &str) -> Result<(), Failure> {
        let sql = format!("SELECT status, message FROM system.jobs WHERE job_id = '{id}'");
        loop {
            let rows = self.as_root(&sql).await?["rows"].take();
            match rows[0][0].as_str() {
                Some("completed" | "skipped") => return Ok(()),
                Some("failed" | "cancelled") | None => return Err(broken(format!("flush {id}: {rows}"))),
                Some(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

/// A connection.
pub struct Client {
    world: World,
    token: String,
    parameters: Value,
}

impl Client {
    /// As root.
    pub fn new(world: World) -> Self {
        Self { token: world.root.clone(), world, parameters: json!([]) }
    }

    /// Carries out a command, if it is one.
    async fn command(&mut self, text: &str) -> Result<bool, Failure> {
        if let Some(arguments) = text.strip_prefix("\\connect ") {
            let (user, password) = arguments.split_once(' ').ok_or_else(|| broken("\\connect USER PASSWORD"))?;
            self.token = self.world.login(user, password.trim()).await?;
            return Ok(true);
        }
        if let Some(arguments) = text.strip_prefix("\\bind ") {
            self.parameters = serde_json::from_str(arguments).map_err(broken)?;
            return Ok(true);
        }
        Ok(false)
    }
}

#[async_trait]
impl AsyncDB for Client {
    type Error = Failure;
    type ColumnType = Letter;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Letter>, Failure> {
        if self.command(sql.trim()).await? {
            return Ok(DBOutput::StatementComplete(0));
        }
        self.world.with(|progress| progress.statements += 1);
        let parameters = std::mem::replace(&mut self.parameters, json!([]));
        let body = json!({"sql": sql, "params": parameters, "namespace_id": self.world.namespace});
        let (status, reply) = self.world.post(&self.token, &body).await?;
        let output = reply::read(status, &reply)?;
        if reply::wrote_rows(&reply) {
            self.world.with(|progress| progress.unflushed += 1);
            self.world.flush_if_due().await?;
        }
        Ok(output)
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "kalamdb"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
