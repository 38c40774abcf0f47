//! Loading rows in bulk: bytes of a stream to rows, batch by batch. Each batch is written as one commit; a row that does not fit the table
//! is left out and reported by its line, and stops nothing.
//!
//! Memory is that of one batch, whatever the length of the stream. What has to be read from its end first, which is Parquet, waits
//! in a file without a name, of bounded size.

mod arrow;
mod batch;
mod csv;
mod decode;
mod ndjson;
mod parquet;
mod place;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use kalamdb_engine::catalog::Catalog;
use kalamdb_engine::schema::{Table, TableName};
use kalamdb_engine::value::Value;

use crate::authorize::{self, Access};
use crate::bind::literal::Parameters;
use crate::bind::names;
use crate::database::Statements;
use crate::execute::Scope;
use crate::format::Format;
use crate::running::Ticket;
use crate::turns::{Lane, Turn};
use crate::{Database, ErrorCode, Identity, SqlError};

use batch::Ended;
use decode::Decoder;

/// Bounds of a load.
#[derive(Debug, Clone)]
pub struct LoadConfig {
    /// Rows of one batch.
    pub batch_rows: usize,
    /// How long a line, a record or an Arrow batch may be, in bytes.
    pub piece_bytes: usize,
    /// Where Parquet waits.
    pub folder: PathBuf,
    /// How large a Parquet file may be, in bytes.
    pub file_bytes: u64,
    /// Rejected rows that are reported one by one; all count.
    pub reported: usize,
}

/// What becomes of a row whose key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnTaken {
    /// It is rejected.
    #[default]
    Reject,
    /// It is left out, and not reported.
    Skip,
    /// The columns that it gives replace those of the row that is there.
    Update,
}

impl std::str::FromStr for OnTaken {
    type Err = SqlError;

    fn from_str(text: &str) -> Result<Self, SqlError> {
        match text {
            "reject" => Ok(Self::Reject),
            "nothing" => Ok(Self::Skip),
            "update" => Ok(Self::Update),
            other => {
                let text = format!("on_conflict = '{other}': it is reject, nothing or update");
                Err(SqlError::new(ErrorCode::InvalidValue, text))
            }
        }
    }
}

/// What to load, and how.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// The table.
    pub table: TableName,
    /// The form of the stream.
    pub format: Format,
    /// Whether CSV begins with the names of its columns; without, they are the table's.
    pub has_header: bool,
    /// What becomes of a row whose key is taken.
    pub on_taken: OnTaken,
}

/// A row that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its line in the text, or its number in a binary form, from 1.
    pub line: u64,
    /// Why.
    pub error: SqlError,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Rows that were read of the stream and judged.
    pub received: u64,
    /// Rows that are new in the table.
    pub inserted: u64,
    /// Rows that replaced columns of one that was there.
    pub updated: u64,
    /// Rows that were left out as asked, for their key was taken.
    pub skipped: u64,
    /// Rows that were left out because they do not fit.
    pub rejected: u64,
    /// Commits.
    pub batches: u64,
    /// The first of the rejected rows.
    pub errors: Vec<Rejected>,
}

/// How a load ended: what was written before `failure` stays.
#[derive(Debug)]
pub struct LoadEnd {
    /// What was done.
    pub report: LoadReport,
    /// What stopped it; none where the stream was read to its end.
    pub failure: Option<SqlError>,
}

/// A row as the stream gives it: a value for each of the table's columns; none is DEFAULT.
type GivenRow = Vec<Option<Value>>;

/// A row of the stream, or why it is none.
struct Given {
    line: u64,
    row: Result<GivenRow, SqlError>,
}

impl Database {
    /// Loads the stream into the table. The error comes before anything of the stream was read.
    pub async fn load<E: std::fmt::Display>(
        &self,
        request: LoadRequest,
        identity: &Identity,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<LoadEnd, SqlError> {
        let statements = self.statements();
        let catalog = statements.engine.catalog();
        let name = written_or_folded(request.table, &catalog);
        authorize::check_table(&catalog, &name, identity, Access::Write)?;
        let table = Arc::clone(names::table(&catalog, &name)?);
        let text = format!("load rows into {name}");
        let _open = statements.turns.open(Lane::Ordinary, &identity.user).await;
        let ticket = statements.running.begin(&text, &name.namespace, identity);
        let mut load = Load {
            statements,
            identity,
            ticket: &ticket,
            turn: statements.turns.of(Lane::Ordinary, &identity.user),
            on_taken: request.on_taken,
            waiting: Vec::new(),
            report: LoadReport::default(),
            table,
        };
        let failure = load.run((request.format, request.has_header), std::pin::pin!(body)).await.err();
        Ok(LoadEnd { report: load.report, failure })
    }
}

/// The table that is written so, or else in lower case, as in SQL without quotes.
fn written_or_folded(name: TableName, catalog: &Catalog) -> TableName {
    if catalog.tables.contains_key(&name) {
        return name;
    }
    TableName::new(name.namespace.to_lowercase(), name.name.to_lowercase())
}

/// A load that goes on.
struct Load<'a> {
    statements: &'a Arc<Statements>,
    identity: &'a Identity,
    ticket: &'a Ticket,
    /// Held while a batch is written, and not while rows are waited for.
    turn: Turn,
    table: Arc<Table>,
    on_taken: OnTaken,
    waiting: Vec<Given>,
    report: LoadReport,
}

impl Load<'_> {
    async fn run<E: std::fmt::Display>(
        &mut self,
        (format, has_header): (Format, bool),
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(), SqlError> {
        let config = self.statements.config.load.clone();
        if format == Format::Parquet {
            return self.run_parquet(body).await;
        }
        let mut decoder = Decoder::new((format, has_header), &self.table, config.piece_bytes)?;
        while let Some(bytes) = self.next(&mut body).await? {
            let decoded = decoder.push(&bytes, &mut self.waiting);
            self.write_full_batches(config.batch_rows).await?;
            decoded?;
        }
        decoder.end(&mut self.waiting)?;
        self.write_full_batches(config.batch_rows).await?;
        self.write_rest().await
    }

    async fn run_parquet<E: std::fmt::Display>(
        &mut self,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(), SqlError> {
        let config = self.statements.config.load.clone();
        let mut file = parquet::Spool::new(&config).await?;
        while let Some(bytes) = self.next(&mut body).await? {
            file.write(&bytes).await?;
        }
        let mut batches = file.read(config.batch_rows).await?;
        let mut rows = place::Numbered::default();
        while let Some(batch) = batches.next().await? {
            rows.take(&batch, &self.table, &mut self.waiting)?;
            self.write_full_batches(config.batch_rows).await?;
        }
        self.write_rest().await
    }

    /// The next piece of the stream, if it comes in time and nobody stops the load.
    async fn next<E: std::fmt::Display>(
        &self,
        body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    ) -> Result<Option<Bytes>, SqlError> {
        let patience = self.statements.config.statement_timeout;
        let broke_off = |error: E| SqlError::new(ErrorCode::InvalidBody, format!("the rows broke off: {error}"));
        tokio::select! {
            piece = body.next() => piece.transpose().map_err(broke_off),
            error = self.ticket.killed() => Err(error),
            () = tokio::time::sleep(patience) => {
                let text = format!("no more rows came for {} s, and there was no end", patience.as_secs());
                Err(SqlError::new(ErrorCode::StatementTimeout, text))
            }
        }
    }

    async fn write_full_batches(&mut self, rows: usize) -> Result<(), SqlError> {
        while self.waiting.len() >= rows {
            let rest = self.waiting.split_off(rows);
            let batch = std::mem::replace(&mut self.waiting, rest);
            self.write(batch).await?;
        }
        Ok(())
    }

    async fn write_rest(&mut self) -> Result<(), SqlError> {
        let batch = std::mem::take(&mut self.waiting);
        if batch.is_empty() { Ok(()) } else { self.write(batch).await }
    }

    async fn write(&mut self, batch: Vec<Given>) -> Result<(), SqlError> {
        let parameters = Parameters::default();
        let scope = Scope {
            text: "",
            namespace: &self.table.name.namespace,
            parameters: &parameters,
            identity: self.identity,
            transaction: None,
            impersonated: false,
            ws_url: "",
            ticket: None,
            audited: None,
        };
        self.turn.resume().await;
        let ended = self.statements.load_batch(&self.table, &batch, self.on_taken, &scope).await;
        self.turn.pause();
        let ended = ended?;
        self.count(batch.len(), ended);
        Ok(())
    }

    fn count(&mut self, received: usize, ended: Ended) {
        let report = &mut self.report;
        report.batches += 1;
        report.received += received as u64;
        report.inserted += ended.inserted;
        report.updated += ended.updated;
        report.skipped += ended.skipped;
        report.rejected += ended.rejected.len() as u64;
        let room = self.statements.config.load.reported.saturating_sub(report.errors.len());
        report.errors.extend(ended.rejected.into_iter().take(room));
    }
}
