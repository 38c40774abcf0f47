//! JSON operators and functions, on hot and on cold rows.

use anyhow::Result;
use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn documents_are_looked_into() -> Result<()> {
    let server = Server::start().await?;
    server
        .sql(
            r#"CREATE TABLE t (id INT PRIMARY KEY, data JSON, copy JSON, text TEXT);
               INSERT INTO t (id, data) VALUES
               (1, '{"name": "Zoë \"z\"", "n": 7, "big": 12345678901234567890, "f": 0.1, "ok": true, "tags": ["a", {"b": [1, 2]}], "none": null}'),
               (2, '[10, 20, {"x": 1}]'), (3, NULL)"#,
        )
        .await?;
    let cases = [
        ("data ->> 'name'", json!("Zoë \"z\""), "Text"),
        ("data -> 'name'", json!("\"Zoë \\\"z\\\"\""), "Json"),
        ("data -> 'tags'", json!("[\"a\", {\"b\": [1, 2]}]"), "Json"),
        ("data -> 'tags' -> 1 -> 'b' -> 0", json!("1"), "Json"),
        ("data -> 'tags' ->> 0", json!("a"), "Text"),
        ("data ->> 'n'", json!("7"), "Text"),
        ("data ->> 'ok'", json!("true"), "Text"),
        ("data ->> 'none'", json!(null), "Text"),
        ("data -> 'missing'", json!(null), "Json"),
        ("data ? 'n'", json!(true), "Boolean"),
        ("data ? 'missing'", json!(false), "Boolean"),
        ("json_contains(data, 'ok')", json!(true), "Boolean"),
        ("json_as_text(data, 'tags', 1)", json!("{\"b\": [1, 2]}"), "Text"),
        ("json_length(data)", json!("7"), "BigInt"),
        ("json_length(data, 'tags')", json!("2"), "BigInt"),
        ("json_get_int(data, 'n')", json!("7"), "BigInt"),
        ("json_get_bool(data, 'ok')", json!(true), "Boolean"),
        ("json_get_int(data, 'name')", json!(null), "BigInt"),
        ("json_object_keys(data, 'tags', 1)", json!("[\"b\"]"), "Json"),
        ("CAST(data ->> 'n' AS INT) + 1", json!("8"), "BigInt"),
        ("(data ->> 'f')::DOUBLE", json!(0.1), "Double"),
    ];
    for round in ["hot", "cold"] {
        for (expression, value, data_type) in &cases {
            let result = server.sql(&format!("SELECT {expression} FROM t WHERE id = 1")).await?;
            assert_eq!(result["rows"], json!([[value]]), "{round}: {expression}");
            if !expression.starts_with("CAST") {
                assert_eq!(result["schema"][0]["data_type"], *data_type, "{expression}");
            }
        }
        assert_eq!(server.rows("SELECT data -> 2 ->> 'x' FROM t WHERE data ->> 1 = '20'").await?, json!([["1"]]));
        assert_eq!(
            server.rows("SELECT id FROM t WHERE data ? 'name' OR data IS NULL ORDER BY id").await?,
            json!([[1], [3]])
        );
        assert_eq!(
            server.rows("SELECT count(*) FROM t GROUP BY data ->> 'n' ORDER BY 1").await?,
            json!([["1"], ["2"]])
        );
        assert_eq!(server.flush("t").await?, if round == "hot" { "completed" } else { "nothing" });
    }
    server.sql("UPDATE t SET copy = data -> 'tags', text = data -> 'name' WHERE id = 1").await?;
    server.sql("UPDATE t SET copy = data -> 0, text = data -> 2 WHERE id = 2").await?;
    let stored = json!([["[\"a\", {\"b\": [1, 2]}]", "Zoë \"z\""], ["10", "{\"x\": 1}"]]);
    assert_eq!(server.rows("SELECT copy, text FROM t WHERE id < 3 ORDER BY id").await?, stored);
    let answer = server
        .request_as(&server.token, &json!({"sql": "SELECT id FROM t WHERE data ->> $1 = $2", "params": ["n", "7"]}))
        .await?;
    assert_eq!(answer.body["results"][0]["rows"], json!([[1]]), "{}", answer.body);
    Ok(())
}
