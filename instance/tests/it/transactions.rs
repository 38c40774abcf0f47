//! BEGIN … COMMIT within a request: reads, conflicts, refusals, and `kill -9` in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::server::{Folder, Server};

#[tokio::test]
async fn a_transaction_commits_several_tables_or_nothing() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE accounts (id INT PRIMARY KEY, balance BIGINT)").await?;
    server.sql("CREATE USER TABLE log (id BIGINT AUTO_INCREMENT PRIMARY KEY, line TEXT)").await?;
    server.sql("INSERT INTO accounts VALUES (1, 100), (2, 100), (3, 0)").await?;
    assert_eq!(server.flush("accounts").await?, "completed");
    let answer = server
        .try_sql(
            "BEGIN;
             UPDATE accounts SET balance = balance - 30 WHERE id = 1;
             UPDATE accounts SET balance = balance + 30 WHERE balance >= 100 AND id <> 1;
             DELETE FROM accounts WHERE id = 3;
             INSERT INTO log (line) SELECT 'balance ' || balance FROM accounts;
             SELECT id, balance FROM accounts ORDER BY id;
             SELECT balance FROM accounts WHERE id = 1;
             SELECT count(*), count(a.id) FROM log l LEFT JOIN accounts a ON l.line = 'balance ' || a.balance;
             COMMIT;
             SELECT count(*) FROM log",
        )
        .await?;
    let results = answer.body["results"].as_array().with_context(|| answer.body.to_string())?;
    let messages: Vec<_> = [0, 1, 4, 8].map(|at| results[at]["message"].as_str().unwrap_or_default()).into();
    assert_eq!(
        messages,
        ["Transaction begun", "Updated 1 row(s)", "Inserted 2 row(s)", "Transaction committed: 5 row(s)"]
    );
    assert!(results.iter().all(|result| result["row_count"].is_u64()));
    assert_eq!(results[5]["rows"], json!([[1, "70"], [2, "130"]]));
    assert_eq!(results[6]["rows"], json!([["70"]]));
    assert_eq!(results[7]["rows"], json!([["2", "2"]]));
    assert_eq!(results[9]["rows"], json!([["2"]]));
    let rolled = server.sql("BEGIN; DELETE FROM accounts; INSERT INTO log (line) VALUES ('x'); ROLLBACK").await?;
    assert_eq!(rolled["message"], "Transaction rolled back");
    let failed = server
        .try_sql("BEGIN; DELETE FROM accounts; INSERT INTO log (line) VALUES ('x'); INSERT INTO accounts VALUES (1, NULL), (1, NULL); COMMIT")
        .await?;
    assert_eq!((failed.status.as_u16(), &failed.body["error"]["code"]), (400, &json!("DUPLICATE_KEY")));
    assert!(failed.body["error"]["message"].as_str().context("message")?.starts_with("Statement 4 failed"));
    assert_eq!(server.rows("SELECT count(*) FROM log").await?, json!([["2"]]));
    assert_eq!(server.rows("SELECT id, balance FROM accounts ORDER BY id").await?, json!([[1, "70"], [2, "130"]]));
    Ok(())
}

#[tokio::test]
async fn what_a_transaction_cannot_do_is_refused_and_writes_nothing() -> Result<()> {
    let folder = Folder::new()?.with("KALAMDB_SQL_TRANSACTION_ROWS", "5");
    let server = Server::start_in(folder).await?;
    server.sql("CREATE TABLE t (id INT PRIMARY KEY)").await?;
    server.sql("CREATE STREAM TABLE s (id INT PRIMARY KEY) WITH (TTL_SECONDS = 60)").await?;
    let cases = [
        ("INSERT INTO t VALUES (1); BEGIN; INSERT INTO t VALUES (2)", "INVALID_TRANSACTION", "Statement 2 failed"),
        ("BEGIN; BEGIN; COMMIT", "INVALID_TRANSACTION", "still open"),
        ("INSERT INTO t VALUES (1); COMMIT", "INVALID_TRANSACTION", "no transaction"),
        ("ROLLBACK", "INVALID_TRANSACTION", "no transaction"),
        ("BEGIN; INSERT INTO t VALUES (1); CREATE TABLE x (id INT PRIMARY KEY); COMMIT", "INVALID_TRANSACTION", "DDL"),
        ("BEGIN; INSERT INTO t VALUES (1); STORAGE FLUSH TABLE t; COMMIT", "INVALID_TRANSACTION", "STORAGE FLUSH"),
        ("BEGIN; INSERT INTO t VALUES (1); INSERT INTO s VALUES (1); COMMIT", "INVALID_TRANSACTION", "STREAM"),
        ("BEGIN; INSERT INTO t VALUES (1); SELECT count(*) FROM s; COMMIT", "INVALID_TRANSACTION", "STREAM"),
        ("BEGIN; INSERT INTO t VALUES (1); SELECT * FROM s WHERE id = 1; COMMIT", "INVALID_TRANSACTION", "STREAM"),
        ("BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; COMMIT", "NOT_AVAILABLE", "SAVEPOINT"),
        (
            "BEGIN; INSERT INTO t SELECT value FROM generate_series(1, 4); INSERT INTO t VALUES (8), (9); COMMIT",
            "TOO_LARGE",
            "at most 5 rows",
        ),
    ];
    for (sql, code, part) in cases {
        let answer = server.try_sql(sql).await?;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["error"]["code"]),
            (400, &json!(code)),
            "{sql}: {}",
            answer.body
        );
        assert!(answer.body["error"]["message"].as_str().context("message")?.contains(part), "{sql}: {}", answer.body);
    }
    assert_eq!(server.rows("SELECT * FROM t").await?, json!([]));
    assert_eq!(server.rows("SELECT * FROM s").await?, json!([]));
    Ok(())
}

/// Many clients add to one counter, each by a transaction that it begins again on a conflict, or by single statements, which start over
/// by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_update_is_lost_and_conflicts_say_so() -> Result<()> {
    let server = Arc::new(Server::start().await?);
    server.sql("CREATE TABLE counters (id INT PRIMARY KEY, n BIGINT)").await?;
    server.sql("INSERT INTO counters VALUES (1, 0), (2, 0)").await?;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let server = Arc::clone(&server);
        tasks.push(tokio::spawn(async move {
            let (mut added, mut conflicts) = (0, 0);
            while added < 8 {
                // The second statement takes its time, so that transactions overlap.
                let sql = "BEGIN; UPDATE counters SET n = n + 1 WHERE id = 1;
                           SELECT count(*) FROM generate_series(1, 300000) WHERE value % 7 = 3; COMMIT";
                let answer = server.try_sql(sql).await?;
                match answer.body["error"]["code"].as_str() {
                    None => added += 1,
                    Some("TRANSACTION_CONFLICT") => {
                        anyhow::ensure!(answer.status.as_u16() == 409, "{}", answer.body);
                        conflicts += 1;
                    }
                    Some(_) => anyhow::bail!("{}", answer.body),
                }
                server.sql("UPDATE counters SET n = n + 1 WHERE id + 0 = 2").await?;
            }
            Ok::<_, anyhow::Error>((added, conflicts))
        }));
    }
    let (mut added, mut conflicts) = (0, 0);
    for task in tasks {
        let (more_added, more_conflicts) = task.await??;
        (added, conflicts) = (added + more_added, conflicts + more_conflicts);
    }
    assert!(conflicts > 0, "the transactions overlapped");
    let singles = (added + conflicts).to_string();
    assert_eq!(server.rows("SELECT n FROM counters ORDER BY id").await?, json!([[added.to_string()], [singles]]));
    Ok(())
}

/// Each transaction writes one batch of rows into two tables, and moves the sum of a third; after `kill -9` all of it or nothing is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_leaves_whole_transactions() -> Result<()> {
    let mut server = Server::start().await?;
    server.sql("CREATE TABLE a (batch BIGINT, n INT, PRIMARY KEY (batch, n))").await?;
    server.sql("CREATE USER TABLE b (batch BIGINT, n INT, PRIMARY KEY (batch, n))").await?;
    server.sql("CREATE TABLE total (id INT PRIMARY KEY, batches BIGINT)").await?;
    server.sql("INSERT INTO total VALUES (1, 0)").await?;
    for round in 0i64..4 {
        let running = Arc::new(server);
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for writer in 0i64..2 {
            tasks.push(tokio::spawn(write_batches(
                Arc::clone(&running),
                Arc::clone(&stop),
                round * 1_000_000 + writer * 100_000,
            )));
        }
        tokio::time::sleep(Duration::from_millis(500 + 230 * round.unsigned_abs())).await;
        let id = running.process_id().to_string();
        let killed = std::process::Command::new("kill").args(["-KILL", &id]).status()?;
        stop.store(true, Ordering::SeqCst);
        let mut acknowledged = Vec::new();
        for task in tasks {
            acknowledged.extend(task.await?);
        }
        anyhow::ensure!(killed.success() && !acknowledged.is_empty(), "round {round}: {acknowledged:?}");
        server = Server::start_in(Arc::into_inner(running).context("all tasks have ended")?.kill()?).await?;
        check_batches(&server, &acknowledged).await?;
        if round % 2 == 0 {
            server.flush("a").await?;
        }
    }
    Ok(())
}

/// Answers the batches that were acknowledged.
async fn write_batches(server: Arc<Server>, stop: Arc<AtomicBool>, first: i64) -> Vec<i64> {
    let mut acknowledged = Vec::new();
    for batch in first.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let rows = |from: i64, to: i64| (from..to).map(|n| format!("({batch}, {n})")).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "BEGIN; INSERT INTO a VALUES {}; INSERT INTO b VALUES {}; UPDATE total SET batches = batches + 1 WHERE id = 1; INSERT INTO a VALUES {}; COMMIT",
            rows(0, 20),
            rows(0, 30),
            rows(20, 40)
        );
        match server.try_sql(&sql).await {
            Ok(answer) if answer.status.is_success() => acknowledged.push(batch),
            Ok(answer) if answer.body["error"]["code"] == "TRANSACTION_CONFLICT" => {}
            _ => break,
        }
    }
    acknowledged
}

async fn check_batches(server: &Server, acknowledged: &[i64]) -> Result<()> {
    let torn = server
        .rows(
            "SELECT a.batch, a.rows, b.rows FROM (SELECT batch, count(*) AS rows FROM a GROUP BY batch) a
               FULL JOIN (SELECT batch, count(*) AS rows FROM b GROUP BY batch) b ON a.batch = b.batch
               WHERE coalesce(a.rows, 0) <> 40 OR coalesce(b.rows, 0) <> 30",
        )
        .await?;
    assert_eq!(torn, json!([]), "transactions are whole");
    let batches = server.rows("SELECT count(DISTINCT batch) FROM a").await?;
    assert_eq!(server.rows("SELECT batches FROM total").await?, batches);
    let known = server.rows("SELECT DISTINCT batch FROM a").await?.to_string();
    for batch in acknowledged {
        assert!(known.contains(&format!("\"{batch}\"")), "batch {batch} was acknowledged");
    }
    Ok(())
}
