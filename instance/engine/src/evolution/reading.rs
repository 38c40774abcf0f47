//! How a column is read from what older versions of its table wrote. Pure.
//!
//! Values survive every change of type, so that a field or file of any former type is cast to the present one at once. Only a text
//! shows through which type it came: `1.50` or `1.5000`, whichever the column had before it became TEXT.

use arrow_schema::Schema;

use super::types::same_field;
use crate::schema::{Column, SchemaVersion, SqlType};

/// How fields of rows below a schema version are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerField {
    /// Rows of schema versions below this one hold the field so.
    pub until: SchemaVersion,
    /// The type of the field.
    pub from: SqlType,
    /// The types that it is cast to, one after the other; the last is the column's. None where the bytes can be read as they are.
    pub casts: Vec<SqlType>,
}

/// How a column is read from one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSource {
    /// The file is older than the column, or than the type of it that it could be read from: it reads what the column says.
    Absent,
    /// It stands there.
    Present {
        /// Its place in the file's schema.
        index: usize,
        /// The types that it is cast to, one after the other; the last is the column's.
        casts: Vec<SqlType>,
    },
}

/// How rows of former types are read; empty where all are read as they are.
pub fn former_fields(column: &Column) -> Vec<FormerField> {
    let field = |(at, former): (usize, &crate::schema::FormerType)| {
        let casts = casts_since(column, at);
        let as_it_is = casts == [column.sql_type] && same_field(former.sql_type, column.sql_type);
        FormerField { until: former.until, from: former.sql_type, casts: if as_it_is { Vec::new() } else { casts } }
    };
    let fields: Vec<_> = column.former.iter().enumerate().map(field).collect();
    if fields.iter().all(|field| field.casts.is_empty()) { Vec::new() } else { fields }
}

/// How the column is read from a file of that schema.
pub fn source_in(column: &Column, file: &Schema) -> FileSource {
    let eras = column.former.len();
    // The newest that fits: where a type came back, its values are the same.
    for era in (0..=eras).rev() {
        let (physical_name, stored_type) = match column.former.get(era) {
            Some(former) => (&former.physical_name, former.stored_type),
            None => (&column.physical_name, column.stored_type),
        };
        if let Ok(index) = file.index_of(physical_name)
            && *file.field(index).data_type() == stored_type.arrow()
        {
            return FileSource::Present { index, casts: casts_since(column, era) };
        }
    }
    match file.index_of(&column.physical_name) {
        Ok(index) => FileSource::Present { index, casts: vec![column.sql_type] },
        Err(_) => FileSource::Absent,
    }
}

/// The same for a file that is written anew: into the type that files have now, at once. A row that no reader sees any more may hold a
/// value beyond the column's own type, which a later file must still hold.
pub fn source_anew(column: &Column, file: &Schema) -> FileSource {
    match source_in(column, file) {
        FileSource::Present { index, mut casts } => {
            casts.pop();
            casts.push(column.stored_type);
            FileSource::Present { index, casts }
        }
        FileSource::Absent => FileSource::Absent,
    }
}

/// From the type of an era, counted from the oldest, to the present one.
fn casts_since(column: &Column, era: usize) -> Vec<SqlType> {
    let is_text = |of: SqlType| matches!(of, SqlType::Text | SqlType::Json | SqlType::File);
    let mut since = column.former.iter().skip(era).map(|former| former.sql_type);
    let written_as = since.rfind(|of| !is_text(*of));
    match written_as {
        Some(before) if is_text(column.sql_type) => vec![before, column.sql_type],
        _ => vec![column.sql_type],
    }
}
