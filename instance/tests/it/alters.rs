//! ALTER TABLE in all its forms, over rows that are hot, flushed, and both.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::server::{Folder, Server};

/// Where the rows lie when the table is altered.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tiers {
    Hot,
    Cold,
    Both,
}

/// Three rows in `default.t`: two old ones, of which the second is masked where both tiers hold rows.
async fn filled(columns: &str, rows: [&str; 3], tiers: Tiers) -> Result<Server> {
    // A compaction would write the old files anew, with the columns that they lack.
    let server = Server::start_in(Folder::new()?.with("KALAMDB_COMPACTION_AUTOMATIC", "false")).await?;
    server.sql(&format!("CREATE TABLE t (id INT PRIMARY KEY, {columns})")).await?;
    server.sql(&format!("INSERT INTO t VALUES (1, {}), (2, {})", rows[0], rows[1])).await?;
    if tiers != Tiers::Hot {
        assert_eq!(server.flush("t").await?, "completed");
    }
    if tiers == Tiers::Both {
        server.sql("DELETE FROM t WHERE id = 2").await?;
        server.sql(&format!("INSERT INTO t VALUES (2, {})", rows[1])).await?;
    }
    server.sql(&format!("INSERT INTO t VALUES (3, {})", rows[2])).await?;
    if tiers == Tiers::Cold {
        assert_eq!(server.flush("t").await?, "completed");
    }
    Ok(server)
}

/// The same answers as they are, after a flush, and after a restart.
async fn check(mut server: Server, queries: &[(&str, Value)], when: &str) -> Result<()> {
    for round in ["at once", "flushed", "restarted"] {
        match round {
            "flushed" => drop(server.flush("t").await?),
            "restarted" => server = Server::start_in(server.stop()?).await?,
            _ => {}
        }
        for (sql, expected) in queries {
            assert_eq!(server.rows(sql).await?, *expected, "{sql}, {when}, {round}");
        }
    }
    Ok(())
}

async fn refused(server: &Server, sql: &str, code: &str, part: &str) -> Result<()> {
    let answer = server.try_sql(sql).await?;
    ensure!(!answer.status.is_success(), "{sql} was taken");
    assert_eq!(answer.body["error"]["code"], code, "{sql}: {}", answer.body);
    let message = answer.body["error"]["message"].as_str().context("message")?;
    assert!(message.contains(part), "{sql}: {message}");
    Ok(())
}

#[tokio::test]
async fn an_added_column_reads_its_default_in_rows_that_are_older() -> Result<()> {
    for tiers in [Tiers::Hot, Tiers::Cold, Tiers::Both] {
        let server = filled("v TEXT", ["'a'", "'b'", "'c'"], tiers).await?;
        let altered = server.sql("ALTER TABLE t ADD COLUMN n INT NOT NULL DEFAULT 7").await?;
        assert_eq!((&altered["message"], &altered["row_count"]), (&json!("Table 'default.t' altered"), &json!(0)));
        server.sql("ALTER SHARED TABLE default.t ADD COLUMN IF NOT EXISTS n TEXT").await?;
        server.sql("ALTER TABLE t ADD at TIMESTAMP DEFAULT NOW()").await?;
        server.sql("ALTER TABLE t ALTER COLUMN n SET DEFAULT 8").await?;
        server.sql("INSERT INTO t (id, v) VALUES (4, 'd')").await?;
        server.sql("UPDATE t SET v = 'B' WHERE id = 2").await?;
        server.sql("ALTER TABLE t ALTER n DROP DEFAULT").await?;
        refused(&server, "INSERT INTO t (id) VALUES (5)", "NOT_NULL_VIOLATION", "'n'").await?;
        server.sql("ALTER TABLE t ALTER COLUMN n DROP NOT NULL").await?;
        server.sql("INSERT INTO t (id) VALUES (5)").await?;
        let queries = [
            (
                "SELECT id, v, n FROM t ORDER BY id",
                json!([[1, "a", 7], [2, "B", 7], [3, "c", 7], [4, "d", 8], [5, null, null]]),
            ),
            ("SELECT n FROM t WHERE id = 1", json!([[7]])),
            ("SELECT id FROM t WHERE n = 7 ORDER BY id", json!([[1], [2], [3]])),
            ("SELECT count(DISTINCT at), count(at) FROM t WHERE id < 4", json!([["1", "3"]])),
            ("SELECT DISTINCT schema_version FROM system.schemas WHERE is_latest", json!([[6]])),
        ];
        check(server, &queries, &format!("{tiers:?}")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_dropped_column_is_gone_and_its_name_is_free_for_a_new_one() -> Result<()> {
    for tiers in [Tiers::Hot, Tiers::Cold, Tiers::Both] {
        let server = filled("v INT, w TEXT", ["10, 'a'", "20, 'b'", "30, 'c'"], tiers).await?;
        server.sql("ALTER TABLE t DROP COLUMN v").await?;
        server.sql("ALTER TABLE t DROP COLUMN IF EXISTS v").await?;
        refused(&server, "SELECT v FROM t", "INVALID_SQL", "v").await?;
        refused(&server, "ALTER TABLE t DROP COLUMN v", "NOT_FOUND", "column 'default.t.v' does not exist").await?;
        server.sql("ALTER TABLE t ADD COLUMN v INT").await?;
        server.sql("ALTER TABLE t RENAME COLUMN w TO label").await?;
        server.sql("ALTER TABLE t RENAME COLUMN id TO number").await?;
        server.sql("INSERT INTO t VALUES (4, 'd', 40)").await?;
        server.sql("UPDATE t SET v = 1 WHERE number = 1").await?;
        let queries = [
            (
                "SELECT number, label, v FROM t ORDER BY number",
                json!([[1, "a", 1], [2, "b", null], [3, "c", null], [4, "d", 40]]),
            ),
            ("SELECT number FROM t WHERE v = 10 OR v = 20", json!([])),
            ("SELECT label FROM t WHERE number = 3", json!([["c"]])),
            ("SELECT number FROM t WHERE label = 'b'", json!([[2]])),
        ];
        check(server, &queries, &format!("{tiers:?}")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_modified_column_reads_as_a_cast_of_what_it_held() -> Result<()> {
    for tiers in [Tiers::Hot, Tiers::Cold, Tiers::Both] {
        let columns = "s SMALLINT, i INT, f FLOAT, m DECIMAL(6, 2), b BOOLEAN, k INT DEFAULT 5";
        let rows = ["1, 10, 1.5, 1.50, true, 1", "2, 20, 2.5, 2.50, false, 2", "3, 30, NULL, -0.05, NULL, 3"];
        let server = filled(columns, rows, tiers).await?;
        for alter in [
            "MODIFY COLUMN s INT",
            "MODIFY i BIGINT",
            "MODIFY COLUMN f DOUBLE",
            "ALTER COLUMN m SET DATA TYPE DECIMAL(20, 4)",
            "ALTER COLUMN m TYPE TEXT",
            "MODIFY COLUMN b TEXT",
            "MODIFY COLUMN k SMALLINT NOT NULL DEFAULT 6",
            "MODIFY COLUMN id BIGINT",
        ] {
            server.sql(&format!("ALTER TABLE t {alter}")).await?;
        }
        server.sql("INSERT INTO t (id, s, i, f, m, b) VALUES (5000000000, 40000, 5000000000, 0.1, 'x', 'y')").await?;
        refused(&server, "INSERT INTO t VALUES (1, 0, 0, 0, '', '', 0)", "DUPLICATE_KEY", "(1)").await?;
        let queries = [
            (
                "SELECT id, s, i, f, m, b, k FROM t ORDER BY id",
                json!([
                    ["1", 1, "10", 1.5, "1.5000", "true", 1],
                    ["2", 2, "20", 2.5, "2.5000", "false", 2],
                    ["3", 3, "30", null, "-0.0500", null, 3],
                    ["5000000000", 40000, "5000000000", 0.1, "x", "y", 6],
                ]),
            ),
            ("SELECT s FROM t WHERE id = 2", json!([[2]])),
            ("SELECT id FROM t WHERE i = 20", json!([["2"]])),
            ("SELECT id FROM t WHERE i > 25 ORDER BY id", json!([["3"], ["5000000000"]])),
            ("SELECT id FROM t WHERE f = 1.5", json!([["1"]])),
            ("SELECT id FROM t WHERE m = '2.5000'", json!([["2"]])),
            ("SELECT id FROM t WHERE b = 'true'", json!([["1"]])),
            ("SELECT id FROM t WHERE k = 3", json!([["3"]])),
        ];
        check(server, &queries, &format!("{tiers:?}")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_rows_contradict_is_refused_and_taken_once_they_are_mended() -> Result<()> {
    for tiers in [Tiers::Hot, Tiers::Cold, Tiers::Both] {
        let server = filled("v BIGINT, d DOUBLE", ["1, 0.5", "5000000000, 0.1", "NULL, 1"], tiers).await?;
        let set = "ALTER TABLE t ALTER COLUMN v SET NOT NULL";
        refused(&server, set, "NOT_NULL_VIOLATION", "it is NULL in the row with the key (3)").await?;
        let narrow = "ALTER TABLE t MODIFY COLUMN v INT";
        refused(&server, narrow, "INVALID_VALUE", "for its value in the row with the key (2) does not fit").await?;
        refused(&server, "ALTER TABLE t MODIFY d FLOAT", "INVALID_VALUE", "the row with the key (2)").await?;
        refused(&server, "ALTER TABLE t ADD n INT NOT NULL", "NOT_NULL_VIOLATION", "give it a DEFAULT").await?;
        server.sql("UPDATE t SET v = 2, d = 0.25 WHERE id = 2; UPDATE t SET v = 3 WHERE id = 3").await?;
        server.sql(set).await?;
        server.sql(narrow).await?;
        server.sql("ALTER TABLE t MODIFY d FLOAT").await?;
        refused(&server, "INSERT INTO t VALUES (4, NULL, 0)", "NOT_NULL_VIOLATION", "'v'").await?;
        refused(&server, "UPDATE t SET v = 5000000000 WHERE id = 1", "INVALID_VALUE", "out of range").await?;
        let queries = [
            ("SELECT id, v, d FROM t ORDER BY id", json!([[1, 1, 0.5], [2, 2, 0.25], [3, 3, 1.0]])),
            ("SELECT id FROM t WHERE v = 2", json!([[2]])),
            ("SELECT d FROM t WHERE id = 1", json!([[0.5]])),
        ];
        check(server, &queries, &format!("{tiers:?}")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_can_not_be_altered_is_refused_with_a_way_out() -> Result<()> {
    let server = filled("v TEXT DEFAULT 'x'", ["'a'", "'b'", "'c'"], Tiers::Hot).await?;
    server.sql("CREATE USER TABLE mine (id INT PRIMARY KEY)").await?;
    for (alter, code, part) in [
        ("t DROP COLUMN id", "SQL_EXECUTION_ERROR", "INSERT INTO … SELECT"),
        ("t MODIFY COLUMN id TEXT", "SQL_EXECUTION_ERROR", "SMALLINT, INT and BIGINT only"),
        ("t MODIFY COLUMN v INT", "SQL_EXECUTION_ERROR", "UPDATE default.t SET new_v = CAST(v AS INT)"),
        ("t ADD COLUMN v INT", "ALREADY_EXISTS", "column 'default.t.v' already exists"),
        ("t ADD COLUMN _v INT", "INVALID_VALUE", "'_v'"),
        ("t ADD COLUMN k INT PRIMARY KEY", "INVALID_VALUE", "the PRIMARY KEY of table 'default.t' is fixed"),
        ("t RENAME COLUMN v TO id", "ALREADY_EXISTS", "already exists"),
        ("t RENAME COLUMN none TO other", "NOT_FOUND", "column 'default.t.none' does not exist"),
        ("t ALTER COLUMN id DROP NOT NULL", "SQL_EXECUTION_ERROR", "never NULL"),
        ("t ALTER COLUMN v SET DEFAULT SNOWFLAKE_ID", "INVALID_VALUE", "DEFAULT"),
        ("none ADD COLUMN v INT", "NOT_FOUND", "table 'default.none' does not exist"),
        ("mine SET ACCESS LEVEL PUBLIC", "SQL_EXECUTION_ERROR", "for SHARED tables"),
        ("t SET ACCESS LEVEL everybody", "INVALID_VALUE", "PUBLIC, PRIVATE, RESTRICTED or DBA"),
        ("t PAINT IT black", "INVALID_SQL", "Expected: ADD, DROP, RENAME, MODIFY or ALTER COLUMN"),
    ] {
        refused(&server, &format!("ALTER TABLE {alter}"), code, part).await?;
    }
    refused(&server, "ALTER USER TABLE t ADD COLUMN n INT", "INVALID_VALUE", "is a shared table").await?;
    server.sql("ALTER TABLE IF EXISTS none ADD COLUMN v INT").await?;
    assert_eq!(server.rows("SELECT version FROM system.tables WHERE table_name = 't'").await?, json!([[1]]));
    server.sql("CREATE USER ann WITH PASSWORD 'pass-of-ann' ROLE user").await?;
    let token = server.login("ann", "pass-of-ann").await?;
    let answer = server.request_as(&token, &json!({"sql": "ALTER TABLE mine ADD COLUMN v INT"})).await?;
    assert_eq!(answer.body["error"]["code"], "PERMISSION_DENIED", "{}", answer.body);
    Ok(())
}

#[tokio::test]
async fn every_version_stays_in_the_catalog() -> Result<()> {
    let server = filled("v INT", ["1", "2", "3"], Tiers::Cold).await?;
    server.sql("ALTER TABLE t ADD COLUMN w TEXT DEFAULT 'x'").await?;
    server.sql("ALTER TABLE t DROP COLUMN v").await?;
    server.sql("ALTER TABLE t SET ACCESS LEVEL PUBLIC").await?;
    let server = Server::start_in(server.stop()?).await?;
    let history = server.sql("DESCRIBE TABLE t HISTORY").await?;
    let shown: Vec<_> = history["rows"]
        .as_array()
        .context("rows")?
        .iter()
        .map(|row| json!([row[8], row[1], row[0], row[2], row[3], row[6]]))
        .collect();
    let expected = json!([
        [1, 1, "id", 1, "INT", null],
        [1, 2, "v", 2, "INT", null],
        [2, 1, "id", 1, "INT", null],
        [2, 2, "v", 2, "INT", null],
        [2, 3, "w", 3, "TEXT", "'x'"],
        [3, 1, "id", 1, "INT", null],
        [3, 2, "w", 3, "TEXT", "'x'"],
        [4, 1, "id", 1, "INT", null],
        [4, 2, "w", 3, "TEXT", "'x'"],
    ]);
    assert_eq!(json!(shown), expected);
    let schemas = "SELECT schema_version, is_latest, columns, options FROM system.schemas WHERE table_id = 'default:t' ORDER BY 1";
    let rows = server.rows(schemas).await?;
    let versions: Vec<_> = rows.as_array().context("rows")?.iter().map(|row| json!([row[0], row[1]])).collect();
    assert_eq!(json!(versions), json!([[1, false], [2, false], [3, false], [4, true]]));
    assert!(rows[2][3].as_str().context("options")?.contains("private"), "{rows}");
    assert!(rows[3][3].as_str().context("options")?.contains("public"), "{rows}");
    assert!(rows[0][2].as_str().context("columns")?.contains("\"v\""), "{rows}");
    assert_eq!(server.rows("DESCRIBE t").await?.as_array().context("rows")?.len(), 2);
    assert_eq!(server.rows("SHOW COLUMNS FROM t").await?.as_array().context("rows")?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn an_acknowledged_alter_outlives_kill_minus_nine() -> Result<()> {
    let mut server = Server::start_in(Folder::new()?).await?;
    server.sql("CREATE TABLE t (id INT PRIMARY KEY)").await?;
    server.sql("INSERT INTO t VALUES (1)").await?;
    for round in 0..6 {
        if round % 2 == 1 {
            server.sql("STORAGE FLUSH TABLE t").await?;
        }
        server.sql(&format!("ALTER TABLE t ADD COLUMN c{round} INT NOT NULL DEFAULT {round}")).await?;
        server = Server::start_in(server.kill()?).await?;
        let columns: String = (0..=round).map(|column| format!(", c{column}")).collect();
        let row = server.rows(&format!("SELECT id{columns} FROM t")).await?;
        let expected: Vec<_> = [1].into_iter().chain(0..=round).collect();
        assert_eq!(row, json!([expected]), "round {round}");
    }
    Ok(())
}

/// What other engines see after the next flush: the present schema, and the rows that were flushed.
#[tokio::test]
async fn other_engines_follow_the_schema() -> Result<()> {
    let columns = "v INT, w TEXT, m DECIMAL(6, 2), t SMALLINT";
    let server = filled(columns, ["10, 'a', 1.5, 1", "20, 'b', 2.5, 2", "30, 'c', 3.5, 3"], Tiers::Cold).await?;
    for alter in [
        "RENAME COLUMN v TO number",
        "MODIFY COLUMN number BIGINT",
        "MODIFY COLUMN m DECIMAL(20, 4)",
        "DROP COLUMN w",
        "ADD COLUMN w INT NOT NULL DEFAULT 9",
        "MODIFY COLUMN t TEXT",
        "MODIFY COLUMN id BIGINT",
    ] {
        server.sql(&format!("ALTER TABLE t {alter}")).await?;
    }
    server.sql("INSERT INTO t VALUES (4, 5000000000, 1.2345, 'four', 40)").await?;
    server.sql("DELETE FROM t WHERE id = 2").await?;
    assert_eq!(server.flush("t").await?, "completed");
    assert_eq!(
        server.rows("SELECT id, number, m, t, w FROM t ORDER BY id").await?,
        json!([
            ["1", "10", "1.5000", "1", 9],
            ["3", "30", "3.5000", "3", 9],
            ["4", "5000000000", "1.2345", "four", 40],
        ])
    );
    let folder = server.stop()?;
    let Ok(python) = std::env::var("KALAMDB_TEST_PYTHON") else { return Ok(()) };
    let tables = folder.data.path().join("data/cold/tables");
    let table =
        std::fs::read_dir(&tables).with_context(|| format!("{}", tables.display()))?.next().context("a table")??;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_altered.py");
    let read = std::process::Command::new(python).arg(script).arg(table.path()).output()?;
    ensure!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let read: BTreeMap<String, Value> = serde_json::from_slice(&read.stdout)?;
    // Old files lack the columns that came later; one of another type is such a column, unless both are integers.
    let expected =
        json!([[1, 10, null, null, null], [3, 30, null, null, null], [4, 5_000_000_000i64, "1.2345", "four", 40]]);
    for engine in ["duckdb", "delta-rs"] {
        assert_eq!(read[engine], expected, "{engine}");
        assert_eq!(read[&format!("{engine} filtered")], json!([[3]]), "{engine}");
    }
    Ok(())
}
