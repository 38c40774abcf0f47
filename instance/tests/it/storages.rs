//! Tables that live in storages of their own: folders and buckets beside the database's object store.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::buckets::Bucket;
use crate::server::{Folder, Server};

/// Parquet files below a folder.
fn files_below(folder: &Path) -> Result<usize> {
    let (mut found, mut folders) = (0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        if !folder.exists() {
            continue;
        }
        for entry in std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()? {
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
            found += usize::from(entry.path().extension().is_some_and(|ending| ending == "parquet"));
        }
    }
    Ok(found)
}

#[tokio::test]
async fn a_table_lives_in_the_folder_of_its_storage() -> Result<()> {
    let elsewhere = tempfile::tempdir()?;
    let path = elsewhere.path().join("cold");
    let server = Server::start().await?;
    server
        .sql(&format!(
            "CREATE STORAGE archive TYPE filesystem NAME 'Archive' DESCRIPTION 'slow' PATH '{0}';
             ALTER STORAGE archive SET NAME 'The archive';
             CREATE TABLE far (id INT PRIMARY KEY, v TEXT) WITH (STORAGE_ID = 'archive', DELETED_RETENTION_HOURS = 48);
             CREATE USER TABLE far2 (id INT PRIMARY KEY) WITH (storage_id = archive);
             CREATE TABLE near (id INT PRIMARY KEY) WITH (STORAGE_ID = local)",
            path.display()
        ))
        .await?;
    let near = server.folder().data.path().join("data/cold");
    for round in 0..3 {
        server
            .sql(&format!(
                "INSERT INTO far VALUES ({round}, 'x'), (1{round}, 'y'); UPDATE far SET v = 'z' WHERE id = 0"
            ))
            .await?;
        assert_eq!(server.flush("far").await?, "completed");
    }
    server.sql("INSERT INTO far2 VALUES (1); INSERT INTO near VALUES (1); DELETE FROM far WHERE id = 1").await?;
    assert_eq!((server.flush("far").await?, server.flush("far2").await?), ("completed".into(), "completed".into()));
    assert_eq!(files_below(&near)?, 0, "nothing of them lies in the database's own store");
    assert!(files_below(&path)? >= 4);
    assert_eq!(server.compact("far").await?, "completed");
    let rows = json!([[0, "z"], [2, "x"], [10, "y"], [11, "y"], [12, "y"]]);
    assert_eq!(server.rows("SELECT id, v FROM far ORDER BY id").await?, rows);

    let server = Server::start_in(server.stop()?).await?;
    assert_eq!(server.rows("SELECT id, v FROM far ORDER BY id").await?, rows, "after a restart");
    assert_eq!(server.rows("SELECT id FROM far WHERE id = 11").await?, json!([[11]]));
    let stored = server.rows("SELECT storage_id, storage_name, description, storage_type, base_directory FROM system.storages ORDER BY 1").await?;
    assert_eq!(stored[0], json!(["archive", "The archive", "slow", "filesystem", path.to_str()]));
    assert_eq!(
        server.rows("SELECT table_name, storage_id FROM system.tables ORDER BY 1").await?,
        json!([["far", "archive"], ["far2", "archive"], ["near", "local"]])
    );
    let options = server.rows("SELECT options FROM system.tables WHERE table_name = 'far'").await?;
    assert!(options[0][0].as_str().is_some_and(|text| text.contains("\"deleted_retention_hours\":48")), "{options}");

    for id in ["archive", "local"] {
        let check = server.sql(&format!("STORAGE CHECK {id} EXTENDED")).await?;
        assert_eq!(
            check["rows"][0].as_array().context("a row")?[..6],
            [json!(id), json!("healthy"), json!(true), json!(true), json!(true), json!(true)]
        );
        assert!(check["rows"][0][8].is_string(), "{check}");
    }
    assert_eq!(server.rows("SELECT count(*) FROM system.storages").await?, json!([["2"]]));
    server.try_sql("DROP STORAGE archive").await?.assert_refused(
        "DROP STORAGE archive",
        400,
        "SQL_EXECUTION_ERROR",
        "Cannot drop storage 'archive': 2 table(s) still using it",
    );
    server.sql("DROP TABLE far; DROP TABLE far2; DROP STORAGE archive; DROP STORAGE IF EXISTS archive").await?;
    Ok(())
}

/// The volume is lost; the catalog's mirror says where the tables are.
#[tokio::test]
async fn a_recovered_database_finds_its_tables_in_other_storages() -> Result<()> {
    let elsewhere = tempfile::tempdir()?;
    let server = Server::start().await?;
    server
        .sql(&format!("CREATE STORAGE archive TYPE filesystem NAME 'A' PATH '{}'", elsewhere.path().display()))
        .await?;
    server
        .sql("CREATE TABLE far (id INT PRIMARY KEY) WITH (STORAGE_ID = archive); INSERT INTO far VALUES (1), (2)")
        .await?;
    assert_eq!(server.flush("far").await?, "completed");
    let folder = server.stop()?;
    std::fs::remove_dir_all(folder.data.path().join("data/hot"))?;
    let server = Server::start_in(folder).await?;
    assert_eq!(server.rows("SELECT id FROM far ORDER BY id").await?, json!([[1], [2]]));
    server.sql("INSERT INTO far VALUES (3)").await?;
    assert_eq!(server.flush("far").await?, "completed");
    assert_eq!(server.rows("SELECT count(*) FROM far").await?, json!([["3"]]));
    assert_eq!(
        server.rows("SELECT storage_id FROM system.storages ORDER BY 1").await?,
        json!([["archive"], ["local"]])
    );
    Ok(())
}

#[tokio::test]
async fn a_table_lives_in_the_bucket_of_its_storage_and_the_secret_stays_inside() -> Result<()> {
    let Some(bucket) = Bucket::new()? else { return Ok(()) };
    let _s3 = bucket.serve().await?;
    let server = Server::start().await?;
    let config = json!({"endpoint": format!("http://127.0.0.1:{}", bucket.port), "access_key_id": "test", "secret_access_key": "testsecret"});
    server.sql(&format!("CREATE STORAGE s3 TYPE s3 NAME 'S3' PATH 's3://kalam' CONFIG '{config}'")).await?;
    server.sql("CREATE TABLE far (id INT PRIMARY KEY) WITH (STORAGE_ID = s3); INSERT INTO far VALUES (1), (2)").await?;
    assert_eq!(server.flush("far").await?, "completed");
    assert!(!bucket.objects()?.is_empty());
    let server = Server::start_in(server.stop()?).await?;
    assert_eq!(server.rows("SELECT count(*) FROM far").await?, json!([["2"]]));
    for sql in [
        "SELECT * FROM system.storages",
        "SHOW STORAGES",
        "STORAGE CHECK s3",
        "SELECT * FROM system.tables",
        "SELECT * FROM system.schemas",
    ] {
        let shown = server.sql(sql).await?.to_string();
        assert!(!shown.contains("testsecret"), "{sql}: {shown}");
    }
    Ok(())
}

#[tokio::test]
async fn storages_that_cannot_be_are_refused_and_their_secrets_not_repeated() -> Result<()> {
    let server = Server::start_in(Folder::new()?).await?;
    let file = tempfile::NamedTempFile::new()?;
    server.sql("CREATE USER backend WITH PASSWORD 'pass-of-backend' ROLE service").await?;
    let backend = server.login("backend", "pass-of-backend").await?;
    for (sql, code) in [
        ("CREATE STORAGE local TYPE filesystem NAME 'x' PATH '/tmp/x'".to_owned(), "ALREADY_EXISTS"),
        ("CREATE STORAGE a TYPE tape NAME 'x' PATH '/tmp/x'".to_owned(), "INVALID_VALUE"),
        ("CREATE STORAGE a TYPE filesystem NAME 'x' PATH 'relative'".to_owned(), "INVALID_VALUE"),
        ("CREATE STORAGE a TYPE filesystem NAME 'x' PATH '/tmp/../etc'".to_owned(), "INVALID_VALUE"),
        ("CREATE STORAGE \"a/../b\" TYPE filesystem NAME 'x' PATH '/tmp/x'".to_owned(), "INVALID_VALUE"),
        (format!("CREATE STORAGE a TYPE filesystem NAME 'x' PATH '{}/below'", file.path().display()), "INVALID_VALUE"),
        ("CREATE STORAGE a TYPE s3 NAME 'x' PATH 's3://'".to_owned(), "INVALID_VALUE"),
        (
            "CREATE STORAGE a TYPE s3 NAME 'x' PATH 's3://b' CONFIG '{\"secret_access_key\": \"hush-hush\"'".to_owned(),
            "INVALID_VALUE",
        ),
        (
            "CREATE STORAGE a TYPE s3 NAME 'x' PATH 's3://b' CONFIG '{\"secret_access_key\": \"hush-hush\"}'"
                .to_owned(),
            "INVALID_VALUE",
        ),
        ("CREATE STORAGE a TYPE s3 NAME 'x' PATH 's3://b' CONFIG '{\"hush-hush\": 1}'".to_owned(), "INVALID_VALUE"),
        ("CREATE STORAGE a NAME 'x' PATH '/tmp/x'".to_owned(), "INVALID_SQL"),
        ("ALTER STORAGE local SET NAME 'x'".to_owned(), "INVALID_VALUE"),
        ("DROP STORAGE local".to_owned(), "INVALID_VALUE"),
        ("DROP STORAGE missing".to_owned(), "NOT_FOUND"),
        ("STORAGE CHECK missing".to_owned(), "NOT_FOUND"),
        ("CREATE TABLE t (id INT PRIMARY KEY) WITH (STORAGE_ID = missing)".to_owned(), "NOT_FOUND"),
    ] {
        let answer = server.try_sql(&sql).await?;
        answer.assert_refused(&sql, 400, code, "");
        assert!(!answer.body["error"]["message"].to_string().contains("hush-hush"), "{}", answer.body);
    }
    for sql in ["CREATE STORAGE a TYPE filesystem NAME 'x' PATH '/tmp/x'", "STORAGE CHECK local", "DROP STORAGE a"] {
        let answer = server.request_as(&backend, &json!({"sql": sql})).await?;
        answer.assert_refused(sql, 403, "PERMISSION_DENIED", "dba");
    }
    let stored: Value = server.rows("SELECT storage_id FROM system.storages").await?;
    assert_eq!(stored, json!([["local"]]));
    Ok(())
}
