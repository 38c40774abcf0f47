//! What becomes of a database's volume and credentials when its `KalamDB` goes.

use anyhow::{Result, ensure};

use crate::environment::{Place, example};

const NAME: &str = "notes";
const VOLUME: &str = "data-notes-0";
const CREDENTIALS: &str = "notes-credentials";

#[test]
fn retained_rows_come_back_with_a_new_resource_and_deleted_ones_go_with_it() -> Result<()> {
    let place = Place::new("deletion")?;
    let manifest = example("kalamdb-volume.yaml")?;
    place.kubectl.apply(&manifest)?;
    let mut database = place.database(NAME);
    database.wait_until_ready(|_| {})?;
    database.root()?.batch(
        "CREATE NAMESPACE app; CREATE TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT);
         INSERT INTO app.notes VALUES (1, 'kept'), (2, 'flushed too')",
    )?;
    let shrink = place.kubectl.run(&[
        "patch",
        "kalamdb",
        NAME,
        "--type=merge",
        "--patch",
        r#"{"spec":{"storage":{"size":"1Gi"}}}"#,
    ]);
    ensure!(shrink.is_err_and(|error| format!("{error:#}").contains("cannot shrink")), "the volume may shrink");

    place.kubectl.run(&["delete", "kalamdb", NAME, "--timeout=300s"])?;
    place.wait_until_gone("statefulset", NAME)?;
    place.wait_until_gone("pod", "notes-0")?;
    ensure!(place.kubectl.get("pvc", VOLUME)?.is_some(), "deletionPolicy Retain lost the volume");
    ensure!(place.kubectl.get("secret", CREDENTIALS)?.is_some(), "deletionPolicy Retain lost the credentials");

    place.kubectl.apply(&manifest)?;
    let mut database = place.database(NAME);
    database.wait_until_ready(|_| {})?;
    ensure!(database.root()?.integer("SELECT COUNT(*) FROM app.notes")? == 2, "rows are missing");

    place.kubectl.run(&[
        "patch",
        "kalamdb",
        NAME,
        "--type=merge",
        "--patch",
        r#"{"spec":{"deletionPolicy":"Delete"}}"#,
    ])?;
    let generation = 2;
    database.wait_for("the operator to see the new deletion policy", |object| {
        use kalamdb_e2e::wait::Seen;
        let seen = &object["status"]["observedGeneration"];
        Ok(if *seen == generation { Seen::Ready(()) } else { Seen::Waiting(format!("generation {seen}")) })
    })?;
    place.kubectl.run(&["delete", "kalamdb", NAME, "--timeout=300s"])?;
    place.wait_until_gone("pvc", VOLUME)?;
    place.wait_until_gone("secret", CREDENTIALS)?;
    place.remove()
}
