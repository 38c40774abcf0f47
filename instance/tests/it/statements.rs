//! What a request shows of its statements, and what outlives a restart. The statements themselves are tested in `tests/slt`.

use anyhow::{Context, Result};
use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn columns_tell_names_types_and_flags_and_rows_outlive_a_restart() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE NAMESPACE shop").await?;
    let created = server.sql("CREATE TABLE shop.orders (id BIGINT PRIMARY KEY, item TEXT NOT NULL, n INT)").await?;
    assert!(created["message"].as_str().is_some_and(|text| text.contains("created")), "{created}");
    server.sql("INSERT INTO shop.orders VALUES (1, 'pen', 2), (2, 'ink', 5)").await?;
    let all = server.sql("SELECT * FROM shop.orders WHERE _updated > '2024-01-01' ORDER BY id").await?;
    let columns = all["schema"].as_array().context("columns")?;
    let names: Vec<_> = columns.iter().filter_map(|column| column["name"].as_str()).collect();
    assert_eq!(names, ["id", "item", "n", "_seq", "_deleted"], "`*` hides _updated even where WHERE names it");
    assert_eq!(columns[0], json!({"name": "id", "data_type": "BigInt", "index": 0, "flags": ["pk", "nn", "uq"]}));
    let plan = server.sql("EXPLAIN ANALYZE SELECT count(*) FROM shop.orders").await?;
    assert_eq!((&plan["schema"][0]["name"], &plan["schema"][1]["name"]), (&json!("plan_type"), &json!("plan")));

    let server = Server::start_in(server.stop()?).await?;
    assert_eq!(server.rows("SELECT id, n FROM shop.orders ORDER BY id").await?, json!([["1", 2], ["2", 5]]));
    server.sql("DROP NAMESPACE shop CASCADE").await?;
    assert_eq!(server.rows("SHOW NAMESPACES").await?, json!([["default"]]));
    Ok(())
}
