//! What this process tells the SQL layer of itself.

use std::sync::Arc;

use kalamdb_sql::relations::{Host, LogLine, Session, Setting};

use crate::auth::Sessions;
use crate::configuration::Configuration;
use crate::logging;

/// This process.
pub struct Process {
    address: String,
    started_at: i64,
    max_connections: usize,
    settings: Vec<Setting>,
    sessions: Arc<Sessions>,
}

impl Process {
    /// Listens on that address.
    pub fn new(configuration: &Configuration, address: String, sessions: Arc<Sessions>) -> Self {
        Self {
            address,
            started_at: chrono::Utc::now().timestamp_millis(),
            max_connections: configuration.sql.turns.statements,
            settings: configuration.settings.clone(),
            sessions,
        }
    }
}

impl Host for Process {
    fn api_address(&self) -> String {
        self.address.clone()
    }

    fn started_at(&self) -> i64 {
        self.started_at
    }

    fn workers(&self) -> usize {
        tokio::runtime::Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers())
    }

    fn max_connections(&self) -> usize {
        self.max_connections
    }

    fn settings(&self) -> Vec<Setting> {
        self.settings.clone()
    }

    fn sessions(&self) -> Vec<Session> {
        self.sessions.listed(chrono::Utc::now().timestamp_millis())
    }

    fn log(&self) -> Vec<LogLine> {
        logging::recent()
    }
}
