//! How a table's schema changes while its rows and files stay as they were written.
//!
//! * [`alter`]: one ALTER TABLE as a pure function, from a table to its next version and what its rows must hold to;
//! * [`types`]: which type can become which, and what a value becomes;
//! * [`names`]: which names columns can have, in SQL and in files;
//! * [`proof`]: which version of a table its flushed rows hold to;
//! * [`reading`]: how a column is read from rows and files of older versions.
//!
//! Nothing here reads or writes: [`crate::Engine::alter_table`] scans and commits.

pub mod alter;
pub mod names;
pub mod proof;
pub mod reading;
pub mod types;

#[cfg(test)]
mod tests;

pub use alter::{Altered, NewColumn, Rule, TableChange, alter};
