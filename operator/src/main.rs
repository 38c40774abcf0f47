//! The KalamDB operator: looks after every `KalamDB` of a cluster, or schedules flushes for a static list of instances.

mod commands;
mod controller;
mod fleet;
mod health;
mod message;
mod schedule;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments = commands::Arguments::parse();
    // Two crates bring a provider each; naming one here keeps the choice from being made at the first connection.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("failed to choose a TLS provider: another one was chosen before"))?;
    arguments.run()
}
