//! The query cache: whole results of queries over system tables alone, encoded with bincode.
//!
//! Each kind of system table has an epoch, which the writes that change it raise after they can be read and before they are acknowledged.
//! A statement notes the epochs before it looks at anything, and they are part of the key: a result that was computed from
//! an older state is under an older epoch, where no statement looks that begins after the acknowledgement. So a result which is put
//! in too late, by a statement that a write overtook, does no harm.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datafusion::sql::sqlparser::ast::{ObjectName, Query, Visit, Visitor};
use kalamdb_engine::catalog::Role;
use kalamdb_engine::schema::{TableName, UserId};

use super::encoded::EncodedRows;
use super::store::{Clock, Statistics, Store};
use crate::bind::literal::Parameters;
use crate::bind::names::{self, INFORMATION_SCHEMA, SYSTEM};
use crate::execute::RowSet;
use crate::{Identity, SqlError};

/// What a system table shows, and so which writes change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Tables, their versions and columns.
    Tables,
    /// Namespaces.
    Namespaces,
    /// Live queries.
    LiveQueries,
    /// Storage locations.
    StorageLocations,
    /// Flush jobs and the others.
    Jobs,
}

impl Kind {
    /// All of them, in the order of the epochs.
    pub const ALL: [Self; 5] = [Self::Tables, Self::Namespaces, Self::LiveQueries, Self::StorageLocations, Self::Jobs];

    /// What a query shows, if it reads nothing but system tables.
    pub fn all_of(query: &Query, namespace: &str) -> Option<Vec<Self>> {
        let mut kinds = Kinds { namespace, found: Vec::new() };
        if query.visit(&mut kinds).is_break() || kinds.found.is_empty() {
            return None;
        }
        kinds.found.sort();
        kinds.found.dedup();
        Some(kinds.found)
    }

    /// What that relation shows; none for what is not a system table, and for those whose rows change by no write that is told of.
    pub fn of(name: &TableName) -> Option<Self> {
        match (name.namespace.as_str(), name.name.as_str()) {
            (SYSTEM, "tables" | "schemas" | "columns") | (INFORMATION_SCHEMA, "tables" | "columns") => {
                Some(Self::Tables)
            }
            (SYSTEM, "namespaces") | (INFORMATION_SCHEMA, "schemata") => Some(Self::Namespaces),
            (SYSTEM, "live" | "live_queries") => Some(Self::LiveQueries),
            (SYSTEM, "storages") => Some(Self::StorageLocations),
            (SYSTEM, "jobs" | "flush_jobs") => Some(Self::Jobs),
            _ => None,
        }
    }
}

struct Kinds<'a> {
    namespace: &'a str,
    found: Vec<Kind>,
}

impl Visitor for Kinds<'_> {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        match names::table_name(relation, self.namespace).ok().as_ref().and_then(Kind::of) {
            Some(kind) => {
                self.found.push(kind);
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        }
    }
}

/// How long results are good for, by what they show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimesToLive {
    /// Tables, their versions and columns.
    pub tables: Duration,
    /// Namespaces.
    pub namespaces: Duration,
    /// Live queries.
    pub live_queries: Duration,
    /// Storage locations.
    pub storage_locations: Duration,
    /// Flush jobs and the others.
    pub jobs: Duration,
}

impl TimesToLive {
    fn of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Tables => self.tables,
            Kind::Namespaces => self.namespaces,
            Kind::LiveQueries => self.live_queries,
            Kind::StorageLocations => self.storage_locations,
            Kind::Jobs => self.jobs,
        }
    }
}

/// The epoch of each kind, as a statement found them before it looked at anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epochs([u64; Kind::ALL.len()]);

/// One query of one user, as of some epochs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueryKey {
    sql: String,
    parameters: Parameters,
    namespace: String,
    user: UserId,
    role: Role,
    /// What it reads, each with its epoch.
    reads: Vec<(Kind, u64)>,
}

impl QueryKey {
    /// A query that reads these kinds. What a user sees depends on the user, so that nobody is answered with another's result.
    pub fn new(
        sql: &str,
        parameters: &Parameters,
        namespace: &str,
        identity: &Identity,
        kinds: &[Kind],
        epochs: &Epochs,
    ) -> Self {
        Self {
            sql: sql.to_owned(),
            parameters: parameters.clone(),
            namespace: namespace.to_owned(),
            user: identity.user.clone(),
            role: identity.role,
            reads: kinds.iter().map(|kind| (*kind, epochs.0[*kind as usize])).collect(),
        }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.sql.len() + self.parameters.bytes() + self.namespace.len()
    }

    /// What it reads, each kind with its epoch.
    pub fn reads(&self) -> &[(Kind, u64)] {
        &self.reads
    }
}

/// Results of queries over system tables.
pub struct QueryCache {
    store: Store<QueryKey, EncodedRows>,
    times: TimesToLive,
    epochs: [AtomicU64; Kind::ALL.len()],
}

impl QueryCache {
    /// Holds so many bytes of encoded results, and of what they were asked with.
    pub fn new(most_bytes: u64, times: TimesToLive, clock: Clock) -> Self {
        let weigh = |key: &QueryKey, rows: &EncodedRows| key.bytes() + rows.bytes();
        Self { store: Store::new(most_bytes, weigh, clock), times, epochs: Default::default() }
    }

    /// The epochs now: to be taken before the catalog and the jobs are looked at.
    pub fn epochs(&self) -> Epochs {
        Epochs(std::array::from_fn(|kind| self.epochs[kind].load(Ordering::SeqCst)))
    }

    /// The result, if it is here.
    pub fn get(&self, key: &QueryKey) -> Result<Option<RowSet>, SqlError> {
        self.store.get(key).map(|rows| rows.decode()).transpose()
    }

    /// Keeps a result for as long as the shortest-lived of what it shows.
    pub fn put(&self, key: QueryKey, rows: &RowSet) -> Result<(), SqlError> {
        let Some(good_for) = key.reads.iter().map(|(kind, _)| self.times.of(*kind)).min() else { return Ok(()) };
        self.store.put(key, EncodedRows::of(rows)?, good_for);
        Ok(())
    }

    /// To be called by every write that changes what the system tables say of tables, before it is acknowledged.
    pub fn invalidate_tables(&self) {
        self.invalidate(Kind::Tables);
    }

    /// As [`Self::invalidate_tables`], of namespaces.
    pub fn invalidate_namespaces(&self) {
        self.invalidate(Kind::Namespaces);
    }

    /// As [`Self::invalidate_tables`], of live queries.
    pub fn invalidate_live_queries(&self) {
        self.invalidate(Kind::LiveQueries);
    }

    /// As [`Self::invalidate_tables`], of storage locations.
    pub fn invalidate_storage_locations(&self) {
        self.invalidate(Kind::StorageLocations);
    }

    /// As [`Self::invalidate_tables`], of jobs.
    pub fn invalidate_jobs(&self) {
        self.invalidate(Kind::Jobs);
    }

    /// As [`Self::invalidate_tables`], of every kind.
    pub fn invalidate_all(&self) {
        Kind::ALL.into_iter().for_each(|kind| self.invalidate(kind));
    }

    fn invalidate(&self, kind: Kind) {
        self.epochs[kind as usize].fetch_add(1, Ordering::SeqCst);
        // Nobody looks at them any more; this gives their memory back.
        self.store.remove_if(|key, _| key.reads.iter().any(|(read, _)| *read == kind));
    }

    /// Drops what is too old.
    pub fn sweep(&self) {
        self.store.sweep();
    }

    /// What became of its look-ups.
    pub fn statistics(&self) -> Statistics {
        self.store.statistics()
    }
}
