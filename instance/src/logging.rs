//! Logs go to standard error, as text or as JSON lines.

use tracing_subscriber::EnvFilter;

use crate::configuration::{LogConfig, LogFormat};

/// Installs the subscriber; once a process.
pub fn start(config: &LogConfig) {
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}
