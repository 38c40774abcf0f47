//! Drives a KalamDB from outside, as its users do: `kubectl`, SQL over HTTP, and an S3 client.
//!
//! The end-to-end tests and the demo are built on it. It knows none of the product's crates, so that a mistake there can't
//! hide behind a shared type, and it needs no async runtime.

pub mod bucket;
pub mod calendar;
pub mod database;
pub mod flights;
pub mod forward;
pub mod kubectl;
pub mod metrics;
pub mod operator;
pub mod sql;
pub mod wait;
