//! The table engine: fresh rows in RocksDB (the hot tier), flushed rows in Delta Lake tables (the cold tier), read as one table.
//!
//! It knows no HTTP and no SQL text. The parts, from the bottom up:
//!
//! * [`schema`], [`value`], [`seq`], [`codec`]: what a table, a row and a commit sequence are, and how records are stored;
//! * [`hot`]: RocksDB, its column families, keys and rows;
//! * [`evolution`]: how a schema changes while rows and files stay as they are;
//! * [`catalog`]: namespaces, tables, users, as an immutable value in memory and records on disk;
//! * [`commit`]: the committer, through which every change passes, one at a time;
//! * [`cold`]: the object store: identity and epochs, Delta logs, Parquet files, deletion vectors, look-ups by key;
//! * [`flush`]: the five steps from hot to cold, and their settlement after a crash;
//! * [`compaction`], [`vacuum`]: merging cold files, and deleting those that left their table;
//! * [`recovery`]: the catalog's mirror in the object store, and how an empty volume comes back from it;
//! * [`scan`]: DataFusion's view of a table;
//! * [`transaction`]: several statements over one snapshot, and one commit of them;
//! * [`engine`]: all of it behind one handle.

pub mod catalog;
pub mod codec;
pub mod cold;
pub mod commit;
pub mod compaction;
pub mod config;
pub mod engine;
pub mod error;
pub mod evolution;
pub mod flush;
pub mod hot;
#[cfg(test)]
mod model;
mod plant;
mod point;
pub mod recovery;
pub mod scan;
pub mod schema;
pub mod seq;
pub mod transaction;
pub mod vacuum;
pub mod value;

pub use config::EngineConfig;
pub use engine::{Engine, ReadSnapshot};
pub use error::EngineError;
pub use transaction::{Transaction, TransactionLimits};
