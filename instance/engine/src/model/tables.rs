//! Moves that change tables. They are a process's alone: two histories that alter the same table are nobody's case.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectStore;

use super::moves::Done;
use super::reference::{Alteration, TableHistory, VALUE};
use super::scheduler::run_alone;
use super::tasks::{self, Ended, Kind, Work};
use super::world::{Altering, World, violated};
use crate::EngineError;
use crate::catalog::CatalogChange;
use crate::cold::log::table_folder;
use crate::engine::Engine;
use crate::evolution::{NewColumn, TableChange};
use crate::flush::run::Runner;
use crate::hot::key;
use crate::hot::store::Family;
use crate::schema::{DefaultValue, SqlType, Table, TableKind, TableName};
use crate::seq::Seq;
use crate::value::Value;

/// What every program begins with.
pub const FIRST_TABLES: [(&str, TableKind); 2] = [("s", TableKind::Shared), ("u", TableKind::User)];

/// A table with the columns that all have.
pub fn fresh(name: TableName, kind: TableKind) -> Table {
    let table = crate::schema::testing::table(kind, &[SqlType::Int, SqlType::BigInt], &[0]);
    Table { name, uuid: uuid::Uuid::new_v4(), ..table }
}

impl World {
    /// A process whose history nobody else goes on, and which may make Delta commits.
    pub(super) fn alone(&self) -> Option<Engine> {
        let owner = self.serving(0).filter(|at| self.is_alone(*at) && self.owners[*at].epoch().is_some())?;
        Some(self.owners[owner].engine.clone())
    }

    /// Such a process, and one of its tables.
    fn altered(&self, table: u8) -> Option<(Engine, Arc<Table>)> {
        let (owner, table) = self.committing(0, table)?;
        self.is_alone(owner).then(|| (self.owners[owner].engine.clone(), table))
    }

    /// A column comes, with a DEFAULT or without.
    pub async fn add_column(&mut self, table: u8) -> Done {
        let Some((engine, table)) = self.altered(table) else { return Ok(()) };
        let number = i64::from(self.number());
        let default = Some(number).filter(|number| number % 3 != 0);
        let column = NewColumn {
            name: format!("x{number}"),
            sql_type: SqlType::BigInt,
            nullable: true,
            default: default.map(|default| DefaultValue::Literal(Value::BigInt(default))),
            initial: default.map_or(Value::Null, Value::BigInt),
        };
        let alteration = Alteration::Added(column.name.clone(), default);
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
        self.learn_alteration(0, &table, alteration)
    }

    /// A change that rows must hold to begins: they are looked through while others go on.
    async fn begin_alter(&mut self, table: Arc<Table>, change: TableChange, alteration: Alteration) -> Done {
        let Some(engine) = self.alone() else { return Ok(()) };
        let owner = self.owners[0].id;
        let was_broken = alteration.is_broken_by(&self.owners[0].tables[&table.name].now.state);
        let about = format!("{}: {alteration:?}", table.name);
        self.altering.push(Altering { owner, table: table.uuid, alteration: alteration.clone(), was_broken });
        self.begin(owner, Work::Alter, about, tasks::alter(engine, table, change, alteration)).await
    }

    /// How that ended. A change is refused only where a row broke it while it was under way.
    pub(super) fn altered_by(
        &mut self,
        kind: &Kind,
        table: &Table,
        alteration: Alteration,
        altered: Result<(), EngineError>,
    ) -> Done {
        let is_it =
            |begun: &Altering| begun.owner == kind.owner && begun.table == table.uuid && begun.alteration == alteration;
        let begun = self.altering.iter().position(is_it).map(|at| self.altering.remove(at));
        let Some(owner) = self.owners.iter().position(|owner| owner.id == kind.owner) else { return Ok(()) };
        match altered {
            Ok(()) => self.learn_alteration(owner, table, alteration),
            Err(EngineError::Contradicted { .. }) if begun.is_some_and(|begun| begun.was_broken) => Ok(()),
            Err(EngineError::Stale | EngineError::NotFound { .. } | EngineError::Unavailable(_)) => Ok(()),
            Err(error) => Err(violated("alters_fail_only_with_cause", format!("{}: {error}", kind.about))),
        }
    }

    fn learn_alteration(&mut self, owner: usize, table: &Table, alteration: Alteration) -> Done {
        let owner = &mut self.owners[owner];
        let newest = owner.engine.catalog().tables[&table.name].clone();
        let history = owner.tables.get_mut(&table.name).expect("it is served");
        if alteration.is_broken_by(&history.now.state) {
            let fault = format!("{} was altered by {alteration:?}, and holds {:?}", table.name, history.now.state);
            return Err(violated("rows_hold_to_their_schema", fault));
        }
        history.alter(newest, &alteration);
        self.alterations.entry(table.uuid).or_default().push(alteration);
        Ok(())
    }

    /// A column, the key among them, gets another type of integers.
    pub async fn modify(&mut self, table: u8, column: u8, to: u8) -> Done {
        let Some((_, table)) = self.altered(table) else { return Ok(()) };
        let columns: Vec<_> = table.columns.iter().filter(|column| column.name != VALUE).collect();
        let name = columns[usize::from(column) % columns.len()].name.clone();
        let sql_type = [SqlType::SmallInt, SqlType::Int, SqlType::BigInt][usize::from(to) % 3];
        let change = TableChange::ModifyColumn { name: name.clone(), sql_type, nullable: None, default: None };
        self.begin_alter(table, change, Alteration::Modified(name, sql_type)).await
    }

    /// A column that was added takes NULL from now on, or does not any more.
    pub async fn set_nullable(&mut self, table: u8, column: u8, nullable: bool) -> Done {
        let Some((_, table)) = self.altered(table) else { return Ok(()) };
        let added = &table.columns[2..];
        let Some(at) = usize::from(column).checked_rem(added.len()) else { return Ok(()) };
        let name = added[at].name.clone();
        let alteration = if nullable { Alteration::Nullable(name.clone()) } else { Alteration::NotNull(name.clone()) };
        self.begin_alter(table, TableChange::SetNullable { name, nullable }, alteration).await
    }

    /// The table goes, and another of its name comes.
    pub async fn recreate(&mut self, table: u8) -> Done {
        let Some((engine, table)) = self.altered(table) else { return Ok(()) };
        self.trace.push(format!("{} is dropped and made anew", table.name));
        self.drop_it(&engine, &table).await?;
        self.make(&engine, fresh(table.name.clone(), table.kind)).await
    }

    /// A table goes.
    pub async fn drop_table(&mut self, table: u8) -> Done {
        let Some((engine, table)) = self.altered(table) else { return Ok(()) };
        self.trace.push(format!("{} is dropped", table.name));
        self.drop_it(&engine, &table).await
    }

    pub(super) async fn drop_it(&mut self, engine: &Engine, table: &Table) -> Done {
        let gone = CatalogChange::DropTable { name: table.name.clone(), id: table.id };
        let changed = engine.change_catalog(gone).await;
        changed.map_err(|error| violated("jobs_fail_only_with_cause", error.to_string()))?;
        self.owners[0].tables.remove(&table.name);
        let (mut left, prefix) = (0, key::table_prefix(table.id));
        for family in [Family::of_rows(table.kind), Family::Changes, Family::Masks, Family::Dirty, Family::Tiers] {
            let counted = engine.hot().snapshot().each(family, &prefix, |_, _| {
                left += 1;
                Ok(())
            });
            counted.map_err(|error| violated("dropped_rows_go", error.to_string()))?;
        }
        match left {
            0 => Ok(()),
            left => Err(violated("dropped_rows_go", format!("{} left {left} records", table.name))),
        }
    }

    /// One of the tables that every program begins with comes back, empty, where it is gone.
    pub async fn make_table(&mut self, kind: u8) -> Done {
        let Some(engine) = self.alone() else { return Ok(()) };
        let [shared, user] = FIRST_TABLES;
        let (name, kind) = if kind.is_multiple_of(2) { shared } else { user };
        let name = TableName::new("default", name);
        if engine.catalog().tables.contains_key(&name) {
            return Ok(());
        }
        self.trace.push(format!("{name} is made anew"));
        self.make(&engine, fresh(name, kind)).await
    }

    /// Makes a table that nobody has written yet.
    pub(super) async fn make(&mut self, engine: &Engine, table: Table) -> Done {
        let name = table.name.clone();
        let made = engine.change_catalog(CatalogChange::CreateTable(Box::new(table))).await;
        made.map_err(|error| violated("jobs_fail_only_with_cause", error.to_string()))?;
        self.adopt(&name);
        Ok(())
    }

    /// What dropped tables have left can all go at the end, when nobody is in it.
    pub async fn leave_no_folder(&mut self) -> Done {
        let Some(engine) = self.alone() else { return Ok(()) };
        let runner = &engine.flusher().runner;
        let dropped = |runner: &Runner| runner.hot.snapshot().dropped_tables().expect("the volume can be read");
        let all = dropped(runner);
        if all.is_empty() {
            return Ok(());
        }
        let ended = run_alone(tasks::vacuum_dropped(engine.clone(), std::time::Duration::ZERO)).await;
        let fault = |fault: String| Err(violated("dropped_folders_go", fault));
        if !matches!(ended, Ended::VacuumedDropped(Ok(_))) || !dropped(runner).is_empty() {
            return fault(format!("{ended:?} leaves {:?}", dropped(runner)));
        }
        for table in all {
            let folder = table_folder(table.uuid);
            let left: Vec<_> = self.bucket.sea.objects.list(Some(&folder)).try_collect().await.unwrap_or_default();
            if !left.is_empty() {
                return fault(format!("{left:?}"));
            }
        }
        Ok(())
    }

    /// A table of the first process that nobody has written yet.
    pub fn adopt(&mut self, name: &TableName) {
        let owner = &mut self.owners[0];
        let table = owner.engine.catalog().tables[name].clone();
        owner.tables.insert(name.clone(), TableHistory::begin(table, Seq::ZERO, Arc::default()));
    }
}
