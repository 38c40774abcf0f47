//! `RETURNING`: what the commit gave.

use anyhow::{Context, Result};
use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn returning_shows_what_the_commit_gave() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE t (id BIGINT AUTO_INCREMENT PRIMARY KEY, v INT, at TIMESTAMP DEFAULT NOW())").await?;
    let all = server.sql("INSERT INTO t (v) SELECT value FROM generate_series(1, 5000) RETURNING *").await?;
    let names: Vec<&str> =
        all["schema"].as_array().context("schema")?.iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["id", "v", "at", "_seq", "_deleted"]);
    assert_eq!(all["row_count"], 5000);
    assert!(all["message"].is_null());
    let expected = server.rows("SELECT * FROM t ORDER BY _seq").await?;
    assert_eq!(all["rows"], expected, "each with its own `_seq`");
    let one = server.sql("INSERT INTO t (id, v) VALUES (1, 7) RETURNING t._seq, _updated, id, default.t.v").await?;
    assert_eq!(one["rows"], server.rows("SELECT _seq, _updated, id, v FROM t WHERE id = 1").await?);
    let kept = server.sql("INSERT INTO t (id, v) VALUES (1, 7) ON CONFLICT (id) DO UPDATE SET v = excluded.v RETURNING _seq, _updated, id, v").await?;
    assert_eq!(kept["rows"], one["rows"], "nothing was written");
    let within = server.try_sql("BEGIN; INSERT INTO t (id, v) VALUES (2, 1) RETURNING v, id; UPDATE t SET v = v + 1 WHERE id = 2; INSERT INTO t (id, v) VALUES (2, 9) ON CONFLICT (id) DO UPDATE SET v = t.v + excluded.v RETURNING v; COMMIT").await?;
    assert_eq!(within.body["results"][1]["rows"], json!([[1, "2"]]), "{}", within.body);
    assert_eq!(within.body["results"][3]["rows"], json!([[11]]));
    assert_eq!(server.rows("SELECT v FROM t WHERE id = 2").await?, json!([[11]]));
    Ok(())
}
