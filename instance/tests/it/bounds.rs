//! Statements that would run, hold or answer more than they may, and those that are stopped.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::server::{Folder, Server};

/// Over 2000 rows it would take minutes, and holds some tens of megabytes.
const ENDLESS: &str = "SELECT count(*) FROM n a, n b, n c WHERE a.id + b.id + c.id = -1";

async fn with_numbers(folder: Folder, rows: usize) -> Result<Server> {
    with_texts(folder, rows, 100).await
}

async fn with_texts(folder: Folder, rows: usize, length: usize) -> Result<Server> {
    let server = Server::start_in(folder).await?;
    server.sql("CREATE TABLE n (id BIGINT PRIMARY KEY, t TEXT)").await?;
    let lines: String = (0..rows).map(|id| format!("{{\"id\":{id},\"t\":\"{id:0>length$}\"}}\n")).collect();
    let loaded = load(&server, "n", lines).await?;
    ensure!(loaded["inserted"] == rows, "{loaded}");
    Ok(server)
}

async fn load(server: &Server, table: &str, lines: String) -> Result<Value> {
    let url = format!("{}/v1/api/tables/default/{table}/rows", server.url);
    let request = server.http.post(url).bearer_auth(&server.token).header("content-type", "application/x-ndjson");
    Ok(request.body(lines).send().await?.json().await?)
}

/// Ids of the statements that run, but for the one that asks.
async fn running(server: &Server) -> Result<Vec<String>> {
    let rows = server.rows("SELECT query_id FROM system.queries WHERE query LIKE 'SELECT count%'").await?;
    Ok(rows.as_array().context("rows")?.iter().filter_map(|row| row[0].as_str().map(str::to_owned)).collect())
}

async fn wait_for_running(server: &Server, count: usize) -> Result<Vec<String>> {
    let begun = Instant::now();
    loop {
        let found = running(server).await?;
        if found.len() == count {
            return Ok(found);
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "{count} statements should run: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_statement_ends_with_its_time() -> Result<()> {
    let server = with_numbers(Folder::new()?.with("KALAMDB_SQL_STATEMENT_TIMEOUT_SECONDS", "1"), 2000).await?;
    server.try_sql(ENDLESS).await?.assert_refused(ENDLESS, 400, "STATEMENT_TIMEOUT", "after 1 s");
    wait_for_running(&server, 0).await?;
    Ok(())
}

#[tokio::test]
async fn a_statement_ends_with_its_clients_connection() -> Result<()> {
    let server = with_numbers(Folder::new()?, 2000).await?;
    for accept in ["application/json", "text/csv"] {
        // A client of its own, so that nothing but this request holds the connection.
        let client = reqwest::Client::new();
        let request = client.post(format!("{}/v1/api/sql", server.url)).bearer_auth(&server.token);
        let request = tokio::spawn(request.header("accept", accept).json(&json!({"sql": ENDLESS})).send());
        wait_for_running(&server, 1).await?;
        request.abort();
        drop(client);
        wait_for_running(&server, 0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_statement_is_killed_by_its_sender_or_a_dba_and_nobody_else() -> Result<()> {
    let server = std::sync::Arc::new(with_numbers(Folder::new()?, 2000).await?);
    for (user, role) in [("sue", "service"), ("tom", "service")] {
        server.sql(&format!("CREATE USER {user} WITH PASSWORD 'long enough 1' ROLE {role}")).await?;
    }
    let (sue, tom) = (server.login("sue", "long enough 1").await?, server.login("tom", "long enough 1").await?);
    for killer in [&sue, &server.token] {
        let (of_sue, busy) = (sue.clone(), server.clone());
        let query = tokio::spawn(async move { busy.request_as(&of_sue, &json!({"sql": ENDLESS})).await });
        let id = wait_for_running(&server, 1).await?.remove(0);
        let kill = format!("KILL QUERY '{id}'");
        let others = server.sql_as(&tom, "SELECT query_id, user_id FROM system.queries").await?;
        assert_eq!((&others["row_count"], &others["rows"][0][1]), (&json!(1), &json!("tom")), "tom sees his own");
        let refused = server.request_as(&tom, &json!({"sql": kill})).await?;
        refused.assert_refused(&kill, 400, "NOT_FOUND", "does not exist");
        server.sql_as(killer, &kill).await?;
        query.await??.assert_refused(ENDLESS, 400, "QUERY_CANCELLED", "was stopped by KILL QUERY");
        wait_for_running(&server, 0).await?;
    }
    server.try_sql("KILL QUERY 'x'").await?.assert_refused("KILL QUERY", 400, "NOT_FOUND", "running query 'x'");
    let (busy, sent) = (server.clone(), "CREATE USER una WITH PASSWORD 'not to be seen'");
    tokio::spawn(async move { busy.sql(sent).await });
    let seen = server.rows("SELECT query FROM system.queries").await?.to_string();
    assert!(!seen.contains("not to be seen"), "{seen}");
    Ok(())
}

#[tokio::test]
async fn a_query_spills_what_it_may_not_hold_and_fails_beyond_its_disk() -> Result<()> {
    let sort = "SELECT count(*) FROM (SELECT t, row_number() OVER (ORDER BY t DESC) AS place FROM n) WHERE place > 10";
    let folder = Folder::new()?.with("KALAMDB_SQL_QUERY_MEMORY_BYTES", "10000000").with("KALAMDB_SQL_PARTITIONS", "1");
    let server = with_texts(folder, 80_000, 200).await?;
    assert_eq!(server.rows(sort).await?, json!([["79990"]]), "16 MB are sorted in 10 MB of memory");
    let explained = server.sql(&format!("EXPLAIN ANALYZE {sort}")).await?["rows"].to_string();
    let is_some = |rest: &str| rest.starts_with(|digit: char| ('1'..='9').contains(&digit));
    assert!(explained.split("spill_count=").skip(1).any(is_some), "{explained}");

    let mut folder = server.stop()?;
    folder.settings.push(("KALAMDB_SQL_SPILL_BYTES".into(), "1000000".into()));
    let server = Server::start_in(folder).await?;
    server.try_sql(sort).await?.assert_refused(sort, 400, "RESOURCES_EXHAUSTED", "sql.spill_bytes");
    assert_eq!(server.rows("SELECT count(*) FROM n").await?, json!([["80000"]]), "others go on");

    let mut folder = server.stop()?;
    folder.settings.push(("KALAMDB_SQL_MEMORY_BYTES".into(), "100000".into()));
    let server = Server::start_in(folder).await?;
    server.try_sql(sort).await?.assert_refused(sort, 400, "RESOURCES_EXHAUSTED", "sql.memory_bytes");
    Ok(())
}

#[tokio::test]
async fn a_result_beyond_the_replys_size_is_streamed_or_refused() -> Result<()> {
    let server = with_numbers(Folder::new()?.with("KALAMDB_SQL_REPLY_BYTES", "200000"), 20_000).await?;
    let sql = "SELECT id, t FROM n";
    server.try_sql(sql).await?.assert_refused(sql, 400, "TOO_LARGE", "have them streamed with 'Accept:");
    let request = server.http.post(format!("{}/v1/api/sql", server.url)).bearer_auth(&server.token);
    let response = request.header("accept", "application/x-ndjson").json(&json!({"sql": sql})).send().await?;
    assert_eq!(
        (response.status().as_u16(), response.headers()["content-type"].to_str()?),
        (200, "application/x-ndjson")
    );
    assert_eq!(response.text().await?.lines().count(), 20_000);
    Ok(())
}

#[tokio::test]
async fn a_result_is_made_no_faster_than_it_is_taken() -> Result<()> {
    let server = with_numbers(Folder::new()?, 1000).await?;
    let huge = "SELECT a.id, a.t, b.t AS u FROM n a, n b, n c";
    let request = server.http.post(format!("{}/v1/api/sql", server.url)).bearer_auth(&server.token);
    let mut response = request.header("accept", "text/csv").json(&json!({"sql": huge})).send().await?;
    ensure!(response.chunk().await?.context("a first piece")?.starts_with(b"id,t,u\r\n"));
    let memory = |server: &Server| -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.process_id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS")).context("VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("a number")?.parse::<u64>()? >> 10)
    };
    let before = memory(&server)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = memory(&server)?.saturating_sub(before);
    assert!(grown < 200, "200 GB of rows, of which nobody takes any, take {grown} MB");
    let ids = server.rows("SELECT query_id FROM system.queries WHERE query LIKE 'SELECT a.id%'").await?;
    server.sql(&format!("KILL QUERY '{}'", ids[0][0].as_str().context("it runs")?)).await?;
    let end = loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(end.is_err(), "a result that is not whole does not look so");
    Ok(())
}
