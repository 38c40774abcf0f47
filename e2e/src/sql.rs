//! A client of the HTTP SQL interface: login, statements, metrics.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};
use ureq::Agent;

/// A reply of this size is no longer an answer for a person or a test.
const MAX_REPLY_BYTES: u64 = 64 << 20;

/// A session of one user.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    base: String,
    token: String,
}

/// The instance answered, and refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("HTTP {status} {code}: {message}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The stable code, such as `SQL_EXECUTION_ERROR`.
    pub code: String,
    /// The text for people.
    pub message: String,
}

/// What one statement answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// The columns' names and types, as the protocol writes them.
    pub columns: Vec<(String, Json)>,
    /// Cells, row by row.
    pub rows: Vec<Vec<Json>>,
    /// Rows returned or changed.
    pub row_count: u64,
    /// What was done, for statements without rows.
    pub message: Option<String>,
}

impl Client {
    /// Logs in at `base`, such as `http://127.0.0.1:8080`.
    pub fn login(base: &str, user: &str, password: &str) -> Result<Self> {
        let agent = agent();
        let body = json!({ "user": user, "password": password });
        let (status, reply) = post(&agent, &format!("{base}/v1/api/auth/login"), None, &body)?;
        let token = reply["access_token"].as_str();
        let token =
            token.ok_or_else(|| refusal(status, &reply)).with_context(|| format!("failed to log in as {user}"))?;
        Ok(Self { agent, base: base.to_owned(), token: token.to_owned() })
    }

    /// Runs one statement or several; the answers come in their order.
    ///
    /// A refusal can be found in the error by `downcast_ref::<Refusal>()`.
    pub fn batch(&self, sql: &str) -> Result<Vec<Answer>> {
        let url = format!("{}/v1/api/sql", self.base);
        let (status, reply) = post(&self.agent, &url, Some(&self.token), &json!({ "sql": sql }))?;
        if status != 200 || reply["status"] != "success" {
            return Err(refusal(status, &reply)).with_context(|| format!("failed to run {}", beginning(sql)));
        }
        let results = reply["results"].as_array().context("the reply has no results")?;
        Ok(results.iter().map(answer).collect())
    }

    /// Runs one statement.
    pub fn run(&self, sql: &str) -> Result<Answer> {
        self.batch(sql)?.pop().with_context(|| format!("no result came for {}", beginning(sql)))
    }

    /// Runs a query whose answer is one row, and returns it.
    pub fn row(&self, sql: &str) -> Result<Vec<Json>> {
        self.run(sql)?.rows.into_iter().next().with_context(|| format!("no row came for {}", beginning(sql)))
    }

    /// Runs a query whose answer is one integer, such as a COUNT.
    pub fn integer(&self, sql: &str) -> Result<i64> {
        let row = self.row(sql)?;
        row.first().and_then(integer).with_context(|| format!("{} answered {row:?}, not an integer", beginning(sql)))
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> Result<String> {
        let url = format!("{}/metrics", self.base);
        let mut response = self.agent.get(&url).call().with_context(|| format!("failed to read {url}"))?;
        response.body_mut().read_to_string().with_context(|| format!("failed to read {url}"))
    }
}

/// Whether something answers `/readyz` with 200 at `base`; else what it says instead.
pub fn ready(base: &str) -> Result<(), String> {
    let mut response = agent().get(format!("{base}/readyz")).call().map_err(|error| error.to_string())?;
    let body = response.body_mut().read_to_string().unwrap_or_default();
    if response.status() == 200 { Ok(()) } else { Err(format!("{}: {body}", response.status())) }
}

/// A cell that holds an integer: BIGINT and the sums of integers travel as text.
pub fn integer(cell: &Json) -> Option<i64> {
    cell.as_i64().or_else(|| cell.as_str()?.parse().ok())
}

/// What the error says the instance refused, if it was the instance that refused.
pub fn refused(error: &anyhow::Error) -> Option<&Refusal> {
    error.downcast_ref::<Refusal>()
}

fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        // Everything that is spoken to is on this machine: a proxy of the environment has no business here.
        .proxy(None)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_global(Some(Duration::from_secs(120)))
        .build()
        .new_agent()
}

fn post(agent: &Agent, url: &str, token: Option<&str>, body: &Json) -> Result<(u16, Json)> {
    let mut request = agent.post(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut response = request.send_json(body).with_context(|| format!("failed to reach {url}"))?;
    let text = response.body_mut().with_config().limit(MAX_REPLY_BYTES).read_to_string();
    let text = text.with_context(|| format!("failed to read the reply of {url}"))?;
    let reply = serde_json::from_str(&text).unwrap_or_else(|_| json!({ "message": text }));
    Ok((response.status().as_u16(), reply))
}

/// SQL errors carry an object, those of the auth endpoints a word and a message.
fn refusal(status: u16, reply: &Json) -> Refusal {
    let error = &reply["error"];
    let word = |value: &Json| value.as_str().map(str::to_owned);
    Refusal {
        status,
        code: word(&error["code"]).or_else(|| word(error)).unwrap_or_default(),
        message: word(&error["message"]).or_else(|| word(&reply["message"])).unwrap_or_else(|| reply.to_string()),
    }
}

fn answer(result: &Json) -> Answer {
    let columns = result["schema"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = result["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    Answer {
        columns: columns
            .iter()
            .map(|column| (column["name"].as_str().unwrap_or_default().to_owned(), column["data_type"].clone()))
            .collect(),
        rows: rows.iter().map(|row| row.as_array().cloned().unwrap_or_default()).collect(),
        row_count: result["row_count"].as_u64().unwrap_or_default(),
        message: result["message"].as_str().map(str::to_owned),
    }
}

fn beginning(sql: &str) -> String {
    let line: String = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > 100 { format!("{}…", line.chars().take(100).collect::<String>()) } else { line }
}
