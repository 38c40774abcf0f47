//! What the process that SQL runs in tells of itself, for system tables. Secrets are no part of it.

use kalamdb_engine::catalog::Role;
use kalamdb_engine::schema::UserId;
use uuid::Uuid;

/// A setting of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// `section.key`.
    pub name: String,
    /// What holds.
    pub value: String,
    /// What it means, with its unit.
    pub description: String,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Microseconds since the Unix epoch.
    pub at: i64,
    /// `ERROR`, `WARN`, …
    pub level: &'static str,
    /// Where it comes from.
    pub target: String,
    /// What it says, with its fields.
    pub message: String,
}

/// A log-in whose tokens may still be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id, which its tokens carry.
    pub id: Uuid,
    /// Whose.
    pub user: UserId,
    /// The role at the log-in.
    pub role: Role,
    /// Where its last request came from.
    pub address: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
    /// Milliseconds since the Unix epoch.
    pub last_seen_at: i64,
    /// When its last token expires, in milliseconds since the Unix epoch.
    pub expires_at: i64,
}

/// The process around the SQL layer.
pub trait Host: Send + Sync {
    /// Where clients reach it, as `host:port`.
    fn api_address(&self) -> String;
    /// When it started, in milliseconds since the Unix epoch.
    fn started_at(&self) -> i64;
    /// Threads that serve requests.
    fn workers(&self) -> usize;
    /// Requests that run SQL at the same time.
    fn max_connections(&self) -> usize;
    /// Every setting.
    fn settings(&self) -> Vec<Setting>;
    /// Log-ins whose tokens may still be used.
    fn sessions(&self) -> Vec<Session>;
    /// The newest lines of the log, oldest first.
    fn log(&self) -> Vec<LogLine>;
}
