//! The real `kalamdb-instance`, over HTTP.

mod alters;
mod authentication;
mod buckets;
mod corruption;
mod crashes;
mod errors;
mod flushes;
mod fuzz;
mod open_format;
mod owners;
mod returning;
mod routes;
mod server;
mod sessions;
mod slt;
mod statements;
mod streams;
mod suites;
mod transactions;
mod types;
