//! Statements on a primary key answer the same whether they go straight to the engine or through DataFusion.

use anyhow::Result;
use serde_json::{Value, json};

use crate::server::Server;

/// A condition on the key that says the same, but that only DataFusion understands.
fn through_datafusion(sql: &str) -> String {
    sql.replacen("WHERE ", "WHERE (1 = 1 OR FALSE) AND ", 1)
}

async fn answer(server: &Server, sql: &str, params: Value) -> Result<(u16, Value, Value, Value)> {
    let answer = server.request_as(&server.token, &json!({"sql": sql, "params": params})).await?;
    let result = &answer.body["results"][0];
    let code = answer.body["error"]["code"].clone();
    Ok((answer.status.as_u16(), code, result["rows"].clone(), result["message"].clone()))
}

#[tokio::test]
async fn point_statements_answer_the_same_both_ways() -> Result<()> {
    let server = Server::start().await?;
    for table in ["straight", "planned"] {
        server.sql(&format!("CREATE TABLE {table} (k TEXT, n SMALLINT, v DOUBLE, PRIMARY KEY (k, n))")).await?;
        server.sql(&format!("INSERT INTO {table} VALUES ('a', 1, 0.5), ('a', 2, NULL), ('', -1, 3)")).await?;
    }
    let cases = [
        ("SELECT k, n, v, _deleted FROM $t WHERE k = 'a' AND n = 1", json!([])),
        ("SELECT v AS value, $t.n FROM $t WHERE n = 2 AND $t.k = 'a'", json!([])),
        ("SELECT * EXCLUDE (_seq, _updated) FROM $t WHERE k = $1 AND n = $2", json!(["", -1])),
        ("SELECT v FROM $t WHERE k = 'a' AND n = 1 AND n = 2", json!([])),
        ("SELECT v FROM $t WHERE k = 'a' AND n = NULL", json!([])),
        ("SELECT v FROM $t WHERE k = 'a' AND n = 99999", json!([])),
        ("SELECT v FROM $t WHERE k = 'a' AND n = '1'", json!([])),
        ("SELECT v FROM $t WHERE k = 'a' AND n = 1.0", json!([])),
        ("SELECT v, v FROM $t WHERE k = 'a' AND n = 1", json!([])),
        ("SELECT nothing FROM $t WHERE k = 'a' AND n = 1", json!([])),
        ("SELECT v FROM $t WHERE k = $1 AND n = $2", json!(["a"])),
        ("UPDATE $t SET v = 7 WHERE k = 'a' AND n = 1", json!([])),
        ("UPDATE $t SET v = 7 WHERE k = 'a' AND n = 1", json!([])),
        ("UPDATE $t SET v = $1 WHERE k = 'a' AND n = 2", json!(["not a number"])),
        ("UPDATE $t SET n = NULL WHERE k = 'a' AND n = 2", json!([])),
        ("UPDATE $t SET n = 1 WHERE k = 'a' AND n = 2", json!([])),
        ("UPDATE $t SET n = 40000 WHERE k = 'a' AND n = 2", json!([])),
        ("UPDATE $t SET k = 'b', n = 9 WHERE k = 'a' AND n = 2", json!([])),
        ("DELETE FROM $t WHERE k = 'a' AND n = 77", json!([])),
        ("DELETE FROM $t WHERE k = '' AND n = -1", json!([])),
    ];
    for (sql, params) in cases {
        let straight = answer(&server, &sql.replace("$t", "straight"), params.clone()).await?;
        let planned = answer(&server, &through_datafusion(&sql.replace("$t", "planned")), params).await?;
        assert_eq!(straight, planned, "{sql}");
    }
    let rest = "ORDER BY k, n";
    let straight = server.rows(&format!("SELECT k, n, v FROM straight {rest}")).await?;
    assert_eq!(straight, server.rows(&format!("SELECT k, n, v FROM planned {rest}")).await?);
    assert_eq!(straight, json!([["a", 1, 7.0], ["b", 9, null]]));
    Ok(())
}

#[tokio::test]
async fn inserted_values_are_the_same_as_literals_and_as_expressions() -> Result<()> {
    let server = Server::start().await?;
    server
        .sql("CREATE TABLE t (id INT PRIMARY KEY, s SMALLINT, m DECIMAL(6,2), ts TIMESTAMP, v TEXT DEFAULT 'd')")
        .await?;
    server.sql("INSERT INTO t VALUES (1, 2.5, 1.25, '2024-01-01', DEFAULT)").await?;
    server.sql("INSERT INTO t VALUES (1 + 1, 5.0 / 2, 1.25, '2024-01-01', DEFAULT)").await?;
    let rows = server.rows("SELECT s, m, ts, v FROM t ORDER BY id").await?;
    assert_eq!(rows[0], rows[1], "{rows}");
    for bad in ["40000", "39999 + 1"] {
        let answer = server.try_sql(&format!("INSERT INTO t (id, s) VALUES (9, {bad})")).await?;
        assert_eq!(answer.body["error"]["code"], "INVALID_VALUE", "{}", answer.body);
    }
    Ok(())
}
