//! `EXECUTE AS USER`: who may, onto whom, and what can be reached.

use anyhow::Result;
use serde_json::{Value, json};

use crate::server::Server;

async fn log_in_as(server: &Server, user: &str, role: &str) -> Result<String> {
    server.sql(&format!("CREATE USER {user} WITH PASSWORD 'pass-of-{user}' ROLE {role}")).await?;
    server.login(user, &format!("pass-of-{user}")).await
}

#[tokio::test]
async fn a_service_writes_and_reads_the_rows_of_its_users() -> Result<()> {
    let server = Server::start().await?;
    server
        .sql(
            "CREATE USER TABLE notes (id INT PRIMARY KEY, body TEXT); CREATE SHARED TABLE news (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = PUBLIC);
             CREATE STREAM TABLE typing (room TEXT PRIMARY KEY) WITH (TTL_SECONDS = 600); CREATE USER dora WITH INTERNAL ROLE dba",
        )
        .await?;
    let (ann, backend) =
        (log_in_as(&server, "ann", "viewer").await?, log_in_as(&server, "backend", "developer").await?);
    server.sql_as(&ann, "INSERT INTO notes VALUES (1, 'of ann')").await?;
    server.sql_as(&backend, "INSERT INTO notes VALUES (1, 'of backend')").await?;

    let batch = "EXECUTE AS USER 'ann' (INSERT INTO notes VALUES (2, 'for ann'), (3, 'also')); SELECT body FROM notes;
                 execute as user ann (UPDATE notes SET body = body || '!' WHERE id = 1); EXECUTE AS USER ann (DELETE FROM notes WHERE id = 3);
                 EXECUTE AS USER 'ann' (SELECT CURRENT_USER(), CURRENT_ROLE(), body FROM notes WHERE id + 0 < 3 ORDER BY id);
                 EXECUTE AS USER ann (INSERT INTO typing VALUES ('hall'))";
    let answer = server.request_as(&backend, &json!({"sql": batch})).await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let users: Vec<&Value> =
        answer.body["results"].as_array().unwrap().iter().map(|result| &result["as_user"]).collect();
    assert_eq!(users, ["ann", "backend", "ann", "ann", "ann", "ann"]);
    assert_eq!(answer.body["results"][0]["message"], "Inserted 2 row(s)");
    assert_eq!(answer.body["results"][1]["rows"], json!([["of backend"]]), "the batch goes on as the caller");
    assert_eq!(answer.body["results"][4]["rows"], json!([["ann", "user", "of ann!"], ["ann", "user", "for ann"]]));
    let seen = server.sql_as(&ann, "SELECT id, body FROM notes ORDER BY id").await?;
    assert_eq!(seen["rows"], json!([[1, "of ann!"], [2, "for ann"]]));
    assert_eq!(server.sql_as(&ann, "SELECT room FROM typing").await?["rows"], json!([["hall"]]));

    let whole =
        "BEGIN; EXECUTE AS USER ann (INSERT INTO notes VALUES (9, 'x')); INSERT INTO notes VALUES (9, 'y'); ROLLBACK";
    server.sql_as(&backend, whole).await?;
    assert_eq!(server.sql_as(&ann, "SELECT count(*) FROM notes WHERE id = 9").await?["rows"], json!([["0"]]));
    let parameters = json!({"sql": "EXECUTE AS USER ann (SELECT body FROM notes WHERE id = $1)", "params": [2]});
    assert_eq!(server.request_as(&backend, &parameters).await?.body["results"][0]["rows"], json!([["for ann"]]));

    for (token, sql, status, code) in [
        (&ann, "EXECUTE AS USER ann (SELECT * FROM notes)", 403, "PERMISSION_DENIED"),
        (&ann, "EXECUTE AS USER backend (SELECT * FROM notes)", 403, "PERMISSION_DENIED"),
        (&backend, "EXECUTE AS USER dora (SELECT * FROM notes)", 403, "PERMISSION_DENIED"),
        (&backend, "EXECUTE AS USER root (SELECT * FROM notes)", 403, "PERMISSION_DENIED"),
        (&backend, "EXECUTE AS USER nobody (SELECT * FROM notes)", 400, "NOT_FOUND"),
        (&backend, "EXECUTE AS USER ann (SELECT * FROM news)", 403, "PERMISSION_DENIED"),
        (
            &backend,
            "EXECUTE AS USER ann (SELECT n.id FROM notes n JOIN news s ON n.id = s.id)",
            403,
            "PERMISSION_DENIED",
        ),
        (&backend, "EXECUTE AS USER backend (SELECT * FROM system.users)", 403, "PERMISSION_DENIED"),
        (&backend, "EXECUTE AS USER backend (INSERT INTO news VALUES (1))", 403, "PERMISSION_DENIED"),
        (&backend, "EXECUTE AS USER ann (DROP TABLE notes)", 400, "INVALID_SQL"),
        (&backend, "EXECUTE AS USER ann (EXECUTE AS USER backend (SELECT * FROM notes))", 400, "INVALID_SQL"),
        (&backend, "EXECUTE AS USER ann (SELECT 1; SELECT 2)", 400, "INVALID_SQL"),
        (
            &backend,
            "INSERT INTO notes VALUES (5, 'x'); EXECUTE AS USER root (SELECT * FROM notes)",
            403,
            "PERMISSION_DENIED",
        ),
    ] {
        server.request_as(token, &json!({"sql": sql})).await?.assert_refused(sql, status, code, "");
    }
    let count = server.sql_as(&backend, "SELECT count(*) FROM notes").await?;
    assert_eq!(count["rows"], json!([["1"]]), "a batch is judged as a whole before its first statement");
    Ok(())
}

#[tokio::test]
async fn users_are_made_changed_and_dropped() -> Result<()> {
    let server = Server::start().await?;
    server
        .sql(
            "CREATE USER 'Åsa' WITH OAUTH EMAIL 'a@b.c' ROLE admin; CREATE USER IF NOT EXISTS \"Åsa\" WITH INTERNAL;
             CREATE USER robot WITH INTERNAL ROLE analyst; CREATE USER reader WITH PASSWORD 'long-enough' ROLE 'readonly' EMAIL 'r@b.c'",
        )
        .await?;
    let users = server.rows("SELECT user_id, role, email, auth_type FROM system.users ORDER BY user_id").await?;
    let expected = json!([
        ["reader", "user", "r@b.c", "password"],
        ["robot", "service", null, "internal"],
        ["root", "system", null, "password"],
        ["Åsa", "dba", "a@b.c", "oauth"]
    ]);
    assert_eq!(users, expected);
    for user in ["Åsa", "robot"] {
        assert!(server.login(user, "").await.is_err(), "{user} has no password");
    }
    let reader = server.login("reader", "long-enough").await?;
    server.sql_as(&reader, "ALTER USER reader SET PASSWORD 'another-one-1'").await?;
    server.login("reader", "another-one-1").await?;
    server.sql("ALTER USER reader SET EMAIL 'new@b.c'; ALTER USER reader SET ROLE viewer").await?;
    for (sql, code, part) in [
        ("CREATE USER robot WITH INTERNAL", "ALREADY_EXISTS", "robot"),
        ("CREATE USER x WITH PASSWORD 'short'", "INVALID_VALUE", "8 to 72"),
        ("CREATE USER x WITH PASSWORD 'Password123'", "INVALID_VALUE", "most common"),
        ("CREATE USER x WITH PASSWORD 'long-enough' ROLE king", "INVALID_VALUE", "king"),
        ("CREATE USER x PASSWORD 'long-enough'", "INVALID_SQL", "Expected: WITH"),
        ("DROP USER nobody", "NOT_FOUND", "nobody"),
        ("DROP USER root", "INVALID_VALUE", "root"),
    ] {
        server.try_sql(sql).await?.assert_refused(sql, 400, code, part);
    }
    server.sql("DROP USER IF EXISTS nobody; DROP USER 'Åsa' CASCADE; DROP USER \"robot\"").await?;
    assert_eq!(server.rows("SELECT count(*) FROM system.users").await?, json!([["2"]]));
    Ok(())
}

#[tokio::test]
async fn rows_that_are_read_as_another_user_come_in_every_form() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE USER TABLE notes (id INT PRIMARY KEY, body TEXT)").await?;
    let (ann, backend) = (log_in_as(&server, "ann", "user").await?, log_in_as(&server, "backend", "service").await?);
    server.sql_as(&ann, "INSERT INTO notes VALUES (1, 'of ann'), (2, 'too')").await?;
    let ask = |token: &str, accept: &str, sql: &str| {
        let request = server.http.post(format!("{}/v1/api/sql", server.url)).bearer_auth(token);
        request.header("accept", accept).json(&json!({"sql": sql})).send()
    };
    let read = "EXECUTE AS USER ann (SELECT id, body FROM notes ORDER BY id)";
    let csv = ask(&backend, "text/csv", read).await?;
    assert_eq!(csv.headers()["content-type"], "text/csv");
    assert_eq!(csv.text().await?, "id,body\r\n1,of ann\r\n2,too\r\n");
    let lines = ask(&backend, "application/x-ndjson", read).await?.text().await?;
    assert_eq!(lines, "{\"id\":1,\"body\":\"of ann\"}\n{\"id\":2,\"body\":\"too\"}\n");
    let point = "EXECUTE AS USER ann (SELECT body FROM notes WHERE id = 2)";
    assert_eq!(ask(&backend, "text/csv", point).await?.text().await?, "body\r\ntoo\r\n");
    let log = "SELECT count(*) FROM system.audit_log WHERE action = 'EXECUTE AS USER' AND actor_user_id = 'backend' AND target = 'ann'";
    assert_eq!(server.rows(log).await?, json!([["3"]]));
    server.sql("CREATE SHARED TABLE news (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = PUBLIC)").await?;
    for (token, sql, status) in [
        (&ann, "EXECUTE AS USER backend (SELECT id FROM notes)", 403),
        (&backend, "EXECUTE AS USER root (SELECT id FROM notes)", 403),
        (&backend, "EXECUTE AS USER nobody (SELECT id FROM notes)", 400),
        (&backend, "EXECUTE AS USER ann (SELECT id FROM news)", 403),
    ] {
        assert_eq!(ask(token, "text/csv", sql).await?.status().as_u16(), status, "{sql}");
    }
    Ok(())
}
