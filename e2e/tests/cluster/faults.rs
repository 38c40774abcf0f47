//! The S3 server goes away while rows wait to be flushed, and comes back.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kalamdb_e2e::wait::{self, Seen};

use crate::environment::{FLIGHTS, Place, replaced, variable};

const START_LIMIT: Duration = Duration::from_secs(20);

#[test]
fn writes_go_on_without_the_object_store_and_the_flush_is_made_up_for() -> Result<()> {
    let mut place = Place::new("s3-gone")?;
    let mut server = Server::start(&place)?;
    let example = place.s3_example()?;
    let manifest = replaced(&example, &place.bucket.endpoint, &server.endpoint());
    place.bucket.endpoint = server.endpoint();
    place.bucket.create()?;
    place.create_s3_secret()?;
    place.kubectl.apply(&manifest)?;
    let mut database = place.database(FLIGHTS);
    database.wait_until_ready(|_| {})?;
    let root = database.root()?;
    root.batch(
        "CREATE NAMESPACE app;
         CREATE TABLE app.events (id BIGINT PRIMARY KEY, body TEXT) WITH (FLUSH_POLICY = 'rows:100');
         INSERT INTO app.events VALUES (0, 'reached the store')",
    )?;

    server.stop();
    for id in 1..=200 {
        root.run(&format!("INSERT INTO app.events VALUES ({id}, 'written while the store was away')"))?;
    }
    database.wait_for("the operator to report a failed flush", |_| {
        let warned = place.was_warned_of(FLIGHTS, "app.events")?;
        Ok(if warned { Seen::Ready(()) } else { Seen::Waiting("no Event of it".to_owned()) })
    })?;
    ensure!(root.integer("SELECT COUNT(*) FROM app.events")? == 201, "rows are missing while the store is away");
    let away = database.wait_for_condition("ObjectStoreReachable", "False", |_| {})?;
    ensure!(away["message"].as_str().is_some_and(|message| !message.is_empty()), "no word of why: {away}");
    check_that_the_status_stands_still(&place)?;

    server.resume()?;
    database.wait_for_condition("ObjectStoreReachable", "True", |_| {})?;
    wait::until("the flush to be made up for", Duration::from_secs(240), || {
        let files = place.cold_files()?.into_iter().filter(|file| file.ends_with(".parquet")).count();
        Ok(if files > 0 { Seen::Ready(()) } else { Seen::Waiting("no Parquet file".to_owned()) })
    })
    .with_context(|| database.account())?;
    // The database may have been called not ready meanwhile; its Service answers again once it is ready.
    database.wait_until_ready(|_| {})?;
    ensure!(database.root()?.integer("SELECT COUNT(*) FROM app.events")? == 201, "rows were lost or doubled");
    place.remove()
}

/// A store that fails gives each error a new request id: those must not make the operator write the status again and again.
fn check_that_the_status_stands_still(place: &Place) -> Result<()> {
    let conditions = || -> Result<String> {
        let object = place.kubectl.get("kalamdb", FLIGHTS)?.context("the KalamDB is gone")?;
        Ok(object["status"]["conditions"].to_string())
    };
    let before = conditions()?;
    // Several looks of the operator at an instance whose store is away.
    std::thread::sleep(Duration::from_secs(15));
    let after = conditions()?;
    ensure!(before == after, "the conditions changed:\n{before}\n{after}");
    Ok(())
}

/// An S3 server of this test alone, beside the shared one, so that it can go away.
struct Server {
    child: Child,
    address: String,
    folder: PathBuf,
    keys: (String, String),
}

impl Server {
    fn start(place: &Place) -> Result<Self> {
        let shared = place.bucket.endpoint.trim_start_matches("http://");
        let (host, _) = shared.rsplit_once(':').with_context(|| format!("{shared} is not host:port"))?;
        let port = TcpListener::bind((host, 0)).and_then(|listener| listener.local_addr());
        let port = port.with_context(|| format!("failed to find a free port on {host}"))?.port();
        let address = format!("{host}:{port}");
        let folder = std::env::temp_dir().join(place.kubectl.namespace());
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        let keys = (place.bucket.access_key.clone(), place.bucket.secret_key.clone());
        let child = spawn(&address, &folder, &keys)?;
        let server = Self { child, address, folder, keys };
        server.wait()?;
        Ok(server)
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn stop(&mut self) {
        // A server that has ended by itself needs no signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn resume(&mut self) -> Result<()> {
        self.child = spawn(&self.address, &self.folder, &self.keys)?;
        self.wait()
    }

    fn wait(&self) -> Result<()> {
        wait::until("the S3 server to listen", START_LIMIT, || {
            Ok(match std::net::TcpStream::connect(&self.address) {
                Ok(_) => Seen::Ready(()),
                Err(error) => Seen::Waiting(error.to_string()),
            })
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn spawn(address: &str, folder: &Path, keys: &(String, String)) -> Result<Child> {
    let program = variable("KALAMDB_TEST_VERSITYGW")?;
    Command::new(&program)
        .env("ROOT_ACCESS_KEY_ID", &keys.0)
        .env("ROOT_SECRET_ACCESS_KEY", &keys.1)
        .args(["--port", address, "--quiet", "posix"])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("failed to start {program}"))
}
