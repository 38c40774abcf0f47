//! The whole on a real cluster: from `kubectl apply` to SQL to Parquet in S3, with nothing mocked.
//!
//! `cargo xtask test` sets up what is needed and tells the tests where it is. Each test has its own Kubernetes namespace,
//! which stays for a look when the test fails.

mod deletion;
mod environment;
mod faults;
mod main_path;
mod references;
mod refusals;
mod restarts;
mod s3;
