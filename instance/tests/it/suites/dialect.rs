//! DataFusion's DDL as ours. Its tables have no key: they become STREAM tables, which may do without one. `CREATE TABLE … AS` becomes a
//! definition and an INSERT.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::sql::sqlparser::ast::{CreateTable, ObjectType, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};

use super::cells;
use crate::server::Server;

/// Why a statement did not run, or why the server refused it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

/// Names of tables and views that could not be made, with the reason.
#[derive(Default)]
pub struct Known(BTreeSet<String>);

/// A connection of a file.
pub struct Client {
    url: String,
    http: reqwest::Client,
    token: String,
    namespace: String,
    missing: Arc<Mutex<Known>>,
}

/// What `*` shows beyond a table's own columns.
const SYSTEM_COLUMNS: [&str; 2] = ["_seq", "_deleted"];

impl Client {
    pub fn new(server: &Server, namespace: &str, missing: Arc<Mutex<Known>>) -> Self {
        Self {
            url: server.url.clone(),
            http: server.http.clone(),
            token: server.token.clone(),
            namespace: namespace.into(),
            missing,
        }
    }

    async fn request(&self, sql: &str) -> Result<Value, Failure> {
        let body = json!({"sql": sql, "namespace_id": self.namespace});
        let request = self.http.post(format!("{}/v1/api/sql", self.url)).bearer_auth(&self.token).json(&body);
        let response = request.send().await.map_err(|error| Failure(error.to_string()))?;
        let status = response.status();
        let mut reply: Value = response.json().await.map_err(|error| Failure(error.to_string()))?;
        if status == StatusCode::OK {
            let results = reply["results"].as_array_mut().and_then(Vec::pop);
            return results.ok_or_else(|| Failure("no result".into()));
        }
        let error = &reply["error"];
        Err(Failure(format!("{}: {}", error["code"], error["message"]).replace('"', "")))
    }

    fn lacks(&self, name: String) {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).0.insert(name);
    }

    /// A table that is not there for a reason of the adapter's is none of the server's.
    fn explained(&self, failure: Failure, sql: &str) -> Failure {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let lower = sql.to_lowercase();
        let is_lacking = missing.0.iter().any(|name| lower.contains(name.as_str()));
        if is_lacking && failure.0.contains("NOT_FOUND") { Failure("SKIP: table".into()) } else { failure }
    }

    async fn create(&self, table: &CreateTable) -> Result<(), Failure> {
        let name = table.name.to_string();
        let made = match (&table.query, table.columns.is_empty()) {
            (None, _) => self.define(&name, &columns_of(table)).await,
            (Some(query), false) => match self.define(&name, &columns_of(table)).await {
                Ok(()) => self.request(&format!("INSERT INTO {name} {query}")).await.map(drop),
                refused => refused,
            },
            (Some(query), true) => self.create_as(&name, &query.to_string()).await,
        };
        if made.is_err() {
            self.lacks(name.to_lowercase().replace('"', ""));
            // One without its rows would only answer wrongly.
            let _ = self.request(&format!("DROP TABLE IF EXISTS {name}")).await;
        }
        made
    }

    async fn define(&self, name: &str, columns: &str) -> Result<(), Failure> {
        let sql = format!("CREATE STREAM TABLE {name} ({columns}) WITH (TTL_SECONDS = 86400)");
        self.request(&sql).await.map(drop)
    }

    async fn create_as(&self, name: &str, query: &str) -> Result<(), Failure> {
        let shape = self.request(&format!("SELECT * FROM ({query}) AS made LIMIT 0")).await?;
        let columns: Vec<(String, String)> = shape["schema"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|column| (column["name"].as_str().unwrap_or_default().to_owned(), sql_type(&column["data_type"])))
            .filter(|(name, _)| !SYSTEM_COLUMNS.contains(&name.as_str()))
            .collect();
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let definitions: Vec<String> = columns.iter().map(|(name, of)| format!("{} {of}", quoted(name))).collect();
        self.define(name, &definitions.join(", ")).await?;
        let names: Vec<String> = columns.iter().map(|(name, _)| quoted(name)).collect();
        let insert = format!("INSERT INTO {name} SELECT {} FROM ({query}) AS made", names.join(", "));
        self.request(&insert).await.map(drop)
    }
}

fn columns_of(table: &CreateTable) -> String {
    let columns = table.columns.iter().map(ToString::to_string);
    columns.chain(table.constraints.iter().map(ToString::to_string)).collect::<Vec<_>>().join(", ")
}

fn sql_type(data_type: &Value) -> String {
    match (data_type.as_str(), &data_type["Decimal"]) {
        (Some(name), _) => name.to_uppercase(),
        (None, decimal) => format!("DECIMAL({}, {})", decimal["precision"], decimal["scale"]),
    }
}

/// What is about DataFusion itself, by the first words of the statement.
fn is_of_datafusion(sql: &str) -> bool {
    let sql = sql.trim_start().to_lowercase();
    ["explain", "set ", "reset ", "show ", "describe"].iter().any(|word| sql.starts_with(word))
}

/// The name of what a statement makes that we can't: views, functions, tables of files.
fn unavailable(sql: &str) -> Option<String> {
    let lower = sql.trim_start().to_lowercase();
    let words: Vec<&str> =
        lower.split(|c: char| c.is_whitespace() || c == '(').filter(|word| !word.is_empty()).collect();
    let kinds = ["external", "view", "function", "schema", "database", "unbounded"];
    let is_made = words.first() == Some(&"create") && words.iter().take(5).any(|word| kinds.contains(word));
    let noise =
        ["create", "or", "replace", "external", "unbounded", "table", "view", "function", "if", "not", "exists"];
    is_made.then(|| words.iter().find(|word| !noise.contains(word)).map_or(String::new(), |name| name.replace('"', "")))
}

#[async_trait]
impl AsyncDB for Client {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        if is_of_datafusion(sql) {
            return Err(Failure("SKIP: plan".into()));
        }
        if let Some(name) = unavailable(sql) {
            self.lacks(name);
            return Err(Failure("SKIP: table".into()));
        }
        let parsed = Parser::parse_sql(&GenericDialect {}, sql).unwrap_or_default();
        match parsed.as_slice() {
            [Statement::CreateTable(table)] => {
                return self.create(table).await.map(|()| DBOutput::StatementComplete(0));
            }
            [Statement::Drop { object_type: ObjectType::View, .. }] => return Err(Failure("SKIP: table".into())),
            _ => {}
        }
        let result = self.request(sql).await.map_err(|failure| self.explained(failure, sql))?;
        Ok(output(&result))
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "DataFusion"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

fn output(result: &Value) -> DBOutput<DefaultColumnType> {
    let (Some(columns), Some(rows)) = (result["schema"].as_array(), result["rows"].as_array()) else {
        // An INSERT of theirs answers a row with the count.
        let rows = vec![vec![result["row_count"].to_string()]];
        return DBOutput::Rows { types: vec![DefaultColumnType::Any], rows };
    };
    let own = |name: &Value| !name.as_str().is_some_and(|name| SYSTEM_COLUMNS.contains(&name));
    let places: Vec<usize> = (0..columns.len()).filter(|place| own(&columns[*place]["name"])).collect();
    let row = |cells: &Value| places.iter().map(|at| cells::shown(&cells[*at], &columns[*at]["data_type"])).collect();
    DBOutput::Rows { types: vec![DefaultColumnType::Any; places.len()], rows: rows.iter().map(row).collect() }
}
