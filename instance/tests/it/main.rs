//! The real `kalamdb-instance`, over HTTP.

mod alters;
mod authentication;
mod bounds;
mod buckets;
mod corruption;
mod crashes;
mod errors;
mod flushes;
mod loads;
mod open_format;
mod owners;
mod results;
mod routes;
mod server;
mod shortcuts;
mod statements;
mod streams;
mod transactions;
mod types;
mod upserts;
