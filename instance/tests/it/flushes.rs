//! Hot and cold rows read as one table, after any mix of writes, flushes and restarts.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::server::{Folder, SCHEDULER_TOKEN, Server};

#[tokio::test]
async fn reads_combine_hot_and_cold_after_any_mix_of_changes() -> Result<()> {
    let mut server = Server::start().await?;
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT, n INT)").await?;
    server.sql("INSERT INTO t SELECT value, 'first', 0 FROM generate_series(1, 100)").await?;
    assert_eq!(server.flush("t").await?, "completed");
    assert_eq!(server.flush("t").await?, "nothing");
    server.sql("UPDATE t SET v = 'second', n = n + 1 WHERE id <= 30").await?;
    server.sql("DELETE FROM t WHERE id BETWEEN 91 AND 100").await?;
    server.sql("INSERT INTO t VALUES (95, 'again', 5), (101, 'new', 7)").await?;
    let check = async |server: &Server, when: &str| -> Result<()> {
        let rows = server.rows("SELECT v, count(*), sum(n) FROM t GROUP BY v ORDER BY v").await?;
        let expected = json!([["again", "1", "5"], ["first", "60", "0"], ["new", "1", "7"], ["second", "30", "30"]]);
        assert_eq!(rows, expected, "{when}");
        assert_eq!(server.rows("SELECT v FROM t WHERE id = 95").await?, json!([["again"]]), "{when}");
        assert_eq!(server.rows("SELECT v FROM t WHERE id = 96").await?, json!([]), "{when}");
        assert_eq!(
            server.rows("SELECT id FROM t WHERE id > 50 ORDER BY id DESC LIMIT 2").await?,
            json!([["101"], ["95"]]),
            "{when}"
        );
        let clash = server.try_sql("INSERT INTO t VALUES (50, 'twice', 0)").await?;
        assert_eq!(clash.body["error"]["code"], "DUPLICATE_KEY", "{when}: a key in the cold tier is a key");
        Ok(())
    };
    check(&server, "hot over cold").await?;
    server = Server::start_in(server.stop()?).await?;
    check(&server, "after a restart").await?;
    assert_eq!(server.flush("t").await?, "completed");
    check(&server, "all flushed").await?;
    server = Server::start_in(server.kill()?).await?;
    check(&server, "after kill -9").await?;
    Ok(())
}

#[tokio::test]
async fn a_compaction_by_statement_changes_no_row_and_stands_among_the_jobs() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT)").await?;
    assert_eq!(server.compact("t").await?, "nothing", "it was never flushed");
    for round in 0..3 {
        server.sql(&format!("INSERT INTO t SELECT value * 3 + {round}, 'v' FROM generate_series(1, 50)")).await?;
        server.sql("DELETE FROM t WHERE id = 6").await?;
        assert_eq!(server.flush("t").await?, "completed");
    }
    server.sql("UPDATE t SET v = 'masked' WHERE id < 10").await?;
    let rows = server.rows("SELECT * FROM t ORDER BY id").await?;
    assert_eq!(server.compact("t").await?, "completed");
    assert_eq!(server.rows("SELECT * FROM t ORDER BY id").await?, rows, "_seq too");
    assert_eq!(server.compact("t").await?, "nothing");
    assert_eq!(server.sql("STORAGE COMPACT ALL").await?["message"], "Nothing to compact");
    let jobs =
        "SELECT job_type, count(*) FROM system.jobs WHERE status = 'completed' GROUP BY job_type ORDER BY job_type";
    assert_eq!(server.rows(jobs).await?, json!([["compact", "1"], ["flush", "3"]]));
    let parameters = server.rows("SELECT parameters FROM system.jobs WHERE job_type = 'compact'").await?;
    assert_eq!(parameters, json!([["{\"reason\":\"statement\",\"table_id\":\"default.t\"}"]]));
    assert_eq!(server.rows("SELECT count(*) FROM system.flush_jobs").await?, json!([["3"]]));
    let server = Server::start_in(server.kill()?).await?;
    assert_eq!(server.rows("SELECT * FROM t ORDER BY id").await?, rows, "after kill -9");
    Ok(())
}

#[tokio::test]
async fn rows_of_many_users_share_a_cold_table_and_stay_apart() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE USER TABLE notes (id INT PRIMARY KEY, body TEXT)").await?;
    let mut tokens = Vec::new();
    for user in ["ann", "bob", "cy"] {
        server.sql(&format!("CREATE USER {user} WITH PASSWORD 'pass-of-{user}'")).await?;
        let token = server.login(user, &format!("pass-of-{user}")).await?;
        server.sql_as(&token, &format!("INSERT INTO notes VALUES (1, '{user} 1'), (2, '{user} 2')")).await?;
        tokens.push(token);
    }
    assert_eq!(server.flush("notes").await?, "completed");
    server.sql_as(&tokens[1], "DELETE FROM notes WHERE id = 1").await?;
    server.sql_as(&tokens[2], "UPDATE notes SET body = 'changed' WHERE body LIKE '%2'").await?;
    let expected = [json!([["ann 1"], ["ann 2"]]), json!([["bob 2"]]), json!([["cy 1"], ["changed"]])];
    for (token, expected) in tokens.iter().zip(expected) {
        assert_eq!(server.sql_as(token, "SELECT body FROM notes ORDER BY id").await?["rows"], expected);
    }
    Ok(())
}

/// Nobody can schedule where there is no token: the table's own policy is kept all the same.
#[tokio::test]
async fn an_instance_alone_keeps_its_flush_policies() -> Result<()> {
    let server = Server::start_in(Folder::new()?.with("KALAMDB_SCHEDULER_TOKEN", "")).await?;
    server.sql("CREATE TABLE t (id INT PRIMARY KEY) WITH (FLUSH_POLICY = 'rows:5')").await?;
    server.sql("INSERT INTO t VALUES (1), (2), (3), (4)").await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(server.rows("SELECT count(*) FROM system.jobs").await?, json!([["0"]]), "four rows are not due");
    server.sql("INSERT INTO t VALUES (5)").await?;
    let begun = std::time::Instant::now();
    while server.rows("SELECT count(*) FROM system.jobs WHERE status = 'completed'").await? != json!([["1"]]) {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(30), "no flush came");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_job_id_stands_for_one_table() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE a (id INT PRIMARY KEY); CREATE TABLE b (id INT PRIMARY KEY)").await?;
    server.sql("INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)").await?;
    let job = |table: &str| json!({"id": "one", "table": table, "reason": "rows"});
    assert_eq!(server.post("/v1/api/flush-jobs", SCHEDULER_TOKEN, &job("default.a")).await?.status(), 202);
    let other = server.post("/v1/api/flush-jobs", SCHEDULER_TOKEN, &job("default.b")).await?;
    assert_eq!(other.status(), 409);
    assert!(other.text().await?.contains("default.a"), "the error names the table that has the id");
    Ok(())
}

/// Bounds of files are cut short: they must hold the whole text all the same.
#[tokio::test]
async fn a_flushed_key_is_found_whatever_its_text() -> Result<()> {
    let server = Server::start().await?;
    let key = format!("{}\u{10FFFF}b", "a".repeat(32));
    server.sql("CREATE TABLE t (k TEXT PRIMARY KEY)").await?;
    server.sql(&format!("INSERT INTO t VALUES ('{key}')")).await?;
    assert_eq!(server.flush("t").await?, "completed");
    let twice = server.try_sql(&format!("INSERT INTO t VALUES ('{key}')")).await?;
    assert_eq!(twice.body["error"]["code"], "DUPLICATE_KEY", "{}", twice.body);
    assert_eq!(server.rows(&format!("SELECT count(*) FROM t WHERE k = '{key}'")).await?, json!([["1"]]));
    Ok(())
}

/// NaN is the greatest value of all, in both tiers.
#[tokio::test]
async fn not_a_number_compares_the_same_hot_and_flushed() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, d DOUBLE, f FLOAT)").await?;
    server.sql("INSERT INTO t VALUES (1, 1, 1), (2, 2, 2), (3, 'NaN', 'NaN'), (4, NULL, NULL)").await?;
    let mut answers = Vec::new();
    for _ in 0..2 {
        for condition in ["d > 5", "d <= 5", "f > 5", "f <= 5", "d IS NULL", "d = 2", "d <> 2", "f IS NOT NULL"] {
            answers.push(server.rows(&format!("SELECT id FROM t WHERE {condition} ORDER BY id")).await?);
        }
        server.flush("t").await?;
    }
    let (hot, cold) = answers.split_at(8);
    assert_eq!(hot, cold);
    assert_eq!(hot[0], json!([[3]]));
    Ok(())
}
