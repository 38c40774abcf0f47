//! An instance as the scheduler sees it, and the names by which it is told apart.

use std::fmt;
use std::time::Duration;

/// Who an instance is, for as long as its data lives: the UID of its resource, or its address in a static list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub String);

/// `namespace.table` as the instance names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName(pub String);

/// What instances share that write to the same object store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey(pub String);

/// The bearer token by which an instance knows its scheduler. It never shows in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// An instance that is to be looked after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Who it is.
    pub id: TargetId,
    /// Where it answers, without a trailing slash: `http://10.244.0.7:8080`.
    pub url: String,
    /// How it knows us.
    pub token: Token,
    /// Where its flushes go.
    pub store: StoreKey,
    /// When its tables are due.
    pub limits: Limits,
}

/// When a table is due, and how many jobs an instance takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Unflushed bytes of one table.
    pub max_bytes: u64,
    /// Unflushed row versions of one table.
    pub max_rows: u64,
    /// Age of a table's oldest unflushed row version.
    pub max_age: Duration,
    /// Jobs of one instance at a time.
    pub max_concurrent: usize,
}

impl Token {
    /// A token with the white space around it cut off, since files end in a line break.
    pub fn new(token: &str) -> Self {
        Self(token.trim().to_owned())
    }

    /// The token itself, for the request's header.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
