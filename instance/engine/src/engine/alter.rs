//! ALTER TABLE: what its rows must hold to is looked through first, then the catalog changes, and no row is rewritten.
//!
//! Writers go on meanwhile. The change carries the sequence up to which rows were looked through; the committer refuses it where
//! rows of the table were written since, and only those are looked through then. Writers who outrun that are stopped for the last look.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::ArrayRef;
use datafusion::common::ScalarValue;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, ident, lit, try_cast};
use datafusion::prelude::SessionContext;
use futures::FutureExt;

use crate::catalog::CatalogChange;
use crate::evolution::{self, Altered, Rule, TableChange};
use crate::point::point;
use crate::scan;
use crate::schema::{SEQ, Table};
use crate::seq::Seq;
use crate::{Engine, EngineError};

/// How often the rows are looked through while writers go on.
const FREE_LOOKS: usize = 3;

impl Engine {
    /// Makes the table's next version. [`EngineError::Stale`] where `table` is not the newest one; [`EngineError::Contradicted`] where a
    /// row does not hold to the change. `now_ms`: milliseconds since the Unix epoch.
    pub async fn alter_table(&self, table: &Arc<Table>, change: &TableChange, now_ms: i64) -> Result<(), EngineError> {
        self.alter_table_by(table, change, now_ms, |change| self.change_catalog(change)).await
    }

    /// The same, by a commit of the caller's: all before it can be given up at any moment.
    pub async fn alter_table_by<F>(
        &self,
        table: &Arc<Table>,
        change: &TableChange,
        now_ms: i64,
        commit: impl Fn(CatalogChange) -> F,
    ) -> Result<(), EngineError>
    where
        F: Future<Output = Result<(), EngineError>>,
    {
        let catalog = self.catalog();
        let Altered { table: next, rules } = evolution::alter(table, catalog.versions_of(table.id), change, now_ms)?;
        let commit = |validated| commit(CatalogChange::AlterTable { table: Box::new(next.clone()), validated });
        if rules.is_empty() {
            return commit(None).await;
        }
        let mut validated = None;
        for _ in 0..FREE_LOOKS {
            validated = Some(self.look_through(table, &rules, validated).await?);
            point!("alter.looked");
            match commit(validated).await {
                Err(EngineError::Stale) => self.check_newest(table)?,
                result => return result,
            }
        }
        let _stopped = self.inner.writes.write().await;
        let validated = self.look_through(table, &rules, validated).await?;
        commit(Some(validated)).await
    }

    fn check_newest(&self, table: &Table) -> Result<(), EngineError> {
        match self.catalog().tables.get(&table.name) {
            Some(newest) if newest.id == table.id && newest.version == table.version => Ok(()),
            _ => Err(EngineError::Stale),
        }
    }

    /// Fails where a row breaks one of the rules, of those written after `after`. Answers up to where it has looked.
    async fn look_through(&self, table: &Arc<Table>, rules: &[Rule], after: Option<Seq>) -> Result<Seq, EngineError> {
        let snapshot = self.snapshot();
        let looked = snapshot.hot.last_seq()?;
        let provider = scan::provider_of_all_users(snapshot.hot, snapshot.cold, table.clone());
        let rows = SessionContext::new().read_table(provider).map_err(|error| failed(table, error))?;
        let rows = match after {
            Some(after) => rows.filter(ident(SEQ).gt(lit(after.0))).map_err(|error| failed(table, error))?,
            None => rows,
        };
        for rule in rules {
            let broken = caught(broken_by(table, rows.clone(), rule)).await.map_err(|error| failed(table, error))?;
            if let Some(rows) = broken {
                return Err(contradicted(table, rule, &rows));
            }
        }
        Ok(looked)
    }
}

/// A query whose panic is an error of it: the statement ends by an answer then.
async fn caught<T>(query: impl Future<Output = Result<T, DataFusionError>>) -> Result<T, DataFusionError> {
    let panicked = |_| Err(DataFusionError::Internal("a query over the rows of the table panicked".into()));
    AssertUnwindSafe(query).catch_unwind().await.unwrap_or_else(panicked)
}

/// What breaks the rule, in words: a row by its key. Of per-user tables it is told only how many rows, whose keys are their users' own.
async fn broken_by(table: &Table, rows: DataFrame, rule: &Rule) -> Result<Option<String>, DataFusionError> {
    let rows = rows.filter(breaks(rule))?;
    if table.kind.is_per_user() {
        let count = rows.count().await?;
        return Ok((count > 0).then(|| format!("{count} row(s)")));
    }
    Ok(first_key(table, rows).await?.map(|key| format!("the row with the key ({})", key.join(", "))))
}

/// The key of one of the rows, with its values as text.
async fn first_key(table: &Table, rows: DataFrame) -> Result<Option<Vec<String>>, DataFusionError> {
    let key = table.key_positions().into_iter().map(|place| ident(table.columns[place].name.clone()));
    let batches = rows.select(key.collect::<Vec<_>>())?.limit(0, Some(1))?.collect().await?;
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(None) };
    let cell = |array: &ArrayRef| {
        Ok(match ScalarValue::try_from_array(array, 0)? {
            ScalarValue::Utf8(Some(text)) => format!("'{text}'"),
            other => other.to_string(),
        })
    };
    batch.columns().iter().map(cell).collect::<Result<Vec<_>, _>>().map(Some)
}

fn breaks(rule: &Rule) -> Expr {
    match rule {
        Rule::NoRows(_) => lit(true),
        Rule::NotNull(column) => ident(column.clone()).is_null(),
        Rule::Fits { column, from, to } => {
            // A value that rounds up may fit the new type, and then not the old one any more.
            let value = ident(column.clone());
            let back = try_cast(try_cast(value.clone(), to.arrow()), from.arrow());
            value.clone().is_not_null().and(back.clone().is_null().or(back.not_eq(value)))
        }
    }
}

fn contradicted(table: &Table, rule: &Rule, rows: &str) -> EngineError {
    let table = &table.name;
    let (is_null, reason) = match rule {
        Rule::NoRows(column) => (
            true,
            format!(
                "column '{column}' is NOT NULL without a DEFAULT, and {rows} would have no value for it; give it a DEFAULT"
            ),
        ),
        Rule::NotNull(column) => (
            true,
            format!(
                "column '{column}' can't become NOT NULL, for it is NULL in {rows}; UPDATE {table} SET {column} = … WHERE \
                     {column} IS NULL"
            ),
        ),
        Rule::Fits { column, to, .. } => (
            false,
            format!(
                "column '{column}' can't become {to}, for its value in {rows} does not fit; UPDATE or DELETE such rows first"
            ),
        ),
    };
    EngineError::Contradicted { table: table.clone(), is_null, reason }
}

fn failed(table: &Table, error: DataFusionError) -> EngineError {
    if let DataFusionError::External(inner) = error.find_root()
        && let Some(EngineError::Unavailable(message)) = inner.downcast_ref::<EngineError>()
    {
        return EngineError::Unavailable(message.clone());
    }
    EngineError::Cold { action: format!("look through the rows of table {}", table.name), source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_query_that_panics_ends_by_an_error() {
        assert_eq!(caught(async { Ok(1) }).await.unwrap(), 1);
        let panicked = caught::<()>(async { panic!("a decoder") }).await.unwrap_err();
        assert!(panicked.to_string().contains("panicked"), "{panicked}");
    }
}
