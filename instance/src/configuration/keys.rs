//! Every key of the configuration, with its default and its meaning: flags, environment names and the reference come from here.

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The TOML table.
    pub section: &'static str,
    /// The key within it.
    pub name: &'static str,
    /// What holds where nothing is said.
    pub default: &'static str,
    /// What it means, with its unit.
    pub about: &'static str,
}

impl Key {
    /// `--section-key`.
    pub fn flag(&self) -> String {
        self.path("-").replace('_', "-")
    }

    /// `KALAMDB_SECTION_KEY`.
    pub fn environment(&self) -> String {
        format!("KALAMDB_{}", self.path("_").to_uppercase())
    }

    /// `section.key`.
    pub fn dotted(&self) -> String {
        self.path(".")
    }

    fn path(&self, separator: &str) -> String {
        format!("{}{separator}{}", self.section, self.name)
    }
}

/// A secret: it comes by the environment alone, so that no file and no process list shows it.
pub struct Secret {
    /// The environment variable.
    pub environment: &'static str,
    /// What it is for.
    pub about: &'static str,
}

/// Every secret.
pub const SECRETS: [Secret; 5] = [
    Secret {
        environment: "KALAMDB_ROOT_PASSWORD",
        about: "Sets the password of `root` at the first start; later it changes nothing.",
    },
    Secret {
        environment: "KALAMDB_JWT_SECRET",
        about: "Signs the tokens, at least 32 bytes. Without it one is generated and kept in the data folder.",
    },
    Secret {
        environment: "KALAMDB_SCHEDULER_TOKEN",
        about: "What the flush scheduler shows at `/v1/api/flush-jobs`. Without it that endpoint is closed.",
    },
    Secret { environment: "AWS_ACCESS_KEY_ID", about: "Credentials of the S3 object store." },
    Secret { environment: "AWS_SECRET_ACCESS_KEY", about: "Credentials of the S3 object store." },
];

const fn key(section: &'static str, name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { section, name, default, about }
}

/// Every key, in the order of the reference.
pub const KEYS: [Key; 84] = [
    key("server", "host", "127.0.0.1", "The address to listen on."),
    key("server", "port", "8080", "The port to listen on; 0 takes a free one."),
    key("server", "body_bytes", "16777216", "Largest request body, in bytes; a larger one is answered with 413."),
    key(
        "server",
        "concurrent_statements",
        "64",
        "Requests that run SQL at the same time, and as many streamed results and bulk loads that are open; more wait. `KILL` and queries of \
         system tables alone do not wait for them.",
    ),
    key("server", "user_statements", "32", "Those of one user at the same time; more wait."),
    key(
        "server",
        "shutdown_seconds",
        "30",
        "How long a shutdown waits for running requests, and a start for another process to leave the data folder, in seconds.",
    ),
    key(
        "server",
        "remote_setup",
        "false",
        "Whether `auth/setup` may be called from other machines: `true` or `false`.",
    ),
    key("data", "dir", "kalamdb-data", "The folder of the hot tier."),
    key(
        "data",
        "durability",
        "sync",
        "`sync`: a commit is on disk before it is acknowledged. `os`: a power cut can lose the last ones.",
    ),
    key("object_store", "type", "local", "Where flushed rows go: `local` or `s3`."),
    key("object_store", "path", "", "`local`: the folder; empty means `cold` below `data.dir`."),
    key("object_store", "bucket", "", "`s3`: the bucket, which must exist."),
    key("object_store", "prefix", "", "`s3`: what every object's name begins with."),
    key(
        "object_store",
        "endpoint",
        "",
        "`s3`: the endpoint's URL; empty means AWS. `http://` is allowed where it says so.",
    ),
    key("object_store", "region", "us-east-1", "`s3`: the region."),
    key(
        "object_store",
        "request_timeout_seconds",
        "30",
        "`s3`: how long one request may take, until the last byte of its answer, in seconds.",
    ),
    key(
        "object_store",
        "connect_timeout_seconds",
        "5",
        "`s3`: how long a connection may take to come about, in seconds.",
    ),
    key(
        "object_store",
        "retries",
        "3",
        "`s3`: how often a request that failed is repeated before the statement or job fails.",
    ),
    key(
        "object_store",
        "retry_seconds",
        "20",
        "`s3`: how long after its begin a request may still be repeated, in seconds; one that hangs longer is not.",
    ),
    key("flush", "max_bytes", "268435456", "Unflushed bytes of a table from which it is flushed."),
    key("flush", "max_rows", "1000000", "Unflushed rows of a table from which it is flushed."),
    key(
        "flush",
        "max_age_seconds",
        "600",
        "Age of a table's oldest unflushed row from which it is flushed, in seconds.",
    ),
    key("flush", "max_concurrent", "2", "Flush jobs that run at the same time."),
    key(
        "flush",
        "scheduler_timeout_seconds",
        "60",
        "Seconds without a word from a scheduler, after which the instance follows its own policy; at once where no scheduler can come in, for want of `KALAMDB_SCHEDULER_TOKEN`.",
    ),
    key(
        "flush",
        "target_file_bytes",
        "134217728",
        "Size at which a Parquet file is closed and the next begun, in bytes.",
    ),
    key(
        "compaction",
        "automatic",
        "true",
        "Whether the instance merges cold files by itself after a flush: `true` or `false`. `STORAGE COMPACT` works in any case.",
    ),
    key(
        "compaction",
        "min_runs",
        "4",
        "Runs of similar size, neighbours in time, from which they are merged. A run is what one flush or compaction wrote.",
    ),
    key(
        "compaction",
        "max_runs",
        "8",
        "Runs that may overlap in key; beyond it the smallest neighbours are merged whatever their size.",
    ),
    key(
        "compaction",
        "size_percent",
        "200",
        "An older run joins a merge up to this share of the size of the newer ones together, in percent.",
    ),
    key("compaction", "deleted_percent", "20", "Share of deleted rows from which a run is rewritten, in percent."),
    key(
        "compaction",
        "merge_runs",
        "16",
        "Runs that one compaction merges at most; each holds about one row group in memory.",
    ),
    key("compaction", "max_bytes", "8589934592", "Bytes of Parquet that one compaction reads at most."),
    key("compaction", "max_concurrent", "1", "Compactions that run at the same time, beside flushes."),
    key(
        "vacuum",
        "retention_seconds",
        "604800",
        "How long cold files stay after they left their table, and folders of dropped tables, for readers outside, in seconds; at most 30 days.",
    ),
    key(
        "vacuum",
        "interval_seconds",
        "3600",
        "How often all tables are searched for cold files that no version needs any more, in seconds.",
    ),
    key("limits", "block_cache_bytes", "134217728", "RocksDB's block cache, in bytes."),
    key(
        "limits",
        "footer_cache_bytes",
        "67108864",
        "What is kept of cold files, in bytes: footers and page indexes (one half), bloom filters, and versions of tables with their deletion vectors (a quarter each).",
    ),
    key("limits", "wal_bytes", "268435456", "Write-ahead logs in all, in bytes."),
    key("limits", "disk_reserve_bytes", "268435456", "Free disk below which writes are refused, in bytes."),
    key(
        "limits",
        "reserve_file_bytes",
        "67108864",
        "A file that is given up when the disk is full, so that a flush can still end, in bytes.",
    ),
    key("limits", "memtable_bytes", "134217728", "RocksDB's memtables in all, in bytes."),
    key("limits", "change_log_bytes", "67108864", "Change log that is kept of each table, in bytes."),
    key("limits", "change_log_seconds", "86400", "How long changes are kept in the change log, in seconds."),
    key(
        "limits",
        "audit_entries",
        "10000",
        "Entries that are kept of the audit log, of changes and of log-ins each; the oldest go.",
    ),
    key("limits", "row_bytes", "8388608", "Largest row, in bytes."),
    key("limits", "commit_queue", "1024", "Writes that may wait for the committer."),
    key("limits", "commit_queue_bytes", "67108864", "Bytes of rows that may wait for the committer."),
    key("sql", "memory_bytes", "536870912", "Memory of all queries together, in bytes; beyond it they spill to disk."),
    key(
        "sql",
        "query_memory_bytes",
        "268435456",
        "Memory of one query, in bytes; beyond it it spills to disk. One call of a function makes at most a quarter of it.",
    ),
    key("sql", "spill_bytes", "4294967296", "Disk that queries may spill onto, below `data.dir`, in bytes."),
    key("sql", "partitions", "2", "Partitions that one query runs in."),
    key(
        "sql",
        "statement_timeout_seconds",
        "60",
        "How long a statement may run, and start over when others wrote the same rows, and a client stay silent while it sends a request or takes a reply, in seconds.",
    ),
    key("sql", "reply_bytes", "67108864", "Largest result of a statement, in bytes of memory."),
    key("sql", "write_rows", "100000", "Rows that one statement may write."),
    key("sql", "transaction_rows", "100000", "Rows that one transaction may write."),
    key(
        "sql",
        "transaction_bytes",
        "33554432",
        "Memory that the rows of one transaction may take, with those that they overwrite, in bytes.",
    ),
    key(
        "sql",
        "drop_namespace",
        "restrict",
        "`DROP NAMESPACE` of one that holds tables: `restrict` needs CASCADE, `cascade` does not.",
    ),
    key(
        "sql",
        "shortcuts",
        "true",
        "Whether statements may use what others found out (the caches below), and those by key go past the planner: `true` or `false`, \
         which answers the same and takes longer.",
    ),
    key("load", "batch_rows", "10000", "Rows of a bulk load that are written as one commit."),
    key(
        "load",
        "piece_bytes",
        "16777216",
        "How long a line, a CSV record or an Arrow batch of a bulk load may be, in bytes.",
    ),
    key(
        "load",
        "file_bytes",
        "4294967296",
        "How large a Parquet file may be that is loaded, in bytes: it waits on disk below `data.dir`.",
    ),
    key("load", "reported", "1000", "Rejected rows of a bulk load that are reported one by one; all are counted."),
    key("cache", "schemas", "10000", "Versions of tables in the schema cache."),
    key("cache", "schema_seconds", "300", "How long a version of a table stays in the schema cache, in seconds."),
    key("cache", "query_bytes", "16777216", "Results of queries over system tables in the query cache, in bytes."),
    key("cache", "tables_seconds", "60", "How long results that show tables stay in the query cache, in seconds."),
    key("cache", "namespaces_seconds", "60", "The same of results that show namespaces."),
    key("cache", "live_queries_seconds", "10", "The same of results that show live queries."),
    key("cache", "storage_locations_seconds", "300", "The same of results that show storage locations."),
    key("cache", "jobs_seconds", "30", "The same of results that show jobs."),
    key("cache", "statement_bytes", "33554432", "Parsed statements in the statement cache, in bytes by an estimate."),
    key(
        "cache",
        "plan_bytes",
        "33554432",
        "Plans in the plan cache, in bytes by an estimate; large ones are not kept.",
    ),
    key("auth", "token_seconds", "3600", "How long an access token is good, in seconds."),
    key("auth", "refresh_seconds", "604800", "How long a refresh token is good, in seconds."),
    key("auth", "lock_attempts", "10", "Wrong passwords in a row that lock a user."),
    key("auth", "lock_seconds", "60", "How long a user stays locked, in seconds; `ALTER USER` lets it in before."),
    key(
        "auth",
        "oidc_issuers",
        "",
        "Issuers whose RS256 and ES256 tokens count, as a JSON array, or the path of a file that holds one: objects with `issuer`, `audience`, `user_claim` (`sub` where it is left out), and `jwks` or `jwks_file`. Keys are never fetched.",
    ),
    key("auth", "hash_memory_kib", "19456", "Memory of one Argon2id hash, in KiB."),
    key("auth", "hash_iterations", "2", "Passes of one Argon2id hash."),
    key(
        "auth",
        "requests_per_second",
        "50",
        "Authentication requests a second and address; more are answered with 429.",
    ),
    key(
        "metrics",
        "label_values",
        "1000",
        "Values of a label that users make, such as `table_name`; further ones fold into `other`.",
    ),
    key("log", "filter", "info", "What is logged, such as `info` or `warn,kalamdb_engine=debug`."),
    key("log", "format", "text", "`text` or `json`."),
    key("log", "kept_lines", "1000", "Newest lines of the log that `system.server_logs` shows."),
];
