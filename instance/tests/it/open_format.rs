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
    let columns = "id,b,s,i,l,d,m,v,y,ts,day,j";
    server
        .sql(
            "CREATE TABLE t (id INT PRIMARY KEY, b BOOLEAN, s SMALLINT, i INT, l BIGINT, d DOUBLE, m DECIMAL(20, 4),
             v TEXT, y BYTES, ts TIMESTAMP, day DATE, j JSON)",
        )
        .await?;
    for round in 0..13 {
        let first = round * 4;
        let row = |id: i32| {
            format!(
                "({id}, {}, {round}, {id}, {}, {id}.5, 12345678901234.5678, 'é{round}', '\\x00ff',
                 '2024-02-29 12:30:00.00000{}', '1969-12-31', '{{\"a\": {id}}}')",
                id % 2 == 0,
                i64::MAX - i64::from(id),
                round % 10,
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
    let wanted = sorted(server.rows(&format!("SELECT {columns} FROM t")).await?)?;
    let folder = server.stop()?;
    let read = read(&python, &table_folder(&folder)?, columns)?;
    for engine in ["duckdb", "delta-rs"] {
        assert_eq!(read[engine], wanted, "{engine}");
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
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_delta.py");
    let output = std::process::Command::new(python).arg(script).arg(table).arg(columns).output()?;
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
