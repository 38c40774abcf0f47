//! The audit log tells of every change and of everybody who acts for another user, whatever becomes of the client that asked.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::server::Server;

/// Sends the statement and is gone before it can be answered.
async fn send_and_leave(server: &Server, token: &str, sql: &str) -> Result<()> {
    let address = server.url.strip_prefix("http://").context("an address")?;
    let body = json!({"sql": sql}).to_string();
    let head = format!(
        "POST /v1/api/sql HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut connection = TcpStream::connect(address).await?;
    Ok(connection.write_all((head + &body).as_bytes()).await?)
}

/// Asks until the answer is such a one.
async fn wait_for(server: &Server, token: &str, sql: &str, is_there: impl Fn(&Value) -> bool) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let rows = server.sql_as(token, sql).await?["rows"].take();
        if is_there(&rows) {
            return Ok(rows);
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "{sql}: {rows}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn names(server: &Server, sql: &str) -> Result<BTreeSet<String>> {
    let rows = server.rows(sql).await?;
    Ok(rows.as_array().context("rows")?.iter().filter_map(|row| row[0].as_str().map(str::to_owned)).collect())
}

#[tokio::test]
async fn a_change_whose_client_has_left_is_told_all_the_same() -> Result<()> {
    let mut server = Server::start().await?;
    for number in 0..50 {
        send_and_leave(&server, &server.token, &format!("CREATE NAMESPACE ghost{number}")).await?;
    }
    let made = "SELECT name FROM system.namespaces WHERE name LIKE 'ghost%'";
    wait_for(&server, &server.token, made, |rows| *rows != json!([])).await?;
    for _ in 0..2 {
        // What is told later than it was read is told in time.
        let made = names(&server, made).await?;
        let told = names(&server, "SELECT target FROM system.audit_log WHERE action = 'CREATE NAMESPACE'").await?;
        assert!(!made.is_empty() && made.is_subset(&told), "made: {made:?}, told: {told:?}");
        server = Server::start_in(server.kill()?).await?;
    }
    Ok(())
}

#[tokio::test]
async fn whoever_acts_for_another_user_is_told_of_first() -> Result<()> {
    let server = Server::start().await?;
    server
        .sql(
            "CREATE USER TABLE t (id INT PRIMARY KEY, n INT, v TEXT); CREATE USER ann WITH PASSWORD 'the-password-of-ann';
             CREATE USER svc WITH PASSWORD 'the-password-of-svc' ROLE service",
        )
        .await?;
    let (ann, svc) =
        (server.login("ann", "the-password-of-ann").await?, server.login("svc", "the-password-of-svc").await?);
    server.sql_as(&ann, "INSERT INTO t VALUES (1, 0, 'secret of ann')").await?;
    let told = "SELECT count(*) FROM system.audit_log WHERE action = 'EXECUTE AS USER' AND actor_user_id = 'svc' AND target = 'ann'";

    let failing = "EXECUTE AS USER ann (SELECT CAST(v AS INT) FROM t)";
    let failed = server.request_as(&svc, &json!({"sql": failing})).await?;
    failed.assert_refused(failing, 400, "SQL_EXECUTION_ERROR", "secret of ann");
    assert_eq!(server.rows(told).await?, json!([["1"]]), "it failed, and has shown a value");

    for _ in 0..50 {
        send_and_leave(&server, &svc, "EXECUTE AS USER ann (UPDATE t SET n = n + 1 WHERE id = 1)").await?;
    }
    let changed = wait_for(&server, &ann, "SELECT n FROM t", |rows| rows[0][0] != 0).await?;
    let times: i64 = server.rows(told).await?[0][0].as_str().context("a count")?.parse()?;
    assert!(times > changed[0][0].as_i64().context("a number")?, "changed {changed}, told of {times}");
    Ok(())
}
