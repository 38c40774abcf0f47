//! `x > ANY (SELECT …)` and `x > ALL (SELECT …)`.
//!
//! DataFusion compares the operand with the subquery's first column by name; where both are called the same, as in
//! `v > ALL (SELECT v FROM t)` over one table `t`, it compares the column with itself, and answers wrong rows. The subquery becomes a
//! relation of a name that nobody else has: `x > ALL (SELECT * FROM (SELECT …) AS _quantified_1)`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, SetExpr, Statement, TableAlias, TableFactor, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// Gives every such subquery of the statement a name of its own.
pub fn qualify(statement: &mut Statement) {
    let _ = statement.visit(&mut Qualifier { named: 0 });
}

struct Qualifier {
    named: usize,
}

impl VisitorMut for Qualifier {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } = expr
            && let Expr::Subquery(query) = right.as_mut()
        {
            self.named += 1;
            wrap(query, format!("_quantified_{}", self.named));
        }
        ControlFlow::Continue(())
    }
}

fn wrap(query: &mut Box<Query>, name: String) {
    let outer = Parser::new(&GenericDialect).try_with_sql("SELECT * FROM (SELECT 1) AS x");
    let Ok(mut outer) = outer.and_then(|mut parser| parser.parse_query()) else { return };
    let SetExpr::Select(select) = outer.body.as_mut() else { return };
    let Some(TableFactor::Derived { subquery, alias, .. }) = select.from.first_mut().map(|from| &mut from.relation)
    else {
        return;
    };
    std::mem::swap(subquery, query);
    if let Some(TableAlias { name: given, .. }) = alias {
        *given = Ident::new(name);
    }
    *query = outer;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subqueries_of_any_and_all_get_names_of_their_own() {
        let sql = "SELECT v FROM t WHERE v > ALL (SELECT v FROM t) AND v = ANY(SELECT w FROM u WHERE w < ALL (SELECT v FROM t))";
        let mut statement = Parser::parse_sql(&GenericDialect, sql).unwrap().remove(0);
        qualify(&mut statement);
        let text = statement.to_string();
        for part in [
            "ALL(SELECT * FROM (SELECT v FROM t) AS _quantified_1)",
            "ANY(SELECT * FROM (SELECT w FROM u WHERE w < ALL(SELECT * FROM (",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
