//! Names of columns, in SQL and in files. Other engines that read the files tell no case, and Delta allows no two names that differ in
//! case alone. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use crate::schema::{Column, Table};

/// The column that has the name, or else one whose name differs from it in case alone.
pub fn same_but_case<'a>(columns: &'a [Column], name: &str) -> Option<&'a Column> {
    let folded = name.to_lowercase();
    let exact = columns.iter().find(|column| column.name == name);
    exact.or_else(|| columns.iter().find(|column| column.name.to_lowercase() == folded))
}

/// Why a column can't have a name.
pub fn differs_in_case_alone(name: &str, other: &str) -> String {
    format!(
        "column '{name}' differs from column '{other}' in case alone, which other engines that read the table's files do not tell apart; \
         choose another name"
    )
}

/// The column's own name, with a suffix if files of any version know one of that name.
pub fn free_physical_name(table: &Table, versions: &[Arc<Table>], name: &str) -> String {
    let mut taken = HashSet::new();
    for column in versions.iter().flat_map(|version| &version.columns).chain(&table.columns) {
        taken.insert(column.physical_name.to_lowercase());
        taken.extend(column.former.iter().map(|former| former.physical_name.to_lowercase()));
    }
    let suffixed = (table.version.0..).map(|number| format!("{name}_{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(suffixed);
    names.find(|name| !taken.contains(&name.to_lowercase())).expect("there are more numbers than columns")
}
