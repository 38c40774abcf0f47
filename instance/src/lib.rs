//! One KalamDB database process: HTTP, authentication, configuration and metrics around the engine and its SQL layer.
//!
//! * [`configuration`]: flags, environment and file to typed settings; the reference of all keys;
//! * [`server`]: the order of starting and stopping;
//! * [`http`]: the endpoints of the public protocol;
//! * [`auth`]: passwords, tokens and who may come in;
//! * [`host`], [`logging`]: what the process tells SQL of itself, its newest log lines among it;
//! * [`metrics`]: what is counted, and what `/metrics` shows.

pub mod auth;
pub mod configuration;
pub mod host;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod server;
