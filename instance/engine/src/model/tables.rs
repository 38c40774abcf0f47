//! Moves that change tables. They are a process's alone: two histories that alter the same table are nobody's case.

use std::sync::Arc;

use super::moves::Done;
use super::reference::{Alteration, TableHistory};
use super::scheduler::run_alone;
use super::world::{World, violated};
use crate::catalog::CatalogChange;
use crate::engine::Engine;
use crate::evolution::{NewColumn, TableChange};
use crate::schema::{DefaultValue, SchemaVersion, SqlType, Table, TableName};
use crate::seq::Seq;
use crate::value::Value;

impl World {
    /// A process whose history nobody else goes on, and one of its tables.
    fn altered(&self, table: u8) -> Option<(Engine, Arc<Table>)> {
        let (owner, table) = self.committing(0, table)?;
        self.is_alone(owner).then(|| (self.owners[owner].engine.clone(), table))
    }

    /// A column with a DEFAULT comes.
    pub async fn add_column(&mut self, table: u8) -> Done {
        let Some((engine, table)) = self.altered(table) else { return Ok(()) };
        let number = i64::from(self.number());
        let column = NewColumn {
            name: format!("x{number}"),
            sql_type: SqlType::BigInt,
            nullable: true,
            default: Some(DefaultValue::Literal(Value::BigInt(number))),
            initial: Value::BigInt(number),
        };
        let alteration = Alteration::Added(column.name.clone(), number);
        self.alter(engine, table, TableChange::AddColumn(column), alteration).await
    }

    /// The last column that came goes, or gets another name.
    pub async fn change_column(&mut self, table: u8, renames: bool) -> Done {
        let Some((engine, table)) = self.altered(table) else { return Ok(()) };
        let Some(last) = table.columns.get(2..).and_then(<[_]>::last).map(|column| column.name.clone()) else {
            return Ok(());
        };
        if renames {
            let to = format!("y{}", self.number());
            let change = TableChange::RenameColumn { from: last.clone(), to: to.clone() };
            return self.alter(engine, table, change, Alteration::Renamed(last, to)).await;
        }
        self.alter(engine, table, TableChange::DropColumn(last.clone()), Alteration::Dropped(last)).await
    }

    async fn alter(&mut self, engine: Engine, table: Arc<Table>, change: TableChange, alteration: Alteration) -> Done {
        self.trace.push(format!("{} is altered: {alteration:?}", table.name));
        let (altering, before) = (engine.clone(), table.clone());
        let altered = run_alone(async move { altering.alter_table(&before, &change, 5).await }).await;
        altered.map_err(|error| violated("jobs_fail_only_with_cause", error.to_string()))?;
        let newest = engine.catalog().tables[&table.name].clone();
        self.alterations.entry(table.uuid).or_default().push(alteration.clone());
        self.owners[0].tables.get_mut(&table.name).expect("it is served").alter(newest, &alteration);
        Ok(())
    }

    /// The table goes, and another of its name comes.
    pub async fn recreate(&mut self, table: u8) -> Done {
        let Some((engine, table)) = self.altered(table) else { return Ok(()) };
        self.trace.push(format!("{} is dropped and made anew", table.name));
        let gone = CatalogChange::DropTable { name: table.name.clone(), id: table.id };
        let mut fresh = crate::schema::testing::table(table.kind, &[SqlType::Int, SqlType::BigInt], &[0]);
        (fresh.name, fresh.uuid, fresh.version) = (table.name.clone(), uuid::Uuid::new_v4(), SchemaVersion(1));
        let made = CatalogChange::CreateTable(Box::new(fresh));
        for change in [gone, made] {
            let changed = engine.change_catalog(change).await;
            changed.map_err(|error| violated("jobs_fail_only_with_cause", error.to_string()))?;
        }
        self.adopt(&table.name);
        Ok(())
    }

    /// A table of the first process that nobody has written yet.
    pub fn adopt(&mut self, name: &TableName) {
        let owner = &mut self.owners[0];
        let table = owner.engine.catalog().tables[name].clone();
        owner.tables.insert(name.clone(), TableHistory::begin(table, Seq::ZERO, Arc::default()));
    }
}
