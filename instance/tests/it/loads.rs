//! Rows in bulk, in every form that they come in.

use std::sync::Arc;

use anyhow::Result;
use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::server::{Folder, Server};

const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv; header=present";
const ARROW: &str = "application/vnd.apache.arrow.stream";
const PARQUET: &str = "application/vnd.apache.parquet";

async fn load_as(server: &Server, token: &str, to: &str, form: &str, body: impl Into<Vec<u8>>) -> Result<(u16, Value)> {
    let url = format!("{}/v1/api/tables/{to}", server.url);
    let request = server.http.post(url).bearer_auth(token).header("content-type", form);
    let response = request.body(body.into()).send().await?;
    Ok((response.status().as_u16(), response.json().await?))
}

async fn load(server: &Server, to: &str, form: &str, body: impl Into<Vec<u8>>) -> Result<(u16, Value)> {
    load_as(server, &server.token, to, form, body).await
}

/// Received, inserted, updated, skipped, rejected.
fn figures(report: &Value) -> [u64; 5] {
    ["received", "inserted", "updated", "skipped", "rejected"].map(|name| report[name].as_u64().unwrap_or(u64::MAX))
}

/// Line and code of each rejected row.
fn rejected(report: &Value) -> Vec<(u64, String)> {
    let errors = report["errors"].as_array().cloned().unwrap_or_default();
    errors
        .iter()
        .map(|row| (row["line"].as_u64().unwrap_or(0), row["code"].as_str().unwrap_or("").to_owned()))
        .collect()
}

#[tokio::test]
async fn good_rows_are_written_and_bad_ones_are_told_by_their_lines() -> Result<()> {
    let server = Server::start_in(Folder::new()?.with("KALAMDB_LOAD_BATCH_ROWS", "3")).await?;
    server.sql("CREATE NAMESPACE a").await?;
    server.sql("CREATE TABLE a.t (id BIGINT PRIMARY KEY, n INT NOT NULL, t TEXT DEFAULT 'd')").await?;
    let lines = "{\"id\":1,\"n\":1}\n\n{\"id\":\"2\",\"n\":\"2\",\"t\":null}\r\n{\"id\":3}\nnonsense\n{\"id\":4,\"n\":\"x\"}\n\
                 {\"id\":1,\"n\":9}\n{\"id\":5,\"n\":5,\"z\":1}\n{\"id\":6,\"n\":6,\"_seq\":\"77\"}\n{\"id\":7,\"n\":7,\"t\":\"last\"}";
    let (status, report) = load(&server, "a/t/rows", NDJSON, lines).await?;
    assert_eq!((status, figures(&report)), (200, [9, 4, 0, 0, 5]), "{report}");
    let told =
        [(4, "NOT_NULL_VIOLATION"), (5, "INVALID_VALUE"), (6, "INVALID_VALUE"), (7, "DUPLICATE_KEY"), (8, "NOT_FOUND")];
    assert_eq!(rejected(&report), told.map(|(line, code)| (line, code.to_owned())));
    assert_eq!(report["batches"], 3);
    let rows = json!([["1", 1, "d"], ["2", 2, null], ["6", 6, "d"], ["7", 7, "last"]]);
    assert_eq!(server.rows("SELECT id, n, t FROM a.t ORDER BY id").await?, rows);

    let csv = "\u{feff}t,id,n\r\n\"a,\"\"b\"\"\r\nc\",10,1\r\n,11,2\r\n\"\",12,3\r\n\r\nx,13\r\nx,14,1,2\r\n\"x\"y,15,1\r\nx,10,1\r\n\"open,16,1";
    let (status, report) = load(&server, "a/t/rows", CSV, csv).await?;
    assert_eq!((status, figures(&report)), (200, [8, 3, 0, 0, 5]), "{report}");
    let lines: Vec<u64> = rejected(&report).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [7, 8, 9, 10, 11], "{report}");
    let rows = json!([["10", "a,\"b\"\r\nc"], ["11", null], ["12", ""]]);
    assert_eq!(server.rows("SELECT id, t FROM a.t WHERE id >= 10 ORDER BY id").await?, rows);
    Ok(())
}

#[tokio::test]
async fn arrow_and_parquet_bring_typed_rows() -> Result<()> {
    let server = Server::start_in(Folder::new()?.with("KALAMDB_LOAD_BATCH_ROWS", "1000")).await?;
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, n SMALLINT, t TEXT)").await?;
    let batch = |from: i64, n: i64| -> Result<RecordBatch> {
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(Int64Array::from_iter_values(from..from + 2500))),
            ("n", Arc::new(Int64Array::from_iter_values((0..2500).map(|at| if at == 1200 { n } else { at % 100 })))),
            ("t", Arc::new(StringArray::from_iter_values((0..2500).map(|at| format!("row {at}"))))),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    };
    let (first, second) = (batch(0, 1)?, batch(2500, 40_000)?);
    let mut stream = StreamWriter::try_new(Vec::new(), &first.schema())?;
    stream.write(&first)?;
    stream.write(&second)?;
    stream.finish()?;
    let stream = stream.into_inner()?;
    let (status, report) = load(&server, "default/t/rows", ARROW, stream.clone()).await?;
    assert_eq!((status, figures(&report)), (200, [5000, 4999, 0, 0, 1]), "{report}");
    assert_eq!(rejected(&report), [(3701, "INVALID_VALUE".to_owned())], "40000 is no SMALLINT");
    assert_eq!(server.rows("SELECT count(*), max(id) FROM t").await?, json!([["4999", "4999"]]));

    server.sql("DELETE FROM t WHERE id < 10").await?;
    let mut file = ArrowWriter::try_new(Vec::new(), first.schema(), None)?;
    file.write(&first)?;
    let file = file.into_inner()?;
    let (status, report) = load(&server, "default/t/rows?on_conflict=nothing", PARQUET, file).await?;
    assert_eq!((status, figures(&report)), (200, [2500, 10, 0, 2490, 0]), "{report}");

    let cut = stream[..stream.len() / 2].to_vec();
    let (status, report) = load(&server, "default/t/rows?on_conflict=nothing", ARROW, cut).await?;
    assert_eq!((status, &report["error"]["code"]), (400, &json!("INVALID_REQUEST")), "{report}");
    let (status, report) = load(&server, "default/t/rows", PARQUET, "PAR1 and no more").await?;
    assert_eq!((status, &report["error"]["code"]), (400, &json!("INVALID_REQUEST")), "{report}");
    Ok(())
}

#[tokio::test]
async fn a_taken_key_is_rejected_left_out_or_updated() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, t TEXT DEFAULT 'new')").await?;
    server.sql("INSERT INTO t VALUES (1, 1, 'old'), (2, 2, 'old')").await?;
    assert_eq!(server.flush("t").await?, "completed");
    let lines = "{\"id\":1,\"n\":10}\n{\"id\":3,\"n\":30}\n{\"id\":3,\"n\":31,\"t\":\"twice\"}\n{\"id\":2}\n";
    let (_, report) = load(&server, "default/t/rows?on_conflict=update", NDJSON, lines).await?;
    assert_eq!(figures(&report), [4, 1, 3, 0, 0], "{report}");
    let rows = json!([[1, 10, "old"], [2, 2, "old"], [3, 31, "twice"]]);
    assert_eq!(server.rows("SELECT id, n, t FROM t ORDER BY id").await?, rows);
    let (_, report) = load(&server, "default/t/rows?on_conflict=nothing", NDJSON, lines).await?;
    assert_eq!(figures(&report), [4, 0, 0, 4, 0], "{report}");
    let (status, report) = load(&server, "default/t/rows?on_conflict=perhaps", NDJSON, lines).await?;
    assert_eq!((status, &report["error"]["code"]), (400, &json!("INVALID_VALUE")), "{report}");
    let (status, _) = load(&server, "default/t/rows?upsert=yes", NDJSON, lines).await?;
    assert_eq!(status, 400);
    Ok(())
}

#[tokio::test]
async fn keys_are_generated_and_rights_are_those_of_insert() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE SHARED TABLE log (id BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID(), line TEXT) WITH (ACCESS_LEVEL = PUBLIC)").await?;
    server.sql("CREATE USER TABLE own (id INT PRIMARY KEY)").await?;
    server.sql("CREATE STREAM TABLE seen (what TEXT) WITH (TTL_SECONDS = 600)").await?;
    let lines = "{\"line\":\"a\"}\n{\"line\":\"a\"}\n";
    assert_eq!(load(&server, "default/log/rows", NDJSON, lines).await?.1["inserted"], 2);
    assert_eq!(
        load(&server, "default/seen/rows", NDJSON, "{\"what\":\"x\"}\n{\"what\":\"x\"}").await?.1["inserted"],
        2
    );
    assert_eq!(server.rows("SELECT count(DISTINCT id), count(*) FROM log").await?, json!([["2", "2"]]));
    assert_eq!(server.rows("SELECT count(*) FROM seen").await?, json!([["2"]]));
    server.sql("CREATE USER ann WITH PASSWORD 'long enough 1' ROLE user").await?;
    let ann = server.login("ann", "long enough 1").await?;
    assert_eq!(load_as(&server, &ann, "default/log/rows", NDJSON, lines).await?.0, 403);
    assert_eq!(load_as(&server, &ann, "system/tables/rows", NDJSON, lines).await?.0, 403);
    assert_eq!(load_as(&server, "", "default/log/rows", NDJSON, lines).await?.0, 401);
    assert_eq!(load(&server, "default/missing/rows", NDJSON, lines).await?.1["error"]["code"], "NOT_FOUND");
    assert_eq!(load(&server, "default/log/rows", "text/plain", lines).await?.0, 400);
    assert_eq!(load_as(&server, &ann, "default/own/rows", NDJSON, "{\"id\":1}").await?.1["inserted"], 1);
    assert_eq!(server.rows("SELECT count(*) FROM own").await?, json!([["0"]]), "they are ann's");
    Ok(())
}

#[tokio::test]
async fn what_was_read_can_be_loaded_again_and_pieces_have_their_bounds() -> Result<()> {
    let server = Server::start_in(
        Folder::new()?.with("KALAMDB_LOAD_PIECE_BYTES", "2000").with("KALAMDB_LOAD_FILE_BYTES", "3000"),
    )
    .await?;
    let columns = "(id BIGINT PRIMARY KEY, d DECIMAL(10,2), f DOUBLE, s TEXT, b BYTES, at TIMESTAMP, on_day DATE, j JSON, ok BOOLEAN)";
    for table in ["t", "json", "csv"] {
        server.sql(&format!("CREATE TABLE {table} {columns}")).await?;
    }
    server.sql(r#"INSERT INTO t VALUES (1, 1.5, 'NaN', 'a,"b"', X'00ff', '2024-01-01', '2024-02-29', '{"a": [1]}', true), (2, NULL, NULL, '', NULL, NULL, NULL, NULL, NULL)"#).await?;
    for (form, table) in [(NDJSON, "json"), ("text/csv", "csv")] {
        let request = server.http.post(format!("{}/v1/api/sql", server.url)).bearer_auth(&server.token);
        let rows =
            request.header("accept", form).json(&json!({"sql": "SELECT * FROM t"})).send().await?.bytes().await?;
        let (status, report) = load(&server, &format!("default/{table}/rows"), form, rows).await?;
        assert_eq!((status, figures(&report)), (200, [2, 2, 0, 0, 0]), "{report}");
        let all = |table: &str| format!("SELECT id, d, f, s, b, at, on_day, j, ok FROM {table} ORDER BY id");
        assert_eq!(server.rows(&all(table)).await?, server.rows(&all("t")).await?, "{form}");
    }
    let long = format!("{{\"id\":10}}\n{{\"id\":11,\"s\":\"{}\"}}\n{{\"id\":12}}\n", "x".repeat(2000));
    let (status, report) = load(&server, "default/json/rows", NDJSON, long.clone()).await?;
    assert_eq!((status, &report["error"]["code"], figures(&report)[1]), (400, &json!("TOO_LARGE"), 0), "{report}");
    let (status, report) = load(&server, "default/json/rows", PARQUET, vec![0; 4000]).await?;
    assert_eq!((status, &report["error"]["code"]), (400, &json!("TOO_LARGE")), "{report}");
    assert_eq!(server.rows("SELECT count(*) FROM json").await?, json!([["2"]]));
    Ok(())
}

#[tokio::test]
async fn numbers_of_json_keep_all_their_digits() -> Result<()> {
    let server = Server::start().await?;
    server
        .sql("CREATE TABLE t (id INT PRIMARY KEY, l BIGINT, m DECIMAL(38, 10), j JSON, y BYTES, e EMBEDDING(2))")
        .await?;
    let line = "{\"id\":1,\"l\":9007199254740993,\"m\":-1234567890123456789012345678.0123456789,\
                \"j\":{\"n\":12345678901234567890.123456789},\"y\":[0,255],\"e\":[0.1,2]}\n";
    let (status, report) = load(&server, "default/t/rows", NDJSON, line).await?;
    assert_eq!((status, figures(&report)), (200, [1, 1, 0, 0, 0]), "{report}");
    let digits = "\"9007199254740993\",\"-1234567890123456789012345678.0123456789\"";
    let row = server.rows("SELECT l, m, j, y, e FROM t").await?;
    let rest = "\"{\\\"n\\\":12345678901234567890.123456789}\",[0,255],[0.1,2.0]";
    assert_eq!(row.to_string(), format!("[[{digits},{rest}]]"));

    // The bodies are texts: a number of `json!` would have lost the digits already.
    let numbers = "9007199254740993,-1234567890123456789012345678.0123456789";
    let bodies = [
        format!("{{\"sql\":\"INSERT INTO t (id, l, m) VALUES (2, $1, $2)\",\"params\":[{numbers}]}}"),
        format!("{{\"sql\":\"INSERT INTO t (id, l, m) VALUES (1 + 2, $1, $2)\",\"params\":[{numbers}]}}"),
        format!("{{\"sql\":\"UPDATE t SET l = $1, m = $2 WHERE id + 0 = 3\",\"params\":[{numbers}]}}"),
        format!("{{\"sql\":\"UPDATE t SET l = $1, m = $2 WHERE id = 3\",\"params\":[{numbers}]}}"),
    ];
    for body in bodies {
        let request = server.http.post(format!("{}/v1/api/sql", server.url)).bearer_auth(&server.token);
        let response = request.header("content-type", "application/json").body(body.clone()).send().await?;
        assert_eq!(response.status(), 200, "{body}");
        let rows = server.rows("SELECT l, m FROM t WHERE id > 1").await?;
        assert_eq!(rows.as_array().unwrap().last().unwrap().to_string(), format!("[{digits}]"), "{body}");
        server.sql("UPDATE t SET l = 0, m = 0 WHERE id > 1").await?;
    }
    Ok(())
}

#[tokio::test]
async fn no_value_is_lost_for_the_name_that_it_comes_under() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, \"Mixed\" TEXT)").await?;
    let all = "SELECT id, n, \"Mixed\" FROM t ORDER BY id";

    let (status, report) = load(&server, "Default/T/rows", CSV, "ID,N,Mixed\n1,10,a\n").await?;
    assert_eq!((status, figures(&report)), (200, [1, 1, 0, 0, 0]), "{report}");
    let (status, report) = load(&server, "default/t/rows", "text/csv; header=absent", "2,20,b\n3,,\"\"\n4,1\n").await?;
    assert_eq!(
        (status, figures(&report), rejected(&report)),
        (200, [3, 2, 0, 0, 1], vec![(3, "INVALID_VALUE".into())])
    );
    assert_eq!(server.rows(all).await?, json!([[1, 10, "a"], [2, 20, "b"], [3, null, ""]]));

    let twice = "{\"id\":5,\"n\":1,\"n\":2}\n{\"id\":6,\"n\":1,\"N\":2}\n{\"ID\":7,\"n\":3}\n";
    let (status, report) = load(&server, "default/t/rows", NDJSON, twice).await?;
    assert_eq!((status, figures(&report)), (200, [3, 1, 0, 0, 2]), "{report}");
    assert_eq!(rejected(&report), [(1, "INVALID_VALUE".to_owned()), (2, "INVALID_VALUE".to_owned())]);

    let numbers = |from: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(from..from + 2)) };
    let batch = RecordBatch::try_from_iter([("id", numbers(20)), ("n", numbers(0)), ("N", numbers(5))])?;
    let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    stream.write(&batch)?;
    let stream = stream.into_inner()?;
    let mut file = ArrowWriter::try_new(Vec::new(), batch.schema(), None)?;
    file.write(&batch)?;
    let whole_refused = [
        ("text/csv", b"id,n,n\n8,1,2\n".to_vec(), "'n' stands there twice"),
        ("text/csv; header=perhaps", b"id\n8\n".to_vec(), "header=perhaps"),
        (ARROW, stream, "'N' stands there twice"),
        (PARQUET, file.into_inner()?, "'N' stands there twice"),
        (ARROW, Vec::new(), "no Arrow IPC stream"),
    ];
    for (form, body, why) in whole_refused {
        let (status, report) = load(&server, "default/t/rows", form, body).await?;
        assert_eq!((status, &report["error"]["code"]), (400, &json!("INVALID_REQUEST")), "{form}: {report}");
        assert!(report["error"]["message"].as_str().is_some_and(|text| text.contains(why)), "{form}: {report}");
    }

    let url = format!("{}/v1/api/tables/default/t/rows", server.url);
    let encoded = |encoding: &str| {
        let request = server.http.post(&url).bearer_auth(&server.token).header("content-type", NDJSON);
        request.header("content-encoding", encoding).body("{\"id\":9}\n").send()
    };
    assert_eq!(encoded("gzip").await?.status().as_u16(), 415);
    assert_eq!(encoded("identity").await?.json::<Value>().await?["inserted"], 1);
    assert_eq!(server.rows("SELECT id FROM t WHERE id > 4 ORDER BY id").await?, json!([[7], [9]]));
    Ok(())
}
