//! What each statement does.

mod alter;
mod assigned;
mod catalog;
mod change;
mod define;
mod expression;
mod flush;
mod impersonate;
pub(crate) mod insert;
mod live;
mod query;
mod returning;
mod show;
mod storages;
mod upsert;
mod users;
pub(crate) mod write;

pub(crate) use query::{flags, result_columns};

use arrow::record_batch::RecordBatch;
use chrono::{DateTime, Utc};
use kalamdb_engine::Transaction;
use kalamdb_engine::access::AccessChange;
use kalamdb_engine::schema::UserId;
use serde_json::Value as Json;

use crate::Identity;
use crate::bind::literal::Parameters;
use crate::database::Statements;
use crate::running::Ticket;

/// What a statement runs within.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The statement's text.
    pub text: &'a str,
    /// The namespace of unqualified names.
    pub namespace: &'a str,
    /// `$1`, `$2`, …
    pub parameters: &'a Parameters,
    /// Who asks.
    pub identity: &'a Identity,
    /// The transaction that it is part of; without one it commits by itself.
    pub transaction: Option<&'a Transaction>,
    /// Whether somebody else runs it for that user: then it reaches what belongs to the user alone.
    pub impersonated: bool,
    /// Where live queries are subscribed to.
    pub ws_url: &'a str,
    /// The statement's place among those that run; none of what is not stopped by name.
    pub ticket: Option<&'a Ticket>,
    /// What the audit log is told of the statement.
    pub audited: Option<&'a AccessChange>,
}

/// What a statement answers.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A row set.
    Rows(RowSet),
    /// Something was done.
    Done {
        /// Rows changed; 0 for DDL.
        row_count: u64,
        /// For people and for clients that parse it.
        message: String,
    },
    /// What a statement answered that ran as that user.
    As(UserId, Box<Outcome>),
}

/// Rows with their columns.
#[derive(Debug, Clone)]
pub struct RowSet {
    /// As many as each batch has.
    pub columns: Vec<ResultColumn>,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultColumn {
    /// Its name.
    pub name: String,
    /// The protocol's name of its type.
    pub data_type: Json,
    /// `pk`, `nn`, `uq`.
    pub flags: Vec<&'static str>,
}

impl Outcome {
    /// DDL.
    pub(crate) fn done(message: impl Into<String>) -> Self {
        Self::Done { row_count: 0, message: message.into() }
    }
}

/// When a statement began: CURRENT_TIMESTAMP of its defaults, and the times in the catalog.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}
