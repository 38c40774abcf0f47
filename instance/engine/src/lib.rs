//! The table engine: hot rows in RocksDB, cold rows in Delta Lake tables.
