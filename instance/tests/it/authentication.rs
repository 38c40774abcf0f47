//! Logging in, tokens, roles, and the separation of users.

use anyhow::Result;
use serde_json::{Value, json};

use crate::server::{Folder, ROOT_PASSWORD, SCHEDULER_TOKEN, Server};

#[tokio::test]
async fn only_a_good_token_of_a_current_user_comes_in() -> Result<()> {
    let server = Server::start().await?;
    let select = json!({"sql": "SELECT 1"});
    let none = server.http.post(format!("{}/v1/api/sql", server.url)).json(&select).send().await?;
    assert_eq!(none.status(), 401);
    assert_eq!(none.json::<Value>().await?["error"]["code"], "MISSING_AUTHORIZATION");
    let forged = format!("{}x", server.token);
    for token in [forged.as_str(), "nonsense", ""] {
        let answer = server.request_as(token, &select).await?;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["error"]["code"]),
            (401, &json!("INVALID_CREDENTIALS")),
            "{token}"
        );
    }
    let login = format!("{}/v1/api/auth/login", server.url);
    let mut refusals = Vec::new();
    for body in [json!({"user": "root", "password": "wrong"}), json!({"username": "nobody", "password": "wrong"})] {
        let response = server.http.post(&login).json(&body).send().await?;
        refusals.push((response.status(), response.text().await?));
    }
    assert_eq!(refusals[0], refusals[1], "an unknown user looks like a wrong password");
    assert_eq!(refusals[0].1, r#"{"error":"unauthorized","message":"Invalid credentials"}"#);
    let unknown_field = json!({"user": "root", "password": ROOT_PASSWORD, "remember": true});
    assert_eq!(server.http.post(&login).json(&unknown_field).send().await?.status(), 400);

    server.sql("CREATE USER alice WITH PASSWORD 'wonderland-1' ROLE user").await?;
    let alice = server.login("alice", "wonderland-1").await?;
    let me: Value =
        server.http.get(format!("{}/v1/api/auth/me", server.url)).bearer_auth(&alice).send().await?.json().await?;
    assert_eq!(
        (&me["user"]["id"], &me["user"]["role"], &me["admin_ui_access"]),
        (&json!("alice"), &json!("user"), &json!(false))
    );
    server.sql("ALTER USER alice SET ROLE service").await?;
    let stale = server.request_as(&alice, &select).await?;
    assert_eq!(stale.body["error"]["code"], "INVALID_CREDENTIALS", "the token's role is no longer hers");
    server.sql("DROP USER alice").await?;
    assert!(server.login("alice", "wonderland-1").await.is_err());
    Ok(())
}

#[tokio::test]
async fn tokens_expire_and_are_refreshed() -> Result<()> {
    let server = Server::start_in(Folder::new()?.with("KALAMDB_AUTH_TOKEN_SECONDS", "1")).await?;
    let body = json!({"user": "root", "password": ROOT_PASSWORD});
    let login: Value =
        server.http.post(format!("{}/v1/api/auth/login", server.url)).json(&body).send().await?.json().await?;
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let expired = server.request_as(login["access_token"].as_str().unwrap(), &json!({"sql": "SELECT 1"})).await?;
    assert_eq!((expired.status.as_u16(), &expired.body["error"]["code"]), (401, &json!("TOKEN_EXPIRED")));
    let again: Value = server
        .post("/v1/api/auth/refresh", login["refresh_token"].as_str().unwrap(), &Value::Null)
        .await?
        .json()
        .await?;
    let answer = server.request_as(again["access_token"].as_str().unwrap(), &json!({"sql": "SELECT 1"})).await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let with_access =
        server.post("/v1/api/auth/refresh", again["access_token"].as_str().unwrap(), &Value::Null).await?;
    assert_eq!(with_access.status(), 401, "an access token refreshes nothing");
    Ok(())
}

#[tokio::test]
async fn users_see_their_own_rows_and_their_role_bounds_them() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE USER TABLE notes (id INT PRIMARY KEY, body TEXT)").await?;
    server.sql("CREATE SHARED TABLE secret (id INT PRIMARY KEY)").await?;
    server.sql("CREATE SHARED TABLE news (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = PUBLIC)").await?;
    server.sql("INSERT INTO notes VALUES (1, 'of root')").await?;
    let mut tokens = Vec::new();
    for user in ["ann", "bob"] {
        server.sql(&format!("CREATE USER {user} WITH PASSWORD 'pass-of-{user}'")).await?;
        let token = server.login(user, &format!("pass-of-{user}")).await?;
        server.sql_as(&token, &format!("INSERT INTO notes VALUES (1, 'of {user}')")).await?;
        tokens.push(token);
    }
    let seen = server.sql_as(&tokens[0], "SELECT body FROM notes WHERE id IN (1, 2)").await?;
    assert_eq!(seen["rows"], json!([["of ann"]]));
    server.sql_as(&tokens[0], "UPDATE notes SET body = body || '!' ").await?;
    server.sql_as(&tokens[1], "DELETE FROM notes").await?;
    assert_eq!(server.sql_as(&tokens[0], "SELECT body FROM notes").await?["rows"], json!([["of ann!"]]));
    assert_eq!(server.rows("SELECT body FROM notes").await?, json!([["of root"]]));
    server.sql_as(&tokens[0], "SELECT * FROM news").await?;
    for sql in [
        "SELECT * FROM secret",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM secret)",
        "WITH x AS (SELECT * FROM system.users) SELECT 1 FROM x",
        "INSERT INTO notes SELECT id, 'x' FROM secret",
        "INSERT INTO news VALUES (1)",
        "UPDATE news SET id = 2",
        "DELETE FROM news",
        "CREATE NAMESPACE mine",
        "CREATE USER eve WITH PASSWORD 'pass-of-eve'",
        "STORAGE FLUSH TABLE notes",
        "INSERT INTO notes VALUES (5, 'first'); SELECT * FROM secret",
    ] {
        let answer = server.request_as(&tokens[0], &json!({"sql": sql})).await?;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["error"]["code"]),
            (403, &json!("PERMISSION_DENIED")),
            "{sql}: {}",
            answer.body
        );
    }
    let count = server.sql_as(&tokens[0], "SELECT count(*) FROM notes").await?;
    assert_eq!(count["rows"], json!([["1"]]), "a batch is authorised as a whole before its first statement");
    let tables = server.sql_as(&tokens[0], "SHOW TABLES").await?;
    assert!(!tables["rows"].to_string().contains("secret"), "{tables}");
    Ok(())
}

#[tokio::test]
async fn the_first_start_without_a_password_is_set_up_over_http() -> Result<()> {
    let folder = Folder::new()?.with("KALAMDB_ROOT_PASSWORD", "");
    let error = Server::start_in(folder).await.err().expect("nobody can log in yet").to_string();
    assert!(error.contains("428") && error.contains("setup_required"), "{error}");
    Ok(())
}

#[tokio::test]
async fn health_and_metrics_are_open_and_flush_jobs_have_their_own_token() -> Result<()> {
    let server = Server::start().await?;
    for path in ["/health", "/v1/api/healthcheck", "/healthz", "/readyz", "/v1/api/auth/status"] {
        assert_eq!(server.http.get(format!("{}{path}", server.url)).send().await?.status(), 200, "{path}");
    }
    server.sql("CREATE TABLE t (id INT PRIMARY KEY) WITH (FLUSH_POLICY = 'rows:7')").await?;
    server.sql("INSERT INTO t VALUES (1)").await?;
    server.sql("SELECT * FROM t").await?;
    let text = server.metrics().await?;
    for line in [
        "kalamdb_unflushed_rows{table_name=\"default.t\"} 1",
        "kalamdb_table_flush_policy_rows{table_name=\"default.t\"} 7",
        "kalamdb_flush_jobs{state=\"completed\"} 0",
        "kalamdb_query_latency_seconds_count{table_name=\"default.t\",query_type=\"Insert\"} 1",
        "kalamdb_column_family_size_bytes{cf_type=\"shared_table\",name=\"shared_table\"}",
        "# TYPE kalamdb_websocket_messages_total counter",
        "kalamdb_disk_free_bytes ",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let job = json!({"id": "job-1", "table": "default.t", "reason": "rows"});
    assert_eq!(server.post("/v1/api/flush-jobs", &server.token, &job).await?.status(), 401);
    assert_eq!(server.post("/v1/api/flush-jobs", SCHEDULER_TOKEN, &job).await?.status(), 202);
    assert_eq!(server.post("/v1/api/flush-jobs", SCHEDULER_TOKEN, &job).await?.status(), 200);
    assert_eq!(server.job_end("job-1").await?, "completed");
    let followed =
        server.http.get(format!("{}/v1/api/flush-jobs/job-1", server.url)).bearer_auth(SCHEDULER_TOKEN).send().await?;
    assert_eq!(followed.json::<Value>().await?["rows"], 1);
    server.sql("UPDATE t SET id = 2 WHERE id = 1; DELETE FROM t WHERE id = 2; DESCRIBE TABLE t").await?;
    let text = server.metrics().await?;
    assert!(!text.contains("kalamdb_unflushed_rows{table_name=\"default.t\"} 1"), "a flushed table vanishes");
    for query_type in ["CreateTable", "Select", "Update", "Delete", "DescribeTable"] {
        let line =
            format!("kalamdb_query_latency_seconds_count{{table_name=\"default.t\",query_type=\"{query_type}\"}} 1");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    assert!(text.contains("kalamdb_flush_duration_seconds_count{table_name=\"default.t\"} 1"), "{text}");
    Ok(())
}

#[tokio::test]
async fn labels_that_users_make_are_few() -> Result<()> {
    let server = Server::start_in(Folder::new()?.with("KALAMDB_METRICS_LABEL_VALUES", "2")).await?;
    for table in ["a", "b", "c", "d"] {
        server.sql(&format!("CREATE TABLE {table} (id INT PRIMARY KEY); INSERT INTO {table} VALUES (1)")).await?;
        server.try_sql(&format!("SELECT * FROM system.{table}")).await?;
    }
    let text = server.metrics().await?;
    let named = |metric: &str| {
        let lines = text.lines().filter(|line| line.starts_with(metric));
        lines.filter_map(|line| line.split('"').nth(1)).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(named("kalamdb_query_latency_seconds_count"), ["default.a", "default.b", "other"].into());
    let unflushed = named("kalamdb_unflushed_rows{");
    assert!(unflushed.len() == 3 && unflushed.contains("other"), "{unflushed:?}");
    assert!(text.contains("kalamdb_unflushed_rows{table_name=\"other\"} 2"), "{text}");
    Ok(())
}
