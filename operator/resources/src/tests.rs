//! The objects of two databases as golden YAML, and what is and is not a difference to the cluster.
//!
//! `KALAMDB_BLESS=1 cargo test -p kalamdb-resources` rewrites the golden files.

use std::path::Path;

use kalamdb_crds::KalamDB;
use serde_json::{Value, json};

use crate::*;

fn kalamdb(object_store: Value) -> KalamDB {
    serde_json::from_value(json!({
        "apiVersion": "kalamdb.io/v1alpha1",
        "kind": "KalamDB",
        "metadata": { "name": "chat", "namespace": "shop", "uid": "0b5f" },
        "spec": {
            "objectStore": object_store,
            "storage": { "size": "20Gi", "storageClassName": "fast" },
            "resources": { "requests": { "cpu": "1000m", "memory": "2Gi" } },
            "deletionPolicy": "Delete",
        },
    }))
    .expect("a KalamDB")
}

fn s3() -> Value {
    json!({ "type": "S3", "s3": {
        "bucket": "kalam", "endpoint": "http://s3:7070/", "credentialsSecretRef": { "name": "chat-s3" },
    } })
}

fn keys(secret: &str) -> References {
    let content = [("accessKeyId", "key"), ("secretAccessKey", secret)];
    let content = content.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
    References { s3_credentials: Some(content.into()) }
}

fn defaults() -> Defaults {
    Defaults { image: "kalamdb-instance:0.1.0".to_owned() }
}

fn database(object_store: Value, references: &References) -> Database {
    Database::resolve(&kalamdb(object_store), references, &defaults()).expect("a complete database")
}

fn check_golden(name: &str, objects: &[Desired]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden").join(name);
    let text: Vec<_> = objects.iter().map(|object| serde_yaml_ng::to_string(&object.body).expect("yaml")).collect();
    let text = text.join("---\n");
    if std::env::var_os("KALAMDB_BLESS").is_some() {
        std::fs::write(&path, &text).expect("write the golden file");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{name} is out of date: run KALAMDB_BLESS=1 cargo test -p kalamdb-resources\n{text}");
}

#[test]
fn a_database_in_a_bucket() {
    check_golden("s3.yaml", &build(&database(s3(), &keys("secret")), &Existing::default()));
}

#[test]
fn a_database_on_its_volume_differs_in_configuration_and_keys_alone() {
    let volume = build(&database(json!({ "type": "Volume" }), &References::default()), &Existing::default());
    let config = volume.into_iter().find(|object| object.kind == ObjectKind::ConfigMap).expect("a ConfigMap");
    check_golden("volume-config.yaml", &[config]);
}

#[test]
fn new_keys_of_the_store_make_a_new_pod_and_nothing_else() {
    let before = build(&database(s3(), &keys("secret")), &Existing::default());
    let after = build(&database(s3(), &keys("rotated")), &Existing::default());
    let changed: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    assert!(matches!(changed[..], [(object, _)] if object.kind == ObjectKind::StatefulSet), "{changed:?}");
}

#[test]
fn a_missing_secret_and_a_missing_key_are_named() {
    let resolve = |references: &References| {
        Database::resolve(&kalamdb(s3()), references, &defaults()).expect_err("an incomplete database").to_string()
    };
    assert!(resolve(&References::default()).contains("\"chat-s3\""));
    let mut one_key = keys("secret");
    one_key.s3_credentials.as_mut().expect("keys").remove("secretAccessKey");
    assert!(resolve(&one_key).contains("\"secretAccessKey\""));
}

#[test]
fn an_endpoint_without_keys_is_refused_and_amazon_gives_a_pod_its_own() {
    let resolve = |s3: Value| {
        let spec = json!({ "type": "S3", "s3": s3 });
        Database::resolve(&kalamdb(spec), &References::default(), &defaults()).map_err(|error| error.to_string())
    };
    let refused = resolve(json!({ "bucket": "kalam", "endpoint": "http://s3:7070" })).expect_err("no keys");
    assert!(refused.contains("credentialsSecretRef must be given"), "{refused}");
    assert!(resolve(json!({ "bucket": "kalam" })).is_ok());
}

#[test]
fn what_the_api_server_adds_or_rewrites_is_no_difference() {
    let objects = build(&database(s3(), &keys("secret")), &Existing::default());
    let set = objects.last().expect("a StatefulSet");
    let mut live = set.body.clone();
    live["metadata"]["resourceVersion"] = json!("17");
    live["spec"]["revisionHistoryLimit"] = json!(10);
    live["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("1");
    assert!(set.is_met_by(&live));

    live["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other:1");
    assert!(!set.is_met_by(&live), "an image that somebody changed by hand");
    assert!(!set.is_met_by(&Value::Null), "no object at all");
}

#[test]
fn a_field_that_is_no_longer_set_is_a_difference() {
    let before = build(&database(s3(), &keys("secret")), &Existing::default());
    let mut lighter = kalamdb(s3());
    lighter.spec.resources = None;
    let lighter = Database::resolve(&lighter, &keys("secret"), &defaults()).expect("a complete database");
    let after = build(&lighter, &Existing::default());
    assert!(!after.last().expect("a StatefulSet").is_met_by(&before.last().expect("a StatefulSet").body));
}

#[test]
fn credentials_are_made_whole_and_only_missing_ones_are_added() {
    let random: Generated = std::array::from_fn(|index| index as u8);
    let secret = new_credentials(&database(s3(), &keys("secret")), &random);
    let data = secret.data.expect("content");
    assert_eq!(data.keys().collect::<Vec<_>>(), ["jwt-secret", "root-password", "scheduler-token"]);
    assert!((8..=72).contains(&data[ROOT_PASSWORD_KEY].0.len()));

    let chosen = SecretContent::from([(ROOT_PASSWORD_KEY.to_owned(), b"chosen by hand".to_vec())]);
    assert_eq!(
        missing_credentials(&chosen, &random).into_keys().collect::<Vec<_>>(),
        [JWT_SECRET_KEY, SCHEDULER_TOKEN_KEY]
    );
}

#[test]
fn the_claim_template_keeps_its_size_when_the_volume_grows() {
    let database = database(s3(), &keys("secret"));
    let existing = Existing { claim_template_size: Some("5Gi".parse().expect("an amount")) };
    let set = build(&database, &existing).pop().expect("a StatefulSet");
    assert_eq!(set.body["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"], "5Gi");
    assert_eq!(volume_claim(&database).body["spec"]["resources"]["requests"]["storage"], "20Gi");
}
