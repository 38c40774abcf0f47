//! What the engine's callers can meet, and who must act.

use std::path::PathBuf;

use crate::schema::TableName;

/// An error of the engine. `retry` in the docs says whether the same call can succeed later.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// What was read before the write has changed since; look up again and retry. Not for users.
    #[error("what was read has changed before the commit")]
    Stale,
    /// Another commit was first on rows that a transaction writes; the transaction can be begun again.
    #[error("another commit was first on rows of table {table} that this transaction writes; begin it again")]
    Conflict {
        /// The table.
        table: TableName,
    },
    /// A transaction can't do that; the client must do it outside.
    #[error("{0}")]
    NotInTransaction(String),
    /// A transaction has grown beyond its limits; the client must split it.
    #[error("{0}")]
    TooLarge(String),
    /// A row with the key exists.
    #[error("duplicate key {key} in table {table}")]
    DuplicateKey {
        /// The table.
        table: TableName,
        /// The key's values.
        key: String,
    },
    /// The thing does not exist.
    #[error("{what} '{name}' does not exist")]
    NotFound {
        /// `table`, `namespace`, …
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The thing exists already.
    #[error("{what} '{name}' already exists")]
    AlreadyExists {
        /// `table`, `namespace`, …
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The request can't be carried out as it stands; the client must change it.
    #[error("{0}")]
    Invalid(String),
    /// A row of the table does not hold to what a change of its schema asks for; the client must change row or statement.
    #[error("table {table}: {reason}")]
    Contradicted {
        /// The table.
        table: TableName,
        /// Whether the row has NULL where none may be; else a value that does not fit.
        is_null: bool,
        /// What is wrong with which row, or with how many, and how to mend it.
        reason: String,
    },
    /// The object store can't be reached, or the instance is not ready for writes; retry later.
    #[error("{0}")]
    Unavailable(String),
    /// The data directory's disk is almost full; retry when space was freed.
    #[error("{0}")]
    DiskFull(String),
    /// The data folder can't be opened; an operator must act.
    #[error("failed to open the data folder {}: {reason}", path.display())]
    Volume {
        /// The folder.
        path: PathBuf,
        /// Why, and how to mend it.
        reason: String,
    },
    /// Another process has the data folder open; it may be on its way out.
    #[error("failed to open the data folder {}: another process has it open; stop that one, or choose another data.dir ({reason})", path.display())]
    VolumeInUse {
        /// The folder.
        path: PathBuf,
        /// What RocksDB says.
        reason: String,
    },
    /// One table stopped, so that nothing is overwritten; an operator must act. Others go on.
    #[error("table {table} is stopped: {reason}")]
    TableStopped {
        /// The table.
        table: TableName,
        /// What was found, and what to do.
        reason: String,
    },
    /// Stored bytes are not what was written.
    #[error("corrupt {what}: {reason}")]
    Corrupt {
        /// The file, key or record.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// RocksDB failed.
    #[error("failed to {action}")]
    Hot {
        /// What was being done.
        action: &'static str,
        /// RocksDB's own error.
        #[source]
        source: rocksdb::Error,
    },
    /// The cold tier failed.
    #[error("failed to {action}: {source}")]
    Cold {
        /// What was being done, with the object's name.
        action: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl EngineError {
    /// Whether the same call can succeed later without the caller changing it.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Stale | Self::Conflict { .. } | Self::Unavailable(_) | Self::DiskFull(_))
    }
}
