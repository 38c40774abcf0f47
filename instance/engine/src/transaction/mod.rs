//! Transactions: one snapshot of all tables, what was written over it, and one commit of it all.
//!
//! Isolation is snapshot: every read is of the moment at which the transaction began, plus its own writes; of two transactions that
//! write the same row the first to commit wins. Rows that were only read are not compared, so that write skew is possible.

mod overlay;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use overlay::{Overlay, Written};

use crate::catalog::Catalog;
use crate::engine::{LookUp, RowWrite};
use crate::hot::Key;
use crate::point::point;
use crate::schema::{Table, TableId, UserId};
use crate::seq::Seq;
use crate::{Engine, EngineError, ReadSnapshot};

/// How often a commit looks its keys up again where rows have moved between the tiers. Whatever else has changed is a conflict at once.
const COMMIT_ATTEMPTS: usize = 20;

/// How large a transaction may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionLimits {
    /// Rows that it may write.
    pub rows: usize,
    /// Bytes that these may take in memory, with what they overwrite.
    pub bytes: usize,
}

/// A transaction that is under way. Dropping it rolls it back: nothing was written anywhere else.
pub struct Transaction {
    engine: Engine,
    catalog: Arc<Catalog>,
    snapshot: ReadSnapshot,
    overlay: Arc<Overlay>,
}

impl Transaction {
    pub(crate) fn begin(engine: Engine, limits: TransactionLimits) -> Self {
        let (catalog, snapshot) = engine.read();
        let overlay = Arc::new(Overlay::new(snapshot.read_at(), limits));
        Self { engine, catalog, snapshot: snapshot.with_overlay(overlay.clone()), overlay }
    }

    /// The catalog as of the begin.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// All tables as of the begin, with what the transaction has written so far and will write while the snapshot is held.
    pub fn snapshot(&self) -> &ReadSnapshot {
        &self.snapshot
    }

    /// Takes a statement's writes, which were looked up in [`Transaction::snapshot`]: all of them or none. Answers the provisional
    /// `_seq` of each, in their order.
    pub fn write(&self, writes: Vec<RowWrite>) -> Result<Vec<Seq>, EngineError> {
        writes.iter().try_for_each(|write| Overlay::check(&write.table))?;
        let writes: Vec<_> = writes.into_iter().map(|write| (self.engine.draw_seq(), write)).collect();
        let seqs = writes.iter().map(|(seq, _)| *seq).collect();
        self.overlay.write(writes)?;
        Ok(seqs)
    }

    /// Commits all of it or nothing; answers how many rows that were. [`EngineError::Conflict`] where another commit has written
    /// one of its rows since it began: begin again.
    pub async fn commit(&self) -> Result<usize, EngineError> {
        let mut writes = self.overlay.writes();
        for _ in 0..COMMIT_ATTEMPTS {
            if writes.is_empty() {
                return Ok(0);
            }
            self.check_tables(&writes)?;
            match self.engine.commit(writes.clone()).await {
                Ok(_) => return Ok(writes.len()),
                Err(EngineError::Stale) => {
                    writes = self.look_up_again(writes).await?;
                    point!("transaction.looked");
                }
                Err(error) => return Err(error),
            }
        }
        Err(EngineError::Conflict { table: writes[0].table.name.clone() })
    }

    /// A table that was altered or dropped in the meantime would not take the rows.
    fn check_tables(&self, writes: &[RowWrite]) -> Result<(), EngineError> {
        let catalog = self.engine.catalog();
        let is_same = |table: &Table| {
            catalog.tables.get(&table.name).is_some_and(|now| now.id == table.id && now.version == table.version)
        };
        match writes.iter().find(|write| !is_same(&write.table)) {
            Some(write) => Err(EngineError::Conflict { table: write.table.name.clone() }),
            None => Ok(()),
        }
    }

    /// The same writes with look-ups of now, if every key holds the version that the transaction read: the end of a flush moves rows
    /// and changes none.
    async fn look_up_again(&self, mut writes: Vec<RowWrite>) -> Result<Vec<RowWrite>, EngineError> {
        let snapshot = self.engine.snapshot();
        let mut parts: BTreeMap<(TableId, Option<UserId>), Vec<usize>> = BTreeMap::new();
        for (at, write) in writes.iter().enumerate().filter(|(_, write)| write.look_up != LookUp::Generated) {
            parts.entry((write.table.id, write.user.clone())).or_default().push(at);
        }
        for ((_, user), places) in parts {
            let table = writes[places[0]].table.clone();
            let keys: Vec<Key> = places.iter().map(|at| writes[*at].key.clone()).collect();
            let found = snapshot.look_up(&table, user.as_ref(), &keys).await?;
            for (at, look_up) in places.into_iter().zip(found) {
                if look_up.seq() != writes[at].look_up.seq() {
                    return Err(EngineError::Conflict { table: table.name.clone() });
                }
                writes[at].look_up = look_up;
            }
        }
        Ok(writes)
    }
}
