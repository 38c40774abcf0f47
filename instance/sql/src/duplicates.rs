//! Columns of one name beside each other, such as those of `SELECT 1, 1` and `SELECT id, id`: DataFusion refuses them. They are planned under
//! names that differ behind a mark, and shown without it.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Ident, Select, SelectItem, Statement, VisitMut, VisitorMut};

use crate::bind::names::{column_name, fold};

/// Stands in no name that is written: it is no character.
const MARK: char = '\u{FDD0}';

/// A column's name as it is shown.
pub fn shown(name: &str) -> &str {
    name.split(MARK).next().unwrap_or_default()
}

/// The statement with other names for what may have the name of another column; none where nothing may.
pub fn told_apart(statement: &Statement) -> Option<Statement> {
    let mut renamed = statement.clone();
    let mut renamer = Renamer { renamed: 0 };
    let _ = VisitMut::visit(&mut renamed, &mut renamer);
    (renamer.renamed > 0).then_some(renamed)
}

struct Renamer {
    renamed: usize,
}

impl VisitorMut for Renamer {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let is_wildcard =
            |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        if select.projection.len() < 2 {
            return ControlFlow::Continue(());
        }
        let beside_all = select.projection.iter().any(is_wildcard);
        let mut seen = HashSet::new();
        for item in &mut select.projection {
            let (name, may_repeat) = match item {
                SelectItem::UnnamedExpr(expr) => match column_name(expr) {
                    Some(name) => (name, beside_all),
                    // The name that it gets can be that of a column: CAST has its argument's.
                    None => (expr.to_string(), true),
                },
                SelectItem::ExprWithAlias { alias, .. } => (fold(alias), false),
                _ => continue,
            };
            let is_second = !seen.insert(name.clone());
            if is_second || may_repeat {
                self.rename(item, &name);
            }
        }
        ControlFlow::Continue(())
    }
}

impl Renamer {
    fn rename(&mut self, item: &mut SelectItem, name: &str) {
        self.renamed += 1;
        let alias = Ident::with_quote('"', format!("{name}{MARK}{}", self.renamed));
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}
