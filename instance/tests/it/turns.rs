//! Clients that are slow, stalled or many: they wait for each other, and keep nobody else waiting.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::{Answer, Folder, Server};

/// Whatever holds longer than this holds for ever.
const DEADLINE: Duration = Duration::from_secs(120);

/// It computes for minutes.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 30000000000) WHERE value % 7 = 8";
/// Nobody reads all of it.
const LARGE: &str = "SELECT value, value * 2 AS twice FROM generate_series(1, 30000000000)";

/// A server that gives four turns, two of them to one user; sue is such a user.
async fn with_sue(folder: Folder) -> Result<(Server, String)> {
    let folder = folder.with("KALAMDB_SERVER_CONCURRENT_STATEMENTS", "4").with("KALAMDB_SERVER_USER_STATEMENTS", "2");
    let server = Server::start_in(folder).await?;
    server.sql("CREATE USER sue WITH PASSWORD 'long enough 1' ROLE service").await?;
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, t TEXT)").await?;
    let sue = server.login("sue", "long enough 1").await?;
    Ok((server, sue))
}

/// A client of its own: each request has its own connection.
async fn ask(server: &Server, token: &str, accept: &str, sql: &str) -> Result<Response> {
    let request = reqwest::Client::new().post(format!("{}/v1/api/sql", server.url)).bearer_auth(token);
    Ok(request.header("accept", accept).json(&json!({"sql": sql})).send().await?)
}

async fn answer(server: &Server, token: &str, sql: &str) -> Result<Answer> {
    timeout(DEADLINE, server.request_as(token, &json!({"sql": sql}))).await.context(sql.to_owned())?
}

async fn assert_answers(server: &Server, token: &str, sql: &str) -> Result<Value> {
    let answer = answer(server, token, sql).await?;
    ensure!(answer.status == 200, "{sql}: {}", answer.body);
    Ok(answer.body["results"][0]["rows"].clone())
}

/// Ids of sue's endless statements, once so many run besides those that were stopped.
async fn endless(server: &Server, count: usize, stopped: &[String]) -> Result<Vec<String>> {
    let sql = "SELECT query_id FROM system.queries WHERE user_id = 'sue' AND query LIKE 'SELECT count%'";
    let wait = async {
        loop {
            let rows = assert_answers(server, &server.token, sql).await?;
            let ids = rows.as_array().context("rows")?.iter().filter_map(|row| row[0].as_str().map(str::to_owned));
            let found: Vec<String> = ids.filter(|id| !stopped.contains(id)).collect();
            ensure!(found.len() <= count, "more than {count} run: {found:?}");
            if found.len() == count {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, wait).await.context("sue's statements")?
}

#[tokio::test]
async fn results_that_nobody_reads_keep_nobody_waiting() -> Result<()> {
    let (server, sue) = with_sue(Folder::new()?).await?;
    let first = ask(&server, &sue, "text/csv", LARGE).await?;
    let second = ask(&server, &sue, "text/csv", LARGE).await?;
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    // They hold sue's room for open results, and no turn.
    assert_eq!(assert_answers(&server, &sue, "SELECT count(*) FROM t").await?, json!([["0"]]));
    assert_eq!(assert_answers(&server, &server.token, "SELECT count(*) FROM t").await?, json!([["0"]]));
    let mut of_root = timeout(DEADLINE, ask(&server, &server.token, "text/csv", LARGE)).await??;
    assert!(of_root.chunk().await?.context("a piece")?.starts_with(b"value,twice\r\n"));
    let third = tokio::spawn({
        let (url, sue) = (server.url.clone(), sue.clone());
        let body = json!({"sql": "SELECT count(*) AS n FROM t"});
        let request = reqwest::Client::new().post(format!("{url}/v1/api/sql")).bearer_auth(sue);
        async move { request.header("accept", "text/csv").json(&body).send().await?.text().await }
    });
    let large = "SELECT query_id FROM system.queries WHERE query LIKE 'SELECT v%'";
    let ids = assert_answers(&server, &server.token, large).await?;
    assert_eq!(ids.as_array().map(Vec::len), Some(3), "{ids}");
    assert!(!third.is_finished(), "sue has two results open already");
    drop(first);
    assert_eq!(timeout(DEADLINE, third).await???, "n\r\n0\r\n");
    Ok(())
}

#[tokio::test]
async fn statements_of_one_user_leave_turns_to_others_and_can_be_stopped() -> Result<()> {
    let (server, sue) = with_sue(Folder::new()?).await?;
    let mut sent = Vec::new();
    for _ in 0..5 {
        let (url, sue) = (server.url.clone(), sue.clone());
        let request = reqwest::Client::new().post(format!("{url}/v1/api/sql")).bearer_auth(sue);
        sent.push(tokio::spawn(request.json(&json!({"sql": ENDLESS})).send()));
    }
    let mut stopped = Vec::new();
    while stopped.len() < 5 {
        // Two work at a time; the others wait, and root's pass by.
        let id = endless(&server, 2.min(5 - stopped.len()), &stopped).await?.remove(0);
        assert_eq!(assert_answers(&server, &server.token, "SELECT count(*) FROM t").await?, json!([["0"]]));
        assert_answers(&server, &sue, "SELECT count(*) FROM system.tables").await?;
        assert_answers(&server, &sue, &format!("KILL QUERY '{id}'")).await?;
        stopped.push(id);
    }
    for statement in sent {
        assert_eq!(timeout(DEADLINE, statement).await???.status().as_u16(), 400, "it was stopped");
    }
    Ok(())
}

#[tokio::test]
async fn loads_that_stall_keep_no_statement_waiting() -> Result<()> {
    let (server, sue) = with_sue(Folder::new()?).await?;
    let head = format!(
        "POST /v1/api/tables/default/t/rows HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {sue}\r\ncontent-type: application/x-ndjson\r\n\
         content-length: 1000\r\n\r\n{{\"id\":1}}\n"
    );
    let mut stalled = Vec::new();
    for _ in 0..6 {
        let mut client = TcpStream::connect(server.url.trim_start_matches("http://")).await?;
        client.write_all(head.as_bytes()).await?;
        stalled.push(client);
    }
    let loads = "SELECT count(*) FROM system.queries WHERE query LIKE 'load %'";
    let two_are_open = async {
        while assert_answers(&server, &server.token, loads).await? != json!([["2"]]) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, anyhow::Error>(())
    };
    timeout(DEADLINE, two_are_open).await.context("two of sue's loads")??;
    assert_eq!(assert_answers(&server, &sue, "SELECT count(*) FROM t").await?, json!([["0"]]));
    assert_answers(&server, &sue, "INSERT INTO t VALUES (2, 'x')").await?;
    let url = format!("{}/v1/api/tables/default/t/rows", server.url);
    let request = server.http.post(url).bearer_auth(&server.token).header("content-type", "application/x-ndjson");
    let loaded: Value = timeout(DEADLINE, request.body("{\"id\":3}\n").send()).await??.json().await?;
    assert_eq!(loaded["inserted"], 1, "{loaded}");
    Ok(())
}

#[tokio::test]
async fn a_body_that_stalls_and_a_reply_that_nobody_reads_end() -> Result<()> {
    let (server, sue) = with_sue(Folder::new()?.with("KALAMDB_SQL_STATEMENT_TIMEOUT_SECONDS", "1")).await?;
    let address = server.url.trim_start_matches("http://").to_owned();
    for path in ["/v1/api/sql", "/v1/api/auth/login"] {
        let mut client = TcpStream::connect(&address).await?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {sue}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
        );
        client.write_all(head.as_bytes()).await?;
        let mut reply = Vec::new();
        timeout(DEADLINE, client.read_to_end(&mut reply)).await.context("an end of a stalled request")??;
        assert!(reply.starts_with(b"HTTP/1.1 400 "), "{path}: {}", String::from_utf8_lossy(&reply));
    }

    let lines: String = (0..200).map(|id| format!("{{\"id\":{id},\"t\":\"{}\"}}\n", "x".repeat(100_000))).collect();
    let url = format!("{}/v1/api/tables/default/t/rows", server.url);
    let request = server.http.post(url).bearer_auth(&server.token).header("content-type", "application/x-ndjson");
    let loaded: Value = request.body(lines).send().await?.json().await?;
    assert_eq!(loaded["inserted"], 200, "{loaded}");
    let body = json!({"sql": "SELECT id, t FROM t"}).to_string();
    let mut client = TcpStream::connect(&address).await?;
    let head = format!(
        "POST /v1/api/sql HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {sue}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all((head + &body).as_bytes()).await?;
    // Begun, and then left alone until the server has given it up.
    let mut begin = [0; 12];
    client.read_exact(&mut begin).await?;
    assert_eq!(&begin, b"HTTP/1.1 200");
    let port = client.local_addr()?.port();
    let gone = async {
        while connections(&server)?.contains(&port) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, anyhow::Error>(())
    };
    timeout(DEADLINE, gone).await.context("an end of an unread reply")??;
    assert_answers(&server, &sue, "SELECT count(*) FROM t").await?;
    Ok(())
}

/// Ports of those that the server has an open connection with.
fn connections(server: &Server) -> Result<Vec<u16>> {
    let own: u16 = server.url.rsplit(':').next().context("a port")?.parse()?;
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let of = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, remote, state) = (columns.next()?, columns.next()?, columns.next()?);
        // 01: established.
        (port(local)? == own && state == "01").then(|| port(remote)).flatten()
    };
    Ok(table.lines().filter_map(of).collect())
}
