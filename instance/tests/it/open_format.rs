//! Other engines read a table's folder with no instance running, and see exactly its flushed, live rows.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::server::{Folder, Server};

/// Enough flushes for a checkpoint, and compactions among them, with rows of every type overwritten and deleted in between.
#[tokio::test]
async fn duckdb_and_delta_rs_see_exactly_the_flushed_rows() -> Result<()> {
    let Ok(python) = std::env::var("KALAMDB_TEST_PYTHON") else {
        eprintln!("skipped: KALAMDB_TEST_PYTHON names no Python that has duckdb, duckdb-extension-delta and deltalake");
        return Ok(());
    };
    let server = Server::start().await?;
    let columns = "id,b,s,i,l,d,m,v,y,ts,day,j,dt,tm,u,e,f";
    server
        .sql(
            "CREATE TABLE t (id INT PRIMARY KEY, b BOOLEAN, s SMALLINT, i INT, l BIGINT, d DOUBLE, m DECIMAL(20, 4),
             v TEXT, y BYTES, ts TIMESTAMP, day DATE, j JSON, dt DATETIME, tm TIME, u UUID, e EMBEDDING(2), f FILE)",
        )
        .await?;
    for round in 0..13 {
        let first = round * 4;
        let row = |id: i32| {
            format!(
                "({id}, {}, {round}, {id}, {}, {id}.5, 12345678901234.5678, 'é{round}', '\\x00ff',
                 '2024-02-29 12:30:00.00000{}', '1969-12-31', '{{\"a\": {id}}}', '2024-02-29 12:30:00', '00:00:{:02}.5',
                 '01920000-0000-7000-8000-{id:012}', '[{id}.5, -{id}]', '{{\"id\": \"{id}\"}}')",
                id % 2 == 0,
                i64::MAX - i64::from(id),
                round % 10,
                id % 60,
            )
        };
        let rows: Vec<String> = (first..first + 4).map(row).collect();
        server
            .sql(&format!("INSERT INTO t VALUES {}; INSERT INTO t (id) VALUES ({})", rows.join(","), -1 - round))
            .await?;
        server.sql(&format!("UPDATE t SET v = 'again', l = NULL WHERE id % 9 = {}", round % 9)).await?;
        server.sql(&format!("DELETE FROM t WHERE id % 11 = {}", round % 11)).await?;
        ensure!(server.flush("t").await? == "completed", "round {round}");
        if round % 5 == 4 {
            ensure!(server.compact("t").await? != "failed", "round {round}");
        }
    }
    // TIME is a number to others.
    let own = columns.replace(",tm,", ",CAST(arrow_cast(tm, 'Int64') AS BIGINT) AS tm,");
    let wanted = sorted(server.rows(&format!("SELECT {own} FROM t")).await?)?;
    let folder = server.stop()?;
    let read = read(&python, &table_folder(&folder)?, columns)?;
    for engine in ["duckdb", "delta-rs"] {
        assert_eq!(read[engine], wanted, "{engine}");
    }
    Ok(())
}

/// A compaction brings old rows what they read in columns that came later, and the present schema. It applies no mask: of rows that were
/// changed since the last flush, others see what was flushed.
#[tokio::test]
async fn duckdb_and_delta_rs_see_altered_columns_in_all_rows_once_they_were_compacted() -> Result<()> {
    let Ok(python) = std::env::var("KALAMDB_TEST_PYTHON") else { return Ok(()) };
    let server = Server::start_in(Folder::new()?.with("KALAMDB_COMPACTION_AUTOMATIC", "false")).await?;
    server
        .sql(
            "CREATE TABLE t (id INT PRIMARY KEY, v INT, m DECIMAL(6, 2), s SMALLINT, f FLOAT, gone TEXT);
             INSERT INTO t VALUES (1, 10, 1.5, 1, 0.5, 'a'), (2, 20, 2.5, 2, 1.5, 'b'), (3, 30, 3.5, 3, NULL, 'c')",
        )
        .await?;
    assert_eq!(server.flush("t").await?, "completed");
    let alters = [
        "RENAME COLUMN v TO n",
        "MODIFY COLUMN n BIGINT",
        "ADD COLUMN w DOUBLE NOT NULL DEFAULT 0.25",
        "DROP COLUMN gone",
        "MODIFY COLUMN m DECIMAL(20, 4)",
        "ADD COLUMN gone INT DEFAULT 7",
        "MODIFY COLUMN s TEXT",
        "MODIFY COLUMN f DOUBLE",
        "MODIFY COLUMN id BIGINT",
        "MODIFY COLUMN n INT",
    ];
    for (round, alter) in alters.into_iter().enumerate() {
        server.sql(&format!("ALTER TABLE t {alter}")).await?;
        server.sql(&format!("INSERT INTO t (id) VALUES ({}), ({})", 10 + 2 * round, 11 + 2 * round)).await?;
        server.sql(&format!("DELETE FROM t WHERE id = {}", 9 + 2 * round)).await?;
        server.sql("UPDATE t SET m = m + 1 WHERE id = 2").await?;
        assert_eq!(server.flush("t").await?, "completed", "{alter}");
        if round % 4 == 3 {
            assert_eq!(server.compact("t").await?, "completed", "{alter}");
        }
    }
    server.sql("ALTER TABLE t ADD COLUMN last TEXT DEFAULT 'é'").await?;
    // A narrowed column keeps its wider type in files.
    let wanted = sorted(server.rows("SELECT id, CAST(n AS BIGINT), m, s, f, w, gone, last FROM t").await?)?;
    server.sql("UPDATE t SET m = 0, last = 'hot' WHERE id < 12; DELETE FROM t WHERE id = 1").await?;
    assert_eq!(server.compact("t").await?, "completed");
    assert_eq!(server.compact("t").await?, "nothing");
    let folder = server.stop()?;
    let read = read(&python, &table_folder(&folder)?, "id,n,m,s,f,w,gone,last")?;
    for engine in ["duckdb", "delta-rs"] {
        assert_eq!(read[engine], wanted, "{engine}");
    }
    Ok(())
}

/// Columns that got other types are filtered by other engines as by KalamDB: rows of older files have NULL in them, until a compaction. Only
/// integers that stay integers are there at once.
#[tokio::test]
async fn duckdb_and_delta_rs_filter_columns_of_other_types_rightly() -> Result<()> {
    let Ok(python) = std::env::var("KALAMDB_TEST_PYTHON") else { return Ok(()) };
    let folder = Folder::new()?.with("KALAMDB_COMPACTION_AUTOMATIC", "false");
    let mut server = Server::start_in(folder).await?;
    server
        .sql(
            "CREATE TABLE t (id INT PRIMARY KEY, r INT, e INT, d DECIMAL(5, 2), f FLOAT, b SMALLINT);
             INSERT INTO t VALUES (1, -1, 0, 1.25, 0.1, 1), (2, 0, 1, 1.26, 0.5, 2), (3, 1, -1, 1.24, -0.1, 30000)",
        )
        .await?;
    assert_eq!(server.flush("t").await?, "completed");
    for to in ["r DECIMAL(12, 2)", "e DOUBLE", "d DECIMAL(12, 6)", "f DOUBLE", "b BIGINT"] {
        server.sql(&format!("ALTER TABLE t MODIFY COLUMN {to}")).await?;
    }
    server.sql("INSERT INTO t VALUES (11, 0.5, 0.25, 1.254, 0.1, 40000), (12, -0.5, 0.75, 1.25, 0.3, 1)").await?;
    assert_eq!(server.flush("t").await?, "completed");
    let altered = [
        "r >= -0.5",
        "r = 0.5",
        "r < 1",
        "e < 0.5",
        "e >= 0.25",
        "d = 1.254",
        "d = 1.25",
        "d > 1.2401",
        "f > 0.1",
        "f <= 0.1",
        "f = 0.5",
    ];
    let filters: Vec<_> = altered.into_iter().chain(["b > 1", "b = 1", "b >= 30000", "b < 40000"]).collect();
    for compacted in [false, true] {
        if compacted {
            assert_eq!(server.compact("t").await?, "completed");
        }
        let mut wanted = Vec::new();
        for filter in &filters {
            let is_absent = !compacted && altered.contains(filter);
            let own = if is_absent { "AND id > 10" } else { "" };
            wanted.push(sorted(server.rows(&format!("SELECT id FROM t WHERE {filter} {own}")).await?)?);
        }
        let folder = server.stop()?;
        let read = read_filtered(&python, &table_folder(&folder)?, "id", &filters)?;
        for (filter, wanted) in filters.iter().zip(wanted) {
            for engine in ["duckdb", "delta-rs"] {
                assert_eq!(read["filtered"][filter][engine], wanted, "{engine}: {filter}, compacted: {compacted}");
            }
        }
        server = Server::start_in(folder).await?;
    }
    Ok(())
}

/// The folder of the only table.
fn table_folder(folder: &Folder) -> Result<PathBuf> {
    let tables = folder.data.path().join("data/cold/tables");
    let mut found = std::fs::read_dir(&tables)?.collect::<std::io::Result<Vec<_>>>()?;
    ensure!(found.len() == 1, "{} holds {} tables", tables.display(), found.len());
    Ok(found.remove(0).path())
}

fn read(python: &str, table: &Path, columns: &str) -> Result<Value> {
    read_filtered(python, table, columns, &[])
}

fn read_filtered(python: &str, table: &Path, columns: &str, filters: &[&str]) -> Result<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_delta.py");
    let output = std::process::Command::new(python).arg(script).arg(table).arg(columns).args(filters).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("what the script printed")
}

/// In the order in which the script sorts.
fn sorted(rows: Value) -> Result<Value> {
    let mut rows = rows.as_array().context("rows")?.clone();
    rows.sort_by_key(python_json);
    Ok(json!(rows))
}

/// As Python's `json.dumps` writes it: a space behind each comma, other characters than ASCII escaped.
fn python_json(row: &Value) -> String {
    let cells = row.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |cell: &Value| match cell {
        Value::Array(bytes) => format!("[{}]", bytes.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")),
        other => other.to_string().replace('é', "\\u00e9"),
    };
    format!("[{}]", cells.iter().map(text).collect::<Vec<_>>().join(", "))
}
