//! What the API server refuses, and whether its message tells how to mend it.

use anyhow::{Result, ensure};
use kalamdb_e2e::wait::Seen;

use crate::environment::{FLIGHTS, Place, example, replaced};

/// The database that `examples/kalamdb-volume.yaml` describes.
const VOLUME: &str = "notes";

#[test]
fn an_invalid_resource_is_refused_with_a_message_that_says_how_to_mend_it() -> Result<()> {
    let place = Place::new("refusals")?;
    let s3 = example("kalamdb-s3.yaml")?;
    let volume = example("kalamdb-volume.yaml")?;
    for (manifest, message) in [
        (replaced(&volume, "type: Volume", "type: S3"), "add the s3 member, or set type to Volume"),
        (replaced(&volume, "type: Volume", "type: Tape"), "supported values"),
        (replaced(&volume, "size: 2Gi", "size: 2Gi\n    accessMode: ReadWriteMany"), "supported values"),
        (replaced(&volume, "size: 2Gi", "size: 1023Mi"), "storage.size must be at least 1Gi"),
        (replaced(&volume, "size: 2Gi", "size: plenty"), "spec.storage.size"),
        (replaced(&volume, "maxAge: 10m", "maxAge: 0s"), "flush.maxAge must be above 0"),
        (replaced(&volume, "name: notes", "name: 9-notes"), "must begin with a letter"),
        (replaced(&s3, "bucket: kalamdb", "bucket: Kalam_DB"), "a bucket name has 3 to 63 lower-case letters"),
        (replaced(&s3, "endpoint: http://s3:7070", "endpoint: s3:7070"), "an endpoint is http:// or https://"),
        (replaced(&s3, "bucket: kalamdb", "bucket: kalamdb\n      prefix: chat"), "ends with a slash, such as chat/"),
        (replaced(&s3, "maxBytes: 64Mi", "maxBytes: 0"), "flush.maxBytes must be above 0"),
        (replaced(&s3, "maxConcurrent: 2", "maxConcurrent: 0"), "spec.flush.maxConcurrent"),
        (replaced(&s3, "deletionPolicy: Retain", "deletionPolicy: Keep"), "supported values"),
        (replaced(&s3, "maxRows: 100000", "maxRowz: 100000"), "maxRowz"),
        (
            replaced(&s3, "      credentialsSecretRef:\n        name: flights-s3\n", ""),
            "credentialsSecretRef must be given",
        ),
        (
            replaced(&volume, "  resources:\n", "  resources:\n    limits: { cpu: 50m }\n"),
            "must not be above resources.limits",
        ),
    ] {
        check_refusal(place.kubectl.apply(&manifest), message)?;
    }
    ensure!(place.kubectl.list("kalamdbs")?.is_empty(), "something was created");
    place.remove()
}

#[test]
fn what_cannot_change_is_refused_with_a_message_that_says_what_to_do_instead() -> Result<()> {
    let place = Place::new("changes")?;
    // The Secret that it refers to is missing, so that no pod starts; the API server judges a change all the same.
    place.kubectl.apply(&place.s3_example()?)?;
    place.kubectl.apply(&example("kalamdb-volume.yaml")?)?;
    for (name, change, message) in [
        (FLIGHTS, r#"{"objectStore":{"s3":{"bucket":"another"}}}"#, "objectStore.s3.bucket cannot change"),
        (FLIGHTS, r#"{"objectStore":{"s3":{"prefix":"elsewhere/"}}}"#, "objectStore.s3.prefix cannot change"),
        (FLIGHTS, r#"{"objectStore":{"type":"Volume","s3":null}}"#, "objectStore.type cannot change"),
        (FLIGHTS, r#"{"storage":{"storageClassName":"another"}}"#, "storage.storageClassName cannot change"),
        (FLIGHTS, r#"{"storage":{"size":"1Gi"}}"#, "storage.size cannot shrink"),
        (FLIGHTS, r#"{"storage":{"accessMode":"ReadWriteOncePod"}}"#, "storage.accessMode cannot change"),
        (VOLUME, r#"{"objectStore":{"type":"S3","s3":{"bucket":"kalamdb"}}}"#, "objectStore.type cannot change"),
        (VOLUME, r#"{"storage":{"size":"1Gi"}}"#, "storage.size cannot shrink"),
    ] {
        check_refusal(change_spec(&place, name, change), message)?;
    }
    // What can change is not refused along with it.
    change_spec(&place, FLIGHTS, r#"{"storage":{"size":"40Gi"},"flush":{"maxRows":7},"deletionPolicy":"Delete"}"#)?;
    place.remove()
}

#[test]
fn an_object_that_the_api_server_refuses_is_told_and_mended_by_a_mended_spec() -> Result<()> {
    let place = Place::new("apply-refused")?;
    // The definition knows no list of resources; the API server's own check of the pod does.
    let volume = example("kalamdb-volume.yaml")?;
    place.kubectl.apply(&replaced(&volume, "cpu: 100m", "cpus: 100m"))?;
    let database = place.database(VOLUME);
    let condition = database.wait_for_condition("Progressing", "False", |_| {})?;
    ensure!(condition["reason"] == "ApplyRefused", "another reason: {condition}");
    ensure!(condition["message"].as_str().is_some_and(|message| message.contains("cpus")), "no name: {condition}");
    ensure!(condition["observedGeneration"] == 1, "the condition is of another generation: {condition}");
    database.wait_for("an Event that names it", |_| {
        Ok(if place.was_warned_of(VOLUME, "cpus")? { Seen::Ready(()) } else { Seen::Waiting("no such Event".into()) })
    })?;

    change_spec(&place, VOLUME, r#"{"resources":{"requests":{"cpus":null,"cpu":"100m"}}}"#)?;
    database.wait_until_ready(|_| {})?;
    place.remove()
}

fn change_spec(place: &Place, name: &str, change: &str) -> Result<String> {
    place.kubectl.run(&["patch", "kalamdb", name, "--type=merge", "--patch", &format!(r#"{{"spec":{change}}}"#)])
}

fn check_refusal(answer: Result<String>, message: &str) -> Result<()> {
    let refusal = match answer {
        Ok(said) => anyhow::bail!("the API server took what it should refuse with {message:?}: {said}"),
        Err(error) => format!("{error:#}"),
    };
    ensure!(refusal.to_lowercase().contains(&message.to_lowercase()), "no {message:?} in: {refusal}");
    Ok(())
}
