//! Parsed texts. What a text parses to depends on nothing else, so that they never go stale.

use std::sync::Arc;
use std::time::Duration;

use super::store::{Clock, Statistics, Store};
use crate::SqlError;
use crate::parse::{ParsedStatement, Statement, parse_batch};

/// Longer texts are hardly ever sent twice.
const LONGEST_TEXT: usize = 16 << 10;
/// A syntax tree takes about so many bytes for each byte of its text.
const BYTES_OF_TREE: usize = 40;
/// For as long as it stays in use; this only clears away what is not.
const GOOD_FOR: Duration = Duration::from_secs(3600);

/// The statements of a request, as they were parsed.
pub type Batch = Arc<Vec<ParsedStatement>>;

/// Parsed texts.
pub struct StatementCache {
    store: Store<String, Batch>,
}

impl StatementCache {
    /// Holds trees of so many bytes together, by an estimate.
    pub fn new(most_bytes: u64, clock: Clock) -> Self {
        Self { store: Store::new(most_bytes, |sql, _| sql.len() * BYTES_OF_TREE, clock) }
    }

    /// The statements of the text, parsed where it was not parsed before.
    pub fn get_or_parse(&self, sql: &str) -> Result<Batch, SqlError> {
        if sql.len() > LONGEST_TEXT {
            return parse_batch(sql).map(Arc::new);
        }
        if let Some(batch) = self.store.get(sql) {
            return Ok(batch);
        }
        let batch = Arc::new(parse_batch(sql)?);
        if batch.iter().all(|parsed| may_be_kept(&parsed.statement)) {
            self.store.put(sql.to_owned(), Arc::clone(&batch), GOOD_FOR);
        }
        Ok(batch)
    }

    /// Drops what was not parsed lately.
    pub fn sweep(&self) {
        self.store.sweep();
    }

    /// What became of its look-ups.
    pub fn statistics(&self) -> Statistics {
        self.store.statistics()
    }
}

/// Only what is sent again and again; above all nothing that holds a password.
fn may_be_kept(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Query(_)
            | Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Show(_)
            | Statement::Use(_)
            | Statement::Begin
            | Statement::Commit
            | Statement::Rollback
    )
}
