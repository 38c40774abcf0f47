//! Wire types of the instance's HTTP API, shared by the instance that answers and the operator that asks.
//!
//! Nothing here knows HTTP, Kubernetes or the engine: these are plain data, and the names by which they travel.

pub mod flush;
pub mod metrics;
pub mod sql;
