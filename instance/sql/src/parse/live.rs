//! `SUBSCRIBE TO`.

use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, SelectItem, WildcardAdditionalOptions};
use datafusion::sql::sqlparser::parser::ParserError;

use super::grammar::Grammar;

/// `SUBSCRIBE TO [SELECT … FROM] t [WHERE …] [OPTIONS (…)]`, as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// What is shown of each row.
    pub projection: Vec<SelectItem>,
    /// The table.
    pub table: ObjectName,
    /// Which rows.
    pub selection: Option<Expr>,
    /// `batch_size`, `last_rows`, `from`.
    pub options: Vec<(Ident, String)>,
}

impl Grammar<'_> {
    /// What follows `SUBSCRIBE TO`.
    pub(super) fn subscribe(&mut self) -> Result<Subscribe, ParserError> {
        let projection = if self.words(&["SELECT"]) {
            let items = self.parser.parse_projection()?;
            self.expect_words(&["FROM"])?;
            items
        } else {
            vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())]
        };
        let table = self.parser.parse_object_name(false)?;
        let selection = if self.words(&["WHERE"]) { Some(self.parser.parse_expr()?) } else { None };
        let options = if self.words(&["OPTIONS"]) { self.options()? } else { Vec::new() };
        Ok(Subscribe { projection, table, selection, options })
    }
}
