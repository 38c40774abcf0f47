//! Logs go to standard error, as text or as JSON lines; the newest lines stay in memory, for `system.server_logs`.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::{Mutex, PoisonError};

use kalamdb_sql::relations::LogLine;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::configuration::{LogConfig, LogFormat};

/// Longest message that is kept, in bytes; what is longer is cut.
const MESSAGE_BYTES: usize = 2048;

/// A process has one log.
static RECENT: Mutex<VecDeque<LogLine>> = Mutex::new(VecDeque::new());

/// Installs the subscriber; once a process.
pub fn start(config: &LogConfig) {
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let printed = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let printed = match config.format {
        LogFormat::Text => printed.with_ansi(false).boxed(),
        LogFormat::Json => printed.json().boxed(),
    };
    Registry::default().with(printed).with(Recent { lines: config.kept_lines }).with(filter).init();
}

/// The newest lines, oldest first.
pub fn recent() -> Vec<LogLine> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Keeps so many lines in memory.
struct Recent {
    lines: usize,
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        let line = LogLine {
            at: chrono::Utc::now().timestamp_micros(),
            level: event.metadata().level().as_str(),
            target: event.metadata().target().to_owned(),
            message: message.text(),
        };
        let mut lines = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        while lines.len() >= self.lines.max(1) {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// An event's message, and behind it its fields.
#[derive(Default)]
struct Message {
    message: String,
    fields: String,
}

impl Message {
    fn text(self) -> String {
        let mut text = self.message + &self.fields;
        text.truncate(text.floor_char_boundary(MESSAGE_BYTES));
        text
    }
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to memory does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_with_their_fields() {
        let subscriber = Registry::default().with(Recent { lines: 2 });
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("first");
            tracing::warn!(table = 7, "second");
            tracing::error!("{}", "ü".repeat(MESSAGE_BYTES));
        });
        let lines = recent();
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].level, lines[0].message.as_str()), ("WARN", "second table=7"));
        assert_eq!(lines[1].message.len(), MESSAGE_BYTES);
    }
}
