//! What statements need not find out again: schemas ([`schema`]), results over system tables ([`query`]), parsed texts
//! ([`statement`]) and plans ([`plan`]).
//!
//! None of them ever shows a state older than a write that was acknowledged. That rests on keys and checks at each look-up, told in each
//! module, and not on the invalidation coming in time: that one only gives memory back early.

mod encoded;
pub mod plan;
pub mod query;
pub mod schema;
pub mod statement;
mod store;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use kalamdb_engine::observe::Changed;
pub use store::{Clock, Statistics, system_clock};

use plan::PlanCache;
use query::{QueryCache, TimesToLive};
use schema::SchemaCache;
use statement::StatementCache;

/// Bounds of the caches.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// Whether statements may take shortcuts at all: caches, and the way past DataFusion for statements by key.
    pub shortcuts: bool,
    /// Versions of tables.
    pub schemas: u64,
    /// How long one is good for.
    pub schema_time: Duration,
    /// Results over system tables, in bytes together.
    pub query_bytes: u64,
    /// How long they are good for.
    pub query_times: TimesToLive,
    /// Parsed texts, in estimated bytes together.
    pub statement_bytes: u64,
    /// Plans, in estimated bytes together.
    pub plan_bytes: u64,
}

/// All caches of one database.
pub struct Caches {
    /// Versions of tables.
    pub schemas: SchemaCache,
    /// Results over system tables.
    pub queries: QueryCache,
    /// Parsed texts.
    pub statements: StatementCache,
    /// Plans.
    pub plans: PlanCache,
}

impl Caches {
    /// Empty ones.
    pub fn new(config: &CacheConfig, clock: &Clock) -> Self {
        Self {
            schemas: SchemaCache::new(config.schemas, config.schema_time, Arc::clone(clock)),
            queries: QueryCache::new(config.query_bytes, config.query_times, Arc::clone(clock)),
            statements: StatementCache::new(config.statement_bytes, Arc::clone(clock)),
            plans: PlanCache::new(config.plan_bytes, Arc::clone(clock)),
        }
    }

    /// Drops what a change has made useless: called by the engine before the change is acknowledged.
    pub fn changed(&self, changed: &Changed) {
        match changed {
            Changed::Namespace(name) => {
                self.schemas.invalidate_namespace(name);
                self.queries.invalidate_namespaces();
                // It tells of the time of the first namespace.
                self.queries.invalidate_storage_locations();
            }
            Changed::Table(name) => {
                self.schemas.invalidate_table(name);
                self.plans.invalidate_table(name);
                self.queries.invalidate_tables();
                // Namespaces count their tables, and jobs of tables that are gone are not shown.
                self.queries.invalidate_namespaces();
                self.queries.invalidate_jobs();
            }
            Changed::Job => self.queries.invalidate_jobs(),
            Changed::Storage => self.queries.invalidate_storage_locations(),
            // What users see is kept by user and role, and no table of users is kept at all.
            Changed::User => {}
            Changed::Everything => {
                self.schemas.invalidate_all();
                self.plans.invalidate_all();
                self.queries.invalidate_all();
            }
        }
    }

    /// Drops what is too old.
    pub fn sweep(&self) {
        self.schemas.sweep();
        self.queries.sweep();
        self.statements.sweep();
        self.plans.sweep();
    }

    /// By the names that metrics have for the caches.
    pub fn statistics(&self) -> [(&'static str, Statistics); 4] {
        [
            ("schema", self.schemas.statistics()),
            ("query", self.queries.statistics()),
            ("statement", self.statements.statistics()),
            ("plan", self.plans.statistics()),
        ]
    }
}
