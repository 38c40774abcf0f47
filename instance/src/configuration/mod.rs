//! The process's settings. Highest first: flags, environment, the file of `--config` or `KALAMDB_CONFIG`, defaults.
//!
//! A key that nobody knows is refused: a misspelt limit must not silently be the default.

mod keys;
mod reference;
mod typed;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Command};
use kalamdb_engine::EngineConfig;
use kalamdb_engine::access::LockPolicy;
use kalamdb_sql::SqlConfig;
use kalamdb_sql::relations::Setting;

pub use keys::{KEYS, Key, SECRETS, Secret};
pub use reference::reference;

/// What the command line asks for.
pub enum Reading {
    /// Serve with these settings.
    Serve(Box<Configuration>),
    /// Print this and end.
    Print(String),
}

/// All settings.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// `[server]`.
    pub server: ServerConfig,
    /// `[auth]` and the secrets that belong to it.
    pub auth: AuthConfig,
    /// The engine's share.
    pub engine: EngineConfig,
    /// The SQL layer's share.
    pub sql: SqlConfig,
    /// Values of a user-made label before further ones fold into `other`.
    pub label_values: usize,
    /// `[log]`.
    pub log: LogConfig,
    /// Every key with what holds, for `system.settings`. Secrets have no key.
    pub settings: Vec<Setting>,
}

/// `[server]`.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on.
    pub port: u16,
    /// Largest request body, in bytes.
    pub body_bytes: usize,
    /// How long a shutdown waits for running requests.
    pub shutdown: Duration,
    /// Whether `auth/setup` may be called from other machines.
    pub remote_setup: bool,
}

/// `[auth]` and the secrets that belong to it.
#[derive(Clone)]
pub struct AuthConfig {
    /// How long an access token is good.
    pub token: Duration,
    /// How long a refresh token is good.
    pub refresh: Duration,
    /// Authentication requests a second and address.
    pub requests_per_second: u32,
    /// When wrong passwords lock a user.
    pub lock: LockPolicy,
    /// Issuers whose tokens count: a JSON array, or the path of a file that holds one.
    pub oidc_issuers: String,
    /// `KALAMDB_ROOT_PASSWORD`.
    pub root_password: Option<String>,
    /// `KALAMDB_JWT_SECRET`.
    pub jwt_secret: Option<String>,
    /// `KALAMDB_SCHEDULER_TOKEN`.
    pub scheduler_token: Option<String>,
}

impl std::fmt::Debug for AuthConfig {
    /// Secrets never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig").field("token", &self.token).field("refresh", &self.refresh).finish_non_exhaustive()
    }
}

/// `[log]`.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// What is logged.
    pub filter: String,
    /// How it looks.
    pub format: LogFormat,
    /// Lines that stay in memory.
    pub kept_lines: usize,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Configuration {
    /// Reads flags, environment and file.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Reading> {
        let matches = command().try_get_matches_from(arguments)?;
        if matches.subcommand_matches("config-reference").is_some() {
            return Ok(Reading::Print(reference()));
        }
        let file = match matches.get_one::<PathBuf>("config") {
            Some(path) => read_file(path)?,
            None => BTreeMap::new(),
        };
        let mut values = BTreeMap::new();
        for key in &KEYS {
            let given = matches.get_one::<String>(&key.dotted()).cloned();
            let said_here = matches.value_source(&key.dotted()) != Some(ValueSource::DefaultValue);
            let value = match (given, file.get(&key.dotted())) {
                (Some(given), _) if said_here => given,
                (_, Some(in_file)) => in_file.clone(),
                (Some(default), None) => default,
                (None, None) => key.default.to_owned(),
            };
            values.insert(key.dotted(), value);
        }
        typed::configuration(&values, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
            .map(|configuration| Reading::Serve(Box::new(configuration)))
    }
}

fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .env("KALAMDB_CONFIG")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("A TOML file with any of the keys below, as [section] key");
    let secrets: Vec<String> =
        SECRETS.iter().map(|secret| format!("  {}\n          {}", secret.environment, secret.about)).collect();
    let command = Command::new("kalamdb-instance")
        .version(env!("CARGO_PKG_VERSION"))
        .about("One KalamDB database process")
        .after_help(format!("Secrets come by the environment alone:\n{}", secrets.join("\n")))
        .subcommand(Command::new("config-reference").about("Print the reference of all keys, as Markdown"))
        .arg(config);
    KEYS.iter().fold(command, |command, key| {
        command.arg(
            Arg::new(kept(key.dotted()))
                .long(kept(key.flag()))
                .env(kept(key.environment()))
                .default_value(key.default)
                .help(key.about)
                .action(ArgAction::Set)
                .allow_hyphen_values(true),
        )
    })
}

/// Names of arguments live as long as the process; the command is built once in it.
fn kept(name: String) -> &'static str {
    Box::leak(name.into_boxed_str())
}

/// The file's keys as texts.
fn read_file(path: &PathBuf) -> Result<BTreeMap<String, String>> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).with_context(|| format!("failed to read the configuration file {shown}"))?;
    let document: toml::Table =
        text.parse().with_context(|| format!("failed to read the configuration file {shown} as TOML"))?;
    let mut values = BTreeMap::new();
    for (section, content) in document {
        let toml::Value::Table(content) = content else {
            bail!("'{section}' in {shown} is not a section: write [section], then key = value");
        };
        for (name, value) in content {
            let dotted = format!("{section}.{name}");
            if !KEYS.iter().any(|key| key.dotted() == dotted) {
                bail!("unknown key '{dotted}' in {shown}; `kalamdb-instance config-reference` lists all keys");
            }
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(value) => value.to_string(),
                other => bail!("'{dotted}' in {shown} is {}: it is a string, a number or a boolean", other.type_str()),
            };
            values.insert(dotted, text);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Configuration> {
        let arguments = std::iter::once("kalamdb-instance").chain(arguments.iter().copied()).map(OsString::from);
        match Configuration::read(arguments)? {
            Reading::Serve(configuration) => Ok(*configuration),
            Reading::Print(text) => bail!("printed {text}"),
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kalamdb.toml");
        std::fs::write(&file, "[server]\nport = 9000\nhost = \"0.0.0.0\"\n").unwrap();
        let file = file.to_str().unwrap();
        let read = read(&["--config", file, "--server-port", "9001"]).unwrap();
        assert_eq!((read.server.host.as_str(), read.server.port), ("0.0.0.0", 9001));
        assert_eq!(read.sql.statement_timeout, Duration::from_secs(60));
    }

    #[test]
    fn misspelt_keys_and_bad_values_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kalamdb.toml");
        std::fs::write(&file, "[server]\nprot = 9000\n").unwrap();
        let error = read(&["--config", file.to_str().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("unknown key 'server.prot'"), "{error}");
        for (flag, value, message) in [
            ("--server-port", "70000", "server.port"),
            ("--object-store-type", "ftp", "object_store.type"),
            ("--object-store-type", "s3", "object_store.bucket"),
            ("--sql-memory-bytes", "lots", "sql.memory_bytes"),
            ("--flush-max-rows", "0", "flush.max_rows"),
        ] {
            let error = format!("{:#}", read(&[flag, value]).unwrap_err());
            assert!(error.contains(message), "{flag} {value}: {error}");
        }
    }

    #[test]
    fn the_written_reference_is_not_stale() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        let mend = "kalamdb-instance config-reference > docs/configuration.md";
        assert_eq!(written.trim(), reference().trim(), "docs/configuration.md is stale; run: {mend}");
    }
}
