//! BEGIN, COMMIT and ROLLBACK within a request: where they may stand, and what may stand between them.

mod open;

pub use open::{Open, OpenTransaction, OpenTransactions};

use crate::execute::Outcome;
use crate::parse::{ParsedStatement, Statement};
use crate::{ErrorCode, SqlError};

/// Refuses a batch whose transactions are not well formed, before any of it runs: nothing of it is written then.
pub fn check(batch: &[ParsedStatement]) -> Result<(), SqlError> {
    let mut begun: Option<usize> = None;
    for (at, parsed) in batch.iter().enumerate() {
        let refused = match (&parsed.statement, begun) {
            (Statement::Begin, Some(other)) => Some(format!(
                "the transaction that statement {} began is still open: COMMIT or ROLLBACK it first",
                other + 1
            )),
            (Statement::Commit | Statement::Rollback, None) => {
                Some("there is no transaction to end: BEGIN stands in the same request".to_owned())
            }
            (statement, Some(_)) => not_within(statement),
            (_, None) => None,
        };
        if let Some(text) = refused {
            return Err(invalid(text).in_statement(at + 1, &parsed.text));
        }
        match &parsed.statement {
            Statement::Begin => begun = Some(at),
            Statement::Commit | Statement::Rollback => begun = None,
            _ => {}
        }
    }
    match begun {
        Some(at) => {
            let text = "the request ends within this transaction, which is rolled back: add COMMIT; nothing of the request was run";
            Err(invalid(text).in_statement(at + 1, &batch[at].text))
        }
        None => Ok(()),
    }
}

/// Why a statement can't stand within a transaction.
fn not_within(statement: &Statement) -> Option<String> {
    let what = match statement {
        Statement::Insert(_)
        | Statement::Update(_)
        | Statement::Delete(_)
        | Statement::Query(_)
        | Statement::Explain(_)
        | Statement::Show(_)
        | Statement::Use(_)
        | Statement::ExecuteAs { .. }
        | Statement::Begin
        | Statement::Commit
        | Statement::Rollback => return None,
        Statement::Subscribe(_) => "SUBSCRIBE",
        Statement::KillJob(_) | Statement::KillQuery(_) => "KILL",
        Statement::CreateStorage(_)
        | Statement::AlterStorage { .. }
        | Statement::DropStorage { .. }
        | Statement::CheckStorage { .. } => "a statement about storages",
        Statement::FlushTable(_) | Statement::FlushAll(_) => "STORAGE FLUSH",
        Statement::CompactTable(_) | Statement::CompactAll(_) => "STORAGE COMPACT",
        Statement::CreateUser { .. } | Statement::AlterUser { .. } | Statement::DropUser { .. } => {
            "a statement about users"
        }
        Statement::CreateNamespace { .. }
        | Statement::AlterNamespace { .. }
        | Statement::DropNamespace { .. }
        | Statement::CreateTable(_)
        | Statement::AlterTable(_)
        | Statement::DropTable { .. } => "DDL",
    };
    Some(format!("{what} can't be part of a transaction: run it before BEGIN or after COMMIT"))
}

fn invalid(text: impl Into<String>) -> SqlError {
    SqlError::new(ErrorCode::InvalidTransaction, text)
}

/// Begins and ends the transaction of a request.
pub async fn run(
    statement: &Statement,
    open: &mut Option<Open>,
    begin: impl FnOnce() -> Open,
) -> Result<Outcome, SqlError> {
    match (statement, open.take()) {
        (Statement::Begin, None) => {
            *open = Some(begin());
            Ok(Outcome::done("Transaction begun"))
        }
        (Statement::Commit, Some(open)) => {
            let rows = open.transaction.commit().await?;
            Ok(Outcome::done(format!("Transaction committed: {rows} row(s)")))
        }
        (Statement::Rollback, Some(_)) => Ok(Outcome::done("Transaction rolled back")),
        _ => Err(SqlError::new(ErrorCode::Internal, "the request's transactions are not well formed")),
    }
}

#[cfg(test)]
mod tests {
    use crate::parse::parse_batch;

    #[track_caller]
    fn check(sql: &str, expected: Result<(), &str>) {
        let found = super::check(&parse_batch(sql).unwrap()).map_err(|error| error.message);
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(message), Err(part)) => assert!(message.contains(part), "{sql}: {message}"),
            (found, expected) => panic!("{sql}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn transactions_begin_and_end_within_a_request() {
        check("SELECT 1; BEGIN; SELECT 1; COMMIT; START TRANSACTION; ROLLBACK; SELECT 1", Ok(()));
        check("BEGIN; USE a; SHOW TABLES; DESCRIBE t; EXPLAIN SELECT 1; END", Ok(()));
        check("SELECT 1; BEGIN; SELECT 1", Err("Statement 2 failed: the request ends within this transaction"));
        check("BEGIN; SELECT 1; BEGIN; COMMIT", Err("Statement 3 failed: the transaction that statement 1 began"));
        check("COMMIT", Err("Statement 1 failed: there is no transaction to end"));
        check("BEGIN; COMMIT; ROLLBACK", Err("Statement 3 failed: there is no transaction to end"));
        check("BEGIN; CREATE TABLE t (id INT PRIMARY KEY); COMMIT", Err("Statement 2 failed: DDL can't be part"));
        check("BEGIN; DROP NAMESPACE n; COMMIT", Err("DDL can't be part"));
        check("BEGIN; STORAGE FLUSH ALL; COMMIT", Err("STORAGE FLUSH can't be part"));
        check("BEGIN; STORAGE COMPACT TABLE t; COMMIT", Err("STORAGE COMPACT can't be part"));
        check("BEGIN; KILL QUERY 'x'; COMMIT", Err("KILL can't be part"));
        check("BEGIN; DROP USER u; COMMIT", Err("a statement about users can't be part"));
    }
}
