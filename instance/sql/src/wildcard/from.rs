//! What a FROM clause brings: its relations in their order, and the names of their columns as far as the text tells them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableWithJoins, Value, Visit, Visitor,
};
use kalamdb_engine::catalog::Catalog;
use kalamdb_engine::schema::{DELETED, SEQ, Table, UPDATED};

use super::{Hidden, Options};
use crate::SqlError;
use crate::bind::names::{column_name, fold, table_name};

const SYSTEM_COLUMNS: [&str; 3] = [SEQ, DELETED, UPDATED];

/// What names mean in one query.
pub(super) struct Scope<'a> {
    catalog: &'a Catalog,
    namespace: &'a str,
    ctes: HashMap<String, Cte>,
    /// The columns of CTEs that were asked for.
    known: RefCell<HashMap<String, Option<Vec<String>>>>,
}

struct Cte {
    alias: TableAlias,
    /// None where two have the name: which is meant, depends on the place.
    query: Option<Query>,
}

/// One relation of a FROM clause.
pub(super) struct Relation<'a> {
    pub(super) qualifier: ObjectName,
    /// Whether it is a table of the catalog, which has system columns.
    pub(super) is_table: bool,
    /// Columns that a USING has merged into those of an earlier relation.
    pub(super) merged: Vec<String>,
    pub(super) factor: &'a TableFactor,
}

struct Ctes(HashMap<String, Cte>);

impl Visitor for Ctes {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let found = Cte { alias: cte.alias.clone(), query: Some(cte.query.as_ref().clone()) };
            let add = |known: &mut Cte| known.query = None;
            self.0.entry(fold(&cte.alias.name)).and_modify(add).or_insert(found);
        }
        ControlFlow::Continue(())
    }
}

impl<'a> Scope<'a> {
    pub(super) fn new(query: &Query, catalog: &'a Catalog, namespace: &'a str) -> Self {
        let mut ctes = Ctes(HashMap::new());
        let _ = Visit::visit(query, &mut ctes);
        Self { catalog, namespace, ctes: ctes.0, known: RefCell::default() }
    }

    /// All relations in their order; none where one has no name to qualify by.
    pub(super) fn relations<'f>(&self, from: &'f [TableWithJoins]) -> Option<Vec<Relation<'f>>> {
        let mut relations = Vec::new();
        from.iter().try_for_each(|item| self.add_relations(item, &mut relations))?;
        Some(relations)
    }

    fn add_relations<'f>(&self, item: &'f TableWithJoins, relations: &mut Vec<Relation<'f>>) -> Option<()> {
        let first = relations.len();
        self.add_relation(&item.relation, Vec::new(), relations)?;
        for join in &item.joins {
            let right = relations.len();
            let is_right_alone = matches!(join.join_operator, JoinOperator::RightSemi(_) | JoinOperator::RightAnti(_));
            let merged = if is_right_alone { Vec::new() } else { merged_by(join)? };
            self.add_relation(&join.relation, merged, relations)?;
            match join.join_operator {
                JoinOperator::LeftSemi(_) | JoinOperator::LeftAnti(_) => relations.truncate(right),
                _ if is_right_alone => _ = relations.drain(first..right),
                _ => {}
            }
        }
        Some(())
    }

    fn add_relation<'f>(
        &self,
        factor: &'f TableFactor,
        merged: Vec<String>,
        relations: &mut Vec<Relation<'f>>,
    ) -> Option<()> {
        if let TableFactor::NestedJoin { table_with_joins, alias: None } = factor {
            let first = relations.len();
            self.add_relations(table_with_joins, relations)?;
            relations[first..].iter_mut().for_each(|relation| relation.merged.extend(merged.iter().cloned()));
            return Some(());
        }
        let qualifier = match (alias_of(factor)?, factor) {
            (Some(alias), _) => alias.name.clone().into(),
            (None, TableFactor::Table { name, args: None, .. }) => name.clone(),
            (None, _) => return None,
        };
        relations.push(Relation { qualifier, is_table: self.table(factor).is_some(), merged, factor });
        Some(())
    }

    /// The table of the catalog that it is, under the names of its columns.
    fn table(&self, factor: &TableFactor) -> Option<&'a Table> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
        let has_own_names = alias.as_ref().is_some_and(|alias| !alias.columns.is_empty());
        if has_own_names || self.cte(name).is_some() {
            return None;
        }
        self.catalog.tables.get(&table_name(name, self.namespace).ok()?).map(AsRef::as_ref)
    }

    fn cte(&self, name: &ObjectName) -> Option<(String, &Cte)> {
        let [only] = name.0.as_slice() else { return None };
        let name = fold(only.as_ident()?);
        let cte = self.ctes.get(&name)?;
        Some((name, cte))
    }

    /// The names of its columns, as far as they are known before it is planned. A computed column without a name has an empty one.
    pub(super) fn columns(&self, factor: &TableFactor) -> Option<Vec<String>> {
        match (alias_of(factor)?, factor) {
            (Some(alias), _) if !alias.columns.is_empty() => Some(names_in(alias)),
            (_, TableFactor::Table { name, args: None, .. }) => match (self.table(factor), self.cte(name)) {
                (Some(table), _) => {
                    let own = table.columns.iter().map(|column| column.name.as_str());
                    Some(own.chain(SYSTEM_COLUMNS).map(str::to_owned).collect())
                }
                (None, Some((name, cte))) => self.columns_of_cte(name, cte),
                (None, None) => None,
            },
            (_, TableFactor::Derived { subquery, .. }) => self.output(&subquery.body),
            _ => None,
        }
    }

    fn columns_of_cte(&self, name: String, cte: &Cte) -> Option<Vec<String>> {
        if let Some(known) = self.known.borrow().get(&name) {
            return known.clone();
        }
        // One that names itself is looked at once.
        self.known.borrow_mut().insert(name.clone(), None);
        let columns = match cte.alias.columns.is_empty() {
            true => cte.query.as_ref().and_then(|query| self.output(&query.body)),
            false => Some(names_in(&cte.alias)),
        };
        self.known.borrow_mut().insert(name, columns.clone());
        columns
    }

    /// The names of what a query brings.
    fn output(&self, body: &SetExpr) -> Option<Vec<String>> {
        match body {
            SetExpr::Select(select) => {
                let mut select = select.clone();
                self.select(&mut select, Hidden::Updated).ok()?;
                self.selected(&select)
            }
            SetExpr::SetOperation { left, .. } => self.output(left),
            SetExpr::Query(query) => self.output(&query.body),
            _ => None,
        }
    }

    /// The same of one SELECT, in which each `*` over tables is written out.
    fn selected(&self, select: &Select) -> Option<Vec<String>> {
        let mut names = Vec::new();
        for item in &select.projection {
            let (shown, options) = match item {
                SelectItem::Wildcard(options) => (self.relations(&select.from)?, options),
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    let mut shown = self.relations(&select.from)?;
                    shown.retain(|relation| relation.is_called(name));
                    (shown, options)
                }
                SelectItem::ExprWithAlias { alias, .. } => {
                    names.push(fold(alias));
                    continue;
                }
                SelectItem::UnnamedExpr(expr) => {
                    names.push(column_name(expr).unwrap_or_default());
                    continue;
                }
                _ => return None,
            };
            let excluded = Options::of(options.clone()).excluded;
            for relation in shown {
                let own = self.columns(relation.factor)?.into_iter();
                names.extend(own.filter(|name| !excluded.contains(name) && !relation.merged.contains(name)));
            }
        }
        Some(names)
    }

    /// Writes each NATURAL JOIN out as one with USING: by the columns that users gave both sides, never by system columns.
    pub(super) fn join_by_name(&self, from: &mut TableWithJoins) -> Result<(), SqlError> {
        let mut factors =
            std::iter::once(&mut from.relation).chain(from.joins.iter_mut().map(|join| &mut join.relation));
        factors.try_for_each(|factor| match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => self.join_by_name(table_with_joins),
            _ => Ok(()),
        })?;
        for at in 0..from.joins.len() {
            let (before, rest) = from.joins.split_at_mut(at);
            let left = std::iter::once(&from.relation).chain(before.iter().map(|join| &join.relation));
            let Join { relation, join_operator, .. } = &mut rest[0];
            let Some(constraint) = constraint_of(join_operator) else { continue };
            if *constraint != JoinConstraint::Natural {
                continue;
            }
            let left: Vec<&TableFactor> = left.collect();
            if !left.iter().chain([&&*relation]).any(|factor| self.may_have_system_columns(factor)) {
                continue;
            }
            let names: Option<Vec<Vec<String>>> = left.into_iter().map(|factor| self.columns(factor)).collect();
            let (Some(names), Some(right)) = (names, self.columns(relation)) else {
                let text = "NATURAL JOIN with what has no column names before it runs (name the columns with USING)";
                return Err(SqlError::not_available(text));
            };
            *constraint = using(right.iter().filter(|name| names.iter().flatten().any(|left| left == *name)));
        }
        Ok(())
    }

    /// Not so of system tables and functions.
    fn may_have_system_columns(&self, factor: &TableFactor) -> bool {
        match factor {
            TableFactor::Table { name, args: None, .. } => self.table(factor).is_some() || self.cte(name).is_some(),
            TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } => true,
            _ => false,
        }
    }
}

fn using<'n>(names: impl Iterator<Item = &'n String>) -> JoinConstraint {
    let is_users = |name: &&String| !name.is_empty() && !SYSTEM_COLUMNS.contains(&name.as_str());
    let names: Vec<ObjectName> =
        names.filter(is_users).map(|name| ObjectName::from(Ident::with_quote('"', name))).collect();
    if names.is_empty() {
        return JoinConstraint::On(Expr::Value(Value::Boolean(true).into()));
    }
    JoinConstraint::Using(names)
}

/// Gives each relation a name to qualify by, where it stands beside others and has none.
pub(super) fn name_all(from: &mut [TableWithJoins]) {
    if from.len() == 1 && from[0].joins.is_empty() {
        return;
    }
    let factors = from.iter_mut().flat_map(|item| {
        std::iter::once(&mut item.relation).chain(item.joins.iter_mut().map(|join| &mut join.relation))
    });
    for (at, factor) in factors.enumerate() {
        let alias = match factor {
            TableFactor::Table { args: Some(_), alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. } => alias,
            _ => continue,
        };
        let name = Ident::with_quote('"', format!("_from_{at}"));
        alias.get_or_insert_with(|| TableAlias { explicit: true, name, columns: Vec::new(), at: None });
    }
}

/// Its alias; the outer none for what is no relation that is known here.
fn alias_of(factor: &TableFactor) -> Option<Option<&TableAlias>> {
    match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. } => Some(alias.as_ref()),
        _ => None,
    }
}

fn names_in(alias: &TableAlias) -> Vec<String> {
    alias.columns.iter().map(|column| fold(&column.name)).collect()
}

/// The constraint of a join that DataFusion can run.
fn constraint_of(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::RightAnti(constraint) => Some(constraint),
        _ => None,
    }
}

/// The columns that a USING merges; none for joins that are not known here.
fn merged_by(join: &Join) -> Option<Vec<String>> {
    match constraint_of(&mut join.join_operator.clone())? {
        JoinConstraint::Using(names) => names.iter().map(|name| name.0.last()?.as_ident().map(fold)).collect(),
        JoinConstraint::Natural => None,
        JoinConstraint::On(_) | JoinConstraint::None => Some(Vec::new()),
    }
}
