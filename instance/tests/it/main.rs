//! The real `kalamdb-instance`, over HTTP.

mod alters;
mod authentication;
mod buckets;
mod consistency;
mod corruption;
mod crashes;
mod disks;
mod errors;
mod flushes;
mod open_format;
mod outages;
mod owners;
mod power_cut;
mod routes;
mod server;
mod statements;
mod streams;
mod transactions;
mod types;
mod upserts;
