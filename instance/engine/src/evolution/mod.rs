//! How a table's schema changes while its rows and files stay as they were written.
//!
//! * [`alter`]: one ALTER TABLE as a pure function, from a table to its next version and what its rows must hold to;
//! * [`types`]: which type can become which, and what a value becomes;
//! * [`reading`]: how a column is read from rows and files of older versions.
//!
//! Nothing here reads or writes: [`crate::Engine::alter_table`] scans and commits.

pub mod alter;
pub mod reading;
pub mod types;

#[cfg(test)]
mod tests;

pub use alter::{Altered, NewColumn, Rule, TableChange, alter};
