//! Volumes that are lost, copied or displaced, over the whole engine.

mod altered;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kalamdb_api::flush::{FlushReason, FlushState};

use super::objects;
use crate::EngineError;
use crate::catalog::{CatalogChange, Credentials, ROOT, Role, User};
use crate::config::{EngineConfig, ObjectStoreConfig};
use crate::engine::{Engine, Readiness};
use crate::evolution::TableChange;
use crate::flush::tests::{Model, World, config, copy_folder, open, open_at, ready};
use crate::schema::testing::table;
use crate::schema::{SqlType, Table, TableKind, TableName, UserId};

/// Whether the store is a folder whose objects a test can damage.
fn is_folder(world: &World) -> bool {
    matches!(config(world.folder.path()).object_store, ObjectStoreConfig::Local { .. })
}

async fn readiness_of(engine: &Engine, wanted: impl Fn(&Readiness) -> bool) -> Readiness {
    for _ in 0..1000 {
        let readiness = engine.readiness();
        if wanted(&readiness) {
            return readiness;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it stays {:?}", engine.readiness());
}

fn reason(readiness: &Readiness) -> &'static str {
    match readiness {
        Readiness::Ready => "",
        Readiness::NotReady { reason, .. } => reason,
    }
}

impl World {
    /// The volume is gone, the object store is not. What the world must hold then is what was flushed.
    pub(crate) async fn lose_volume(&mut self, flushed: Model) {
        self.stop().await;
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
        self.running = Some(open_at(config(self.folder.path()), &self.faults, &self.clock).await.unwrap());
        self.model = flushed;
    }

    pub(crate) async fn recovered(&mut self) {
        ready(self.engine()).await;
        self.table = self.engine().catalog().tables[&self.table.name].clone();
    }

    /// A second engine over the same object store, with that volume.
    async fn beside(&self, volume: PathBuf) -> Engine {
        open(EngineConfig { data_dir: volume, ..config(self.folder.path()) }, &self.faults).await.unwrap()
    }

    /// Mirrors of the catalog, oldest first.
    fn mirrors(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("cold/catalog");
        let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    }

    fn log_of(&self, table: &Table) -> PathBuf {
        self.folder.path().join(format!("cold/tables/{}/_delta_log", table.uuid))
    }

    /// Returns once the newest mirror is of the present catalog.
    pub(crate) async fn mirrored(&self) {
        let known = self.engine().catalog();
        for _ in 0..1000 {
            let newest = objects::newest(self.engine().flusher().runner.cold.store()).await.unwrap();
            if newest.is_some_and(|newest| {
                newest.catalog.tables == known.tables && newest.catalog.users.len() == known.users.len()
            }) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the catalog is not mirrored");
    }
}

async fn create(engine: &Engine, name: &str, kind: TableKind) -> Arc<Table> {
    let mut made = table(kind, &[SqlType::Int, SqlType::Text, SqlType::BigInt], &[0, 1]);
    (made.uuid, made.name) = (uuid::Uuid::new_v4(), TableName::new("default", name));
    engine.change_catalog(CatalogChange::CreateTable(Box::new(made))).await.unwrap();
    engine.catalog().tables[&TableName::new("default", name)].clone()
}

fn user(id: &str) -> User {
    let credentials = Credentials::Password("$argon2id$hash".into());
    User { id: id.into(), role: Role::Dba, email: Some("a@b".into()), credentials, created_at: 3, updated_at: 4 }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_volume_comes_back_with_all_that_was_flushed() {
    for kind in [TableKind::Shared, TableKind::User] {
        let mut world = World::new(kind).await;
        world.write("alice", &[(1, "a", Some(1)), (2, "a", Some(2)), (3, "b", Some(3))]).await;
        world.flush().await;
        world.write("alice", &[(2, "a", Some(20)), (3, "b", None)]).await;
        world.write("bob", &[(7, "a", Some(70))]).await;
        world.engine().change_catalog(CatalogChange::PutUser(user("ann"))).await.unwrap();
        create(world.engine(), "streams", TableKind::Stream).await;
        world.flush().await;
        let flushed = world.model.clone();
        let last = world.engine().draw_seq();
        // Only the lost volume knows of these: a new row, one over a flushed one, and a deletion.
        world.write("alice", &[(9, "a", Some(9)), (1, "a", Some(10)), (2, "a", None)]).await;
        world.mirrored().await;
        world.lose_volume(flushed).await;
        world.recovered().await;
        world.check("recovered").await;
        let catalog = world.engine().catalog();
        let ann = &catalog.users[&UserId::from("ann")];
        assert_eq!((ann.role, &ann.credentials, ann.email.as_deref()), (Role::Dba, &Credentials::None, Some("a@b")));
        assert!(catalog.tables.contains_key(&TableName::new("default", "streams")));
        assert!(world.engine().draw_seq() > last, "sequences go on above those of the lost volume");
        world.write("alice", &[(1, "a", Some(100)), (11, "a", Some(11)), (3, "b", Some(33))]).await;
        world.check("written again").await;
        assert_eq!(world.flush().await, FlushState::Completed);
        world.check("flushed again").await;
        let next = create(world.engine(), "next", TableKind::Shared).await;
        assert!(next.id > catalog.tables.values().map(|table| table.id).max().unwrap(), "numbers are not used again");
        world.restart().await;
        world.check("restarted").await;
        let flushed = world.model.clone();
        world.mirrored().await;
        world.lose_volume(flushed).await;
        world.recovered().await;
        world.check("recovered twice").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_table_comes_back_with_its_history() {
    let mut world = World::new(TableKind::Shared).await;
    world.write("", &[(1, "a", Some(1))]).await;
    world.flush().await;
    let rename = TableChange::RenameColumn { from: "c3".into(), to: "renamed".into() };
    world.engine().alter_table(&world.table, &rename, 5).await.unwrap();
    world.table = world.engine().catalog().tables[&world.table.name].clone();
    world.write("", &[(2, "a", Some(2))]).await;
    world.flush().await;
    let (flushed, versions) = (world.model.clone(), world.engine().catalog().versions_of(world.table.id).to_vec());
    world.lose_volume(flushed).await;
    world.recovered().await;
    assert_eq!(world.engine().catalog().versions_of(world.table.id), versions);
    assert_eq!(world.table.column("renamed").map(|column| column.physical_name.as_str()), Some("c3"));
    world.write("", &[(1, "a", Some(10))]).await;
    assert_eq!(world.flush().await, FlushState::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_never_flushed_comes_back_with_its_catalog() {
    let mut world = World::new(TableKind::Shared).await;
    world.write("", &[(1, "a", Some(1))]).await;
    world.mirrored().await;
    world.lose_volume(Model::new()).await;
    world.recovered().await;
    world.check("nothing was flushed").await;
    world.write("", &[(2, "a", Some(2))]).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    world.check("flushed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_delta_log_names_what_no_mirror_names() {
    let mut world = World::new(TableKind::Shared).await;
    if !is_folder(&world) {
        return;
    }
    world.mirrored().await;
    *world.faults.refuses.lock() = Some("catalog/");
    let name = world.table.name.clone();
    world.table = create(world.engine(), "u", TableKind::Shared).await;
    world.write("", &[(1, "a", Some(1))]).await;
    assert_eq!(world.flush().await, FlushState::Failed);
    assert!(!world.log_of(&world.table).exists(), "a log that a recovery would not find");
    *world.faults.refuses.lock() = None;
    assert_eq!(world.flush().await, FlushState::Completed);

    *world.faults.refuses.lock() = Some("catalog/");
    let rename = TableChange::RenameColumn { from: "c3".into(), to: "renamed".into() };
    world.engine().alter_table(&world.table, &rename, 5).await.unwrap();
    world.table = world.engine().catalog().tables[&world.table.name].clone();
    world.write("", &[(2, "a", Some(2))]).await;
    let entries = || std::fs::read_dir(world.log_of(&world.table)).unwrap().count();
    let before = entries();
    let id = world.engine().start_flush("altered", &world.table.name, FlushReason::Statement).await.unwrap().0.id;
    assert_eq!(world.end_of(&id).await.state, FlushState::Failed);
    assert_eq!(entries(), before, "no commit has the new schema");
    *world.faults.refuses.lock() = None;
    assert_eq!(world.flush().await, FlushState::Completed);
    assert!(world.engine().catalog().tables.contains_key(&name));
    let flushed = world.model.clone();
    world.lose_volume(flushed).await;
    world.recovered().await;
    assert!(world.table.column("renamed").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_mirrors_go_and_the_newest_stay() {
    let world = World::new(TableKind::Shared).await;
    if !is_folder(&world) {
        return;
    }
    for number in 0..8 {
        create(world.engine(), &format!("t{number}"), TableKind::Shared).await;
        world.mirrored().await;
    }
    // The pruning follows the put.
    for _ in 0..500 {
        if world.mirrors().len() == 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let names: Vec<_> =
        world.mirrors().iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(
        names[3].as_str() > "0000000001-0000000008" && names.iter().all(|name| name.starts_with("0000000001-")),
        "{names:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_is_cut_off_begins_again() {
    let mut world = World::new(TableKind::Shared).await;
    world.write("", &[(1, "a", Some(1))]).await;
    world.flush().await;
    let flushed = world.model.clone();
    // After the fences, before the batch.
    *world.faults.refuses.lock() = Some("catalog/");
    world.lose_volume(flushed.clone()).await;
    let waits =
        |readiness: &Readiness| matches!(readiness, Readiness::NotReady { message, .. } if message.contains("waits"));
    let readiness = readiness_of(world.engine(), waits).await;
    assert_eq!(reason(&readiness), "Recovering");
    let refused = world
        .engine()
        .change_catalog(CatalogChange::CreateTable(Box::new(table(TableKind::Shared, &[SqlType::Int], &[0]))))
        .await;
    assert!(matches!(refused, Err(EngineError::Unavailable(_))), "{refused:?}");
    assert!(world.engine().check_history().is_err(), "nobody may take it for an empty database");
    // The process dies, and another one begins with what is on the volume.
    world.stop().await;
    world.running = Some(open(config(world.folder.path()), &world.faults).await.unwrap());
    *world.faults.refuses.lock() = None;
    world.recovered().await;
    world.check("recovered in the end").await;
    world.write("", &[(1, "a", Some(2))]).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    world.check("and flushed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_mirror_stops_the_recovery_until_somebody_decides() {
    let mut world = World::new(TableKind::Shared).await;
    if !is_folder(&world) {
        return;
    }
    world.write("", &[(1, "a", Some(1))]).await;
    world.flush().await;
    world.engine().change_catalog(CatalogChange::PutUser(user("ann"))).await.unwrap();
    world.mirrored().await;
    let (newest, flushed) = (world.mirrors().pop().unwrap(), world.model.clone());
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&newest, bytes).unwrap();
    world.lose_volume(flushed).await;
    let readiness = readiness_of(world.engine(), |readiness| reason(readiness) == "VolumeEmpty").await;
    let Readiness::NotReady { message, .. } = readiness else { panic!("{readiness:?}") };
    let name = newest.file_name().unwrap().to_string_lossy().into_owned();
    assert!(message.contains(&name) && message.contains("checksum") && message.contains("delete it"), "{message}");
    std::fs::remove_file(&newest).unwrap();
    world.recovered().await;
    world.check("from the mirror before").await;
    assert!(!world.engine().catalog().users.contains_key(&UserId::from("ann")), "the mirror before did not know her");
    assert!(world.engine().catalog().users.contains_key(&UserId::from(ROOT)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_log_is_damaged_stays_stopped_and_the_others_come_back() {
    let mut world = World::new(TableKind::Shared).await;
    if !is_folder(&world) {
        return;
    }
    let (sound, model) = (world.table.clone(), {
        world.write("", &[(1, "a", Some(1))]).await;
        world.flush().await;
        world.model.clone()
    });
    world.table = create(world.engine(), "hurt", TableKind::Shared).await;
    world.model = Model::new();
    world.write("", &[(5, "a", Some(5))]).await;
    world.flush().await;
    let (hurt, flushed) = (world.table.clone(), world.model.clone());
    let entry = world.log_of(&hurt).join("00000000000000000001.json");
    let whole = std::fs::read(&entry).unwrap();
    std::fs::write(&entry, &whole[..whole.len() / 2]).unwrap();
    world.table = sound;
    world.lose_volume(model).await;
    world.recovered().await;
    world.check("of the sound table").await;
    world.write("", &[(2, "a", Some(2))]).await;
    assert_eq!(world.flush().await, FlushState::Completed);

    let key = Engine::key_of(&hurt, &[crate::value::Value::Int(5), crate::value::Value::Text("a".into())]).unwrap();
    let found = world.engine().snapshot().look_up(&hurt, None, std::slice::from_ref(&key)).await;
    assert!(matches!(found, Err(EngineError::TableStopped { .. })), "an empty answer would be wrong: {found:?}");
    let id = world.engine().start_flush("hurt", &hurt.name, FlushReason::Statement).await.unwrap().0.id;
    let job = world.end_of(&id).await;
    assert!(job.message.as_deref().unwrap_or_default().contains("_delta_log/00000000000000000001.json"), "{job:?}");

    world.restart().await;
    assert!(
        world.engine().snapshot().look_up(&hurt, None, std::slice::from_ref(&key)).await.is_err(),
        "in the next life too"
    );
    std::fs::write(&entry, whole).unwrap();
    world.restart().await;
    (world.table, world.model) = (hurt, flushed);
    for _ in 0..1000 {
        if world.engine().snapshot().look_up(&world.table, None, std::slice::from_ref(&key)).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.check("mended").await;
    world.write("", &[(6, "a", Some(6))]).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    world.check("mended and flushed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_was_displaced_stops_and_harms_nothing() {
    let mut world = World::new(TableKind::Shared).await;
    world.write("", &[(1, "a", Some(1)), (2, "a", Some(2))]).await;
    world.flush().await;
    let flushed = world.model.clone();
    world.write("", &[(3, "a", Some(3))]).await;
    let other = tempfile::tempdir().unwrap();
    let newer = world.beside(other.path().into()).await;
    ready(&newer).await;
    let id = world.start_flush().await;
    let job = world.end_of(&id).await;
    assert_eq!(job.state, FlushState::Failed, "{job:?}");
    let message = job.message.unwrap_or_default();
    assert!(message.contains("another instance owns the prefix"), "{message}");
    // What it creates now nobody else would ever find: it makes no log of it.
    let stray = create(world.engine(), "stray", TableKind::Shared).await;
    let table = std::mem::replace(&mut world.table, stray);
    world.write("", &[(1, "a", Some(1))]).await;
    let id = world.start_flush().await;
    let job = world.end_of(&id).await;
    assert!(job.message.as_deref().unwrap_or_default().contains("another instance owns"), "{job:?}");
    world.table = table;

    // It does not come up again beside the newer one either.
    world.stop().await;
    world.running = Some(open(config(world.folder.path()), &world.faults).await.unwrap());
    let readiness = readiness_of(world.engine(), |readiness| *readiness != Readiness::Ready).await;
    assert_eq!(reason(&readiness), "VolumeBehind", "{readiness:?}");
    world.stop().await;
    world.running = Some(newer);
    world.model = flushed;
    world.table = world.engine().catalog().tables[&world.table.name].clone();
    world.check("the newer one").await;
    world.write("", &[(4, "a", Some(4)), (1, "a", None)]).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    world.check("the newer one goes on").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_volume_that_lacks_a_table_does_not_go_on() {
    let mut world = World::new(TableKind::Shared).await;
    world.mirrored().await;
    world.stop().await;
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&world.folder.path().join("data"), copy.path());
    world.restart().await;
    create(world.engine(), "later", TableKind::Shared).await;
    world.mirrored().await;
    world.stop().await;
    let restored = world.beside(copy.path().into()).await;
    let readiness = readiness_of(&restored, |readiness| *readiness != Readiness::Ready).await;
    let Readiness::NotReady { reason, message } = readiness else { panic!("it is ready") };
    assert!(reason == "VolumeBehind" && message.contains("default.later"), "{reason}: {message}");
    restored.close().await;
    world.restart().await;
    world.mirrored().await;
    assert!(world.engine().catalog().tables.contains_key(&TableName::new("default", "later")));
}
