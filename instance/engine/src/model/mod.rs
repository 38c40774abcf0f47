//! The model test: random programs over the real engine, in which many tasks go on one at a time, against a plain model.
//!
//! A case is a program: which tasks begin, and who goes on when. The engine's parts are all real: committer, jobs, fences, recovery,
//! vacuum, scans and look-ups, over RocksDB and object_store's store in memory. After every move the invariants of the storage model hold.
//!
//! * [`scheduler`], [`program`], [`moves`], [`tables`], [`time`]: tasks that wait for turns; programs by seed; what a move does;
//! * [`tasks`], [`wire`], [`owner`]: what one process does, how it reaches the store, and the process itself;
//! * [`reference`], [`bucket`], [`world`]: what must be true, and what the store holds;
//! * [`invariants`]: the predicates;
//! * [`case`], [`plants`]: seeds, failures made small, and the bugs that must be caught.
//!
//! `cargo xtask soak` runs it for long.

mod bucket;
mod case;
mod invariants;
mod moves;
mod owner;
mod plants;
mod program;
mod reference;
pub(crate) mod scheduler;
mod tables;
pub(crate) mod tasks;
mod time;
mod wire;
mod world;
