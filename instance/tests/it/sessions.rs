//! Log-ins from setup to log-out: cookies, locks, sessions that are ended, rates, and tokens that others sign.

use anyhow::{Context, Result};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Response;
use serde_json::{Value, json};

use crate::server::{Folder, ROOT_PASSWORD, Server};

const UNAUTHORIZED: &str = r#"{"error":"unauthorized","message":"Invalid credentials"}"#;

async fn post(server: &Server, path: &str, body: &Value) -> Result<Response> {
    Ok(server.http.post(format!("{}{path}", server.url)).json(body).send().await?)
}

async fn log_in(server: &Server, user: &str, password: &str) -> Result<(u16, String)> {
    let response = post(server, "/v1/api/auth/login", &json!({"user": user, "password": password})).await?;
    Ok((response.status().as_u16(), response.text().await?))
}

/// Status and code of a SELECT with that token.
async fn select(server: &Server, token: &str) -> Result<(u16, Value)> {
    let answer = server.request_as(token, &json!({"sql": "SELECT CURRENT_USER()"})).await?;
    Ok((answer.status.as_u16(), answer.body["error"]["code"].clone()))
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

#[tokio::test]
async fn the_first_start_is_set_up_once() -> Result<()> {
    let mut server = Server::launch(Folder::new()?.with("KALAMDB_ROOT_PASSWORD", ""))?;
    server.wait_for("").await?;
    let status = |server: &Server| server.http.get(format!("{}/v1/api/auth/status", server.url)).send();
    let asked: Value = status(&server).await?.json().await?;
    assert_eq!((&asked["needs_setup"], asked["message"].is_string()), (&json!(true), true), "{asked}");
    let (code, body) = log_in(&server, "root", ROOT_PASSWORD).await?;
    assert!(code == 428 && body.contains(r#""error":"setup_required""#), "{code} {body}");
    let request = |user: &str, root: &str| json!({"user": user, "password": "the-first-dba", "root_password": root, "email": null});
    for (bad, part) in [
        (request("", ROOT_PASSWORD), "first DBA"),
        (request("root", ROOT_PASSWORD), "first DBA"),
        (request("admin", "short"), "8 to 72"),
        (json!({"user": "a", "password": "the-first-dba", "root_password": ROOT_PASSWORD, "x": 1}), "unknown field"),
    ] {
        let response = post(&server, "/v1/api/auth/setup", &bad).await?;
        let (code, body): (_, Value) = (response.status(), response.json().await?);
        assert!(code == 400 && body["message"].as_str().is_some_and(|text| text.contains(part)), "{code} {body}");
    }
    let response = post(&server, "/v1/api/auth/setup", &request("admin", ROOT_PASSWORD)).await?;
    let (code, body): (_, Value) = (response.status(), response.json().await?);
    assert!(code == 200 && body["user"]["role"] == "dba" && body["message"].is_string(), "{code} {body}");
    assert!(body["access_token"].is_null() && body["user"]["email"].is_null());
    let again = post(&server, "/v1/api/auth/setup", &request("other", "another-password")).await?;
    assert_eq!(again.status(), 409);
    let asked: Value = status(&server).await?.json().await?;
    assert_eq!(asked["needs_setup"], json!(false));
    server.token = server.login("root", ROOT_PASSWORD).await?;
    let audited = server.rows("SELECT actor_user_id, ip_address FROM system.audit_log WHERE action = 'SETUP'").await?;
    assert_eq!(audited, json!([["admin", "127.0.0.1"]]));
    Ok(())
}

#[tokio::test]
async fn a_log_in_has_cookies_and_ends_for_good_at_its_log_out() -> Result<()> {
    let server = Server::start().await?;
    server.sql("CREATE USER ann WITH PASSWORD 'the-password-of-ann'").await?;
    let login = json!({"username": "ann", "password": "the-password-of-ann"});
    let response = post(&server, "/v1/api/auth/login", &login).await?;
    let cookies: Vec<String> = response
        .headers()
        .get_all("set-cookie")
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect();
    assert!(cookies.len() == 2 && cookies.iter().all(|line| line.contains("HttpOnly")), "{cookies:?}");
    let cookies: Vec<&str> = cookies.iter().filter_map(|line| line.split(';').next()).collect();
    let body: Value = response.json().await?;
    assert_eq!(
        (&body["user"]["id"], &body["user"]["role"], &body["admin_ui_access"]),
        (&json!("ann"), &json!("user"), &json!(false))
    );
    for moment in ["expires_at", "refresh_expires_at"] {
        assert!(body[moment].as_str().is_some_and(|text| text.contains('T') && text.ends_with('Z')), "{body}");
    }
    let (access, refresh) =
        (body["access_token"].as_str().context("a token")?, body["refresh_token"].as_str().context("a token")?);

    let me =
        server.http.get(format!("{}/v1/api/auth/me", server.url)).header("cookie", cookies.join("; ")).send().await?;
    assert_eq!(me.json::<Value>().await?["user"]["id"], "ann");
    let by_cookie = server
        .http
        .post(format!("{}/v1/api/auth/refresh", server.url))
        .header("cookie", cookies.join("; "))
        .send()
        .await?;
    assert_eq!(by_cookie.status(), 200);
    for path in ["sql", "tables/default/t/rows"] {
        let request = server.http.post(format!("{}/v1/api/{path}", server.url)).header("cookie", cookies.join("; "));
        let refused = request.json(&json!({"sql": "SELECT 1"})).send().await?;
        let (code, body): (_, Value) = (refused.status(), refused.json().await?);
        assert_eq!((code.as_u16(), &body["error"]["code"]), (401, &json!("MISSING_AUTHORIZATION")), "{path}: {body}");
    }
    let refreshed = server.http.post(format!("{}/v1/api/auth/refresh", server.url)).bearer_auth(refresh).send().await?;
    let refreshed: Value = refreshed.json().await?;
    assert!(refreshed["refresh_token"].is_string() && refreshed["user"]["id"] == "ann", "{refreshed}");
    let other = server.login("ann", "the-password-of-ann").await?;
    let sessions =
        server.rows("SELECT count(*), min(client_addr), min(state) FROM system.sessions WHERE user_id = 'ann'").await?;
    assert_eq!(sessions, json!([["2", "127.0.0.1", "active"]]), "a refresh goes on with its log-in");

    let out = server.http.post(format!("{}/v1/api/auth/logout", server.url)).bearer_auth(access).send().await?;
    assert!(out.status() == 200 && out.headers().get_all("set-cookie").iter().count() == 2);
    let later = refreshed["access_token"].as_str().context("a token")?.to_owned();
    let refresh = refresh.to_owned();
    let access = access.to_owned();
    let mut server = server;
    for round in 0..2 {
        for token in [&access, &later] {
            assert_eq!(select(&server, token).await?, (401, json!("INVALID_CREDENTIALS")), "round {round}");
        }
        let refused =
            server.http.post(format!("{}/v1/api/auth/refresh", server.url)).bearer_auth(&refresh).send().await?;
        assert_eq!((refused.status().as_u16(), refused.text().await?.as_str()), (401, UNAUTHORIZED));
        assert_eq!(select(&server, &other).await?.0, 200, "another log-in goes on");
        server = Server::start_in(server.kill()?).await?;
    }
    let bare = post(&server, "/v1/api/auth/logout", &Value::Null).await?;
    assert_eq!(bare.status(), 200, "there is nothing to end");
    Ok(())
}

#[tokio::test]
async fn wrong_passwords_lock_a_user_for_a_while_and_nobody_can_tell() -> Result<()> {
    let folder = Folder::new()?.with("KALAMDB_AUTH_LOCK_ATTEMPTS", "3").with("KALAMDB_AUTH_LOCK_SECONDS", "3600");
    let server = Server::start_in(folder).await?;
    server.sql("CREATE USER ann WITH PASSWORD 'the-password-of-ann'").await?;
    let state = "SELECT failed_login_attempts, locked_until IS NOT NULL, last_login_at IS NOT NULL FROM system.users WHERE user_id = 'ann'";
    for attempts in 1..=3 {
        assert_eq!(log_in(&server, "ann", "wrong").await?, (401, UNAUTHORIZED.to_owned()));
        let expected = if attempts < 3 { json!([[attempts, false, false]]) } else { json!([[0, true, false]]) };
        assert_eq!(server.rows(state).await?, expected);
    }
    assert_eq!(log_in(&server, "ann", "the-password-of-ann").await?, (401, UNAUTHORIZED.to_owned()), "locked");
    assert_eq!(log_in(&server, "nobody", "wrong").await?, (401, UNAUTHORIZED.to_owned()));
    let server = Server::start_in(server.stop()?).await?;
    assert_eq!(log_in(&server, "ann", "the-password-of-ann").await?.0, 401, "also after a restart");
    server.sql("ALTER USER ann SET EMAIL 'ann@example.com'").await?;
    assert_eq!(log_in(&server, "ann", "the-password-of-ann").await?.0, 200, "a DBA lets her in");
    assert_eq!(server.rows(state).await?, json!([[0, false, true]]));
    let reasons = server
        .rows("SELECT details, count(*) FROM system.audit_log WHERE action = 'LOGIN FAILED' GROUP BY details ORDER BY details")
        .await?;
    let reason = |text: &str, count: &str| json!([format!(r#"{{"reason":"{text}"}}"#), count]);
    let expected = json!([
        reason("locked after wrong passwords", "2"),
        reason("unknown user", "1"),
        reason("wrong password", "3")
    ]);
    assert_eq!(reasons, expected);
    Ok(())
}

#[tokio::test]
async fn the_audit_log_is_bounded_and_log_ins_push_no_change_out() -> Result<()> {
    let server = Server::start_in(Folder::new()?.with("KALAMDB_LIMITS_AUDIT_ENTRIES", "3")).await?;
    for table in ["a", "b", "c", "d"] {
        server.sql(&format!("CREATE TABLE {table} (id INT PRIMARY KEY)")).await?;
    }
    for _ in 0..5 {
        log_in(&server, "nobody", "wrong").await?;
    }
    let told = "SELECT action, target FROM system.audit_log ORDER BY CAST(audit_id AS BIGINT)";
    let failed = json!(["LOGIN FAILED", "nobody"]);
    let created = |table: &str| json!(["CREATE TABLE", format!("default.{table}")]);
    let expected = json!([created("b"), created("c"), created("d"), failed, failed, failed]);
    assert_eq!(server.rows(told).await?, expected);
    let server = Server::start_in(server.kill()?).await?;
    server.sql("DROP TABLE a").await?;
    let after = server.rows(told).await?;
    let changes: Vec<_> =
        after.as_array().context("rows")?.iter().filter(|row| row[0] != "LOGIN FAILED" && row[0] != "LOGIN").collect();
    assert_eq!(changes, [&created("c"), &created("d"), &json!(["DROP TABLE", "default.a"])]);
    Ok(())
}

#[tokio::test]
async fn authentication_has_a_rate() -> Result<()> {
    let server = Server::start_in(Folder::new()?.with("KALAMDB_AUTH_REQUESTS_PER_SECOND", "2")).await?;
    let mut refused = None;
    // However slow the machine is, some second sees three of so many.
    for _ in 0..200 {
        let response = post(&server, "/v1/api/auth/refresh", &Value::Null).await?;
        if response.status() == 429 {
            refused = Some(response);
            break;
        }
        assert_eq!((response.status().as_u16(), response.text().await?.as_str()), (401, UNAUTHORIZED));
    }
    let response = refused.context("no request was refused")?;
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(response.json::<Value>().await?["error"], "RATE_LIMIT_EXCEEDED");
    Ok(())
}

#[tokio::test]
async fn tokens_by_the_protocols_claims_alone_are_good_and_others_are_not() -> Result<()> {
    const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";
    let server = Server::start_in(Folder::new()?.with("KALAMDB_JWT_SECRET", SECRET)).await?;
    let claims = json!({"sub": "root", "iss": "kalamdb", "exp": now() + 600, "iat": now() + 1, "email": null, "role": "system", "token_type": "access"});
    let sign = |name: &str, value: Value, algorithm: Algorithm| {
        let mut changed = claims.clone();
        changed[name] = value;
        encode(&Header::new(algorithm), &changed, &EncodingKey::from_secret(SECRET.as_bytes()))
    };
    assert_eq!(select(&server, &sign("sub", json!("root"), Algorithm::HS256)?).await?.0, 200);
    for (name, value) in [
        ("role", json!("dba")),
        ("role", json!("king")),
        ("sub", json!("nobody")),
        ("iss", json!("elsewhere")),
        ("token_type", json!("refresh")),
        ("iat", json!(5)),
        ("exp", Value::Null),
    ] {
        let token = sign(name, value.clone(), Algorithm::HS256)?;
        assert_eq!(select(&server, &token).await?, (401, json!("INVALID_CREDENTIALS")), "{name} = {value}");
    }
    let expired =
        server.request_as(&sign("exp", json!(now() - 5), Algorithm::HS256)?, &json!({"sql": "SELECT 1"})).await?;
    assert_eq!((expired.status.as_u16(), &expired.body["error"]["code"]), (401, &json!("TOKEN_EXPIRED")));
    assert!(
        expired.body["results"] == json!([]) && expired.body["took"].is_number(),
        "a whole reply: {}",
        expired.body
    );
    assert_eq!(select(&server, &sign("sub", json!("root"), Algorithm::HS384)?).await?.0, 401);
    let basic = server.http.post(format!("{}/v1/api/sql", server.url)).basic_auth("root", Some(ROOT_PASSWORD));
    assert_eq!(basic.json(&json!({"sql": "SELECT 1"})).send().await?.status(), 401);
    let unsigned =
        format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", server.token.split('.').nth(1).context("claims")?);
    assert_eq!(select(&server, &unsigned).await?, (401, json!("INVALID_CREDENTIALS")));
    Ok(())
}

#[tokio::test]
async fn tokens_of_a_trusted_issuer_name_users_without_a_password() -> Result<()> {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let key = EncodingKey::from_ec_der(&pair.serialize_der());
    let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
    let folder = Folder::new()?;
    let file = folder.data.path().join("issuers.json");
    std::fs::write(
        &file,
        json!([{"issuer": "https://id.example", "audience": "kalamdb", "jwks": {"keys": [jwk]}}]).to_string(),
    )?;
    let server = Server::start_in(folder.with("KALAMDB_AUTH_OIDC_ISSUERS", file.display().to_string())).await?;
    server
        .sql("CREATE USER 'subject-1' WITH INTERNAL ROLE service; CREATE USER ann WITH PASSWORD 'the-password-of-ann'")
        .await?;
    let token = |subject: &str, audience: &str, expires: i64| {
        let claims =
            json!({"iss": "https://id.example", "aud": audience, "sub": subject, "exp": expires, "iat": now()});
        encode(&Header::new(Algorithm::ES256), &claims, &key)
    };
    let good = token("subject-1", "kalamdb", now() + 600)?;
    let who = server.sql_as(&good, "SELECT CURRENT_USER(), CURRENT_ROLE()").await?;
    assert_eq!(who["rows"], json!([["subject-1", "service"]]));
    let denied = server.request_as(&good, &json!({"sql": "CREATE USER x WITH INTERNAL"})).await?;
    assert_eq!(denied.status, 403, "the role is the user table's");
    for (subject, audience, expires, code) in [
        ("ann", "kalamdb", now() + 600, "INVALID_CREDENTIALS"),
        ("root", "kalamdb", now() + 600, "INVALID_CREDENTIALS"),
        ("nobody", "kalamdb", now() + 600, "INVALID_CREDENTIALS"),
        ("subject-1", "another", now() + 600, "INVALID_CREDENTIALS"),
        ("subject-1", "kalamdb", now() - 5, "TOKEN_EXPIRED"),
    ] {
        assert_eq!(select(&server, &token(subject, audience, expires)?).await?, (401, json!(code)), "{subject}");
    }
    let refresh = server.http.post(format!("{}/v1/api/auth/refresh", server.url)).bearer_auth(&good).send().await?;
    assert_eq!(refresh.status(), 401, "it refreshes nothing");
    server.sql("DROP USER 'subject-1'").await?;
    assert_eq!(select(&server, &good).await?.0, 401);
    Ok(())
}

#[tokio::test]
async fn health_tells_version_and_build() -> Result<()> {
    let server = Server::start().await?;
    for path in ["/health", "/v1/api/healthcheck"] {
        let body: Value = server.http.get(format!("{}{path}", server.url)).send().await?.json().await?;
        assert_eq!((&body["status"], &body["api_version"]), (&json!("healthy"), &json!("v1")), "{body}");
        assert!(
            body["version"].is_string() && body["build_date"].as_str().is_some_and(|date| date.starts_with("20")),
            "{body}"
        );
    }
    let missing = server.http.get(format!("{}/nothing", server.url)).send().await?;
    assert_eq!((missing.status().as_u16(), missing.json::<Value>().await?["error"].clone()), (404, json!("not_found")));
    Ok(())
}
