//! Values of every type come back as the protocol writes them.

use anyhow::Result;
use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn every_type_makes_its_round_trip() -> Result<()> {
    let server = Server::start().await?;
    server
        .sql(
            "CREATE TABLE t (id INT PRIMARY KEY, b BOOLEAN, s SMALLINT, i INTEGER, l BIGINT, f FLOAT, d DOUBLE,
             m DECIMAL(20, 4), v VARCHAR, y BYTES, ts TIMESTAMP, day DATE, j JSON)",
        )
        .await?;
    server
        .sql(
            "INSERT INTO t VALUES (1, true, -32768, 2147483647, 9223372036854775807, 0.1, 1e-300, 1234567890123456.7891,
             'ünï''c', '\\x00ff', '2024-02-29 12:30:00.000001', '1969-12-31', '{\"a\": [1, null]}')",
        )
        .await?;
    server.sql("INSERT INTO t (id) VALUES (2)").await?;
    let result = server.sql("SELECT * FROM t WHERE id = 1").await?;
    let types: Vec<_> = result["schema"].as_array().unwrap().iter().map(|column| column["data_type"].clone()).collect();
    let decimal = json!({"Decimal": {"precision": 20, "scale": 4}});
    let expected = [
        "Int",
        "Boolean",
        "SmallInt",
        "Int",
        "BigInt",
        "Float",
        "Double",
        "",
        "Text",
        "Bytes",
        "Timestamp",
        "Date",
        "Json",
        "BigInt",
        "Boolean",
    ];
    for (found, expected) in types.iter().zip(expected) {
        assert_eq!(*found, if expected.is_empty() { decimal.clone() } else { json!(expected) });
    }
    let row = json!([
        1,
        true,
        -32768,
        2147483647,
        "9223372036854775807",
        0.1,
        1e-300,
        "1234567890123456.7891",
        "ünï'c",
        [0, 255],
        1709209800000001i64,
        -1,
        "{\"a\": [1, null]}"
    ]);
    assert_eq!(result["rows"][0].as_array().unwrap()[..13], *row.as_array().unwrap());
    let scanned = server.sql("SELECT * FROM t WHERE id + 0 = 1").await?;
    assert_eq!(
        (&scanned["rows"], &scanned["schema"]),
        (&result["rows"], &result["schema"]),
        "both routes answer the same"
    );
    assert_eq!(server.flush("t").await?, "completed");
    let server = Server::start_in(server.stop()?).await?;
    for sql in ["SELECT * FROM t WHERE id = 1", "SELECT * FROM t WHERE id + 0 = 1"] {
        let flushed = server.sql(sql).await?;
        assert_eq!((&flushed["rows"], &flushed["schema"]), (&result["rows"], &result["schema"]), "flushed: {sql}");
    }
    let nulls = server.rows("SELECT * FROM t WHERE id = 2").await?;
    assert!(nulls[0].as_array().unwrap()[1..13].iter().all(|cell| cell.is_null()), "{nulls}");
    let computed =
        server.sql("SELECT 'NaN'::DOUBLE, 1::BIGINT + 1, DATE '1970-01-02', 1.5::DECIMAL(5,2), NULL").await?;
    assert_eq!(computed["rows"], json!([["NaN", "2", 1, "1.50", null]]));
    Ok(())
}
