//! The single-purpose engines beside which each part is measured.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use datafusion::arrow::array::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::file::properties::WriterProperties;
use serde_json::{Value as Json, json};

use crate::workload::Event;

/// RocksDB alone: one batch and one fsync for each of our statements.
pub struct RawRocks {
    db: rocksdb::DB,
    _folder: tempfile::TempDir,
}

impl RawRocks {
    /// Opens an empty database.
    pub fn open() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self { db: rocksdb::DB::open_default(folder.path())?, _folder: folder })
    }

    /// Writes the rows as keys of 12 bytes (table, id) and the values' bytes behind a header of ours, with fsync.
    pub fn write(&self, events: &[Event]) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut batch = rocksdb::WriteBatch::default();
        for event in events {
            let mut key = 1u32.to_be_bytes().to_vec();
            key.extend(event.id.to_be_bytes());
            let mut value = vec![0; 24];
            value.extend(event.id.to_le_bytes());
            value.extend(event.at.to_le_bytes());
            value.extend(event.value.to_le_bytes());
            value.extend(event.kind.as_bytes());
            value.extend(event.payload.as_bytes());
            batch.put(key, value);
        }
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options)?;
        Ok(began.elapsed())
    }
}

/// An axum handler that parses the same JSON and answers with one row.
pub struct EmptyHandler {
    url: String,
    client: reqwest::Client,
}

impl EmptyHandler {
    /// Serves on a free port until the process ends.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let answer = |axum::Json(request): axum::Json<Json>| async move {
            axum::Json(json!({"status": "success", "results": [{"rows": [request["params"]], "row_count": 1}]}))
        };
        let routes = axum::Router::new().route("/", axum::routing::post(answer));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(Self { url, client: reqwest::Client::new() })
    }

    /// One request over a kept-alive connection.
    pub async fn ask(&self, sql: &str, params: Vec<Json>) -> anyhow::Result<Json> {
        Ok(self.client.post(&self.url).json(&json!({"sql": sql, "params": params})).send().await?.json().await?)
    }
}

/// A server that sends bytes which it has already.
pub struct Copier {
    url: String,
    client: reqwest::Client,
}

impl Copier {
    /// Serves them on a free port until the process ends.
    pub async fn start(bytes: Vec<u8>) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let bytes = axum::body::Bytes::from(bytes);
        let answer = move || std::future::ready(bytes.clone());
        let routes = axum::Router::new().route("/", axum::routing::get(answer));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(Self { url, client: reqwest::Client::new() })
    }

    /// Takes them over a kept-alive connection.
    pub async fn take(&self) -> anyhow::Result<usize> {
        Ok(self.client.get(&self.url).send().await?.bytes().await?.len())
    }
}

/// What the Parquet writer alone took.
pub struct Written {
    /// Rows written.
    pub rows: i64,
    /// Time for encoding and writing them, reading them before not counted.
    pub took: Duration,
}

/// Writes the rows of these files again with arrow's writer, its default properties but our compression, and nothing around it.
pub fn parquet_writer_alone(files: &[PathBuf]) -> anyhow::Result<Written> {
    let mut batches: Vec<RecordBatch> = vec![];
    for file in files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file)?)?.build()?;
        batches.extend(reader.collect::<Result<Vec<_>, _>>()?);
    }
    let schema = batches.first().context("the flushed files hold no rows")?.schema();
    let compression = datafusion::parquet::basic::Compression::SNAPPY;
    let properties = WriterProperties::builder().set_compression(compression).build();
    let began = Instant::now();
    let target = tempfile::tempfile()?;
    let mut writer = ArrowWriter::try_new(&target, schema, Some(properties))?;
    for batch in &batches {
        writer.write(batch)?;
    }
    writer.close()?;
    target.sync_all()?;
    Ok(Written { rows: batches.iter().map(|batch| batch.num_rows() as i64).sum(), took: began.elapsed() })
}

/// DuckDB in a Python process that stays up, so that only queries are timed.
pub struct DuckDb {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

const DUCKDB: &str = r#"
import sys, time, json, duckdb
files = json.loads(sys.stdin.readline())
connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
connection.execute("CREATE VIEW cold AS SELECT * FROM read_parquet(" + str(files) + ")")
for line in sys.stdin:
    began = time.perf_counter()
    count = connection.execute(line).fetchone()[0]
    print(json.dumps([count, time.perf_counter() - began]), flush=True)
"#;

impl DuckDb {
    /// Starts it over these files; `cargo xtask bench` sees to it that Python finds the package `duckdb`.
    pub fn start(files: &[PathBuf]) -> anyhow::Result<Self> {
        let mut process = Command::new("python3")
            .args(["-c", DUCKDB])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start Python with DuckDB")?;
        let mut questions = process.stdin.take().context("DuckDB's process has no input")?;
        let answers = BufReader::new(process.stdout.take().context("DuckDB's process has no output")?);
        writeln!(questions, "{}", serde_json::to_string(files)?)?;
        Ok(Self { process, questions, answers })
    }

    /// The first cell of the answer, and how long DuckDB took.
    pub fn count(&mut self, query: &str) -> anyhow::Result<(i64, Duration)> {
        writeln!(self.questions, "{query}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let (count, seconds): (i64, f64) =
            serde_json::from_str(&line).with_context(|| format!("DuckDB did not answer {query}: '{line}'"))?;
        Ok((count, Duration::from_secs_f64(seconds)))
    }
}

impl Drop for DuckDb {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
