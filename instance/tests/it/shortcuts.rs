//! Statements answer the same with every shortcut as with none: by key or planned, with a plan of their own or one that others used.

use std::collections::HashMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::server::{Folder, Server};

const TABLES: [&str; 5] = [
    "CREATE NAMESPACE other",
    "CREATE SHARED TABLE items (id BIGINT PRIMARY KEY, n INT, t TEXT DEFAULT 'x', d DECIMAL(10,2), at TIMESTAMP, ok BOOLEAN NOT NULL DEFAULT true)",
    "CREATE SHARED TABLE pairs (a TEXT, b SMALLINT, note TEXT, PRIMARY KEY (a, b))",
    "CREATE USER TABLE own (id INT PRIMARY KEY, t TEXT NOT NULL)",
    "CREATE SHARED TABLE other.items (id BIGINT PRIMARY KEY, name TEXT)",
];

/// In this order: each works on what those before have left.
fn statements() -> Vec<Value> {
    let plain = [
        // Rows, by their keys and not.
        "INSERT INTO items (id, n) VALUES (1, 10), (2, NULL), (3, 30)",
        "INSERT INTO items VALUES (4, 40, '', 1.005, '2024-02-29 12:00:00', false)",
        "INSERT INTO items (id, n) VALUES (5, 1 + 1), (6, DEFAULT)",
        "INSERT INTO items (id) VALUES (1)",
        "INSERT INTO items (id) VALUES (7), (7)",
        "INSERT INTO items (id, n) VALUES (8, 'many')",
        "INSERT INTO items (id, ok) VALUES (9, NULL)",
        "INSERT INTO items (id, id) VALUES (9, 9)",
        "INSERT INTO items (id, missing) VALUES (9, 9)",
        "INSERT INTO items VALUES (9)",
        "INSERT INTO missing VALUES (1)",
        "INSERT INTO pairs VALUES ('a', 1, 'one'), ('a', 2, NULL), ('b', 1, 'x''y')",
        "INSERT INTO own VALUES (1, 'mine')",
        // Reads by key.
        "SELECT id, n, t, d, at, ok FROM items WHERE id = 1",
        "SELECT id, n FROM items WHERE id = 99",
        "SELECT n FROM items WHERE id = NULL",
        "SELECT n AS \"N\", t FROM items i WHERE i.id = 2",
        "SELECT items.n, default.items.t FROM items WHERE 3 = id",
        "SELECT n, n FROM items WHERE id = 1",
        "SELECT n + 1 FROM items WHERE id = 1",
        "SELECT n FROM items WHERE id = '1'",
        "SELECT n FROM items WHERE id = 1.0",
        "SELECT n FROM items WHERE id = 1 AND id = 2",
        "SELECT n FROM items WHERE id = 1 AND n = 10",
        "SELECT n FROM items WHERE id = -1",
        "SELECT n FROM items WHERE id = 9223372036854775808",
        "SELECT missing FROM items WHERE id = 1",
        "SELECT n FROM missing WHERE id = 1",
        "SELECT note FROM pairs WHERE a = 'a' AND b = 1",
        "SELECT note FROM pairs WHERE b = 2 AND a = 'a'",
        "SELECT note FROM pairs WHERE a = 'a' AND b = 70000",
        "SELECT note FROM pairs WHERE a = 'a'",
        "SELECT note FROM pairs WHERE a = 1 AND b = 1",
        "SELECT t FROM own WHERE id = 1",
        "SELECT t FROM own WHERE id = 1 LIMIT 0",
        "SELECT name FROM other.items WHERE id = 1",
        // Reads that are planned.
        "SELECT count(*), sum(n), min(t), max(d) FROM items",
        "SELECT id, n FROM items WHERE n > 5 ORDER BY n DESC NULLS LAST LIMIT 2",
        "SELECT i.id, p.note FROM items i JOIN pairs p ON i.id = p.b ORDER BY 1, 2",
        "SELECT id FROM items WHERE id IN (SELECT b FROM pairs) ORDER BY id",
        "WITH items AS (SELECT 1 AS id) SELECT * FROM items",
        "SELECT id FROM items WHERE false",
        "SELECT t, count(*) FROM items GROUP BY t HAVING count(*) > 1 ORDER BY t",
        "SELECT 1 / 0",
        "SELECT id / (n - 10) FROM items ORDER BY id",
        "SELECT CURRENT_USER, CURRENT_ROLE()",
        "SELECT table_name, version FROM system.tables ORDER BY 1, 2",
        "SELECT name, table_count FROM system.namespaces ORDER BY name",
        "SELECT count(*) FROM information_schema.columns WHERE table_name = 'items'",
        "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) v (n, t) ORDER BY n",
        "SELECT id FROM items UNION ALL SELECT b FROM pairs ORDER BY 1",
        "SELEC 1",
        "SELECT FROM",
        // Changes by key and not.
        "UPDATE items SET n = 11 WHERE id = 1",
        "UPDATE items SET n = 11 WHERE id = 1",
        "UPDATE items SET n = n + 1 WHERE id = 1",
        "UPDATE items SET n = 'x' WHERE id = 1",
        "UPDATE items SET n = 'x' WHERE id = 99",
        "UPDATE items SET ok = NULL WHERE id = 1",
        "UPDATE items SET id = 2 WHERE id = 1",
        "UPDATE items SET id = 100 WHERE id = 1",
        "UPDATE items SET missing = 1 WHERE id = 1",
        "UPDATE items SET n = 1, n = 2 WHERE id = 100",
        "UPDATE items SET t = 'all' WHERE n > 0",
        // New values that are computed of the row whose key is named.
        "UPDATE items SET n = n * 2 - id, t = t || '-' || n, d = d + 0.005 WHERE id = 4",
        "UPDATE items SET n = 2147483647 + n WHERE id = 4",
        "UPDATE items SET n = n / 0 WHERE id = 4",
        "UPDATE items SET n = n / 0 WHERE id = 99",
        "UPDATE items SET n = n + 'x' WHERE id = 4",
        "UPDATE items SET n = n + '2' WHERE id = 4",
        "UPDATE items SET n = 1 + NULL, t = upper(t) WHERE items.id = 2",
        "UPDATE items AS i SET n = coalesce(i.n, 5) WHERE i.id = 2",
        "UPDATE items AS i SET n = items.n + 1 WHERE i.id = 2",
        "UPDATE items SET n = items.n + 1, t = CASE WHEN ok THEN 'yes' END WHERE id = 2",
        "UPDATE items SET n = default.items.n + 1 WHERE id = 2",
        "UPDATE items SET n = other.items.id WHERE id = 2",
        "UPDATE items SET n = missing + 1 WHERE id = 2",
        "UPDATE items SET n = missing + 1 WHERE id = 99",
        "UPDATE items SET n = count(*) WHERE id = 2",
        "UPDATE items SET n = (SELECT max(b) FROM pairs) WHERE id = 2",
        "UPDATE items SET n = CASE WHEN _seq > 0 AND NOT _deleted THEN 7 ELSE n END WHERE id = 2",
        "UPDATE items SET at = at + INTERVAL '1 day', ok = NOT ok WHERE id = 4",
        "UPDATE items SET at = at::DATE WHERE id = 4",
        "UPDATE items SET at = t WHERE id = 4",
        "UPDATE items SET d = n, n = d WHERE id = 4",
        "UPDATE items SET d = 123456789.1 + id WHERE id = 4",
        "UPDATE items SET ok = nullif(ok, ok) WHERE id = 2",
        "UPDATE items SET t = CURRENT_USER WHERE id = 2",
        "UPDATE items SET id = id + 1000, n = n + 1 WHERE id = 4",
        "UPDATE items SET id = id - 1000 WHERE id = 1004",
        "UPDATE items SET id = id - 2 WHERE id = 4",
        "UPDATE items SET n = n + 1 WHERE id = 4 RETURNING id, n, n + 1 AS next",
        "UPDATE own SET t = t || id WHERE id = 1 RETURNING t",
        "SELECT id, n, t, d, at, ok FROM items ORDER BY id",
        "UPDATE pairs SET note = 'z' WHERE a = 'a' AND b = 2",
        "DELETE FROM items WHERE id = 3",
        "DELETE FROM items WHERE id = 3",
        "DELETE FROM items WHERE id = NULL",
        "DELETE FROM items WHERE id = 'three'",
        "DELETE FROM missing WHERE id = 3",
        "DELETE FROM pairs WHERE a = 'a'",
        "SELECT id, n, t, d, at, ok FROM items ORDER BY id",
        "SELECT a, b, note FROM pairs ORDER BY a, b",
        // What was planned before is not what is there now.
        "ALTER TABLE items ADD COLUMN extra INT DEFAULT 5",
        "SELECT id FROM items WHERE false",
        "SELECT id, n, t, d, at, ok, extra FROM items ORDER BY id",
        "ALTER TABLE items RENAME COLUMN n TO m",
        "SELECT count(*), sum(n), min(t), max(d) FROM items",
        "SELECT id, m FROM items WHERE id = 2",
        "ALTER TABLE items MODIFY COLUMN m BIGINT",
        "SELECT id, m FROM items WHERE m > 5 ORDER BY id",
        "DROP TABLE pairs",
        "SELECT a, b, note FROM pairs ORDER BY a, b",
        "CREATE SHARED TABLE pairs (a TEXT PRIMARY KEY, b BIGINT, note INT)",
        "SELECT a, b, note FROM pairs ORDER BY a, b",
        "SELECT table_name, version FROM system.tables ORDER BY 1, 2",
    ];
    let with = |sql: &str, params: Value| json!({"sql": sql, "params": params});
    let mut all: Vec<Value> = plain.iter().map(|sql| json!({"sql": sql})).collect();
    all.extend([json!({"sql": "SELECT name FROM items WHERE id = 1", "namespace_id": "other"})]);
    for value in [
        json!(2),
        json!("2"),
        json!(2.0),
        json!(2.5),
        json!(null),
        json!(true),
        json!("two"),
        json!(9007199254740993i64),
    ] {
        for sql in [
            "SELECT id, m FROM items WHERE id = $1",
            "SELECT id, m FROM items WHERE m >= $1 ORDER BY id",
            "SELECT id FROM items WHERE t = $1",
            "SELECT id FROM items WHERE d < $1 ORDER BY id",
            "SELECT id FROM items WHERE at > $1",
            "SELECT id FROM items WHERE id IN ($1, 4) ORDER BY id",
            "SELECT id FROM items WHERE id BETWEEN $1 AND 5 ORDER BY id",
            "SELECT $1, id FROM items ORDER BY id LIMIT 1",
            "SELECT $1 || t FROM items ORDER BY id",
            "SELECT count(*) FROM items WHERE t LIKE $1",
            "SELECT id FROM items ORDER BY id LIMIT $1",
            "SELECT CASE WHEN id > $1 THEN 'more' ELSE t END FROM items ORDER BY id",
            "SELECT $1 + $1",
            "SELECT max(id) FROM items GROUP BY id % $1 ORDER BY 1",
            "SELECT * FROM (VALUES ($1)) v (x)",
            "INSERT INTO own VALUES (50, $1)",
            "UPDATE own SET t = $1 WHERE id = 50",
            "UPDATE items SET m = $1 WHERE id = 4",
            "UPDATE items SET m = m + $1 WHERE id = 4",
            "UPDATE items SET t = t || $1, d = d - $1 WHERE id = 4",
            "UPDATE items SET m = CASE WHEN m > $1 THEN m ELSE id END WHERE id = 4",
            "UPDATE items SET t = concat($1, '/', m) WHERE id = $1",
            "SELECT id, m, t, d FROM items ORDER BY id",
            "DELETE FROM own WHERE id = $1",
            "DELETE FROM own WHERE id = 50",
        ] {
            all.push(with(sql, json!([value])));
        }
    }
    all.push(with("SELECT id FROM items WHERE id = $2", json!([1])));
    all.push(with("SELECT id FROM items WHERE m > $1 AND id = $2", json!([0, 2])));
    all.push(with("SELECT id FROM items", json!([1])));
    all.push(with("SELECT 1; SELECT 2", json!([1])));
    all
}

async fn prepared(shortcuts: bool) -> Result<Server> {
    let server = Server::start_in(Folder::new()?.with("KALAMDB_SQL_SHORTCUTS", shortcuts.to_string())).await?;
    for sql in TABLES {
        server.sql(sql).await?;
    }
    Ok(server)
}

/// The reply but for its time.
async fn reply(server: &Server, request: &Value) -> Result<(u16, Value)> {
    let mut answer = server.request_as(&server.token, request).await?;
    answer.body["took"].take();
    Ok((answer.status.as_u16(), answer.body))
}

#[tokio::test]
async fn every_statement_answers_the_same_with_shortcuts_as_without() -> Result<()> {
    let (short, long) = (prepared(true).await?, prepared(false).await?);
    let mut failed = 0;
    for request in statements() {
        let expected = reply(&long, &request).await?;
        assert_eq!(reply(&short, &request).await?, expected, "{request}");
        if request["sql"].as_str().context("sql")?.starts_with("SELECT") {
            // Now by what the first one left.
            assert_eq!(reply(&short, &request).await?, expected, "the second time: {request}");
        }
        failed += u32::from(expected.0 != 200);
    }
    assert!(failed > 30, "the corpus has errors of all sorts in it, not {failed}");
    let used = caches(&short).await?;
    for (cache, least) in [("schema", 50), ("query", 3), ("statement", 50), ("plan", 20)] {
        assert!(used[&(cache.to_owned(), "hits".to_owned())] >= least, "cache {cache} was used: {used:?}");
    }
    assert!(caches(&long).await?.is_empty());
    Ok(())
}

/// `kalamdb_cache_*` by cache and figure.
async fn caches(server: &Server) -> Result<HashMap<(String, String), u64>> {
    let mut found = HashMap::new();
    for line in server.metrics().await?.lines() {
        let Some(rest) = line.strip_prefix("kalamdb_cache_") else { continue };
        let (figure, rest) = rest.split_once("{cache=\"").context("a label")?;
        let (cache, value) = rest.split_once("\"} ").context("a value")?;
        let figure = figure.trim_end_matches("_total");
        found.insert((cache.to_owned(), figure.to_owned()), value.parse::<f64>()? as u64);
    }
    Ok(found)
}

#[tokio::test]
async fn a_text_that_is_sent_again_is_neither_parsed_nor_planned_again() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, n INT)").await?;
    server.sql("INSERT INTO t VALUES (1, 1), (2, 2)").await?;
    let of = |found: &HashMap<(String, String), u64>, cache: &str, figure: &str| {
        found[&(cache.to_owned(), figure.to_owned())]
    };
    let before = caches(&server).await?;
    for number in 0..20 {
        let request = json!({"sql": "SELECT count(*) FROM t WHERE n > $1", "params": [number]});
        let answer = server.request_as(&server.token, &request).await?;
        assert_eq!(answer.body["results"][0]["rows"], json!([[(2i32 - number).max(0).to_string()]]), "{number}");
    }
    let after = caches(&server).await?;
    for cache in ["statement", "plan"] {
        let grown = |figure| of(&after, cache, figure) - of(&before, cache, figure);
        assert_eq!((grown("misses"), grown("hits")), (1, 19), "{cache}");
    }
    // Grants and DDL come between: another user's rights and another table are found out at each statement.
    server.sql("CREATE USER eve WITH PASSWORD 'long enough 1' ROLE user").await?;
    let eve = server.login("eve", "long enough 1").await?;
    let request = json!({"sql": "SELECT count(*) FROM t WHERE n > $1", "params": [0]});
    assert_eq!(server.request_as(&eve, &request).await?.status.as_u16(), 403);
    server.sql("ALTER TABLE t SET ACCESS LEVEL PUBLIC").await?;
    assert_eq!(server.request_as(&eve, &request).await?.body["results"][0]["rows"], json!([["2"]]));
    server.sql("ALTER TABLE t SET ACCESS LEVEL PRIVATE").await?;
    assert_eq!(server.request_as(&eve, &request).await?.status.as_u16(), 403);
    Ok(())
}

#[tokio::test]
async fn a_plan_that_one_user_made_shows_another_user_its_own_rows() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE USER TABLE notes (id INT PRIMARY KEY, t TEXT)").await?;
    let mut tokens = Vec::new();
    for user in ["ann", "bob"] {
        server.sql(&format!("CREATE USER {user} WITH PASSWORD 'long enough 1' ROLE user")).await?;
        tokens.push(server.login(user, "long enough 1").await?);
        server.sql_as(&tokens[tokens.len() - 1], &format!("INSERT INTO notes VALUES (1, 'of {user}')")).await?;
    }
    for _ in 0..3 {
        for (user, token) in ["ann", "bob"].iter().zip(&tokens) {
            let found = server.sql_as(token, "SELECT t, CURRENT_USER FROM notes ORDER BY t").await?;
            assert_eq!(found["rows"], json!([[format!("of {user}"), user]]));
            let found = server.sql_as(token, "SELECT t FROM notes ORDER BY t").await?;
            assert_eq!(found["rows"], json!([[format!("of {user}")]]));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_is_seen_however_many_ask_meanwhile() -> Result<()> {
    let server = std::sync::Arc::new(Server::start().await?);
    let tables = "SELECT table_name, version FROM system.tables WHERE table_name = 't'";
    let namespaces = "SELECT table_count FROM system.namespaces WHERE name = 'default'";
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    // These keep the caches full of what is being made stale.
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let (server, over) = (server.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(std::sync::atomic::Ordering::SeqCst) {
                    server.rows(tables).await?;
                    server.rows(namespaces).await?;
                    server.try_sql("SELECT * FROM t WHERE c0 > 0").await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for round in 0..12 {
        server.sql("CREATE TABLE t (c0 BIGINT PRIMARY KEY)").await?;
        assert_eq!(server.rows(tables).await?, json!([["t", 1]]), "round {round}");
        assert_eq!(server.rows(namespaces).await?, json!([[1]]), "round {round}");
        server.sql(&format!("ALTER TABLE t ADD COLUMN round_{round} INT")).await?;
        assert_eq!(server.rows(tables).await?, json!([["t", 2]]), "round {round}");
        server.sql("INSERT INTO t VALUES (1, 2)").await?;
        let found = server.sql("SELECT * FROM t WHERE c0 > 0").await?;
        assert_eq!(found["schema"][1]["name"], format!("round_{round}"), "{found}");
        assert_eq!(found["row_count"], 1);
        let job = server.sql("STORAGE FLUSH TABLE t").await?;
        let id = job["message"].as_str().and_then(|text| text.split_once("Job ID: ")).context("a job")?.1.to_owned();
        let jobs = server.rows(&format!("SELECT job_id FROM system.jobs WHERE job_id = '{id}'")).await?;
        assert_eq!(jobs, json!([[id]]));
        assert_eq!(server.job_end(&id).await?, "completed");
        server.sql("DROP TABLE t").await?;
        assert_eq!(server.rows(tables).await?, json!([]), "round {round}");
        assert_eq!(server.rows(namespaces).await?, json!([[0]]), "round {round}");
    }
    over.store(true, std::sync::atomic::Ordering::SeqCst);
    for reader in readers {
        reader.await??;
    }
    Ok(())
}
