//! Names and labels of the metrics that the flush scheduler reads from an instance's `/metrics`.

/// Gauge, rows: row versions above `flushed_through`. Label [`TABLE_NAME`]; only for tables that have any.
pub const UNFLUSHED_ROWS: &str = "kalamdb_unflushed_rows";
/// Gauge, bytes: encoded size of the row versions above `flushed_through`. Label [`TABLE_NAME`]; only for tables that have any.
pub const UNFLUSHED_BYTES: &str = "kalamdb_unflushed_bytes";
/// Gauge, seconds: age of the oldest row version above `flushed_through`. Label [`TABLE_NAME`]; only for tables that have any.
pub const UNFLUSHED_OLDEST_AGE: &str = "kalamdb_unflushed_oldest_age_seconds";
/// Gauge, rows: the table's own `FLUSH_POLICY` row limit. Label [`TABLE_NAME`]; only where the table has one and has unflushed rows.
pub const TABLE_POLICY_ROWS: &str = "kalamdb_table_flush_policy_rows";
/// Gauge, seconds: the table's own `FLUSH_POLICY` interval. Label [`TABLE_NAME`]; only where the table has one and has unflushed rows.
pub const TABLE_POLICY_INTERVAL: &str = "kalamdb_table_flush_policy_interval_seconds";
/// Gauge, jobs: flush jobs by state. Label `state`, a [`crate::flush::FlushState`] in lower case.
pub const FLUSH_JOBS: &str = "kalamdb_flush_jobs";
/// Gauge, seconds since the Unix epoch: end of the last flush job that completed; absent before the first.
pub const LAST_FLUSH: &str = "kalamdb_last_flush_timestamp_seconds";
/// Gauge, bytes used on the file system that holds the data directory.
pub const DISK_USED: &str = "kalamdb_disk_used_bytes";
/// Gauge, bytes free on the file system that holds the data directory.
pub const DISK_FREE: &str = "kalamdb_disk_free_bytes";

/// Label whose value is `namespace.table`.
pub const TABLE_NAME: &str = "table_name";
/// The label value into which values beyond the cap fold.
pub const OTHER: &str = "other";
