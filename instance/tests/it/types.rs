//! Values of every type come back as the protocol writes them.

use anyhow::Result;
use serde_json::{Value, json};

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

/// The types that other databases bring along: through parameters and literals, on both routes, hot, flushed, compacted and restarted.
#[tokio::test]
async fn times_uuids_embeddings_and_files_make_their_round_trip() -> Result<()> {
    let server = Server::start().await?;
    server
        .sql(
            "CREATE TABLE t (id UUID PRIMARY KEY DEFAULT UUID_V7(), dt DATETIME, tm TIME, e EMBEDDING(3), f FILE, other UUID,
             made DATETIME DEFAULT NOW() NOT NULL, at TIME DEFAULT CURRENT_TIMESTAMP)",
        )
        .await?;
    let id = "01920000-0000-7000-8000-0000000000ff";
    let file = r#"{"id":"f1","name":"a.png","size":12}"#;
    let insert = json!({
        "sql": "INSERT INTO t (id, dt, tm, e, f, other) VALUES ($1, $2, $3, $4, $5, $6)",
        "params": [id.to_uppercase(), "2024-02-29T14:30:00.000001+02:00", "23:59:59.999999", "[0.1, -2, 3e2]", file, "{00000000-0000-0000-0000-00000000000A}"],
    });
    assert_eq!(server.request_as(&server.token, &insert).await?.status, 200);
    server.sql("INSERT INTO t (id, dt, tm, e) VALUES ('00000000-0000-0000-0000-000000000001', 1709209800000001, 0, [1, 2.5, 0]), ('00000000-0000-0000-0000-000000000002', NULL, NULL, NULL)").await?;
    let columns = "id, dt, tm, e, f, other";
    let wanted = json!([[
        id,
        1709209800000001i64,
        86399999999i64,
        [0.1, -2.0, 300.0],
        file,
        "00000000-0000-0000-0000-00000000000a"
    ]]);
    let types = json!(["Uuid", "DateTime", "Time", {"Embedding": 3}, "File", "Uuid"]);
    let by_key = format!("SELECT {columns} FROM t WHERE id = '{id}'");
    let scanned = format!("SELECT {columns} FROM t WHERE id || '' = '{id}'");
    let mut server = server;
    for round in ["hot", "cold", "compacted"] {
        for sql in [&by_key, &scanned] {
            let result = server.sql(sql).await?;
            let found: Vec<_> =
                result["schema"].as_array().unwrap().iter().map(|column| &column["data_type"]).collect();
            assert_eq!((&result["rows"], json!(found)), (&wanted, types.clone()), "{round}: {sql}");
        }
        let rest = json!([
            ["00000000-0000-0000-0000-000000000001", 1709209800000001i64, 0, [1.0, 2.5, 0.0]],
            ["00000000-0000-0000-0000-000000000002", null, null, null]
        ]);
        assert_eq!(server.rows("SELECT id, dt, tm, e FROM t WHERE f IS NULL ORDER BY id").await?, rest, "{round}");
        for (condition, count) in [
            ("tm > '12:00:00'", "1"),
            ("tm = TIME '00:00:00'", "1"),
            ("dt = '2024-02-29 12:30:00.000001'", "2"),
            ("dt >= CAST('2024-03-01' AS DATETIME)", "0"),
            ("e IS NULL", "1"),
            ("array_distance(e, [0.1, -2, 300]) < 0.001", "1"),
            ("cosine_distance(e, e) < 0.001", "2"),
            ("other = CAST('00000000-0000-0000-0000-00000000000a' AS UUID)", "1"),
            ("made > now() - INTERVAL '1 day' AND at IS NOT NULL", "3"),
        ] {
            let found = server.rows(&format!("SELECT count(*) FROM t WHERE {condition}")).await?;
            assert_eq!(found, json!([[count]]), "{round}: {condition}");
        }
        match round {
            "hot" => assert_eq!(server.flush("t").await?, "completed"),
            "cold" => {
                server
                    .sql(
                        "UPDATE t SET tm = '00:00:01', e = '[1,2,3]' WHERE id = '00000000-0000-0000-0000-000000000002'",
                    )
                    .await?;
                server
                    .sql("UPDATE t SET tm = NULL, e = NULL WHERE id = '00000000-0000-0000-0000-000000000002'")
                    .await?;
                assert_eq!(server.flush("t").await?, "completed");
                assert_eq!(server.compact("t").await?, "completed");
                server = Server::start_in(server.stop()?).await?;
            }
            _ => {}
        }
    }
    assert_eq!(server.sql("INSERT INTO t (tm) VALUES ('10:00') RETURNING id").await?["schema"][0]["data_type"], "Uuid");
    for (sql, part) in [
        ("INSERT INTO t (id) VALUES ('nonsense')", "column 'id' of type UUID: 'nonsense' is not a UUID"),
        ("INSERT INTO t (tm) VALUES ('25:00')", "column 'tm' of type TIME"),
        ("INSERT INTO t (e) VALUES ('[1, 2]')", "column 'e' of type EMBEDDING(3): it has 3 numbers, not 2"),
        ("INSERT INTO t (e) VALUES ([1, 2, NULL])", "holds no NULL"),
        ("INSERT INTO t (f) VALUES ('{}')", "column 'f' of type FILE"),
        ("UPDATE t SET other = 'x' || tm", "column 'other' of type UUID"),
        ("CREATE TABLE x (id INT PRIMARY KEY, e EMBEDDING(8193))", "1 to 8192"),
        ("CREATE TABLE x (id INT PRIMARY KEY, e EMBEDDING)", "says how many"),
        ("CREATE TABLE x (e EMBEDDING(2) PRIMARY KEY)", "can't be in a PRIMARY KEY"),
    ] {
        let answer = server.try_sql(sql).await?;
        answer.assert_refused(sql, 400, "INVALID_VALUE", part);
    }
    Ok(())
}

/// The far ends of every type, NULLs and NaN, as typed columns, computed, grouped and in lists.
#[tokio::test]
async fn extreme_values_are_exact() -> Result<()> {
    let server = Server::start().await?;
    server
        .sql("CREATE TABLE t (id BIGINT PRIMARY KEY, d DOUBLE, f REAL, m DECIMAL(38, 0), p NUMERIC(38, 38), ts TIMESTAMPTZ, day DATE, j JSONB)")
        .await?;
    let nines = "9".repeat(38);
    server
        .sql(&format!(
            "INSERT INTO t VALUES (-9223372036854775808, 'NaN', 'Infinity', {nines}, 0.{nines}, '9999-12-31 23:59:59.999999Z', '0001-01-01', '[1.0, 1e2, \"\\u0000\", {{\"a\": {{}}}}]'),
             (9223372036854775807, '-inf', 3.4028235e38, -{nines}, -0.{nines}, '0001-01-01 00:00:00-12:00', '9999-12-31', 'null'),
             (0, 5e-324, 0.1, 0, 0, 0, 0, '\"x\"')"
        ))
        .await?;
    let wanted = json!([
        [
            "-9223372036854775808",
            "NaN",
            "Infinity",
            nines,
            format!("0.{nines}"),
            253402300799999999i64,
            -719162,
            "[1.0, 1e2, \"\\u0000\", {\"a\": {}}]"
        ],
        ["0", 5e-324, 0.1, "0", "0.00000000000000000000000000000000000000", 0, 0, "\"x\""],
        [
            "9223372036854775807",
            "-Infinity",
            3.4028235e38,
            format!("-{nines}"),
            format!("-0.{nines}"),
            -62135553600000000i64,
            2932896,
            "null"
        ],
    ]);
    for round in ["hot", "cold"] {
        assert_eq!(server.rows("SELECT id, d, f, m, p, ts, day, j FROM t ORDER BY id").await?, wanted, "{round}");
        let union = server.sql("SELECT m FROM t UNION ALL SELECT m FROM t").await?;
        assert_eq!(union["schema"][0]["data_type"], json!({"Decimal": {"precision": 38, "scale": 0}}));
        assert_eq!(server.flush("t").await?, if round == "hot" { "completed" } else { "nothing" });
    }
    let computed = server
        .sql("SELECT [1, NULL, 3], named_struct('a', 1::BIGINT, 'b', ['x']), 1::SMALLINT, interval '1 day', X'00ff', 18446744073709551615, arrow_cast('a', 'Utf8View')")
        .await?;
    let names: Vec<_> =
        computed["schema"].as_array().unwrap().iter().map(|column| column["data_type"].clone()).collect();
    assert_eq!(names, ["Json", "Json", "SmallInt", "Text", "Bytes", "BigInt", "Text"]);
    let row = &computed["rows"][0];
    assert_eq!((&row[0], &row[1]), (&json!("[\"1\",null,\"3\"]"), &json!("{\"a\":\"1\",\"b\":[\"x\"]}")));
    assert_eq!((&row[4], &row[5], &row[6]), (&json!([0, 255]), &json!("18446744073709551615"), &json!("a")));
    Ok(())
}

/// Clients can read a reply only if each type in it has one of the protocol's names.
#[tokio::test]
async fn every_reply_names_types_that_clients_know() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, e EMBEDDING(2), tm TIME, u UUID, f FILE, dt DATETIME, m DECIMAL(5,1), y BYTES, j JSON)").await?;
    let plain = [
        "Boolean",
        "SmallInt",
        "Int",
        "BigInt",
        "Float",
        "Double",
        "Text",
        "Timestamp",
        "Date",
        "DateTime",
        "Time",
        "Json",
        "Bytes",
        "Uuid",
        "File",
    ];
    let known = |name: &serde_json::Value| match name {
        serde_json::Value::String(name) => plain.contains(&name.as_str()),
        object => {
            object["Embedding"].is_u64()
                || (object["Decimal"]["precision"].is_u64() && object["Decimal"]["scale"].is_u64())
        }
    };
    let mut statements: Vec<String> = [
        "SELECT * FROM t", "SELECT max(e), min(tm), max(u), count(*), sum(m), avg(m), max(dt), max(f) FROM t GROUP BY id",
        "EXPLAIN SELECT * FROM t", "EXPLAIN ANALYZE SELECT * FROM t", "DESCRIBE t", "DESCRIBE TABLE t HISTORY", "SHOW TABLES",
        "SHOW NAMESPACES", "SHOW STORAGES", "SHOW COLUMNS FROM t", "SHOW STATS FOR TABLE t", "SUBSCRIBE TO t",
        "SELECT array_agg(id), array_agg(e), now(), current_date, current_time, uuid(), NULL, 1.5, md5('x'), sha256('x') FROM t",
        "SELECT j -> 'a', j ->> 'a', arrow_cast(1, 'UInt8'), arrow_cast(1, 'Float16'), arrow_cast('a', 'Dictionary(Int32, Utf8)') FROM t",
        "SELECT * FROM information_schema.columns", "SELECT * FROM information_schema.tables",
    ]
    .map(str::to_owned)
    .into();
    for table in [
        "namespaces",
        "tables",
        "schemas",
        "columns",
        "users",
        "storages",
        "jobs",
        "flush_jobs",
        "stats",
        "cluster",
        "datatypes",
    ] {
        statements.push(format!("SELECT * FROM system.{table}"));
    }
    for sql in statements {
        let result = server.sql(&sql).await?;
        let columns = result["schema"].as_array().unwrap();
        let unknown: Vec<_> = columns.iter().filter(|column| !known(&column["data_type"])).collect();
        assert!(!columns.is_empty() && unknown.is_empty(), "{sql}: {unknown:?}");
    }
    Ok(())
}

/// The types of the columns of what the query answers.
async fn types_of(server: &Server, sql: &str) -> Result<Vec<Value>> {
    let result = server.sql(sql).await?;
    let columns = result["schema"].as_array().cloned().unwrap_or_default();
    Ok(columns.iter().map(|column| column["data_type"].clone()).collect())
}

#[tokio::test]
async fn types_stay_where_values_do() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, d DATETIME, u UUID, j JSON, f FILE, ts TIMESTAMP, s TEXT)").await?;
    server.sql("INSERT INTO t VALUES (1, '2024-01-01', '01920000-0000-7000-8000-000000000001', '{}', '{\"id\": \"f\"}', 5, 's')").await?;
    let kept = [
        "SELECT d AS a, u AS b, j AS c, f AS e FROM t",
        "SELECT x.* EXCLUDE (id) FROM (SELECT id, d, u, j, f FROM t) x",
        "WITH x AS (SELECT d, u, j, f FROM t), y AS (SELECT * FROM x) SELECT * FROM y WHERE d IS NOT NULL",
        "SELECT d, u, j, f FROM t UNION ALL SELECT d, u, j, f FROM t WHERE id = 2",
        "SELECT d, u, j, f FROM t UNION SELECT NULL, NULL, NULL, NULL",
        "SELECT d, u, j, f FROM t INTERSECT SELECT d, u, j, f FROM t",
        "SELECT min(d), max(u), min(j), max(f) FROM t",
        "SELECT first_value(d), last_value(u), min(j) AS m, max(f) FROM t GROUP BY id",
        "SELECT d, u, j, f FROM t GROUP BY d, u, j, f",
        "SELECT coalesce(d, d), nvl(u, NULL), nullif(j, 'x'), greatest(f, f) FROM t",
        "SELECT CASE WHEN id = 1 THEN d END, CASE id WHEN 1 THEN u ELSE u END, CASE WHEN true THEN j ELSE NULL END, f FROM t",
        "SELECT lag(d) OVER (ORDER BY id), lead(u) OVER (ORDER BY id), max(j) OVER (), first_value(f) OVER () FROM t",
        "SELECT (SELECT max(d) FROM t), (SELECT u FROM t), (SELECT j FROM t), (SELECT f FROM t)",
        "SELECT a.d, b.u, a.j, b.f FROM t a LEFT JOIN t b ON a.id = b.id + 1",
        "SELECT DISTINCT d, u, j, f FROM t ORDER BY 1 LIMIT 1",
        "WITH RECURSIVE r AS (SELECT d, u, j, f, 1 AS n FROM t UNION ALL SELECT d, u, coalesce(j, j), f, n + 1 FROM r WHERE n < 3)
         SELECT d, u, j, f FROM r",
        "UPDATE t SET s = s || 'x' RETURNING coalesce(d, d), CASE WHEN id = 1 THEN u END, nullif(j, 'x'), greatest(f, f)",
        "INSERT INTO t (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET s = 'x' RETURNING coalesce(d, NULL), nvl(u, NULL), least(j, j), f",
    ];
    for sql in kept {
        assert_eq!(types_of(&server, sql).await?, ["DateTime", "Uuid", "Json", "File"], "{sql}");
    }
    let changed = [
        "SELECT coalesce(d, ts), coalesce(u, s), coalesce(j, f), lower(u) FROM t",
        "SELECT d, u, j, f FROM t UNION ALL SELECT ts, s AS u, s AS j, s AS f FROM t",
        "SELECT CASE WHEN id = 1 THEN d ELSE ts END, CASE WHEN id = 1 THEN u ELSE 'none' END, j || '', f::TEXT FROM t",
        "SELECT max(ts), max(s), min(u || ''), string_agg(j, ',') FROM t",
        "WITH RECURSIVE r AS (SELECT ts, u, j, s FROM t UNION SELECT ts, s AS a, s AS b, u FROM t) SELECT * FROM r",
        "UPDATE t SET s = s || 'y' RETURNING coalesce(ts, ts), coalesce(u, s), j || '', f::TEXT",
    ];
    for sql in changed {
        assert_eq!(types_of(&server, sql).await?, ["Timestamp", "Text", "Text", "Text"], "{sql}");
    }
    Ok(())
}
