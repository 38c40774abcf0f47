//! What `*` shows: a table's own columns, `_seq` and `_deleted`. `_updated` is a column like others, but shown by name only.
//!
//! Before a query is planned, each `*` over tables of the catalog is written out as `a.* EXCLUDE (_updated), b.*, …`.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableFactor, TableWithJoins, Visit, VisitMut, Visitor, VisitorMut,
    WildcardAdditionalOptions,
};
use kalamdb_engine::catalog::Catalog;
use kalamdb_engine::schema::{DELETED, SEQ, UPDATED};

use crate::bind::names::{fold, table_name};

/// What a `*` leaves out of a table of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// `_updated`: a query that is shown.
    Updated,
    /// All system columns: the source of an INSERT.
    System,
}

/// Writes out each `*` of the query. `outermost` is for the query itself, subqueries hide `_updated`.
pub fn write_out(query: &mut Query, catalog: &Catalog, namespace: &str, outermost: Hidden) {
    let mut ctes = CteNames(HashSet::new());
    let _ = Visit::visit(&*query, &mut ctes);
    let scope = Scope { catalog, namespace, ctes: ctes.0 };
    scope.set(&mut query.body, outermost);
    let _ = VisitMut::visit(query, &mut Writer { scope });
}

struct CteNames(HashSet<String>);

impl Visitor for CteNames {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.0.extend(ctes.map(|cte| fold(&cte.alias.name)));
        ControlFlow::Continue(())
    }
}

struct Scope<'a> {
    catalog: &'a Catalog,
    namespace: &'a str,
    ctes: HashSet<String>,
}

struct Writer<'a> {
    scope: Scope<'a>,
}

impl VisitorMut for Writer<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.scope.set(&mut query.body, Hidden::Updated);
        ControlFlow::Continue(())
    }
}

/// One relation of a FROM clause.
struct Relation {
    qualifier: ObjectName,
    has_system_columns: bool,
    /// Columns that a USING has merged into those of an earlier relation.
    merged: Vec<Ident>,
}

impl Scope<'_> {
    fn set(&self, body: &mut SetExpr, hidden: Hidden) {
        match body {
            SetExpr::Select(select) => self.select(select, hidden),
            SetExpr::SetOperation { left, right, .. } => {
                self.set(left, hidden);
                self.set(right, hidden);
            }
            SetExpr::Query(query) => self.set(&mut query.body, hidden),
            _ => {}
        }
    }

    fn select(&self, select: &mut Select, hidden: Hidden) {
        let Some(relations) = self.relations(&select.from) else { return };
        if !relations.iter().any(|relation| relation.has_system_columns) {
            return;
        }
        let items = std::mem::take(&mut select.projection);
        for item in items {
            match item {
                SelectItem::Wildcard(options) if is_plain(&options) => {
                    let shown = relations.iter().map(|relation| relation.wildcard(hidden, true));
                    select.projection.extend(shown);
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
                    if is_plain(&options) =>
                {
                    let relation = relations.iter().find(|relation| relation.is_called(&name));
                    select.projection.push(match relation {
                        Some(relation) => relation.wildcard(hidden, false),
                        None => {
                            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
                        }
                    });
                }
                other => select.projection.push(other),
            }
        }
    }

    /// All relations in their order; none where one has no name to qualify by.
    fn relations(&self, from: &[TableWithJoins]) -> Option<Vec<Relation>> {
        let mut relations = Vec::new();
        for item in from {
            relations.push(self.relation(&item.relation, Vec::new())?);
            for join in &item.joins {
                relations.push(self.relation(&join.relation, merged_by(join)?)?);
            }
        }
        Some(relations)
    }

    fn relation(&self, factor: &TableFactor, merged: Vec<Ident>) -> Option<Relation> {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let is_cte = match name.0.as_slice() {
                    [only] => only.as_ident().is_some_and(|name| self.ctes.contains(&fold(name))),
                    _ => false,
                };
                let table = table_name(name, self.namespace).ok()?;
                Some(Relation {
                    qualifier: alias.as_ref().map_or_else(|| name.clone(), |alias| alias.name.clone().into()),
                    has_system_columns: !is_cte && self.catalog.tables.contains_key(&table),
                    merged,
                })
            }
            TableFactor::Derived { alias: Some(alias), .. } | TableFactor::Table { alias: Some(alias), .. } => {
                Some(Relation { qualifier: alias.name.clone().into(), has_system_columns: false, merged })
            }
            _ => None,
        }
    }
}

/// A `*` that brings its own EXCLUDE or REPLACE means what it says.
fn is_plain(options: &WildcardAdditionalOptions) -> bool {
    *options == WildcardAdditionalOptions { wildcard_token: options.wildcard_token.clone(), ..Default::default() }
}

/// The columns that a USING merges; none for joins whose output is not both sides in order.
fn merged_by(join: &Join) -> Option<Vec<Ident>> {
    let (JoinOperator::Join(constraint)
    | JoinOperator::Inner(constraint)
    | JoinOperator::Left(constraint)
    | JoinOperator::LeftOuter(constraint)
    | JoinOperator::Right(constraint)
    | JoinOperator::RightOuter(constraint)
    | JoinOperator::FullOuter(constraint)
    | JoinOperator::CrossJoin(constraint)) = &join.join_operator
    else {
        return None;
    };
    match constraint {
        JoinConstraint::Using(names) => names.iter().map(|name| name.0.last()?.as_ident().cloned()).collect(),
        JoinConstraint::Natural => None,
        JoinConstraint::On(_) | JoinConstraint::None => Some(Vec::new()),
    }
}

impl Relation {
    fn is_called(&self, name: &ObjectName) -> bool {
        let folded = |name: &ObjectName| name.0.iter().map(|part| part.as_ident().map(fold)).collect::<Vec<_>>();
        folded(&self.qualifier) == folded(name)
    }

    fn wildcard(&self, hidden: Hidden, of_all: bool) -> SelectItem {
        let system: &[&str] = match hidden {
            _ if !self.has_system_columns => &[],
            Hidden::Updated => &[UPDATED],
            Hidden::System => &[SEQ, DELETED, UPDATED],
        };
        let merged = if of_all { self.merged.as_slice() } else { &[] };
        let names: Vec<ObjectName> =
            system.iter().map(|name| Ident::new(*name)).chain(merged.iter().cloned()).map(ObjectName::from).collect();
        let opt_exclude = (!names.is_empty()).then_some(ExcludeSelectItem::Multiple(names));
        SelectItem::QualifiedWildcard(
            SelectItemQualifiedWildcardKind::ObjectName(self.qualifier.clone()),
            WildcardAdditionalOptions { opt_exclude, ..Default::default() },
        )
    }
}
