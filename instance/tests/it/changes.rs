//! What UPDATE and DELETE return, what deleted rows still show, jobs that are called off, and where to subscribe.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::server::Server;

#[tokio::test]
async fn update_and_delete_return_rows() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, v TEXT); INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')").await?;
    assert_eq!(server.flush("t").await?, "completed");
    let one = server.sql("UPDATE t SET n = 10 WHERE id = 1 RETURNING *").await?;
    let names: Vec<&Value> = one["schema"].as_array().unwrap().iter().map(|column| &column["name"]).collect();
    assert_eq!(names, ["id", "n", "v", "_seq", "_deleted"]);
    assert_eq!(one["rows"][0].as_array().unwrap()[..3], [json!(1), json!(10), json!("a")]);
    let stored = server.rows("SELECT _seq FROM t WHERE id = 1").await?;
    assert_eq!(one["rows"][0][3], stored[0][0], "the new version's own sequence");
    let many =
        server.sql("UPDATE t SET n = n + 1, id = id + 10 WHERE v >= 'b' RETURNING id, n * 2 AS twice, t.v").await?;
    assert_eq!((&many["rows"], &many["row_count"]), (&json!([[12, "6", "b"], [13, "8", "c"]]), &json!(2)));
    assert_eq!(server.rows("UPDATE t SET n = n RETURNING id").await?, json!([]), "nothing changed");
    let deleted = server.sql("DELETE FROM t WHERE n > 3 RETURNING id, v, _seq, _deleted").await?;
    assert_eq!(deleted["row_count"], 2);
    assert_eq!(deleted["rows"][0].as_array().unwrap()[..2], [json!(1), json!("a")]);
    assert_eq!(deleted["rows"][0][2], one["rows"][0][3], "the row as it was");
    assert_eq!(server.rows("SELECT id FROM t").await?, json!([[12]]));
    for sql in [
        "UPDATE t SET n = 1 RETURNING nope",
        "DELETE FROM t RETURNING (SELECT 1)",
        "DELETE FROM t RETURNING 1 / (n - n)",
    ] {
        assert_eq!(server.try_sql(sql).await?.status, 400, "{sql}");
    }
    let whole = server.sql("BEGIN; UPDATE t SET n = 0 WHERE id = 12 RETURNING n; COMMIT; SELECT id, n FROM t").await?;
    assert_eq!(whole["rows"], json!([[12, 0]]), "what could not be returned was not written either");
    Ok(())
}

#[tokio::test]
async fn deleted_rows_show_their_last_values_until_they_live_again() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE USER TABLE t (id INT PRIMARY KEY, v TEXT, at DATETIME)").await?;
    server.sql("INSERT INTO t VALUES (1, 'one', '2024-01-01'), (2, 'two', NULL), (3, 'three', NULL)").await?;
    server.sql("UPDATE t SET v = 'ONE' WHERE id = 1").await?;
    assert_eq!(server.flush("t").await?, "completed");
    server.sql("DELETE FROM t WHERE id < 3").await?;
    let gone = server.sql("SELECT * FROM t WHERE _deleted = true ORDER BY id").await?;
    let cells = |row: usize| gone["rows"][row].as_array().unwrap()[..3].to_vec();
    assert_eq!(
        (cells(0), cells(1)),
        (vec![json!(1), json!("ONE"), json!(1704067200000000i64)], vec![json!(2), json!("two"), Value::Null])
    );
    assert_eq!((&gone["rows"][0][4], &gone["row_count"]), (&json!(true), &json!(2)));
    assert_eq!(server.rows("SELECT id FROM t").await?, json!([[3]]), "gone from plain reads");
    assert_eq!(server.rows("SELECT id FROM t WHERE _deleted = false").await?, json!([[3]]));
    assert_eq!(server.rows("SELECT count(*) FROM t WHERE _deleted AND v LIKE 'O%'").await?, json!([["1"]]));
    server.sql("INSERT INTO t (id, v) VALUES (1, 'again')").await?;
    assert_eq!(server.flush("t").await?, "completed");
    assert_eq!(server.rows("SELECT id FROM t WHERE _deleted = true").await?, json!([[2]]));
    for sql in ["UPDATE t SET v = 'x' WHERE _deleted = true", "DELETE FROM t WHERE _deleted"] {
        assert_eq!(server.sql(sql).await?["row_count"], 0, "{sql}: nothing changes what is gone");
    }
    Ok(())
}

#[tokio::test]
async fn subscribing_over_http_tells_where_to_go() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE events (id INT PRIMARY KEY, type TEXT)").await?;
    for (sql, query, options) in [
        ("SUBSCRIBE TO events", "SELECT * FROM events", json!({})),
        (
            "SUBSCRIBE TO default.events WHERE type = 'it''s' OPTIONS (LAST_ROWS = 10, batch_size = '5', from = 9007199254740993)",
            "SELECT * FROM default.events WHERE type = 'it''s'",
            json!({"last_rows": 10, "batch_size": 5, "from": "9007199254740993"}),
        ),
        ("SUBSCRIBE TO SELECT id FROM events WHERE id > 3", "SELECT id FROM events WHERE id > 3", json!({})),
    ] {
        let result = server.sql(sql).await?;
        let names: Vec<&Value> = result["schema"].as_array().unwrap().iter().map(|column| &column["name"]).collect();
        assert_eq!(names, ["status", "ws_url", "subscription", "message"]);
        let row = &result["rows"][0];
        assert_eq!(row[0], "subscription_required");
        assert_eq!(row[1].as_str().context("ws_url")?, format!("{}/v1/ws", server.url.replace("http://", "ws://")));
        let subscription: Value = serde_json::from_str(row[2].as_str().context("subscription")?)?;
        assert!(subscription["id"].as_str().is_some_and(|id| !id.is_empty()), "{subscription}");
        assert_eq!((&subscription["sql"], &subscription["options"]), (&json!(query), &options), "{sql}");
    }
    for (sql, code) in [
        ("SUBSCRIBE TO missing", "NOT_FOUND"),
        ("SUBSCRIBE TO events WHERE nope = 1", "INVALID_SQL"),
        ("SUBSCRIBE TO events OPTIONS (colour = 1)", "INVALID_VALUE"),
        ("SUBSCRIBE TO SELECT id FROM events e JOIN events f ON true", "INVALID_SQL"),
        ("KILL JOB 'nobody'", "NOT_FOUND"),
    ] {
        server.try_sql(sql).await?.assert_refused(sql, 400, code, "");
    }
    let job = server.sql("INSERT INTO events VALUES (1, 'x'); STORAGE FLUSH TABLE events").await?;
    let id = job["message"].as_str().and_then(|text| text.split_once("Job ID: ")).context("a job id")?.1.to_owned();
    server.job_end(&id).await?;
    let sql = format!("KILL JOB '{id}'");
    server.try_sql(&sql).await?.assert_refused(&sql, 400, "SQL_EXECUTION_ERROR", "has ended already");
    Ok(())
}
