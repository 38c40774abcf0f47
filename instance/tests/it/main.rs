//! The real `kalamdb-instance`, over HTTP.

mod alters;
mod authentication;
mod buckets;
mod changes;
mod corruption;
mod crashes;
mod errors;
mod flushes;
mod impersonation;
mod injection;
mod json;
mod open_format;
mod owners;
mod routes;
mod server;
mod statements;
mod storages;
mod streams;
mod transactions;
mod types;
mod upserts;
