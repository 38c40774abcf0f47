//! Tests of flush jobs.
