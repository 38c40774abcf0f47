//! The reference of all keys, as Markdown.

use super::{KEYS, SECRETS};

/// What `config-reference` prints and `docs/configuration.md` holds.
pub fn reference() -> String {
    let mut text = String::from(
        "# Configuration of an instance\n\n\
         Highest first: flags, environment, the TOML file of `--config FILE` or `KALAMDB_CONFIG`, defaults. A key that is not \
         listed here is refused. With no configuration at all an instance listens on 127.0.0.1:8080, and keeps hot and cold \
         rows in `kalamdb-data`.\n",
    );
    let mut section = "";
    for key in &KEYS {
        if key.section != section {
            section = key.section;
            text.push_str(&format!(
                "\n## `[{section}]`\n\n| key | environment | default | meaning |\n|---|---|---|---|\n"
            ));
        }
        let default = if key.default.is_empty() { "(empty)".to_owned() } else { format!("`{}`", key.default) };
        text.push_str(&format!("| `{}` | `{}` | {default} | {} |\n", key.name, key.environment(), key.about));
    }
    text.push_str("\nFlags are `--section-key`, such as `--server-port`.\n\n## Secrets\n\n");
    text.push_str("They come by the environment alone.\n\n| environment | meaning |\n|---|---|\n");
    for secret in &SECRETS {
        text.push_str(&format!("| `{}` | {} |\n", secret.environment, secret.about));
    }
    text
}
