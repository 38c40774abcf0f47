//! SQL over the table engine.
