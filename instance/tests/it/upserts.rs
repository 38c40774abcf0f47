//! `INSERT … ON CONFLICT` and `RETURNING`: counts, errors, and both tiers.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::server::Server;

async fn stock() -> Result<Server> {
    let server = Server::start().await?;
    server
        .sql("CREATE TABLE stock (shop TEXT, item INT, n INT NOT NULL DEFAULT 1, note TEXT, PRIMARY KEY (shop, item))")
        .await?;
    server.sql("INSERT INTO stock VALUES ('a', 1, 10, 'cold'), ('a', 2, 20, NULL)").await?;
    assert_eq!(server.flush("stock").await?, "completed");
    server.sql("INSERT INTO stock VALUES ('b', 1, 30, 'hot')").await?;
    Ok(server)
}

async fn rows(server: &Server) -> Result<Value> {
    server.rows("SELECT shop, item, n, note FROM stock ORDER BY shop, item").await
}

#[tokio::test]
async fn do_nothing_keeps_what_is_there_and_the_first_of_the_statement() -> Result<()> {
    let server = stock().await?;
    let sql = "INSERT INTO stock (shop, item, n) VALUES ('a', 1, 0), ('c', 1, 1), ('b', 1, 0), ('c', 1, 2) ON CONFLICT DO NOTHING";
    assert_eq!(server.sql(sql).await?["message"], "Inserted 1 row(s)");
    assert_eq!(server.sql(sql).await?["row_count"], 0);
    let kept = server.sql("INSERT INTO stock (shop, item) VALUES ('c', 1), ('d', 1) ON CONFLICT (item, shop) DO NOTHING RETURNING shop, n").await?;
    assert_eq!((&kept["rows"], &kept["row_count"]), (&json!([["d", 1]]), &json!(1)));
    assert_eq!(
        rows(&server).await?,
        json!([["a", 1, 10, "cold"], ["a", 2, 20, null], ["b", 1, 30, "hot"], ["c", 1, 1, null], ["d", 1, 1, null]])
    );
    Ok(())
}

#[tokio::test]
async fn do_update_computes_from_both_rows_in_both_tiers() -> Result<()> {
    let server = stock().await?;
    let sql =
        "INSERT INTO stock (shop, item, n, note) VALUES ('a', 1, 5, 'x'), ('b', 1, 5, 'y'), ('c', 1, 5, NULL)
               ON CONFLICT (shop, item) DO UPDATE SET n = stock.n + excluded.n, note = coalesce(note, '') || excluded.note
               RETURNING shop, n, n * 2 AS twice, note";
    let returned = server.sql(sql).await?;
    assert_eq!(returned["rows"], json!([["a", 15, "30", "coldx"], ["b", 35, "70", "hoty"], ["c", 5, "10", null]]));
    assert_eq!(returned["schema"][0]["flags"], json!(["pk", "nn"]));
    // Not counted where the WHERE does not hold; counted, as PostgreSQL does, where nothing changes.
    let partly = "INSERT INTO stock VALUES ('a', 1, 1, 'z'), ('a', 2, 20, NULL), ('b', 1, 1, 'z')
                  ON CONFLICT (shop, item) DO UPDATE SET n = excluded.n WHERE stock.n < 20 + 1 OR excluded.note IS NULL";
    assert_eq!(server.sql(partly).await?["message"], "Inserted 2 row(s)");
    let sql =
        "INSERT INTO stock VALUES ($1, 1, $2, NULL) ON CONFLICT (shop, item) DO UPDATE SET n = stock.n * $3, note = $4";
    let body = json!({"sql": sql, "params": ["c", 0, 3, "it's"]});
    let answer = server.request_as(&server.token, &body).await?;
    assert_eq!(answer.body["results"][0]["row_count"], 1, "{}", answer.body);
    assert_eq!(
        rows(&server).await?,
        json!([["a", 1, 1, "coldx"], ["a", 2, 20, null], ["b", 1, 35, "hoty"], ["c", 1, 15, "it's"]])
    );
    // A key may move, if its new place is free.
    server.sql("INSERT INTO stock (shop, item) VALUES ('a', 1) ON CONFLICT (shop, item) DO UPDATE SET item = 9, n = stock.n").await?;
    let taken = server
        .try_sql("INSERT INTO stock (shop, item) VALUES ('a', 9) ON CONFLICT (shop, item) DO UPDATE SET item = 2")
        .await?;
    assert_eq!(taken.body["error"]["code"], "DUPLICATE_KEY", "{}", taken.body);
    assert_eq!(
        server.rows("SELECT item, n FROM stock WHERE shop = 'a' ORDER BY item").await?,
        json!([[2, 20], [9, 1]])
    );
    Ok(())
}

#[tokio::test]
async fn what_on_conflict_and_returning_cannot_do_is_refused() -> Result<()> {
    let server = stock().await?;
    let before = rows(&server).await?;
    let insert = "INSERT INTO stock (shop, item) VALUES ('a', 1)";
    let cases = [
        ("ON CONFLICT (shop) DO NOTHING", "INVALID_SQL", "not the PRIMARY KEY"),
        ("ON CONFLICT (nope) DO NOTHING", "NOT_FOUND", "default.stock.nope"),
        ("ON CONFLICT (shop, item) DO UPDATE SET n = NULL", "NOT_NULL_VIOLATION", "'n'"),
        ("ON CONFLICT (shop, item) DO UPDATE SET n = excluded.nope", "INVALID_SQL", "nope"),
        ("ON CONFLICT (shop, item) DO UPDATE SET n = 1 / (stock.n - stock.n)", "SQL_EXECUTION_ERROR", "ivide"),
        ("ON CONFLICT (shop, item) DO UPDATE SET n = (SELECT 1)", "NOT_AVAILABLE", "subquery"),
        ("ON CONFLICT (shop, item) DO UPDATE SET n = sum(stock.n)", "INVALID_SQL", "aggregates"),
        ("ON CONFLICT (shop, item) DO UPDATE SET n = 1 WHERE 5", "INVALID_SQL", "neither true nor false"),
        ("ON CONFLICT (shop, item) DO UPDATE SET _seq = 1", "INVALID_VALUE", "_seq"),
        ("ON CONFLICT ON CONSTRAINT k DO NOTHING", "NOT_AVAILABLE", "CONSTRAINT"),
        (", ('a', 1) ON CONFLICT (shop, item) DO UPDATE SET n = 5", "DUPLICATE_KEY", "a second time"),
        (", ('q', 1), ('q', 1) ON CONFLICT (shop, item) DO UPDATE SET n = 5", "DUPLICATE_KEY", "('q', 1)"),
        (", ('q', 1) ON CONFLICT DO NOTHING RETURNING 1 / 0", "SQL_EXECUTION_ERROR", "ivide"),
        (", ('q', 1) ON CONFLICT DO NOTHING RETURNING nope", "INVALID_SQL", "nope"),
        (", ('q', 1) ON CONFLICT DO NOTHING RETURNING count(*)", "INVALID_SQL", "aggregates"),
        (", ('q', 1) ON CONFLICT DO NOTHING RETURNING _seq + 1", "INVALID_SQL", "_seq"),
    ];
    for (clause, code, part) in cases {
        let answer = server.try_sql(&format!("{insert} {clause}")).await?;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["error"]["code"]),
            (400, &json!(code)),
            "{clause}: {}",
            answer.body
        );
        assert!(
            answer.body["error"]["message"].as_str().context("message")?.contains(part),
            "{clause}: {}",
            answer.body
        );
    }
    assert_eq!(rows(&server).await?, before);
    Ok(())
}

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
