//! No request body makes the server panic, answer with anything but JSON, or end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::server::{Folder, Server};

/// What a continuous integration run takes; `KALAMDB_FUZZ_CASES` says more.
const CASES: usize = 400;
/// Bytes that JSON and SQL are made of.
const BYTES: &[u8] = b"{}[]\",:\\'();$-*/.0123456789eE+ntfu\x00\xff\xc3 ";

fn bodies() -> Result<Vec<String>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/slt");
    let mut bodies = vec![
        json!({"sql": "SELECT $1, $2", "params": [1, "x"], "namespace_id": "default"}).to_string(),
        json!({"sql": "SELECT $1", "params": [null]}).to_string(),
        json!({"sql": "SELECT 1", "params": [1e308, -0.0, true, 9223372036854775807u64]}).to_string(),
    ];
    for entry in std::fs::read_dir(folder)? {
        let text = std::fs::read_to_string(entry?.path())?;
        let records = text.split("\n\n").filter_map(|record| record.split_once('\n'));
        let statements = records.map(|(_, rest)| rest.split("\n----").next().unwrap_or_default());
        bodies.extend(statements.map(|sql| json!({"sql": sql}).to_string()));
    }
    Ok(bodies)
}

/// A body with a few bytes changed, cut, doubled, or mixed with another one's.
fn mutated(bodies: &[String], random: &mut StdRng) -> Vec<u8> {
    let pick = |random: &mut StdRng| bodies.choose(random).map_or_else(Vec::new, |body| body.clone().into_bytes());
    let mut body = pick(random);
    for _ in 0..random.random_range(0..4) {
        let at = random.random_range(0..=body.len());
        let end = (at + random.random_range(0..20)).min(body.len());
        match random.random_range(0..5) {
            0 => body.insert(at, *BYTES.choose(random).unwrap_or(&b' ')),
            1 => drop(body.drain(at..end)),
            2 => drop(body.splice(at..at, body[at..end].to_vec())),
            3 => body.truncate(at),
            _ => {
                let other = pick(random);
                let from = random.random_range(0..=other.len());
                body.truncate(at);
                body.extend_from_slice(&other[from..]);
            }
        }
    }
    body
}

async fn send(server: &Server, path: &str, body: Vec<u8>) -> Result<(u16, Value)> {
    let request = server.http.post(format!("{}{path}", server.url)).bearer_auth(&server.token).body(body.clone());
    let response = request.timeout(Duration::from_secs(120)).send().await;
    let shown = || String::from_utf8_lossy(&body).chars().take(600).collect::<String>();
    let response = response.with_context(|| format!("no answer to {}", shown()))?;
    let status = response.status().as_u16();
    let reply = response.json().await.with_context(|| format!("{status} without JSON to {}", shown()))?;
    Ok((status, reply))
}

/// Rows, or an error that is not ours and does not show our insides.
fn check_reply(status: u16, reply: &Value) -> Result<()> {
    ensure!(status == 200 || reply["error"]["code"].is_string(), "{status} {reply}");
    ensure!(status != 500, "{status} {reply}");
    let message = reply["error"]["message"].as_str().unwrap_or_default();
    let insides = ["caused by", "Optimizer rule", "Span(", "Spans(", "type_coercion", "DataFusion"];
    ensure!(!insides.iter().any(|inside| message.contains(inside)), "{status} {reply}");
    Ok(())
}

#[tokio::test]
async fn no_request_body_makes_the_server_panic() -> Result<()> {
    let folder = Folder::new()?
        .with("KALAMDB_SQL_STATEMENT_TIMEOUT_SECONDS", "5")
        .with("KALAMDB_AUTH_REQUESTS_PER_SECOND", "100000");
    let server = Server::start_in(folder).await?;
    let bodies = bodies()?;
    let cases = std::env::var("KALAMDB_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    // One seed gives one run.
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..cases {
        let body = mutated(&bodies, &mut random);
        let (status, reply) = send(&server, "/v1/api/sql", body.clone()).await?;
        check_reply(status, &reply).with_context(|| String::from_utf8_lossy(&body).into_owned())?;
        if random.random_range(0..10) == 0 {
            let login = vec![json!({"user": "root", "password": "x"}).to_string(), json!({"username": ""}).to_string()];
            let (status, reply) = send(&server, "/v1/api/auth/login", mutated(&login, &mut random)).await?;
            ensure!([400, 401].contains(&status) && reply["message"].is_string(), "{status} {reply}");
        }
    }
    check_alive(&server).await
}

/// Texts that nest or chain deeply enough to end a process whose stack they reach.
#[tokio::test]
async fn no_depth_of_a_statement_ends_the_server() -> Result<()> {
    let server = Server::start_in(Folder::new()?.with("KALAMDB_SQL_STATEMENT_TIMEOUT_SECONDS", "20")).await?;
    for times in [100, 5_000, 200_000] {
        let chains = [
            format!("SELECT 1{}", "+1".repeat(times)),
            format!("SELECT 1 WHERE 1=1{}", " OR 1=2".repeat(times)),
            format!("SELECT '1'{}", "::TEXT".repeat(times)),
            format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(times)),
            format!("SELECT {}1", "- ".repeat(times)),
            format!("SELECT {}1{}", "(".repeat(times), ")".repeat(times)),
            format!("SELECT {}TRUE", "NOT ".repeat(times)),
            format!("SELECT {}1{}", "abs(".repeat(times), ")".repeat(times)),
            format!("SELECT {}", "CASE WHEN TRUE THEN ".repeat(times)),
            format!("SELECT * FROM {}", "(SELECT * FROM ".repeat(times)),
            format!("SELECT 1 FROM a{}", " JOIN a ON 1=1".repeat(times)),
            format!("SELECT x{}", "[1]".repeat(times)),
            format!("SELECT x{}", ".y".repeat(times)),
            format!("INSERT INTO t VALUES ({}1)", "- ".repeat(times)),
            format!("CREATE TABLE t (id {}INT{} PRIMARY KEY)", "ARRAY<".repeat(times), ">".repeat(times)),
            "EXPLAIN ".repeat(times) + "SELECT 1",
            "BEGIN;".repeat(times),
        ];
        for sql in chains {
            let (status, reply) = send(&server, "/v1/api/sql", json!({"sql": sql}).to_string().into_bytes()).await?;
            check_reply(status, &reply)?;
        }
        let nested = format!("{}1{}", "[".repeat(times), "]".repeat(times));
        let body = format!(r#"{{"sql":"SELECT $1","params":{nested}}}"#);
        let (status, _) = send(&server, "/v1/api/sql", body.into_bytes()).await?;
        ensure!(status == 400, "{status}");
    }
    check_alive(&server).await
}

async fn check_alive(server: &Server) -> Result<()> {
    let again = server.login("root", crate::server::ROOT_PASSWORD).await?;
    server.sql_as(&again, "SELECT 1").await?;
    let log = std::fs::read_to_string(server.folder().log())?;
    let panics: Vec<&str> =
        log.lines().filter(|line| line.contains("panicked") || line.contains("broke off")).collect();
    ensure!(panics.is_empty(), "the server panicked: {panics:#?}");
    Ok(())
}
