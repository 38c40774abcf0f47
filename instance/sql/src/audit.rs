//! What the audit log tells of a statement. Pure. Passwords and credentials never get there: of statements that can hold some no text is
//! kept.

use datafusion::sql::sqlparser::ast::Ident;
use kalamdb_engine::access::{AccessChange, AuditEntry, AuditKind};
use serde_json::{Value as Json, json};

use crate::bind::names;
use crate::parse::{ParsedStatement, Statement, UserChange};
use crate::{Identity, SqlError};

/// Action, target and details of a statement that changes namespaces, tables, users or storages, or acts for another user; none of any
/// other.
fn subject(parsed: &ParsedStatement, namespace: &str) -> Option<(&'static str, String, Json)> {
    let text = || json!({"sql": parsed.text});
    let table = |name| names::table_name(name, namespace).map_or_else(|_| String::new(), |name| name.to_string());
    let role = |role: &Option<Ident>| role.as_ref().map_or_else(|| "user".to_owned(), |role| role.value.to_lowercase());
    Some(match &parsed.statement {
        Statement::CreateNamespace { name, .. } => ("CREATE NAMESPACE", names::fold(name), text()),
        Statement::AlterNamespace { name, .. } => ("ALTER NAMESPACE", names::fold(name), text()),
        Statement::DropNamespace { name, .. } => ("DROP NAMESPACE", names::fold(name), text()),
        Statement::CreateTable(created) => ("CREATE TABLE", table(&created.name), text()),
        Statement::AlterTable(altered) => ("ALTER TABLE", table(&altered.name), text()),
        Statement::DropTable { name, .. } => ("DROP TABLE", table(name), text()),
        Statement::CreateUser { name, role: given, .. } => {
            ("CREATE USER", names::fold(name), json!({"role": role(given)}))
        }
        Statement::AlterUser { name, change } => {
            let details = match change {
                UserChange::Password(_) => json!({"set": "password"}),
                UserChange::Role(role) => json!({"set": "role", "role": role.value.to_lowercase()}),
                UserChange::Email(email) => json!({"set": "email", "email": email}),
            };
            ("ALTER USER", names::fold(name), details)
        }
        Statement::DropUser { name, .. } => ("DROP USER", names::fold(name), json!({})),
        // Its text holds what was read and written, which is the user's own.
        Statement::ExecuteAs { user, .. } => ("EXECUTE AS USER", names::fold(user), json!({})),
        // Its configuration may hold keys.
        Statement::CreateStorage(created) => ("CREATE STORAGE", names::fold(&created.id), json!({})),
        Statement::AlterStorage { id, .. } => ("ALTER STORAGE", names::fold(id), text()),
        Statement::DropStorage { id, .. } => ("DROP STORAGE", names::fold(id), text()),
        // Rows are their users' own affair, and the others change none of those.
        Statement::Use(_)
        | Statement::Show(_)
        | Statement::Insert(_)
        | Statement::Update(_)
        | Statement::Delete(_)
        | Statement::Query(_)
        | Statement::Explain(_)
        | Statement::Subscribe(_)
        | Statement::Begin
        | Statement::Commit
        | Statement::Rollback
        | Statement::KillQuery(_)
        | Statement::KillJob(_)
        | Statement::FlushTable(_)
        | Statement::FlushAll(_)
        | Statement::CompactTable(_)
        | Statement::CompactAll(_)
        | Statement::CheckStorage { .. } => return None,
    })
}

/// What to keep of a statement: of a change once it is made, and of acting for another user before anything is read or written.
pub fn change(parsed: &ParsedStatement, namespace: &str, identity: &Identity, now_ms: i64) -> Option<AccessChange> {
    let (action, target, details) = subject(parsed, namespace)?;
    let entry = AuditEntry {
        at: now_ms,
        actor: identity.user.to_string(),
        action: action.into(),
        target,
        details: details.to_string(),
        address: identity.address.map(|address| address.to_string()),
    };
    Some(AccessChange::Audited { kind: AuditKind::Change, entry })
}

/// Nobody acts for another user without an entry.
pub fn unrecorded(error: kalamdb_engine::EngineError) -> SqlError {
    let SqlError { code, message, .. } = SqlError::from(error);
    SqlError::new(code, format!("the statement was not run, for the audit log could not be written: {message}"))
}

#[cfg(test)]
mod tests {
    use kalamdb_engine::catalog::Role;

    use super::*;
    use crate::parse::parse_batch;

    #[test]
    fn changes_are_told_and_secrets_are_not() {
        let identity = Identity { user: "root".into(), role: Role::System, address: None };
        let told = |sql: &str| {
            let batch = parse_batch(sql).unwrap();
            match change(&batch[0], "n", &identity, 5) {
                Some(AccessChange::Audited { entry, .. }) => {
                    format!("{} {} {}", entry.action, entry.target, entry.details)
                }
                _ => String::new(),
            }
        };
        assert_eq!(told("drop table T"), r#"DROP TABLE n.t {"sql":"drop table T"}"#);
        assert_eq!(told("CREATE USER Ann WITH PASSWORD 'hidden' ROLE dba"), r#"CREATE USER ann {"role":"dba"}"#);
        assert_eq!(told("ALTER USER ann SET PASSWORD 'hidden'"), r#"ALTER USER ann {"set":"password"}"#);
        let storage = "CREATE STORAGE S TYPE s3 NAME 'n' PATH 's3://b/p' CONFIG '{\"secret_access_key\": \"hidden\"}'";
        assert_eq!(told(storage), "CREATE STORAGE s {}");
        assert_eq!(told("EXECUTE AS USER 'ann' (SELECT 1)"), "EXECUTE AS USER ann {}");
        assert_eq!(told("SELECT 1"), "");
    }
}
