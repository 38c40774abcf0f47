//! The cold tier: identity and epochs, Delta logs, Parquet files, deletion vectors, look-ups by key.
