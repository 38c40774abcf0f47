//! Who may do what. Judged for a whole batch before its first statement runs, and again below SQL, where tables are handed out.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    FromTable, Ident, ObjectName, Query, TableFactor, TableWithJoins, Visit, Visitor,
};
use kalamdb_engine::catalog::{Catalog, Role};
use kalamdb_engine::schema::{AccessLevel, SchemaVersion, Table, TableId, TableKind, TableName, UserId};

use crate::bind::names::{self, SYSTEM};
use crate::parse::{Show, Statement, UserChange};
use crate::{ErrorCode, Identity, SqlError, relations};

/// Whether that role may read the table's rows; of a per-user table it sees its own only.
pub fn may_read(role: Role, table: &Table) -> bool {
    match (table.kind, table.access_level) {
        (TableKind::User | TableKind::Stream, _) | (TableKind::Shared, AccessLevel::Public) => true,
        (TableKind::Shared, AccessLevel::Private | AccessLevel::Restricted) => role >= Role::Service,
        (TableKind::Shared, AccessLevel::Dba) => role >= Role::Dba,
    }
}

/// Whether that role may write the table's rows; of a per-user table its own only.
pub fn may_write(role: Role, table: &Table) -> bool {
    match table.kind {
        TableKind::User | TableKind::Stream => true,
        TableKind::Shared => role >= Role::Service && may_read(role, table),
    }
}

/// Refuses what the user may not do. Tables that do not exist yet are judged when the statement runs.
pub fn check(statement: &Statement, catalog: &Catalog, namespace: &str, identity: &Identity) -> Result<(), SqlError> {
    match statement {
        Statement::CreateNamespace { .. }
        | Statement::DropNamespace { cascade: false, .. }
        | Statement::AlterNamespace { .. }
        | Statement::CreateTable(_)
        | Statement::FlushAll(_)
        | Statement::CompactAll(_)
        | Statement::KillJob(_)
        | Statement::Show(Show::Manifest) => need(identity, Role::Service),
        Statement::DropNamespace { name, cascade: true, .. } => {
            need(identity, Role::Service)?;
            dropped_by_cascade(catalog, &names::fold(name), identity).map(drop)
        }
        Statement::Show(Show::Stats(name)) => {
            need(identity, Role::Service)?;
            check_table(catalog, &names::table_name(name, namespace)?, identity, Access::Read)
        }
        Statement::DropTable { name, .. } | Statement::FlushTable(name) | Statement::CompactTable(name) => {
            need(identity, Role::Service)?;
            check_table(catalog, &names::table_name(name, namespace)?, identity, Access::Write)
        }
        Statement::AlterTable(table) => {
            need(identity, Role::Service)?;
            check_table(catalog, &names::table_name(&table.name, namespace)?, identity, Access::Write)
        }
        Statement::CreateUser { .. }
        | Statement::DropUser { .. }
        | Statement::CreateStorage(_)
        | Statement::AlterStorage { .. }
        | Statement::DropStorage { .. }
        | Statement::CheckStorage { .. } => need(identity, Role::Dba),
        Statement::AlterUser { name, change: UserChange::Password(_) }
            if names::fold(name) == identity.user.as_str() =>
        {
            Ok(())
        }
        Statement::AlterUser { .. } => need(identity, Role::Dba),
        Statement::Show(Show::Columns(name) | Show::History(name)) => {
            check_table(catalog, &names::table_name(name, namespace)?, identity, Access::Read)
        }
        Statement::Show(Show::Namespaces | Show::Tables(_) | Show::Storages)
        | Statement::Use(_)
        // Whose statements one may stop is judged where they are known.
        | Statement::KillQuery(_)
        | Statement::Begin
        | Statement::Commit
        | Statement::Rollback => Ok(()),
        Statement::Insert(insert) => {
            let target = names::insert_target(&insert.table, namespace)?;
            check_table(catalog, &target, identity, Access::Write)?;
            check_relations(&insert.source, catalog, namespace, identity)
        }
        Statement::Update(update) => {
            check_target(std::slice::from_ref(&update.table), catalog, namespace, identity)?;
            check_relations(update.as_ref(), catalog, namespace, identity)
        }
        Statement::Delete(delete) => {
            let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
            check_target(from, catalog, namespace, identity)?;
            check_relations(delete.as_ref(), catalog, namespace, identity)
        }
        Statement::Query(query) => check_query(query, catalog, namespace, identity),
        Statement::ExecuteAs { user, statement } => {
            let other = impersonated(user, catalog, identity)?;
            check(statement, catalog, namespace, &other)?;
            let named = relations_of(statement, namespace).into_iter();
            let is_relation = |name: &TableName| catalog.tables.contains_key(name) || relations::is_view(name);
            named.filter(is_relation).try_for_each(|name| check_own(catalog, &name))
        }
        Statement::Subscribe(subscribe) => {
            check_table(catalog, &names::table_name(&subscribe.table, namespace)?, identity, Access::Read)
        }
        Statement::Explain(statement) => check_relations(statement.as_ref(), catalog, namespace, identity),
    }
}

/// The tables that go with a namespace, as they were judged: whoever drops it must be allowed to write each. They are not named, for the user
/// may not know of them.
pub fn dropped_by_cascade(
    catalog: &Catalog,
    namespace: &str,
    identity: &Identity,
) -> Result<Vec<(TableId, SchemaVersion)>, SqlError> {
    let tables = catalog.tables.values().filter(|table| table.name.namespace == namespace);
    let judged = tables.map(|table| may_write(identity.role, table).then_some((table.id, table.version)));
    judged.collect::<Option<_>>().ok_or_else(|| {
        let text = format!(
            "user '{}' may not drop namespace '{namespace}' with its tables, for it may not write all of them",
            identity.user
        );
        SqlError::new(ErrorCode::PermissionDenied, text)
    })
}

/// The user that `EXECUTE AS USER` means, if the caller may: not onto a role above its own.
pub fn impersonated(user: &Ident, catalog: &Catalog, by: &Identity) -> Result<Identity, SqlError> {
    need(by, Role::Service)?;
    let id = UserId::from(names::fold(user).as_str());
    let user = catalog.users.get(&id).ok_or_else(|| SqlError::not_found("user", &id))?;
    if user.role > by.role {
        let role = crate::functions::role_name(user.role);
        let text = format!("user '{}' may not act for user '{id}', whose role '{role}' is above its own", by.user);
        return Err(SqlError::new(ErrorCode::PermissionDenied, text));
    }
    Ok(Identity { user: user.id.clone(), role: user.role, address: by.address })
}

/// Refuses relations whose rows do not belong to single users.
pub fn check_own(catalog: &Catalog, name: &TableName) -> Result<(), SqlError> {
    if catalog.tables.get(name).is_some_and(|table| table.kind.is_per_user()) {
        return Ok(());
    }
    let text = format!("EXECUTE AS USER reaches USER and STREAM tables only, and '{name}' is neither");
    Err(SqlError::new(ErrorCode::PermissionDenied, text))
}

/// Every relation that a statement on rows names, the one that it writes among them.
fn relations_of(statement: &Statement, namespace: &str) -> Vec<TableName> {
    let mut relations = Relations(Vec::new());
    let mut target = None;
    let _ = match statement {
        Statement::Query(query) => query.visit(&mut relations),
        Statement::Update(update) => update.visit(&mut relations),
        Statement::Delete(delete) => delete.visit(&mut relations),
        Statement::Insert(insert) => {
            target = names::insert_target(&insert.table, namespace).ok();
            insert.source.visit(&mut relations)
        }
        _ => ControlFlow::Continue(()),
    };
    let named = relations.0.iter().filter_map(|name| names::table_name(name, namespace).ok());
    named.chain(target).collect()
}

/// As [`check`], of a query.
pub fn check_query(query: &Query, catalog: &Catalog, namespace: &str, identity: &Identity) -> Result<(), SqlError> {
    check_relations(query, catalog, namespace, identity)
}

/// Reading or writing rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// SELECT.
    Read,
    /// INSERT, UPDATE, DELETE, DROP, FLUSH.
    Write,
}

/// Refuses a table that the user may not read or write, and system tables to plain users.
pub fn check_table(catalog: &Catalog, name: &TableName, identity: &Identity, access: Access) -> Result<(), SqlError> {
    if name.namespace == SYSTEM && (access == Access::Write || identity.role < reader_of(name)) {
        return Err(denied(identity, access, name));
    }
    let Some(table) = catalog.tables.get(name) else { return Ok(()) };
    let allowed = match access {
        Access::Read => may_read(identity.role, table),
        Access::Write => may_write(identity.role, table),
    };
    if allowed { Ok(()) } else { Err(denied(identity, access, name)) }
}

/// Who may read a system table.
fn reader_of(name: &TableName) -> Role {
    if relations::DBA_ONLY.contains(&name.name.as_str()) { Role::Dba } else { Role::Service }
}

fn denied(identity: &Identity, access: Access, name: &TableName) -> SqlError {
    let verb = if access == Access::Read { "read" } else { "write" };
    let text = format!("user '{}' may not {verb} table '{name}'", identity.user);
    SqlError::new(ErrorCode::PermissionDenied, text)
}

fn need(identity: &Identity, role: Role) -> Result<(), SqlError> {
    if identity.role >= role {
        return Ok(());
    }
    let needed = crate::functions::role_name(role);
    let text = format!("user '{}' may not do that: it needs the role '{needed}'", identity.user);
    Err(SqlError::new(ErrorCode::PermissionDenied, text))
}

/// Every relation that a piece of a statement names, in any position; CTEs among them are no tables and found in no catalog.
fn check_relations<T: Visit>(
    part: &T,
    catalog: &Catalog,
    namespace: &str,
    identity: &Identity,
) -> Result<(), SqlError> {
    let mut relations = Relations(Vec::new());
    let _ = part.visit(&mut relations);
    let named = relations.0.iter().map(|name| names::table_name(name, namespace));
    named.flatten().try_for_each(|name| check_table(catalog, &name, identity, Access::Read))
}

/// The tables that UPDATE and DELETE write.
fn check_target(
    targets: &[TableWithJoins],
    catalog: &Catalog,
    namespace: &str,
    identity: &Identity,
) -> Result<(), SqlError> {
    targets.iter().try_for_each(|target| match &target.relation {
        TableFactor::Table { name, .. } => {
            check_table(catalog, &names::table_name(name, namespace)?, identity, Access::Write)
        }
        _ => Ok(()),
    })
}

struct Relations(Vec<ObjectName>);

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.0.push(relation.clone());
        ControlFlow::Continue(())
    }
}
