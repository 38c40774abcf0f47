//! Damaged deletion vectors: whatever needs one is refused with an error that names its file, and nothing else is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use kalamdb_api::flush::{FlushReason, FlushState};

use super::World;
use crate::catalog::CatalogChange;
use crate::engine::{Engine, RowWrite};
use crate::schema::testing::table;
use crate::schema::{SqlType, Table, TableKind, TableName};
use crate::value::Value;

impl World {
    /// What a query answers, or why not.
    async fn try_select(&self, table: &Arc<Table>) -> Result<usize, String> {
        let session = SessionContext::new();
        session.register_table("t", self.engine().snapshot().provider(table, None)).unwrap();
        let batches = session.sql("SELECT * FROM t").await.unwrap().collect().await;
        batches.map(|batches| batches.iter().map(|batch| batch.num_rows()).sum()).map_err(|error| error.to_string())
    }

    async fn try_look_up(&self, first: i32) -> Result<Option<Value>, String> {
        let key = Engine::key_of(&self.table, &[Value::Int(first), Value::Text("a".into())]).unwrap();
        let found = self.engine().snapshot().look_up(&self.table, None, &[key]).await;
        found.map(|found| found[0].found().map(|row| row.row[2].clone())).map_err(|error| error.to_string())
    }

    /// A table beside the other one.
    async fn add_table(&self) -> Arc<Table> {
        let mut made = table(TableKind::Shared, &[SqlType::Int], &[0]);
        (made.uuid, made.name) = (uuid::Uuid::new_v4(), TableName::new("default", "sound"));
        let name = made.name.clone();
        self.engine().change_catalog(CatalogChange::CreateTable(Box::new(made))).await.unwrap();
        self.engine().catalog().tables[&name].clone()
    }

    /// Writes a row into it, and flushes that.
    async fn write_and_flush(&mut self, table: &Arc<Table>, id: i32) {
        let row = vec![Value::Int(id)];
        let key = Engine::key(table, &row).unwrap();
        let look_up =
            self.engine().snapshot().look_up(table, None, std::slice::from_ref(&key)).await.unwrap().remove(0);
        let write = RowWrite { table: table.clone(), user: None, key, look_up, new: Some(row) };
        self.engine().commit(vec![write]).await.unwrap();
        self.jobs += 1;
        let id = format!("job-{}", self.jobs);
        self.engine().start_flush(&id, &table.name, FlushReason::Statement).await.unwrap();
        assert_eq!(self.end_of(&id).await.state, FlushState::Completed);
    }

    /// How the flush, or the compaction, of the damaged table fails.
    async fn refusal(&mut self, is_flush: bool) -> String {
        let id = if is_flush { self.start_flush().await } else { self.start_compaction().await };
        let job = self.end_of(&id).await;
        assert_eq!(job.state, FlushState::Failed, "{job:?}");
        job.message.unwrap_or_default()
    }
}

/// All files of the bucket.
fn files(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), found),
            false => found.push((entry.path(), std::fs::read(entry.path()).unwrap())),
        }
    }
}

fn only_vector(files: &[(PathBuf, Vec<u8>)]) -> (PathBuf, Vec<u8>) {
    let is_vector = |path: &Path| path.extension().is_some_and(|extension| extension == "bin");
    let mut found: Vec<_> = files.iter().filter(|(path, _)| is_vector(path)).cloned().collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Some rows of a file are hidden by a deletion vector, which is damaged between two lives, and one more by a mask.
async fn check_damaged(what: &str, damage: impl FnOnce(&mut Vec<u8>) -> bool) {
    let mut world = World::in_folder(TableKind::Shared).await;
    let rows: Vec<_> = (1..40).map(|row| (row, "a", Some(1))).collect();
    world.write("", &rows).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    world.write("", &[(1, "a", None), (2, "a", None), (3, "a", Some(3))]).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    world.write("", &[(4, "a", Some(4))]).await;
    let sound = world.add_table().await;
    world.write_and_flush(&sound, 1).await;
    world.stop().await;

    let cold = world.folder.path().join("cold/tables");
    let mut before = Vec::new();
    files(&cold, &mut before);
    let (path, whole) = only_vector(&before);
    let mut damaged = whole.clone();
    match damage(&mut damaged) {
        true => std::fs::write(&path, &damaged).unwrap(),
        false => std::fs::remove_file(&path).unwrap(),
    }
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let tells = |doing: &str, error: String| {
        println!("{what}: {doing}: {error}");
        assert!(error.contains(&name) && error.contains("restore it"), "{what}: {doing}: {error}");
    };
    world.restart().await;
    tells("a query", world.try_select(&world.table).await.unwrap_err());
    tells("a look-up", world.try_look_up(5).await.unwrap_err());
    assert_eq!(world.try_look_up(4).await, Ok(Some(Value::BigInt(4))), "{what}: a hot row");
    tells("a flush", world.refusal(true).await);
    tells("a compaction", world.refusal(false).await);
    tells("a query after both", world.try_select(&world.table).await.unwrap_err());
    world.write_and_flush(&sound, 2).await;
    assert_eq!(world.try_select(&sound).await, Ok(2), "{what}: the other table");

    let mut after = Vec::new();
    files(&cold, &mut after);
    let changed = before.iter().find(|(file, bytes)| *file != path && !after.contains(&(file.clone(), bytes.clone())));
    assert_eq!(changed.map(|(file, _)| file), None, "{what}: nothing is overwritten");
    std::fs::write(&path, whole).unwrap();
    world.check(&format!("{what}, mended")).await;
    assert_eq!(world.flush().await, FlushState::Completed, "{what}");
    assert_eq!(world.compact().await, FlushState::Completed, "{what}");
    world.check(&format!("{what}, mended and compacted")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_vector_that_is_cut_off_is_named() {
    check_damaged("cut off", |bytes| {
        bytes.truncate(bytes.len() / 2);
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_vector_with_a_flipped_bit_is_named() {
    check_damaged("a bit of the rows flipped", |bytes| {
        // The last rows stand before the checksum.
        let at = bytes.len() - 5;
        bytes[at] ^= 1;
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_vector_that_is_gone_is_named() {
    check_damaged("gone", |_| false).await;
}
