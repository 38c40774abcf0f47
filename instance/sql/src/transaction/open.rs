//! Transactions between BEGIN and COMMIT, as `system.transactions` lists them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kalamdb_engine::Transaction;
use kalamdb_engine::schema::UserId;
use uuid::Uuid;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Drawn at its BEGIN; increasing in time.
    pub id: Uuid,
    /// Whose.
    pub user: UserId,
    /// Milliseconds since the Unix epoch.
    pub began_at: i64,
}

/// All of them. Clones list the same ones.
#[derive(Clone, Default)]
pub struct OpenTransactions(Arc<Mutex<BTreeMap<Uuid, OpenTransaction>>>);

/// A transaction that is listed for as long as it is open.
pub struct Open {
    /// The transaction.
    pub transaction: Transaction,
    _listed: Listed,
}

struct Listed {
    id: Uuid,
    list: OpenTransactions,
}

impl OpenTransactions {
    /// Lists it from now on.
    pub fn open(&self, transaction: Transaction, user: &UserId, now_ms: i64) -> Open {
        let id = Uuid::now_v7();
        self.lock().insert(id, OpenTransaction { id, user: user.clone(), began_at: now_ms });
        Open { transaction, _listed: Listed { id, list: self.clone() } }
    }

    /// Those that are open now, the oldest first.
    pub fn listed(&self) -> Vec<OpenTransaction> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, OpenTransaction>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.list.lock().remove(&self.id);
    }
}
