//! How a database comes back from its object store when its volume is lost: the catalog's mirror, and the recovery from it.
//!
//! * [`mirror`]: what a mirror says and how it is stored; whether a volume may go on beside it; pure;
//! * [`objects`]: mirrors in the object store: create-only puts, the newest one, pruning;
//! * [`keeper`]: keeps the mirror up with the catalog, and makes flushes wait for it;
//! * [`fence`], [`recover`]: an empty volume takes over each table at the end of its Delta log, and then the catalog, in one batch.
//!
//! What was in the hot tier alone is lost with its volume, and so are passwords, which no mirror holds.

pub(crate) mod fence;
pub(crate) mod keeper;
pub mod mirror;
pub(crate) mod objects;
pub(crate) mod recover;

#[cfg(test)]
mod tests;
