//! Attempts to break out of values, names, options and roles: each must be a plain value, or a refusal, and change and show nothing.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::server::{Folder, Server};

/// What stands in the table that only service accounts may read; in no answer to anybody else may it appear.
const SECRET: &str = "the-crown-jewels";
const ANN: &str = "pass-of-ann";

/// Texts that end strings, names, comments, statements or documents where somebody pastes them.
const PAYLOADS: [&str; 22] = [
    "'; DROP TABLE vault; --",
    "' OR '1'='1",
    "' OR 1=1 /*",
    "x' UNION SELECT secret FROM vault --",
    "\\'; DELETE FROM vault; --",
    "\"; DROP TABLE vault; --",
    "\" OR \"\"=\"",
    "`; DROP TABLE vault; --",
    "$$; DROP TABLE vault; $$",
    "E'\\'; DROP TABLE vault; --",
    "$1",
    "$2; DELETE FROM vault",
    "?",
    "); DROP TABLE vault; --",
    "*/ DELETE FROM vault; /*",
    "1; DELETE FROM vault WHERE 1=1",
    "%' OR secret LIKE '%",
    "root'--",
    "\u{ff07} OR 1=1 --",
    "\u{2bc}; DROP TABLE vault; --",
    "a\u{0}'; DROP TABLE vault; --",
    "{\"$ne\": null}\n'; DROP TABLE vault; --",
];

struct World {
    server: Server,
    ann: String,
    before: Value,
}

impl World {
    async fn new() -> Result<Self> {
        let server = Server::start_in(Folder::new()?.with("KALAMDB_AUTH_REQUESTS_PER_SECOND", "1000")).await?;
        server
            .sql(&format!(
                "CREATE SHARED TABLE vault (id INT PRIMARY KEY, secret TEXT); INSERT INTO vault VALUES (1, '{SECRET}');
                 CREATE SHARED TABLE news (id INT PRIMARY KEY, line TEXT) WITH (ACCESS_LEVEL = PUBLIC);
                 INSERT INTO news VALUES (1, 'public');
                 CREATE USER TABLE notes (id INT PRIMARY KEY, body TEXT, doc JSON);
                 INSERT INTO notes (id, body) VALUES (1, '{SECRET} of root');
                 CREATE USER ann WITH PASSWORD '{ANN}' ROLE user"
            ))
            .await?;
        let ann = server.login("ann", ANN).await?;
        let before = state(&server).await?;
        Ok(Self { server, ann, before })
    }

    /// Runs it as ann.
    async fn ask(&self, sql: &str, params: Value) -> Result<(u16, Value)> {
        let answer = self.server.request_as(&self.ann, &json!({"sql": sql, "params": params})).await?;
        assert!(!answer.body["results"].to_string().contains(SECRET), "{sql} {params} shows a secret: {}", answer.body);
        Ok((answer.status.as_u16(), answer.body))
    }

    async fn rows(&self, sql: &str, params: Value) -> Result<Value> {
        let (status, mut body) = self.ask(sql, params.clone()).await?;
        assert_eq!(status, 200, "{sql} {params}: {body}");
        Ok(body["results"][0]["rows"].take())
    }

    async fn assert_untouched(&self) -> Result<()> {
        assert_eq!(state(&self.server).await?, self.before, "something changed that nobody may change");
        Ok(())
    }
}

/// All that ann must not be able to change.
async fn state(server: &Server) -> Result<Value> {
    let mut all = Vec::new();
    for sql in [
        "SELECT user_id, role, email FROM system.users ORDER BY 1",
        "SELECT namespace_id, table_name, version, options FROM system.tables ORDER BY 1, 2",
        "SELECT name, options FROM system.namespaces ORDER BY 1",
        "SELECT * FROM vault",
        "SELECT * FROM news",
        "SELECT * FROM notes",
    ] {
        all.push(server.rows(sql).await?);
    }
    Ok(Value::from(all))
}

fn quoted(text: &str, quote: char) -> String {
    format!("{quote}{}{quote}", text.replace(quote, &quote.to_string().repeat(2)))
}

#[tokio::test]
async fn parameters_literals_and_documents_are_values_and_nothing_else() -> Result<()> {
    let world = World::new().await?;
    for (at, payload) in PAYLOADS.into_iter().enumerate() {
        let id = at + 10;
        let document = json!({ payload: {"inner": payload} }).to_string();
        world.rows("INSERT INTO notes VALUES ($1, $2, $3) RETURNING id", json!([id, payload, document])).await?;
        for (sql, params) in [
            ("SELECT body FROM notes WHERE id = $1", json!([id])),
            ("SELECT body FROM notes WHERE body = $1", json!([payload])),
            ("SELECT body FROM notes WHERE id + 0 = $1 AND body || '' = $2", json!([id, payload])),
            ("SELECT doc -> $1 ->> 'inner' FROM notes WHERE id = $2", json!([payload, id])),
            ("SELECT body FROM notes WHERE doc ? $1", json!([payload])),
            ("UPDATE notes SET body = $1 WHERE id = $2 AND body <> $1 OR id = $2 RETURNING $1", json!([payload, id])),
        ] {
            let rows = world.rows(sql, params).await?;
            if !sql.starts_with("UPDATE") {
                assert_eq!(rows, json!([[payload]]), "{sql}: {payload:?}");
            }
        }
        let literal = quoted(payload, '\'');
        let rows = world
            .rows(&format!("SELECT {literal}, (SELECT count(*) FROM notes WHERE body = {literal})"), json!([]))
            .await?;
        assert_eq!(rows, json!([[payload, "1"]]));
        // A text where a number belongs is compared with nothing, and never with everything.
        let (status, body) = world.ask("SELECT id FROM notes WHERE id = $1", json!([payload])).await?;
        assert!(status == 400 || body["results"][0]["rows"] == json!([]), "{payload:?}: {body}");
        for refused in ["INSERT INTO notes (id) VALUES ($1)", "UPDATE notes SET id = $1", "UPDATE notes SET doc = $1"] {
            let (status, body) = world.ask(refused, json!([payload])).await?;
            assert_eq!(status, 400, "{refused} {payload:?}: {body}");
        }
        let deleted = world.rows("DELETE FROM notes WHERE body = $1 RETURNING id", json!([payload])).await?;
        assert_eq!(deleted, json!([[id]]), "{payload:?}");
    }
    for params in [json!([{"$ne": null}]), json!([["1", "2"]]), json!({"id": 1}), json!("1")] {
        let (status, body) = world.ask("SELECT * FROM notes WHERE body = $1", params).await?;
        assert_eq!(status, 400, "{body}");
    }
    world.assert_untouched().await
}

#[tokio::test]
async fn names_and_options_are_never_pasted() -> Result<()> {
    let world = World::new().await?;
    let server = &world.server;
    for payload in PAYLOADS {
        let name = quoted(payload, '"');
        for sql in [
            format!("SELECT {name} FROM notes"),
            format!("SELECT * FROM {name}"),
            format!("SELECT * FROM {name}.{name}"),
            format!("SELECT id FROM notes ORDER BY {name}"),
            format!("SELECT {name}(id) FROM notes"),
            format!("INSERT INTO notes (id, {name}) VALUES (1, 2)"),
            format!("UPDATE notes SET {name} = 1"),
            format!("DELETE FROM {name}"),
            format!("DESCRIBE {name}"),
            format!("SHOW TABLES IN {name}"),
            format!("USE {name}"),
        ] {
            let (status, body) = world.ask(&sql, json!([])).await?;
            assert_eq!(status, 400, "{sql}: {body}");
        }
        let text = quoted(payload, '\'');
        for sql in [
            format!("CREATE TABLE {name} (id INT PRIMARY KEY)"),
            format!("CREATE NAMESPACE {name}"),
            format!("CREATE TABLE x (id INT PRIMARY KEY) WITH (FLUSH_POLICY = {text})"),
            format!("CREATE TABLE x (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = {text})"),
            format!("CREATE STREAM TABLE x (id INT) WITH (TTL_SECONDS = {text})"),
            format!("CREATE TABLE x (id INT PRIMARY KEY) WITH (TYPE = {text})"),
            format!("CREATE TABLE x (id INT PRIMARY KEY) WITH (STORAGE_ID = {text})"),
            format!("CREATE TABLE x (id INT PRIMARY KEY) WITH ({name} = 1)"),
            format!("CREATE TABLE x (id INT DEFAULT {text} PRIMARY KEY)"),
            format!("CREATE USER x WITH PASSWORD 'good-enough-1' ROLE {name}"),
            format!("ALTER USER {name} SET ROLE system"),
            format!("DROP USER {text}"),
            format!("KILL JOB {text}"),
            format!("EXECUTE AS USER {text} (SELECT * FROM notes)"),
            format!("STORAGE FLUSH TABLE {name}"),
        ] {
            let answer = server.try_sql(&sql).await?;
            assert_eq!(answer.status, 400, "{sql}: {}", answer.body);
        }
        let body = json!({"sql": "SELECT * FROM notes", "namespace_id": payload});
        let answer = server.request_as(&world.ann, &body).await?;
        assert_eq!(answer.status, 400, "{payload:?}: {}", answer.body);
    }
    world.assert_untouched().await
}

#[tokio::test]
async fn odd_names_stay_what_they_are() -> Result<()> {
    let world = World::new().await?;
    let server = &world.server;
    for (at, payload) in PAYLOADS.into_iter().enumerate() {
        let (column, text) = (quoted(payload, '"'), quoted(payload, '\''));
        server.sql(&format!("CREATE TABLE t{at} (id INT PRIMARY KEY, {column} TEXT DEFAULT {text})")).await?;
        server.sql(&format!("INSERT INTO t{at} (id) VALUES (1), (2)")).await?;
        server.sql(&format!("UPDATE t{at} SET {column} = {column} || '!' WHERE {column} LIKE '%' AND id = 2")).await?;
        let found = server.sql(&format!("SELECT * FROM t{at} ORDER BY id")).await?;
        assert_eq!(found["schema"][1]["name"], payload);
        assert_eq!((&found["rows"][0][1], &found["rows"][1][1]), (&json!(payload), &json!(format!("{payload}!"))));
        assert_eq!(server.flush(&format!("t{at}")).await?, "completed", "{payload:?}");
        assert_eq!(
            server.sql(&format!("SELECT * FROM t{at} ORDER BY id")).await?["rows"],
            found["rows"],
            "{payload:?}"
        );
        server.sql(&format!("DROP TABLE t{at}; ALTER NAMESPACE default SET OPTIONS (note = {text})")).await?;
        let options = server.rows("SELECT options FROM system.namespaces").await?;
        let options: Value = serde_json::from_str(options[0][0].as_str().context("options")?)?;
        assert_eq!(options, json!({"note": payload}));
    }
    server.sql("ALTER NAMESPACE default SET OPTIONS (note = '')").await?;
    Ok(())
}

/// Users whose names look like others, or like keys of others' rows.
#[tokio::test]
async fn a_user_name_reaches_no_other_users_rows() -> Result<()> {
    let world = World::new().await?;
    world.rows("INSERT INTO notes (id, body) VALUES (7, 'of ann') RETURNING id", json!([])).await?;
    let server = &world.server;
    let names = [
        "ANN",
        "ann ",
        " ann",
        "ann'--",
        "an",
        "anna",
        "ann/../root",
        "../ann",
        "ann%",
        "_nn",
        "ann' OR '1'='1",
        "ann\u{1}",
        "ann\u{ff}",
    ];
    let mut made = 0;
    for name in names {
        let written = quoted(name, '"');
        let answer = server.try_sql(&format!("CREATE USER {written} WITH PASSWORD 'good-enough-1'")).await?;
        if answer.status != 200 {
            assert_eq!(answer.body["error"]["code"], "INVALID_VALUE", "{name:?}: {}", answer.body);
            continue;
        }
        made += 1;
        let token = server.login(name, "good-enough-1").await?;
        assert_eq!(server.sql_as(&token, "SELECT CURRENT_USER()").await?["rows"], json!([[name]]));
        for sql in
            ["SELECT * FROM notes", "SELECT * FROM notes WHERE id = 7", "SELECT * FROM notes WHERE _deleted = true"]
        {
            assert_eq!(server.sql_as(&token, sql).await?["rows"], json!([]), "{name:?}: {sql}");
        }
        assert_eq!(server.sql_as(&token, "DELETE FROM notes").await?["row_count"], 0, "{name:?}");
        server.sql_as(&token, "INSERT INTO notes (id, body) VALUES (7, 'mine')").await?;
        server.sql(&format!("DROP USER {written}")).await?;
    }
    assert!(made > 5, "{made} of the names could be tried");
    assert_eq!(world.rows("SELECT body FROM notes", json!([])).await?, json!([["of ann"]]));
    for payload in PAYLOADS {
        let body = json!({"user": payload, "password": payload});
        let response = server.http.post(format!("{}/v1/api/auth/login", server.url)).json(&body).send().await?;
        assert_eq!(response.status(), 401, "{payload:?}");
    }
    world.assert_untouched().await
}

/// Each is asked for by a plain user, in another position of a statement.
#[tokio::test]
async fn no_position_of_a_statement_reads_or_writes_what_a_role_may_not() -> Result<()> {
    let world = World::new().await?;
    world.rows("INSERT INTO notes (id, body) VALUES (7, 'of ann') RETURNING id", json!([])).await?;
    for table in [
        "vault",
        "\"vault\"",
        "default.vault",
        "kalam.default.vault",
        "system.users",
        "kalam.system.users",
        "SYSTEM.Users",
    ] {
        for sql in [
            "SELECT * FROM @",
            "TABLE @",
            "SELECT (SELECT count(*) FROM @)",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM @)",
            "SELECT id FROM notes WHERE id IN (SELECT 7 FROM @)",
            "SELECT id FROM notes ORDER BY (SELECT count(*) FROM @)",
            "SELECT count(*) FROM notes GROUP BY id HAVING count(*) > (SELECT count(*) FROM @)",
            "SELECT id FROM notes LIMIT (SELECT count(*) FROM @)",
            "SELECT n.id FROM notes n JOIN @ v ON true",
            "SELECT n.id FROM notes n LEFT JOIN (SELECT 1 AS x FROM @) v ON v.x = n.id",
            "SELECT * FROM notes, LATERAL (SELECT * FROM @) v",
            "SELECT id FROM notes UNION ALL SELECT 1 FROM @",
            "SELECT id FROM notes EXCEPT SELECT 1 FROM @",
            "SELECT id FROM notes INTERSECT (SELECT 1 FROM @)",
            "WITH v AS (SELECT * FROM @) SELECT * FROM v",
            "WITH RECURSIVE v AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM v WHERE n < (SELECT count(*) FROM @)) SELECT * FROM v",
            "SELECT CASE WHEN (SELECT count(*) FROM @) > 0 THEN 1 END",
            "SELECT sum((SELECT count(*) FROM @)) OVER () FROM notes",
            "VALUES ((SELECT count(*) FROM @))",
            "INSERT INTO notes (id) SELECT 99 FROM @",
            "INSERT INTO notes (id) VALUES ((SELECT count(*) FROM @))",
            "INSERT INTO notes (id) VALUES (98) RETURNING (SELECT count(*) FROM @)",
            "INSERT INTO notes (id) VALUES (7) ON CONFLICT (id) DO UPDATE SET body = (SELECT max('x') FROM @)",
            "INSERT INTO @ VALUES (9, 'x')",
            "UPDATE notes SET body = (SELECT max('x') FROM @)",
            "UPDATE notes SET body = 'x' WHERE id = (SELECT max(7) FROM @)",
            "UPDATE @ SET id = 9",
            "DELETE FROM notes WHERE id = (SELECT max(7) FROM @)",
            "DELETE FROM @",
            "EXPLAIN SELECT * FROM @",
            "EXPLAIN ANALYZE SELECT * FROM @",
            "EXPLAIN VERBOSE SELECT count(*) FROM @",
            "DESCRIBE @",
            "SHOW COLUMNS FROM @",
            "SUBSCRIBE TO @",
            "SUBSCRIBE TO SELECT * FROM @ WHERE true",
            "EXECUTE AS USER ann (SELECT * FROM @)",
            "EXECUTE AS USER root (SELECT * FROM @)",
            "SELECT 1; SELECT * FROM @",
            "BEGIN; INSERT INTO notes (id) VALUES (97); SELECT * FROM @; COMMIT",
            "DROP TABLE @",
            "ALTER TABLE @ ADD COLUMN x INT",
            "CREATE TABLE copy AS SELECT * FROM @",
            "CREATE VIEW v AS SELECT * FROM @",
            "COPY @ TO '/tmp/x'",
            "SELECT * INTO copy FROM @",
        ] {
            let sql = sql.replace('@', table);
            let (status, body) = world.ask(&sql, json!([])).await?;
            assert!(status == 403 || status == 400, "{sql}: {status} {body}");
        }
    }
    for sql in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM \"file:///etc/passwd\"",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/kalamdb-injection.csv'",
        "SET datafusion.catalog.information_schema = true",
        "SHOW ALL",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "LOAD 'x.so'",
        "ATTACH DATABASE 'x' AS y",
        "GRANT ALL ON vault TO ann",
        "CREATE USER eve WITH PASSWORD 'good-enough-1' ROLE system",
        "ALTER USER ann SET ROLE system",
        "ALTER USER root SET PASSWORD 'good-enough-1'",
        "DROP USER root",
        "ALTER TABLE vault SET ACCESS LEVEL PUBLIC",
        "STORAGE FLUSH ALL",
        "SELECT * FROM information_schema.df_settings",
    ] {
        let (status, body) = world.ask(sql, json!([])).await?;
        assert!(status == 403 || status == 400, "{sql}: {status} {body}");
    }
    for sql in ["SHOW TABLES", "SELECT * FROM information_schema.tables", "SELECT * FROM information_schema.columns"] {
        let (_, body) = world.ask(sql, json!([])).await?;
        assert!(!body.to_string().contains("vault"), "{sql} names a table that ann may not see: {body}");
    }
    assert_eq!(world.rows("SELECT id, body FROM notes", json!([])).await?, json!([[7, "of ann"]]));
    world.assert_untouched().await
}
