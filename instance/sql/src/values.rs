//! VALUES whose cells hold queries. DataFusion computes the rows of a VALUES before any subquery has run, so that such a VALUES becomes SELECTs:
//! `SELECT column1, column2 FROM (SELECT 0 AS _row, … AS column1, … AS column2 UNION ALL SELECT 1, …) ORDER BY _row`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, SelectItem, SetExpr, SetOperator, SetQuantifier, Statement, TableFactor, Value, Values, Visit,
    VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

/// The column that keeps the rows in their order.
const ROW: &str = "_row";

/// Makes SELECTs of every such VALUES of the statement.
pub fn with_queries_as_selects(statement: &mut Statement) -> Result<(), ParserError> {
    match VisitMut::visit(statement, &mut Rewriter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = ParserError;

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<ParserError> {
        match rewrite(&mut query.body) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn rewrite(body: &mut SetExpr) -> Result<(), ParserError> {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            rewrite(left)?;
            rewrite(right)
        }
        SetExpr::Values(values) if values.rows.iter().any(|row| row.content.visit(&mut HasQuery).is_break()) => {
            *body = selects(values)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

struct HasQuery;

impl Visitor for HasQuery {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

fn selects(values: &mut Values) -> Result<SetExpr, ParserError> {
    let width = values.rows.first().map_or(0, |row| row.content.len());
    let mut rows = Vec::with_capacity(values.rows.len());
    for (at, row) in values.rows.iter_mut().enumerate() {
        rows.push(select_of(at, std::mem::take(&mut row.content))?);
    }
    let mut query = parsed(&format!("SELECT 1 FROM (SELECT 1) AS _values ORDER BY {ROW}"))?;
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = (0..width).map(|at| SelectItem::UnnamedExpr(Expr::Identifier(column(at)))).collect();
        if let Some(TableFactor::Derived { subquery, .. }) = select.from.first_mut().map(|from| &mut from.relation) {
            *subquery.body = union(rows);
        }
    }
    Ok(SetExpr::Query(query))
}

/// `SELECT at AS _row, …`.
fn select_of(at: usize, cells: Vec<Expr>) -> Result<SetExpr, ParserError> {
    let mut query = parsed("SELECT 1")?;
    if let SetExpr::Select(select) = query.body.as_mut() {
        let number = Expr::Value(Value::Number(at.to_string(), false).into());
        let cells = cells.into_iter().enumerate().map(|(at, expr)| (column(at), expr));
        let named = std::iter::once((Ident::new(ROW), number)).chain(cells);
        select.projection = named.map(|(alias, expr)| SelectItem::ExprWithAlias { expr, alias }).collect();
    }
    Ok(*query.body)
}

/// All of them, as a tree that is no deeper than it must be.
fn union(mut rows: Vec<SetExpr>) -> SetExpr {
    let half = rows.split_off(rows.len().div_ceil(2));
    if half.is_empty() {
        return rows.pop().expect("a VALUES has at least one row");
    }
    SetExpr::SetOperation {
        op: SetOperator::Union,
        set_quantifier: SetQuantifier::All,
        left: Box::new(union(rows)),
        right: Box::new(union(half)),
    }
}

/// As DataFusion calls the columns of a VALUES.
fn column(at: usize) -> Ident {
    Ident::new(format!("column{}", at + 1))
}

fn parsed(sql: &str) -> Result<Box<Query>, ParserError> {
    Parser::new(&GenericDialect).try_with_sql(sql)?.parse_query()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: &str) {
        let mut statement = Parser::parse_sql(&GenericDialect, sql).unwrap().remove(0);
        with_queries_as_selects(&mut statement).unwrap();
        assert_eq!(statement.to_string(), expected);
    }

    #[test]
    fn a_values_with_a_query_becomes_selects_in_its_order() {
        check(
            "VALUES (1, (SELECT 5)), (2, 6), (3, 7) LIMIT 2",
            "(SELECT column1, column2 FROM (SELECT 0 AS _row, 1 AS column1, (SELECT 5) AS column2 \
             UNION ALL SELECT 1 AS _row, 2 AS column1, 6 AS column2 \
             UNION ALL SELECT 2 AS _row, 3 AS column1, 7 AS column2) AS _values ORDER BY _row) LIMIT 2",
        );
        check("VALUES (1), (2)", "VALUES (1), (2)");
    }
}
