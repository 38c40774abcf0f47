//! DDL, DML and queries, and what outlives a restart.

use anyhow::Result;
use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn namespaces_tables_and_rows_from_creation_to_restart() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE NAMESPACE shop").await?;
    let created = server
        .sql("CREATE TABLE shop.orders (id BIGINT PRIMARY KEY, item TEXT NOT NULL, price DECIMAL(10,2) DEFAULT 1.5, n INT)")
        .await?;
    assert!(created["message"].as_str().unwrap().contains("created"), "{created}");
    assert_eq!(created["row_count"], 0);
    let inserted = server
        .sql("INSERT INTO shop.orders (id, item, n) VALUES (1, 'pen', 2), (2, 'ink', 5), (3, 'nib', NULL)")
        .await?;
    assert_eq!((&inserted["row_count"], &inserted["message"]), (&json!(3), &json!("Inserted 3 row(s)")));

    let all = server.sql("SELECT * FROM shop.orders ORDER BY id").await?;
    let names: Vec<&str> =
        all["schema"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["id", "item", "price", "n", "_seq", "_deleted"]);
    assert_eq!(all["schema"][0], json!({"name": "id", "data_type": "BigInt", "index": 0, "flags": ["pk", "nn", "uq"]}));
    assert_eq!(all["rows"][0].as_array().unwrap()[..4], [json!("1"), json!("pen"), json!("1.50"), json!(2)]);
    assert!(all["message"].is_null());
    let timed = server.sql("SELECT * FROM shop.orders WHERE _updated > '2024-01-01' ORDER BY id LIMIT 1").await?;
    assert_eq!(timed["schema"].as_array().unwrap().len(), 6, "`*` hides _updated even where WHERE names it");

    let updated = server.sql("UPDATE shop.orders SET n = n + 1 WHERE price < 2").await?;
    assert_eq!(updated["message"], "Updated 2 row(s)", "NULL + 1 is NULL: that row keeps its value and does not count");
    assert_eq!(server.sql("UPDATE shop.orders SET item = 'pen' WHERE id = 1").await?["row_count"], 0);
    assert_eq!(server.sql("DELETE FROM shop.orders WHERE id = 3").await?["message"], "Deleted 1 row(s)");
    assert_eq!(server.sql("DELETE FROM shop.orders WHERE item LIKE 'z%'").await?["row_count"], 0);
    assert_eq!(server.rows("SELECT count(*), sum(n) FROM shop.orders").await?, json!([["2", "9"]]));

    let folder = server.stop()?;
    let server = Server::start_in(folder).await?;
    assert_eq!(server.rows("SELECT id, n FROM shop.orders ORDER BY id").await?, json!([["1", 3], ["2", 6]]));
    server.sql("DROP NAMESPACE shop CASCADE").await?;
    assert_eq!(server.rows("SHOW NAMESPACES").await?, json!([["default"]]));
    Ok(())
}

#[tokio::test]
async fn keys_may_be_composite_generated_and_moved() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE seats (flight TEXT, seat INT, who TEXT, PRIMARY KEY (flight, seat))").await?;
    server.sql("INSERT INTO seats VALUES ('KL1', 1, 'ann'), ('KL1', 2, 'bob'), ('KL2', 1, 'cy')").await?;
    // Every key of the flight shifts onto its neighbour's: uniqueness is judged on the end state.
    assert_eq!(server.sql("UPDATE seats SET seat = seat + 1 WHERE flight = 'KL1'").await?["row_count"], 2);
    assert_eq!(
        server.rows("SELECT seat, who FROM seats WHERE flight = 'KL1' ORDER BY seat").await?,
        json!([[2, "ann"], [3, "bob"]])
    );
    let clash = server.try_sql("UPDATE seats SET flight = 'KL1', seat = 3 WHERE who = 'cy'").await?;
    assert_eq!(clash.body["error"]["code"], "DUPLICATE_KEY", "{}", clash.body);
    assert_eq!(server.rows("SELECT who FROM seats WHERE flight = 'KL2' AND seat = 1").await?, json!([["cy"]]));

    server.sql("CREATE TABLE events (id BIGINT AUTO_INCREMENT PRIMARY KEY, key TEXT DEFAULT ULID(), at TIMESTAMP DEFAULT NOW())").await?;
    server.sql("INSERT INTO events (key) VALUES ('a'), ('b')").await?;
    server
        .sql("INSERT INTO events (key, at) SELECT who, DEFAULT_AT FROM (SELECT who, now() AS default_at FROM seats)")
        .await?;
    let rows = server.rows("SELECT count(DISTINCT id), count(at) FROM events").await?;
    assert_eq!(rows, json!([["5", "5"]]));
    Ok(())
}

#[tokio::test]
async fn queries_join_group_and_explain() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE a (id INT PRIMARY KEY, v TEXT)").await?;
    server.sql("CREATE TABLE b (id INT PRIMARY KEY, a_id INT, n DOUBLE)").await?;
    server.sql("INSERT INTO a VALUES (1, 'x'), (2, 'y')").await?;
    server.sql("INSERT INTO b VALUES (10, 1, 0.5), (11, 1, 1.5), (12, 2, 4)").await?;
    let joined = server.sql("SELECT v, sum(n) AS total FROM a JOIN b ON a.id = b.a_id GROUP BY v ORDER BY v").await?;
    assert_eq!(joined["rows"], json!([["x", 2.0], ["y", 4.0]]));
    let both = server.sql("SELECT * FROM a JOIN b USING (id)").await?;
    assert_eq!(both["rows"], json!([]));
    let windows = server
        .rows("WITH r AS (SELECT *, row_number() OVER (ORDER BY n DESC) AS p FROM b) SELECT id FROM r WHERE p = 1")
        .await?;
    assert_eq!(windows, json!([[12]]));
    let plan = server.sql("EXPLAIN ANALYZE SELECT count(*) FROM b").await?;
    assert_eq!(plan["schema"][0]["name"], "plan_type");
    let batch = server.sql("CREATE NAMESPACE ns2; USE ns2; CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (7); SELECT id FROM t").await?;
    assert_eq!(batch["rows"], json!([[7]]));
    let answer = server
        .request_as(&server.token, &json!({"sql": "SELECT id FROM b WHERE n > $1 AND a_id = $2", "params": [1.0, 1]}))
        .await?;
    assert_eq!(answer.body["results"][0]["rows"], json!([[11]]), "{}", answer.body);
    Ok(())
}

#[tokio::test]
async fn the_catalog_describes_itself() -> Result<()> {
    let server = Server::start().await?;
    server
        .sql(
            "CREATE USER TABLE notes (id TEXT PRIMARY KEY DEFAULT UUID_V7(), body JSON) WITH (FLUSH_POLICY = 'rows:5')",
        )
        .await?;
    let described = server.sql("DESCRIBE notes").await?;
    assert_eq!(described["rows"][0], json!(["id", 1, 1, "TEXT", false, true, "UUID_V7()", null, 1]));
    assert_eq!(server.rows("SHOW TABLES").await?, json!([["default", "notes", "user"]]));
    let options = server.rows("SELECT options FROM system.tables WHERE table_name = 'notes'").await?;
    assert!(options[0][0].as_str().unwrap().contains("rows:5"), "{options}");
    let columns = server
        .rows("SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'notes' ORDER BY ordinal_position")
        .await?;
    assert_eq!(columns, json!([["id", "TEXT"], ["body", "JSON"]]));
    assert_eq!(server.rows("SELECT name FROM system.namespaces").await?, json!([["default"]]));
    for table in ["schemas", "columns", "users", "storages", "jobs", "flush_jobs", "stats", "cluster", "datatypes"] {
        server.sql(&format!("SELECT * FROM system.{table}")).await?;
    }
    let secrets = server.rows("SELECT * FROM system.users").await?.to_string();
    assert!(!secrets.contains("argon2"), "{secrets}");
    Ok(())
}
