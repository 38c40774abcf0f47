//! Bad requests, and bounds of statements. What is wrong with a statement itself is tested in `tests/slt`.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use crate::server::{Folder, Server};

#[tokio::test]
async fn bad_requests_are_refused_before_a_statement_runs() -> Result<()> {
    let server = Server::start_in(Folder::new()?.with("KALAMDB_SERVER_BODY_BYTES", "4096")).await?;
    let cases: [(Value, u16, &str); 6] = [
        (json!({"sql": "SELECT 1; SELECT 2", "params": [1]}), 400, "PARAMS_WITH_BATCH"),
        (json!({"sql": "SELECT $1", "params": [[1]]}), 400, "INVALID_PARAMETER"),
        (json!({"sql": "SELECT $2", "params": [1]}), 400, "INVALID_PARAMETER"),
        (json!({"query": "SELECT 1"}), 400, "INVALID_REQUEST"),
        (json!({"sql": "x".repeat(5000)}), 413, "REQUEST_TOO_LARGE"),
        (json!({"sql": format!("SELECT {}1{}", "(".repeat(900), ")".repeat(900))}), 400, "INVALID_SQL"),
    ];
    for (body, status, code) in cases {
        let answer = server.request_as(&server.token, &body).await?;
        assert_eq!((answer.status.as_u16(), &answer.body["error"]["code"]), (status, &json!(code)), "{}", answer.body);
        assert!(answer.body["took"].as_f64().unwrap() >= 0.001);
    }
    Ok(())
}

#[tokio::test]
async fn statements_have_bounds() -> Result<()> {
    let folder = Folder::new()?
        .with("KALAMDB_SQL_WRITE_ROWS", "10")
        .with("KALAMDB_SQL_REPLY_BYTES", "100000")
        .with("KALAMDB_SQL_STATEMENT_TIMEOUT_SECONDS", "2");
    let server = Server::start_in(folder).await?;
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY)").await?;
    for sql in
        ["INSERT INTO t SELECT value FROM generate_series(1, 11)", "SELECT value FROM generate_series(1, 1000000)"]
    {
        let answer = server.try_sql(sql).await?;
        assert_eq!(answer.body["error"]["code"], "TOO_LARGE", "{sql}: {}", answer.body);
    }
    assert_eq!(server.rows("SELECT count(*) FROM t").await?, json!([["0"]]));
    let endless = "SELECT count(*) FROM generate_series(1, 30000000000) WHERE value % 7 = 8";
    let answer = server.try_sql(endless).await?;
    assert_eq!(answer.body["error"]["code"], "STATEMENT_TIMEOUT", "{}", answer.body);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_write_one_row_get_through() -> Result<()> {
    let server = Arc::new(Server::start().await?);
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, n BIGINT)").await?;
    server.sql("INSERT INTO t VALUES (1, 0)").await?;
    let writers = (0..32).map(|_| {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            for _ in 0..16 {
                server.sql("UPDATE t SET n = n + 1 WHERE id = 1").await?;
            }
            Ok::<_, anyhow::Error>(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    assert_eq!(server.rows("SELECT n FROM t").await?, json!([[(32 * 16).to_string()]]));
    Ok(())
}
