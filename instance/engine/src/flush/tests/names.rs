//! Names of columns that mean something else to a library below.

use std::sync::Arc;

use datafusion::logical_expr::ident;
use datafusion::prelude::SessionContext;

use super::*;
use crate::cold::scalar::value_at;
use crate::evolution::{NewColumn, TableChange};

/// A table beside the one of the world.
async fn create(world: &World, mut new: Table) -> Arc<Table> {
    new.name = crate::schema::TableName::new("default", "names");
    new.uuid = uuid::Uuid::new_v4();
    let name = new.name.clone();
    world.engine().change_catalog(CatalogChange::CreateTable(Box::new(new))).await.unwrap();
    world.engine().catalog().tables[&name].clone()
}

/// Writes a row whose key nobody has.
async fn insert(world: &World, table: &Arc<Table>, row: Row) {
    let key = Engine::key(table, &row).unwrap();
    let look_up = world.engine().snapshot().look_up(table, None, std::slice::from_ref(&key)).await.unwrap().remove(0);
    let write = RowWrite { table: table.clone(), user: None, key, look_up, new: Some(row) };
    world.engine().commit(vec![write]).await.unwrap();
}

async fn look_up(world: &World, table: &Arc<Table>, key: &[Value]) -> Option<Row> {
    let key = Engine::key_of(table, key).unwrap();
    let found = world.engine().snapshot().look_up(table, None, &[key]).await.unwrap().remove(0);
    found.found().map(|found| found.row.clone())
}

/// All rows, sorted by the columns in their order.
async fn scan(world: &World, table: &Arc<Table>) -> Vec<Row> {
    let rows = SessionContext::new().read_table(world.engine().snapshot().provider(table, None)).unwrap();
    let columns: Vec<_> = table.columns.iter().map(|column| ident(&column.name)).collect();
    let order = columns.iter().map(|column| column.clone().sort(true, true)).collect();
    let batches = rows.select(columns).unwrap().sort(order).unwrap().limit(0, Some(100)).unwrap();
    let mut found = Vec::new();
    for batch in batches.collect().await.unwrap() {
        let cell =
            |at: usize, place: usize| value_at(batch.column(place), at, &[table.columns[place].sql_type]).unwrap();
        found.extend(
            (0..batch.num_rows()).map(|at| (0..table.columns.len()).map(|place| cell(at, place)).collect::<Row>()),
        );
    }
    found
}

fn added(name: &str, sql_type: SqlType) -> TableChange {
    let (nullable, default, initial) = (true, None, Value::Null);
    TableChange::AddColumn(NewColumn { name: name.into(), sql_type, nullable, default, initial })
}

/// The physical name of one column is the name of another in SQL.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_is_never_read_as_the_one_that_has_its_former_name() {
    let mut world = World::new(TableKind::Shared).await;
    let bytes = Value::Bytes(vec![0xff, 0]);
    let mut sample = table(TableKind::Shared, &[SqlType::Int, SqlType::Bytes], &[0]);
    for (column, name) in sample.columns.iter_mut().zip(["id", "a"]) {
        (column.name, column.physical_name) = (name.into(), name.into());
    }
    let created = create(&world, sample).await;
    insert(&world, &created, vec![Value::Int(1), bytes.clone()]).await;
    world.table = created.clone();
    assert_eq!(world.flush().await, FlushState::Completed);

    let rename = TableChange::RenameColumn { from: "a".into(), to: "b".into() };
    let not_null = |name: &str| TableChange::SetNullable { name: name.into(), nullable: false };
    for change in [rename, added("a", SqlType::Text)] {
        let newest = world.engine().catalog().tables[&created.name].clone();
        world.engine().alter_table(&newest, &change, 0).await.unwrap();
    }
    let altered = world.engine().catalog().tables[&created.name].clone();
    let (old, new) = (
        vec![Value::Int(1), bytes.clone(), Value::Null],
        vec![Value::Int(2), bytes.clone(), Value::Text("a text".into())],
    );
    assert_eq!(scan(&world, &altered).await, std::slice::from_ref(&old));
    insert(&world, &altered, new.clone()).await;
    assert_eq!(world.flush().await, FlushState::Completed);
    assert_eq!(scan(&world, &altered).await, [old.clone(), new.clone()]);
    assert_eq!(look_up(&world, &altered, &[Value::Int(1)]).await, Some(old));

    // The rows are looked through by the same scan.
    let refused = world.engine().alter_table(&altered, &not_null("a"), 0).await.unwrap_err();
    assert!(matches!(refused, EngineError::Contradicted { .. }), "{refused}");
    world.engine().alter_table(&altered, &not_null("b"), 0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_column_may_have_dots_in_its_name() {
    let mut world = World::new(TableKind::Shared).await;
    let mut sample = table(TableKind::Shared, &[SqlType::Int, SqlType::Text, SqlType::BigInt], &[0, 1]);
    for (column, name) in sample.columns.iter_mut().zip(["a.b", "..", "a"]) {
        (column.name, column.physical_name) = (name.into(), name.into());
    }
    world.table = create(&world, sample).await;
    let row = |n: i32| vec![Value::Int(n), Value::Text(format!("{}", n % 3)), Value::BigInt(i64::from(n) * 10)];
    for part in 0..2 {
        for n in (part..40).step_by(2) {
            insert(&world, &world.table.clone(), row(n)).await;
        }
        assert_eq!(world.flush().await, FlushState::Completed);
    }
    for when in ["flushed", "compacted", "restarted"] {
        match when {
            "compacted" => assert_eq!(world.compact().await, FlushState::Completed),
            "restarted" => world.restart().await,
            _ => {}
        }
        let table = world.table.clone();
        for n in 0..40 {
            assert_eq!(look_up(&world, &table, &row(n)[..2]).await, Some(row(n)), "{when}");
        }
        assert_eq!(scan(&world, &table).await, (0..40).map(row).collect::<Vec<_>>(), "{when}");
    }
}
