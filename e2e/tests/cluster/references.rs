//! A resource that can't work yet: it says what is missing, and comes up when that is there.

use anyhow::{Result, ensure};
use kalamdb_e2e::bucket::Bucket;
use kalamdb_e2e::database::Database;
use serde_json::Value as Json;

use crate::environment::{FLIGHTS, FLIGHTS_SECRET, Place, replaced};

#[test]
fn a_missing_secret_is_named_and_its_creation_mends_the_database() -> Result<()> {
    let place = Place::new("secret")?;
    place.kubectl.apply(&place.s3_example()?)?;
    let mut database = place.database(FLIGHTS);
    let condition = database.wait_for_condition("ReferencesResolved", "False", |_| {})?;
    check(&place, &condition, FLIGHTS_SECRET)?;

    place.create_s3_secret()?;
    comes_up(&mut database)?;
    place.remove()
}

#[test]
fn a_missing_bucket_is_named_and_its_creation_mends_the_database() -> Result<()> {
    let place = Place::new("bucket")?;
    place.create_s3_secret()?;
    let missing = Bucket { name: place.kubectl.namespace().to_owned(), ..place.bucket.clone() };
    let example = place.s3_example()?;
    let manifest = replaced(&example, &format!("bucket: {}", place.bucket.name), &format!("bucket: {}", missing.name));
    place.kubectl.apply(&manifest)?;
    let mut database = place.database(FLIGHTS);
    let condition = database.wait_for_condition("ObjectStoreReachable", "False", |_| {})?;
    check(&place, &condition, &missing.name)?;

    missing.create()?;
    comes_up(&mut database)?;
    place.remove()
}

/// The condition and an Event name what is missing.
fn check(place: &Place, condition: &Json, name: &str) -> Result<()> {
    let message = condition["message"].as_str().unwrap_or_default();
    ensure!(message.contains(name), "the message does not name {name}: {condition}");
    ensure!(condition["observedGeneration"] == 1, "the condition is of another generation: {condition}");
    place.database(FLIGHTS).wait_for(&format!("an Event that names {name}"), |_| {
        use kalamdb_e2e::wait::Seen;
        Ok(if place.was_warned_of(FLIGHTS, name)? { Seen::Ready(()) } else { Seen::Waiting("no such Event".into()) })
    })
}

fn comes_up(database: &mut Database) -> Result<()> {
    database.wait_until_ready(|_| {})?;
    ensure!(database.root()?.integer("SELECT 1 + 1")? == 2, "the database does not answer");
    Ok(())
}
