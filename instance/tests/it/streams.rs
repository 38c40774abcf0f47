//! STREAM tables: rows of one user each, which expire.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn rows_expire_and_others_do_not_see_them() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE STREAM TABLE typing (room TEXT PRIMARY KEY, since INT) WITH (TTL_SECONDS = 1)").await?;
    server.sql("CREATE USER ann WITH PASSWORD 'the-password-of-ann'").await?;
    let ann = server.login("ann", "the-password-of-ann").await?;
    let begun = Instant::now();
    assert_eq!(server.sql_as(&ann, "INSERT INTO typing VALUES ('a', 1), ('b', 2)").await?["row_count"], 2);
    let written = Instant::now();
    let seen = server.sql_as(&ann, "SELECT room, since FROM typing ORDER BY room").await?;
    let in_time = begun.elapsed() < Duration::from_millis(900);
    assert!(!in_time || seen["rows"] == json!([["a", 1], ["b", 2]]), "{seen}");
    assert_eq!(server.rows("SELECT * FROM typing").await?, json!([]));
    while written.elapsed() < Duration::from_secs(1) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.sql_as(&ann, "SELECT * FROM typing").await?["rows"], json!([]));
    assert_eq!(server.sql_as(&ann, "SELECT * FROM typing WHERE room = 'a'").await?["rows"], json!([]));
    assert_eq!(server.sql_as(&ann, "UPDATE typing SET since = 5 WHERE room = 'a'").await?["row_count"], 0);
    assert_eq!(server.sql_as(&ann, "INSERT INTO typing VALUES ('a', 3)").await?["row_count"], 1, "its key is free");
    Ok(())
}

#[tokio::test]
async fn rows_are_written_read_and_described_like_others_but_never_flushed() -> Result<()> {
    let mut server = Server::start().await?;
    server.sql("CREATE STREAM TABLE cursors (id INT PRIMARY KEY, x INT, y INT) WITH (TTL_SECONDS = '3600')").await?;
    server.sql("CREATE TABLE events (kind TEXT, n INT) WITH (TYPE = 'STREAM', TTL_SECONDS = 3600)").await?;
    server.sql("INSERT INTO cursors VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3)").await?;
    let twice = server.try_sql("INSERT INTO cursors VALUES (1, 5, 5)").await?;
    assert_eq!(twice.body["error"]["code"], "DUPLICATE_KEY", "{}", twice.body);
    server.sql("UPDATE cursors SET x = x + 10 WHERE y > 1").await?;
    server.sql("DELETE FROM cursors WHERE id = 3").await?;
    server.sql("INSERT INTO cursors VALUES (1, 7, 7), (4, 4, 4) ON CONFLICT (id) DO UPDATE SET x = excluded.x").await?;
    let events = server.sql("INSERT INTO events VALUES ('a', 1), ('a', 1), ('b', 2) RETURNING kind, _seq").await?;
    assert_eq!(events["rows"], server.rows("SELECT kind, _seq FROM events ORDER BY _seq").await?);
    assert_eq!(server.sql("INSERT INTO events VALUES ('a', 1) ON CONFLICT DO NOTHING").await?["row_count"], 1);
    assert_eq!(server.sql("DELETE FROM events WHERE kind = 'b'").await?["message"], "Deleted 1 row(s)");
    let cases = [
        ("UPDATE events SET n = 5", "NOT_AVAILABLE", "no PRIMARY KEY"),
        ("INSERT INTO events VALUES ('a', 1) ON CONFLICT (kind) DO UPDATE SET n = 5", "INVALID_SQL", "PRIMARY KEY"),
        ("STORAGE FLUSH TABLE cursors", "INVALID_VALUE", "never flushed"),
        ("CREATE STREAM TABLE x (id INT)", "INVALID_VALUE", "TTL_SECONDS"),
        ("CREATE TABLE x (id INT PRIMARY KEY) WITH (TTL_SECONDS = 5)", "INVALID_VALUE", "TTL_SECONDS"),
        ("DROP SHARED TABLE cursors", "INVALID_VALUE", "stream table"),
    ];
    for (sql, code, part) in cases {
        let answer = server.try_sql(sql).await?;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["error"]["code"]),
            (400, &json!(code)),
            "{sql}: {}",
            answer.body
        );
        assert!(answer.body["error"]["message"].as_str().context("message")?.contains(part), "{sql}: {}", answer.body);
    }
    assert_eq!(server.sql("STORAGE FLUSH ALL").await?["message"], "Nothing to flush");
    let options = server.rows("SELECT table_type, options FROM system.tables WHERE table_name = 'events'").await?;
    assert!(options.to_string().contains(r#"\"ttl_seconds\":3600"#) && options[0][0] == "stream", "{options}");
    for round in 0..2 {
        let rows = server.rows("SELECT id, x, y FROM cursors ORDER BY id").await?;
        assert_eq!(rows, json!([[1, 7, 1], [2, 12, 2], [4, 4, 4]]), "round {round}");
        assert_eq!(server.rows("SELECT x FROM cursors WHERE id = 2").await?, json!([[12]]));
        assert_eq!(server.rows("SELECT kind, count(*) FROM events GROUP BY kind").await?, json!([["a", "3"]]));
        server = Server::start_in(server.kill()?).await?;
    }
    let metrics = server.metrics().await?;
    let unflushed = metrics.lines().filter(|line| line.contains("unflushed") && line.contains("cursors"));
    assert_eq!(unflushed.collect::<Vec<_>>(), Vec::<&str>::new());
    server.sql("DROP STREAM TABLE cursors").await?;
    Ok(())
}
