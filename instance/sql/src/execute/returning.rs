//! `RETURNING`: what a statement wrote or deleted, as rows.
//!
//! Everything is computed before the commit, so that what can't be computed writes nothing; only `_seq` and `_updated`, which the
//! commit gives, are filled in after it.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::sql::sqlparser::ast::{Expr, SelectItem, SelectItemQualifiedWildcardKind};
use kalamdb_engine::schema::{DELETED, SEQ, SqlType, Table, UPDATED};
use kalamdb_engine::value::Row;

use super::expression::{Bound, Expressions, evaluate};
use super::{ResultColumn, RowSet, query};
use crate::bind::names::{column_name, fold};
use crate::bind::sql_type::wire_name;
use crate::{ErrorCode, SqlError, reply, rows};

/// The columns that a statement returns.
pub(super) struct Returning<'a> {
    table: &'a Table,
    expressions: Expressions<'a>,
    columns: Vec<(String, Source)>,
}

enum Source {
    /// One of the table's own columns, by its place.
    Own(usize),
    Seq,
    Updated,
    Deleted,
    Computed(Bound),
}

/// A row's `_seq` and `_updated`.
pub(super) type Stamp = (i64, i64);

/// Columns before the commit: none where it fills them in.
pub(super) struct Computed(Vec<Option<ArrayRef>>);

impl<'a> Returning<'a> {
    pub(super) fn bind(table: &'a Table, items: &[SelectItem], expressions: Expressions<'a>) -> Result<Self, SqlError> {
        let mut columns = Vec::new();
        for item in items {
            match item {
                SelectItem::Wildcard(_)
                | SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(_), _) => {
                    let own = table.columns.iter().enumerate();
                    columns.extend(own.map(|(place, column)| (column.name.clone(), Source::Own(place))));
                    columns.extend([(SEQ.to_owned(), Source::Seq), (DELETED.to_owned(), Source::Deleted)]);
                }
                SelectItem::UnnamedExpr(expr) => {
                    let source = bind_source(table, expr, &expressions)?;
                    let name = column_name(expr).unwrap_or_else(|| expr.to_string());
                    columns.push((name, source));
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    columns.push((fold(alias), bind_source(table, expr, &expressions)?));
                }
                other => return Err(SqlError::not_available(format!("RETURNING {other}"))),
            }
        }
        Ok(Self { table, expressions, columns })
    }

    /// All that does not depend on the commit.
    pub(super) fn compute(&self, returned: &[&Row]) -> Result<Computed, SqlError> {
        let batch = self.expressions.batch(returned, &[])?;
        let array = |(_, source): &(String, Source)| match source {
            Source::Own(place) => {
                let cells = returned.iter().map(|row| &row[*place]);
                rows::array_of(self.table.columns[*place].sql_type, cells).map(Some)
            }
            Source::Computed(bound) => evaluate(bound, &batch).map(Some),
            Source::Deleted => Ok(Some(Arc::new(BooleanArray::from(vec![false; returned.len()])) as ArrayRef)),
            Source::Seq | Source::Updated => Ok(None),
        };
        self.columns.iter().map(array).collect::<Result<_, _>>().map(Computed)
    }

    /// The whole rows, once they are committed.
    pub(super) fn finish(&self, computed: Computed, stamps: &[Stamp]) -> Result<RowSet, SqlError> {
        let array = |((_, source), computed): (&(String, Source), Option<ArrayRef>)| -> ArrayRef {
            computed.unwrap_or_else(|| match source {
                Source::Updated => {
                    let times = stamps.iter().map(|(_, updated)| *updated);
                    Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
                }
                _ => Arc::new(Int64Array::from_iter_values(stamps.iter().map(|(seq, _)| *seq))),
            })
        };
        let arrays: Vec<ArrayRef> = self.columns.iter().zip(computed.0).map(array).collect();
        let columns = self.columns.iter().zip(&arrays).map(|((name, source), array)| self.column(name, source, array));
        let columns: Vec<ResultColumn> = columns.collect();
        let field =
            |(column, array): (&ResultColumn, &ArrayRef)| Field::new(&column.name, array.data_type().clone(), true);
        let schema = Schema::new(columns.iter().zip(&arrays).map(field).collect::<Vec<_>>());
        let options = RecordBatchOptions::new().with_row_count(Some(stamps.len()));
        let batch = RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options)
            .map_err(|error| SqlError::new(ErrorCode::Internal, error.to_string()))?;
        Ok(RowSet { columns, batches: vec![batch] })
    }

    fn column(&self, name: &str, source: &Source, array: &ArrayRef) -> ResultColumn {
        let (data_type, flags) = match source {
            Source::Own(place) => {
                let column = &self.table.columns[*place];
                (wire_name(column.sql_type), query::flags(self.table, &column.name))
            }
            Source::Seq => (wire_name(SqlType::BigInt), vec!["nn"]),
            Source::Updated => (wire_name(SqlType::Timestamp), vec!["nn"]),
            Source::Deleted => (wire_name(SqlType::Boolean), vec!["nn"]),
            Source::Computed(bound) => (reply::type_name_of(bound.sql_type, array.data_type()), Vec::new()),
        };
        ResultColumn { name: name.to_owned(), data_type, flags }
    }
}

fn bind_source(table: &Table, expr: &Expr, expressions: &Expressions<'_>) -> Result<Source, SqlError> {
    let name = column_name(expr);
    Ok(match name.as_deref() {
        Some(SEQ) => Source::Seq,
        Some(UPDATED) => Source::Updated,
        Some(DELETED) => Source::Deleted,
        _ => {
            // Bound in any case, so that an unknown qualifier is refused.
            let computed = expressions.bind(expr, "RETURNING")?;
            let own = name.and_then(|name| table.columns.iter().position(|column| column.name == name));
            own.map_or(Source::Computed(computed), Source::Own)
        }
    })
}
