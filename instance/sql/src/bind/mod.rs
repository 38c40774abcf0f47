//! From what was written to what is meant: names against the catalog, types, values and table definitions.

pub mod alter;
pub mod embedding;
pub mod literal;
pub mod names;
pub mod sql_type;
pub mod storage;
pub mod table;
pub mod time;
pub mod value;
