//! Optimised plans of queries, in which tables are names and parameters are placeholders ([`Prepared`]).
//!
//! A plan is good as long as each table that it names is the very version that it was made with; that is compared at each look-up, with
//! the catalog that the statement reads. It holds no rows, no snapshot and no right: those come in when it is bound for a statement.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::DataType;
use kalamdb_engine::catalog::Catalog;
use kalamdb_engine::schema::TableName;

use super::store::{Clock, Statistics, Store};
use crate::bind::literal::{Literal, Parameters};
use crate::prepared::Prepared;

/// For as long as it stays in use; this only clears away what is not.
const GOOD_FOR: Duration = Duration::from_secs(3600);
/// Larger plans are not kept: they hold long constants, and are hardly ever asked for twice.
const LARGEST: usize = 1 << 20;

/// What a plan depends on besides the tables' versions. It does not depend on the user: what does, is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlanKey {
    sql: String,
    namespace: String,
    parameters: Vec<DataType>,
}

impl PlanKey {
    /// None where a parameter is NULL, which is of no type yet.
    pub fn of(sql: &str, namespace: &str, parameters: &Parameters) -> Option<Self> {
        let scalars = parameters.iter().map(|literal| match literal {
            Literal::Null => None,
            literal => Some(literal.scalar().data_type()),
        });
        let parameters = scalars.collect::<Option<Vec<_>>>()?;
        Some(Self { sql: sql.to_owned(), namespace: namespace.to_owned(), parameters })
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.sql.len() + self.namespace.len() + self.parameters.len() * size_of::<DataType>()
    }
}

/// A kept plan, or the knowledge that there can be none.
#[derive(Clone)]
pub enum Kept {
    /// It can be bound again and again.
    Plan(Arc<Prepared>),
    /// It depends on the moment or on the user, and is made anew for each statement.
    Never,
}

/// Plans.
pub struct PlanCache {
    store: Store<PlanKey, Kept>,
}

impl PlanCache {
    /// Holds so many bytes of plans together, by an estimate.
    pub fn new(most_bytes: u64, clock: Clock) -> Self {
        Self { store: Store::new(most_bytes, bytes, clock) }
    }

    /// The plan, if it was made with the tables as they are in that catalog.
    pub fn get(&self, key: &PlanKey, catalog: &Catalog) -> Option<Kept> {
        self.store.get_if(key, |kept| match kept {
            Kept::Plan(prepared) => prepared.is_current(catalog),
            Kept::Never => true,
        })
    }

    /// Keeps it, unless it is large.
    pub fn put(&self, key: PlanKey, kept: Kept) {
        if bytes(&key, &kept) <= LARGEST {
            self.store.put(key, kept, GOOD_FOR);
        }
    }

    /// Drops the plans that name the table.
    pub fn invalidate_table(&self, name: &TableName) {
        self.store.remove_if(|_, kept| matches!(kept, Kept::Plan(prepared) if prepared.names(name)));
    }

    /// Drops all.
    pub fn invalidate_all(&self) {
        self.store.remove_if(|_, _| true);
    }

    /// Drops what was not used lately.
    pub fn sweep(&self) {
        self.store.sweep();
    }

    /// What became of its look-ups.
    pub fn statistics(&self) -> Statistics {
        self.store.statistics()
    }
}

fn bytes(key: &PlanKey, kept: &Kept) -> usize {
    key.bytes()
        + match kept {
            Kept::Plan(prepared) => prepared.bytes(),
            Kept::Never => 0,
        }
}
