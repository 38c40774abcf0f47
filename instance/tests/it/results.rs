//! Results in the other forms: Arrow IPC, a JSON object a line, CSV.

use anyhow::Result;
use datafusion::arrow::ipc::reader::StreamReader;
use reqwest::Response;
use serde_json::{Value, json};

use crate::server::Server;

const TABLE: &str =
    "CREATE TABLE t (id BIGINT PRIMARY KEY, n INT, d DECIMAL(10,2), f DOUBLE, s TEXT, b BYTES, at TIMESTAMP, j JSON)";
const ROWS: &str = r#"INSERT INTO t VALUES
    (1, 1, 1.5, 0.1, 'a,"b"', X'00ff', '2024-01-01', '{"a": [1]}'), (2, NULL, NULL, NULL, '', NULL, NULL, NULL),
    (9007199254740993, -1, -0.05, -1e300, 'ü', X'', '1969-12-31 23:59:59.999999', '"x"')"#;
const QUERY: &str = "SELECT id, n, d, f, s, b, at, j FROM t ORDER BY id";

async fn ask(server: &Server, accept: &str, sql: &str) -> Result<Response> {
    let request = server.http.post(format!("{}/v1/api/sql", server.url)).bearer_auth(&server.token);
    Ok(request.header("accept", accept).json(&json!({"sql": sql})).send().await?)
}

async fn with_rows() -> Result<Server> {
    let server = Server::start().await?;
    server.sql(TABLE).await?;
    server.sql(ROWS).await?;
    Ok(server)
}

#[tokio::test]
async fn each_form_has_the_rows_of_the_json_reply() -> Result<()> {
    let server = with_rows().await?;
    let expected = server.rows(QUERY).await?;
    let lines = ask(&server, "application/x-ndjson", QUERY).await?.text().await?;
    let objects: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let names = ["id", "n", "d", "f", "s", "b", "at", "j"];
    let cells: Vec<Value> = objects.iter().map(|row| names.iter().map(|name| row[*name].clone()).collect()).collect();
    assert_eq!(Value::from(cells), expected);
    assert!(lines.starts_with("{\"id\":\"1\",\"n\":1,\"d\":\"1.50\""), "in the order of the columns: {lines}");

    let csv = ask(&server, "text/csv;q=0.9, */*", QUERY).await?;
    assert_eq!(csv.headers()["content-type"], "text/csv");
    let csv = csv.text().await?;
    let second = csv.split("\r\n").nth(2);
    assert!(
        csv.starts_with("id,n,d,f,s,b,at,j\r\n1,1,1.50,0.1,\"a,\"\"b\"\"\",\"[0,255]\",1704067200000000,"),
        "{csv}"
    );
    assert_eq!(second, Some("2,,,,\"\",,,"));

    let arrow = ask(&server, "application/vnd.apache.arrow.stream", QUERY).await?.bytes().await?;
    let reader = StreamReader::try_new(arrow.as_ref(), None)?;
    let types: Vec<String> = reader.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types[..4], ["Int64", "Int32", "Decimal128(10, 2)", "Float64"]);
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 3);

    // Point reads and system tables take other ways.
    assert_eq!(
        ask(&server, "text/csv", "SELECT s FROM t WHERE id = 1").await?.text().await?,
        "s\r\n\"a,\"\"b\"\"\"\r\n"
    );
    let tables = ask(&server, "text/csv", "SELECT table_name FROM system.tables").await?.text().await?;
    assert_eq!(tables, "table_name\r\nt\r\n");
    assert_eq!(ask(&server, "text/csv", "SELECT id FROM t WHERE id < 0").await?.text().await?, "id\r\n");
    let empty =
        ask(&server, "application/vnd.apache.arrow.stream", "SELECT id FROM t WHERE n = 77").await?.bytes().await?;
    assert_eq!(StreamReader::try_new(empty.as_ref(), None)?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn errors_and_statements_without_rows_are_json_replies() -> Result<()> {
    let server = with_rows().await?;
    let failed = ask(&server, "text/csv", "SELECT missing FROM t").await?;
    assert_eq!((failed.status().as_u16(), failed.headers()["content-type"].to_str()?), (400, "application/json"));
    let written: Value = ask(&server, "text/csv", "DELETE FROM t WHERE id = 1").await?.json().await?;
    assert_eq!(written["results"][0]["message"], "Deleted 1 row(s)");
    let several: Value = ask(&server, "text/csv", "SELECT 1; SELECT 2").await?.json().await?;
    assert_eq!(several["error"]["code"], "INVALID_SQL");
    let both = ask(&server, "application/json, text/csv", "SELECT 1").await?;
    assert_eq!(both.headers()["content-type"], "application/json");
    let denied = server.http.post(format!("{}/v1/api/sql", server.url)).header("accept", "text/csv");
    assert_eq!(denied.json(&json!({"sql": "SELECT 1"})).send().await?.status().as_u16(), 401);
    Ok(())
}

#[tokio::test]
async fn a_result_that_fails_in_the_middle_breaks_off() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE n (id BIGINT PRIMARY KEY)").await?;
    let lines: String = (0..50_000).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    let url = format!("{}/v1/api/tables/default/n/rows", server.url);
    let request = server.http.post(url).bearer_auth(&server.token).header("content-type", "application/x-ndjson");
    let loaded: Value = request.body(lines).send().await?.json().await?;
    assert_eq!(loaded["inserted"], 50_000, "{loaded}");
    for accept in ["text/csv", "application/x-ndjson", "application/vnd.apache.arrow.stream"] {
        // Where the failure is soon met, the connection ends before the head of the answer has left it.
        if let Ok(response) = ask(&server, accept, "SELECT id, 1 / (id - 40000) FROM n").await {
            assert_eq!(response.status().as_u16(), 200, "the first rows are good");
            let whole = response.bytes().await;
            assert!(whole.is_err(), "{accept}: {} bytes look like all of it", whole.map_or(0, |bytes| bytes.len()));
        }
        assert_eq!(server.rows("SELECT count(*) FROM n").await?, json!([["50000"]]), "the server goes on");
    }
    Ok(())
}
