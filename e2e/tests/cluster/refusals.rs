//! What the API server refuses, and whether its message tells how to mend it.

use anyhow::{Result, ensure};

use crate::environment::{Place, example, replaced};

#[test]
fn an_invalid_resource_is_refused_with_a_message_that_says_how_to_mend_it() -> Result<()> {
    let place = Place::new("refusals")?;
    let s3 = example("kalamdb-s3.yaml")?;
    let volume = example("kalamdb-volume.yaml")?;
    for (manifest, message) in [
        (replaced(&volume, "type: Volume", "type: S3"), "add the s3 member, or set type to Volume"),
        (replaced(&volume, "type: Volume", "type: Tape"), "supported values"),
        (replaced(&volume, "size: 2Gi", "size: 1Mi"), "storage.size must be at least 64Mi"),
        (replaced(&volume, "size: 2Gi", "size: plenty"), "spec.storage.size"),
        (replaced(&volume, "maxAge: 10m", "maxAge: 0s"), "flush.maxAge must be above 0"),
        (replaced(&volume, "name: notes", "name: 9-notes"), "must begin with a letter"),
        (replaced(&s3, "bucket: kalamdb", "bucket: Kalam_DB"), "a bucket name has 3 to 63 lower-case letters"),
        (replaced(&s3, "endpoint: http://s3:7070", "endpoint: s3:7070"), "an endpoint is http:// or https://"),
        (replaced(&s3, "maxConcurrent: 2", "maxConcurrent: 0"), "spec.flush.maxConcurrent"),
        (replaced(&s3, "deletionPolicy: Retain", "deletionPolicy: Keep"), "supported values"),
        (replaced(&s3, "maxRows: 100000", "maxRowz: 100000"), "maxRowz"),
    ] {
        let refusal = match place.kubectl.apply(&manifest) {
            Ok(said) => anyhow::bail!("the API server took it ({said}):\n{manifest}"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(refusal.to_lowercase().contains(&message.to_lowercase()), "no {message:?} in: {refusal}");
    }
    ensure!(place.kubectl.list("kalamdbs")?.is_empty(), "something was created");
    place.remove()
}
