//! What `*` shows: a table's own columns, `_seq` and `_deleted`. `_updated` is a column like others, but shown by name only.
//!
//! Before a query is planned, each `*` over tables of the catalog is written out as `a.* EXCLUDE (_updated), b.*, …`, and each
//! NATURAL JOIN as one with USING ([`from`]).

mod from;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Ident, ObjectName, Query, ReplaceSelectItem, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, VisitMut, VisitorMut, WildcardAdditionalOptions,
};
use kalamdb_engine::catalog::Catalog;
use kalamdb_engine::schema::{DELETED, SEQ, UPDATED};

use crate::SqlError;
use crate::bind::names::fold;
use from::{Relation, Scope};

/// What a `*` leaves out of a table of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// `_updated`: a query that is shown.
    Updated,
    /// All system columns: the source of an INSERT.
    System,
}

/// Writes out each `*` and NATURAL JOIN of the query. `outermost` is for the query itself, subqueries hide `_updated`.
pub fn write_out(query: &mut Query, catalog: &Catalog, namespace: &str, outermost: Hidden) -> Result<(), SqlError> {
    let scope = Scope::new(query, catalog, namespace);
    scope.set(&mut query.body, outermost)?;
    match VisitMut::visit(query, &mut Writer { scope }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Writer<'a> {
    scope: Scope<'a>,
}

impl VisitorMut for Writer<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        // What is written out already stays as it is.
        match self.scope.set(&mut query.body, Hidden::Updated) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Scope<'_> {
    fn set(&self, body: &mut SetExpr, hidden: Hidden) -> Result<(), SqlError> {
        match body {
            SetExpr::Select(select) => self.select(select, hidden),
            SetExpr::SetOperation { left, right, .. } => {
                self.set(left, hidden)?;
                self.set(right, hidden)
            }
            SetExpr::Query(query) => self.set(&mut query.body, hidden),
            _ => Ok(()),
        }
    }

    fn select(&self, select: &mut Select, hidden: Hidden) -> Result<(), SqlError> {
        for from in &mut select.from {
            self.join_by_name(from)?;
        }
        if select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_))) {
            from::name_all(&mut select.from);
        }
        let Some(relations) = self.relations(&select.from) else { return Ok(()) };
        if !relations.iter().any(|relation| relation.is_table) {
            return Ok(());
        }
        for item in std::mem::take(&mut select.projection) {
            match item {
                SelectItem::Wildcard(options) => {
                    let shares = self.shares(&relations, Options::of(options));
                    let shown = relations.iter().zip(shares);
                    select
                        .projection
                        .extend(shown.map(|(relation, options)| relation.wildcard(options, hidden, &relation.merged)));
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    let relation = relations.iter().find(|relation| relation.is_called(&name));
                    select.projection.push(match relation {
                        Some(relation) => relation.wildcard(Options::of(options), hidden, &[]),
                        None => {
                            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
                        }
                    });
                }
                other => select.projection.push(other),
            }
        }
        Ok(())
    }

    /// What the options of a `*` over several relations say of each. A name that is known of none goes to the first of which not all
    /// names are known, where it is found or refused.
    fn shares(&self, relations: &[Relation<'_>], options: Options) -> Vec<Options> {
        if relations.len() < 2 || options.names_nothing() {
            return vec![options; relations.len()];
        }
        let known: Vec<Option<Vec<String>>> = relations.iter().map(|relation| self.columns(relation.factor)).collect();
        let rest = known.iter().position(Option::is_none).unwrap_or_default();
        let place = |name: &str| -> Vec<usize> {
            let has = |of: &Option<Vec<String>>| of.as_ref().is_some_and(|names| names.iter().any(|own| own == name));
            let found: Vec<usize> = (0..known.len()).filter(|at| has(&known[*at])).collect();
            if found.is_empty() { vec![rest] } else { found }
        };
        let without_names = WildcardAdditionalOptions { opt_replace: None, ..options.others };
        let none = Options { excluded: BTreeSet::new(), others: without_names };
        let mut shares = vec![none; relations.len()];
        for name in options.excluded {
            place(&name).into_iter().for_each(|at| _ = shares[at].excluded.insert(name.clone()));
        }
        for item in options.others.opt_replace.into_iter().flat_map(|replace| replace.items) {
            for at in place(&fold(&item.column_name)) {
                let replace = &mut shares[at].others.opt_replace;
                replace.get_or_insert_with(|| ReplaceSelectItem { items: Vec::new() }).items.push(item.clone());
            }
        }
        shares
    }
}

/// What stands behind a `*`.
#[derive(Clone)]
struct Options {
    /// Names that EXCLUDE or EXCEPT leaves out.
    excluded: BTreeSet<String>,
    others: WildcardAdditionalOptions,
}

impl Options {
    fn of(mut options: WildcardAdditionalOptions) -> Self {
        let mut excluded: BTreeSet<String> = BTreeSet::new();
        let last = |name: &ObjectName| name.0.last().and_then(|part| part.as_ident()).map(fold);
        match options.opt_exclude.take() {
            Some(ExcludeSelectItem::Single(name)) => excluded.extend(last(&name)),
            Some(ExcludeSelectItem::Multiple(names)) => excluded.extend(names.iter().filter_map(last)),
            None => {}
        }
        if let Some(except) = options.opt_except.take() {
            excluded.extend(std::iter::once(&except.first_element).chain(&except.additional_elements).map(fold));
        }
        Self { excluded, others: options }
    }

    fn names_nothing(&self) -> bool {
        self.excluded.is_empty() && self.others.opt_replace.is_none()
    }
}

impl Relation<'_> {
    fn is_called(&self, name: &ObjectName) -> bool {
        let folded = |name: &ObjectName| name.0.iter().map(|part| part.as_ident().map(fold)).collect::<Vec<_>>();
        folded(&self.qualifier).ends_with(&folded(name))
    }

    fn wildcard(&self, options: Options, hidden: Hidden, merged: &[String]) -> SelectItem {
        let system: &[&str] = match hidden {
            _ if !self.is_table => &[],
            Hidden::Updated => &[UPDATED],
            Hidden::System => &[SEQ, DELETED, UPDATED],
        };
        let Options { mut excluded, others } = options;
        excluded.extend(system.iter().map(|name| (*name).to_owned()).chain(merged.iter().cloned()));
        let names: Vec<ObjectName> = excluded.into_iter().map(|name| ObjectName::from(Ident::new(name))).collect();
        let opt_exclude = (!names.is_empty()).then_some(ExcludeSelectItem::Multiple(names));
        SelectItem::QualifiedWildcard(
            SelectItemQualifiedWildcardKind::ObjectName(self.qualifier.clone()),
            WildcardAdditionalOptions { opt_exclude, ..others },
        )
    }
}
