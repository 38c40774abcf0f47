//! A volume is lost after an ALTER TABLE that asked something of its rows: what was flushed need not hold to it.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use kalamdb_api::flush::FlushState;

use super::is_folder;
use crate::engine::{Engine, RowWrite};
use crate::evolution::{NewColumn, TableChange};
use crate::flush::tests::{Model, World};
use crate::schema::{AccessLevel, SchemaVersion, SqlType, TableKind};
use crate::value::Value;

fn modify(name: &str, sql_type: SqlType) -> TableChange {
    TableChange::ModifyColumn { name: name.into(), sql_type, nullable: None, default: None }
}

fn add(name: &str, nullable: bool) -> TableChange {
    let (sql_type, initial) = (SqlType::Int, Value::Null);
    TableChange::AddColumn(NewColumn { name: name.into(), sql_type, nullable, default: None, initial })
}

impl World {
    async fn alter(&mut self, change: TableChange) {
        self.engine().alter_table(&self.table, &change, 5).await.unwrap();
        self.table = self.engine().catalog().tables[&self.table.name].clone();
    }

    async fn count(&self, filter: &str) -> i64 {
        let session = SessionContext::new();
        session.register_table("t", self.engine().snapshot().provider(&self.table, None)).unwrap();
        let rows = session.sql(&format!("SELECT count(*) FROM t WHERE {filter}")).await.unwrap();
        rows.collect().await.unwrap()[0].column(0).as_primitive::<Int64Type>().value(0)
    }

    /// Rows that fit no narrower type are flushed, and their successors, which do, are not.
    async fn narrowed() -> (Self, Model) {
        let mut world = Self::new(TableKind::Shared).await;
        world.write("", &[(1, "a", Some(100_000)), (70_000, "a", Some(7))]).await;
        world.flush().await;
        world.write("", &[(2, "a", Some(2))]).await;
        world.flush().await;
        let flushed = world.model.clone();
        world.write("", &[(1, "a", Some(5)), (70_000, "a", None)]).await;
        for change in [
            modify("c1", SqlType::SmallInt),
            TableChange::SetAccessLevel(AccessLevel::Public),
            modify("c3", SqlType::SmallInt),
            TableChange::SetNullable { name: "c3".into(), nullable: false },
        ] {
            world.alter(change).await;
        }
        (world, flushed)
    }

    /// A row of the narrowed table.
    async fn write_narrow(&self, number: i16) {
        let values = [Value::SmallInt(number), Value::Text("a".into()), Value::SmallInt(number)];
        let key = Engine::key_of(&self.table, &values[..2]).unwrap();
        let read = self.engine().snapshot().look_up(&self.table, None, std::slice::from_ref(&key)).await.unwrap();
        let look_up = read.into_iter().next().unwrap();
        let write = RowWrite { table: self.table.clone(), user: None, key, look_up, new: Some(values.to_vec()) };
        self.engine().commit(vec![write]).await.unwrap();
    }

    /// The table as its flushed rows are: c1 INT, c3 BIGINT.
    fn assert_as_flushed(&self) {
        let of = |name: &str| self.table.column(name).map(|column| (column.sql_type, column.nullable));
        assert_eq!((of("c1"), of("c3")), (Some((SqlType::Int, false)), Some((SqlType::BigInt, true))));
        assert_eq!(self.table.access_level, AccessLevel::Public, "what asks nothing of rows stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_of_rows_that_are_lost_is_undone() {
    for compacts in [false, true] {
        let (mut world, flushed) = World::narrowed().await;
        if compacts {
            // It carries the masked rows along, and must not say of them what holds for the others.
            assert_eq!(world.compact().await, FlushState::Completed);
        }
        world.mirrored().await;
        world.lose_volume(flushed).await;
        world.recovered().await;
        world.assert_as_flushed();
        world.check("recovered").await;
        world.write("", &[(1, "a", Some(6)), (3, "a", Some(1 << 40))]).await;
        let flushed = world.model.clone();
        assert_eq!(world.flush().await, FlushState::Completed);
        let version = world.table.version;
        world.lose_volume(flushed).await;
        world.recovered().await;
        assert_eq!(world.table.version, version, "nothing is left to be undone");
        world.check("recovered again").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_flushed_since_it_was_asked_of_rows_stays() {
    let (mut world, _) = World::narrowed().await;
    world.write_narrow(3).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    let version = world.table.version;
    world.lose_volume(Model::new()).await;
    world.recovered().await;
    assert_eq!((world.table.version, world.count("c3 = 3").await), (version, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_no_row_had_to_have_is_null_in_the_rows_that_come_back() {
    let mut world = World::new(TableKind::Shared).await;
    world.write("", &[(1, "a", Some(1)), (2, "a", Some(2))]).await;
    world.flush().await;
    let flushed = world.model.clone();
    world.write("", &[(1, "a", None), (2, "a", None)]).await;
    world.alter(add("asked", false)).await;
    world.alter(add("free", true)).await;
    world.mirrored().await;
    world.lose_volume(flushed).await;
    world.recovered().await;
    let nullable = |name| world.table.column(name).map(|column| column.nullable);
    assert_eq!((nullable("asked"), nullable("free")), (Some(true), Some(true)));
    assert_eq!((world.count("asked IS NULL").await, world.count("asked IS NOT NULL").await), (2, 0));
    world.check("recovered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_log_breaks_nothing_and_a_database_keeps_what_was_asked_of_it() {
    let mut world = World::new(TableKind::Shared).await;
    world.write("", &[(1, "a", Some(1))]).await;
    world.alter(modify("c3", SqlType::Int)).await;
    world.mirrored().await;
    world.lose_volume(Model::new()).await;
    world.recovered().await;
    assert_eq!(world.table.version, SchemaVersion(2));
    assert_eq!(world.count("true").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_mended_later_is_read_as_it_was_flushed_too() {
    let (mut world, flushed) = World::narrowed().await;
    if !is_folder(&world) {
        return;
    }
    world.mirrored().await;
    let entry = world.log_of(&world.table).join("00000000000000000001.json");
    let whole = std::fs::read(&entry).unwrap();
    std::fs::write(&entry, &whole[..whole.len() / 2]).unwrap();
    world.lose_volume(flushed).await;
    super::ready(world.engine()).await;
    assert!(!world.engine().flusher().runner.stopped.lock().is_empty(), "it can't be read");
    std::fs::write(&entry, whole).unwrap();
    world.restart().await;
    let id = world.table.id;
    for _ in 0..1000 {
        if !world.engine().flusher().runner.stopped.lock().contains_key(&id) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    world.recovered().await;
    world.assert_as_flushed();
    world.check("mended").await;
    world.restart().await;
    world.assert_as_flushed();
    world.check("restarted").await;
}
