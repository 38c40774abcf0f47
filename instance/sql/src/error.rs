//! What a statement can fail with: few stable codes, and messages that name the thing.

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::Location;
use kalamdb_engine::EngineError;

/// Stable codes of the public protocol. The texts beside them may change, these do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The text is no statement that can be planned.
    InvalidSql,
    /// The body of a request is not of the form that it is said to be, or broke off.
    InvalidBody,
    /// A parameter is missing, too large or no scalar.
    InvalidParameter,
    /// Parameters came with more than one statement.
    ParamsWithBatch,
    /// The user may not do that.
    PermissionDenied,
    /// A namespace, table, column or user does not exist.
    NotFound,
    /// A namespace, table or user exists already.
    AlreadyExists,
    /// A row with the key exists already.
    DuplicateKey,
    /// NULL for a column that takes none.
    NotNullViolation,
    /// A value does not fit its column.
    InvalidValue,
    /// A statement, type or option that this version does not have.
    NotAvailable,
    /// Other writers were faster, again and again; the same statement can succeed later.
    Conflict,
    /// Another commit was first on rows that a transaction writes; the same transaction can succeed when it is begun again.
    TransactionConflict,
    /// A transaction can't do that, or is not begun or ended as it must be.
    InvalidTransaction,
    /// The object store is away or the instance is not ready; the same statement can succeed later.
    Unavailable,
    /// The disk is almost full; the same statement can succeed once space was freed.
    DiskFull,
    /// The statement ran longer than it may.
    StatementTimeout,
    /// Somebody stopped the statement.
    Cancelled,
    /// The reply, or the rows that a statement writes, are larger than they may be.
    TooLarge,
    /// The statement needs more memory or spill space than it may have.
    ResourcesExhausted,
    /// The statement failed while it ran.
    Execution,
    /// Something that the client can't mend.
    Internal,
}

impl ErrorCode {
    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSql => "INVALID_SQL",
            Self::InvalidBody => "INVALID_REQUEST",
            Self::InvalidParameter => "INVALID_PARAMETER",
            Self::ParamsWithBatch => "PARAMS_WITH_BATCH",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::DuplicateKey => "DUPLICATE_KEY",
            Self::NotNullViolation => "NOT_NULL_VIOLATION",
            Self::InvalidValue => "INVALID_VALUE",
            Self::NotAvailable => "NOT_AVAILABLE",
            Self::Conflict => "CONFLICT",
            Self::TransactionConflict => "TRANSACTION_CONFLICT",
            Self::InvalidTransaction => "INVALID_TRANSACTION",
            Self::Unavailable => "UNAVAILABLE",
            Self::DiskFull => "DISK_FULL",
            Self::StatementTimeout => "STATEMENT_TIMEOUT",
            Self::Cancelled => "QUERY_CANCELLED",
            Self::TooLarge => "TOO_LARGE",
            Self::ResourcesExhausted => "RESOURCES_EXHAUSTED",
            Self::Execution => "SQL_EXECUTION_ERROR",
            Self::Internal => "INTERNAL_ERROR",
        }
    }

    /// Whether the same request can succeed later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::TransactionConflict | Self::Unavailable | Self::DiskFull)
    }
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The text of the statement that failed.
    pub details: Option<String>,
}

impl SqlError {
    /// An error that is not yet tied to a statement.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None }
    }

    /// `NotFound`: `table 'a.b' does not exist`.
    pub fn not_found(what: &str, name: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::NotFound, format!("{what} '{name}' does not exist"))
    }

    /// `NotAvailable`: `… is not available in this version`.
    pub fn not_available(what: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::NotAvailable, format!("{what} is not available in this version"))
    }

    /// The same, with the place in the request's text where the mistake is, unless it is known already.
    pub fn at(self, place: Location) -> Self {
        if place == Location::empty() || self.message.contains(" at Line: ") {
            return self;
        }
        Self { message: format!("{}{place}", self.message), ..self }
    }

    /// Says which statement of the request failed, counted from 1.
    pub fn in_statement(self, number: usize, text: &str) -> Self {
        Self {
            message: format!("Statement {number} failed: {}", self.message),
            details: Some(text.to_owned()),
            code: self.code,
        }
    }
}

impl From<EngineError> for SqlError {
    fn from(error: EngineError) -> Self {
        let code = match &error {
            EngineError::Stale => ErrorCode::Conflict,
            EngineError::Conflict { .. } => ErrorCode::TransactionConflict,
            EngineError::NotInTransaction(_) => ErrorCode::InvalidTransaction,
            EngineError::TooLarge(_) => ErrorCode::TooLarge,
            EngineError::DuplicateKey { .. } => ErrorCode::DuplicateKey,
            EngineError::NotFound { .. } => ErrorCode::NotFound,
            EngineError::AlreadyExists { .. } => ErrorCode::AlreadyExists,
            EngineError::Invalid(_) => ErrorCode::Execution,
            EngineError::Contradicted { is_null: true, .. } => ErrorCode::NotNullViolation,
            EngineError::Contradicted { is_null: false, .. } => ErrorCode::InvalidValue,
            EngineError::Unavailable(_) => ErrorCode::Unavailable,
            EngineError::DiskFull(_) => ErrorCode::DiskFull,
            _ => ErrorCode::Internal,
        };
        Self::new(code, with_causes(&error))
    }
}

/// The error's text and those of its causes which it does not already contain.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let next = inner.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = inner.source();
    }
    text
}

impl From<ParserError> for SqlError {
    fn from(error: ParserError) -> Self {
        let message = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
            ParserError::RecursionLimitExceeded => "the statement is nested too deeply".into(),
        };
        Self::new(ErrorCode::InvalidSql, message)
    }
}

/// The engine's error that DataFusion carried through a scan.
pub(crate) fn engine_error(error: &DataFusionError) -> Option<SqlError> {
    let DataFusionError::External(inner) = error.find_root() else { return None };
    // What keeps tables apart from users says so below SQL, too.
    if let Some(own) = inner.downcast_ref::<SqlError>() {
        return Some(own.clone());
    }
    let engine = inner.downcast_ref::<EngineError>()?;
    let code = match engine {
        EngineError::Unavailable(_) => ErrorCode::Unavailable,
        EngineError::TableStopped { .. } | EngineError::Corrupt { .. } => ErrorCode::Internal,
        EngineError::Invalid(_) => ErrorCode::Execution,
        EngineError::NotFound { .. } => ErrorCode::NotFound,
        EngineError::NotInTransaction(_) => ErrorCode::InvalidTransaction,
        _ => ErrorCode::Internal,
    };
    Some(SqlError::new(code, with_causes(engine)))
}
