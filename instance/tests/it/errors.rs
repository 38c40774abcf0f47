//! Bad input: status, code, a message that names the thing, and nothing written.

use anyhow::Result;
use serde_json::{Value, json};

use crate::server::{Folder, Server};

#[tokio::test]
async fn bad_statements_say_what_is_wrong_and_write_nothing() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, v TEXT NOT NULL, j JSON)").await?;
    server.sql("INSERT INTO t VALUES (1, 'one', NULL)").await?;
    let cases = [
        ("SELEC 1", 400, "INVALID_SQL", "SELEC"),
        ("SELECT * FROM", 400, "INVALID_SQL", "Expected"),
        ("SELECT * FROM missing", 400, "NOT_FOUND", "default.missing"),
        ("SELECT 1 FROM t JOIN nowhere.t AS u ON t.id = u.id", 400, "NOT_FOUND", "nowhere.t"),
        ("SELECT nope FROM t", 400, "INVALID_SQL", "nope"),
        ("INSERT INTO missing VALUES (1)", 400, "NOT_FOUND", "default.missing"),
        ("INSERT INTO t (id, nope) VALUES (2, 'x')", 400, "NOT_FOUND", "default.t.nope"),
        ("INSERT INTO t (id, _seq) VALUES (2, 1)", 400, "INVALID_VALUE", "_seq"),
        ("INSERT INTO t VALUES ('abc', 'x', NULL)", 400, "INVALID_VALUE", "column 'id' of type INT"),
        ("INSERT INTO t VALUES (2, NULL, NULL)", 400, "NOT_NULL_VIOLATION", "column 'v' of table 'default.t'"),
        ("INSERT INTO t (id) VALUES (2)", 400, "NOT_NULL_VIOLATION", "'v'"),
        ("INSERT INTO t VALUES (2, 'x', '{')", 400, "INVALID_VALUE", "not JSON"),
        ("INSERT INTO t VALUES (2, 'x', NULL), (1, 'y', NULL)", 400, "DUPLICATE_KEY", "key (1)"),
        ("INSERT INTO t VALUES (2, 'x', NULL), (2, 'y', NULL)", 400, "DUPLICATE_KEY", "key (2)"),
        ("INSERT INTO t VALUES (2, 'x')", 400, "INVALID_SQL", "row 1 has 2 value(s)"),
        ("UPDATE t SET v = NULL", 400, "NOT_NULL_VIOLATION", "'v'"),
        ("CREATE TABLE t (id INT PRIMARY KEY)", 400, "ALREADY_EXISTS", "default.t"),
        ("CREATE TABLE nowhere.t (id INT PRIMARY KEY)", 400, "NOT_FOUND", "namespace 'nowhere'"),
        ("CREATE NAMESPACE system", 400, "INVALID_VALUE", "reserved"),
        ("DROP TABLE missing", 400, "NOT_FOUND", "default.missing"),
        ("ALTER TABLE t ADD COLUMN v INT", 400, "ALREADY_EXISTS", "column 'default.t.v'"),
        ("INSERT INTO t VALUES (5, 'x', NULL); SELEC 1", 400, "INVALID_SQL", "Statement 2 failed"),
        ("COPY t TO '/tmp/x'", 400, "NOT_AVAILABLE", "COPY"),
        ("", 400, "INVALID_SQL", "no statement"),
    ];
    for (sql, status, code, part) in cases {
        let answer = server.try_sql(sql).await?;
        answer.assert_refused(sql, status, code, part);
        assert_eq!((&answer.body["status"], &answer.body["results"]), (&json!("error"), &json!([])));
    }
    assert_eq!(server.rows("SELECT id, v FROM t").await?, json!([[1, "one"]]));
    Ok(())
}

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
