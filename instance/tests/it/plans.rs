//! What a plan shows of tables whose rows belong to single users.

use anyhow::Result;
use serde_json::json;

use crate::server::{Folder, Server};

async fn plan(server: &Server, token: &str, sql: &str) -> Result<String> {
    Ok(server.sql_as(token, sql).await?["rows"].to_string())
}

/// What ANALYZE tells of files.
const HIDDEN: [&str; 5] = ["parquet", "file_groups", "pruned", "bytes_scanned", "rows_hidden"];

/// The rows that each node of the plan gave.
fn rows_counted(plan: &str) -> Vec<String> {
    plan.split("output_rows=").skip(1).filter_map(|rest| rest.split(',').next()).map(str::to_owned).collect()
}

/// A USER table in two files, with rows of ann and of bob, and a SHARED one.
async fn with_files() -> Result<(Server, String, String)> {
    let server = Server::start_in(Folder::new()?.with("KALAMDB_COMPACTION_AUTOMATIC", "false")).await?;
    server
        .sql(
            "CREATE USER TABLE own (id INT PRIMARY KEY, n INT, v TEXT); CREATE SHARED TABLE news (id INT PRIMARY KEY, n INT) WITH (ACCESS_LEVEL = PUBLIC);
             INSERT INTO news VALUES (1, 700011), (2, 700066); CREATE USER ann WITH PASSWORD 'the-password-of-ann';
             CREATE USER bob WITH PASSWORD 'the-password-of-bob' ROLE service",
        )
        .await?;
    let (ann, bob) =
        (server.login("ann", "the-password-of-ann").await?, server.login("bob", "the-password-of-bob").await?);
    for at in 0..2 {
        server.sql_as(&ann, &format!("INSERT INTO own VALUES ({at}, {}, '1')", 700011 + at)).await?;
        server
            .sql_as(
                &bob,
                &format!(
                    "INSERT INTO own VALUES ({at}, {}, 'bob-secret'), (5, 700066, 'x') ON CONFLICT DO NOTHING",
                    700065 + at
                ),
            )
            .await?;
        assert_eq!(server.flush("own").await?, "completed");
    }
    assert_eq!(server.flush("news").await?, "completed");
    Ok((server, ann, bob))
}

#[tokio::test]
async fn a_plan_tells_nothing_of_other_users_rows() -> Result<()> {
    let (server, ann, bob) = with_files().await?;
    let queries = [
        "SELECT id FROM own WHERE n = $n",
        "SELECT count(*) FROM own WHERE n = $n GROUP BY v ORDER BY v LIMIT 3",
        "SELECT o.id FROM news s JOIN own o ON o.id = s.id WHERE o.n = $n",
        "SELECT id FROM news WHERE id IN (SELECT id FROM own WHERE n = $n)",
        "SELECT id FROM own WHERE _deleted = true AND n = $n",
    ];
    for token in [&ann, &bob] {
        for query in queries {
            for verb in ["EXPLAIN", "EXPLAIN VERBOSE", "DESCRIBE"] {
                let mut plans = Vec::new();
                // One is ann's, one is bob's, one is nobody's and between them, one is beyond all.
                for number in ["700011", "700066", "700040", "700099"] {
                    let sql = format!("{verb} {}", query.replace("$n", number));
                    plans.push(plan(&server, token, &sql).await?.replace(number, "N"));
                }
                assert!(plans.iter().all(|plan| *plan == plans[0]), "{verb} {query}: {plans:#?}");
            }
            for verb in ["EXPLAIN ANALYZE", "EXPLAIN ANALYZE VERBOSE"] {
                let mut counted = Vec::new();
                for number in ["700040", "700030", "700099"] {
                    let shown = plan(&server, token, &format!("{verb} {}", query.replace("$n", number))).await?;
                    assert!(!shown.contains("_user_id"), "{shown}");
                    if query.contains("news") {
                        continue;
                    }
                    assert!(HIDDEN.iter().all(|word| !shown.contains(word)), "{shown}");
                    counted.push(rows_counted(&shown));
                }
                assert!(
                    counted.iter().all(|rows| !rows.is_empty() && *rows == counted[0]),
                    "{verb} {query}: {counted:?}"
                );
            }
        }
        let shared = plan(&server, token, "EXPLAIN SELECT id FROM news WHERE n = 700011").await?;
        assert!(shared.contains("file_groups"), "whose rows all are read by all: {shared}");
    }
    let shown = plan(&server, &server.token, "EXPLAIN SELECT id FROM own WHERE n = 700066").await?;
    assert!(shown.contains("file_groups"), "from DBA on: {shown}");
    Ok(())
}

#[tokio::test]
async fn a_condition_never_meets_other_users_values() -> Result<()> {
    let (server, ann, _) = with_files().await?;
    for (sql, expected) in [
        ("SELECT id FROM own WHERE CAST(v AS INT) = 1 ORDER BY id", json!([[0], [1]])),
        ("SELECT id FROM own WHERE CAST(v AS INT) = 1 AND n = 700012", json!([[1]])),
        ("SELECT id FROM own WHERE 10 / (n - 700066) < 1 AND CAST(v AS INT) + 1 = 2 ORDER BY id", json!([[0], [1]])),
        ("SELECT max(CAST(v AS INT)) FROM own WHERE 100 / (700065 - n) > 0", json!([[1]])),
    ] {
        assert_eq!(server.sql_as(&ann, sql).await?["rows"], expected, "{sql}");
    }
    Ok(())
}
