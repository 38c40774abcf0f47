//! Where the story plays: what differs between a cluster and plain processes.

use anyhow::Result;
use kalamdb_e2e::bucket::Object;
use kalamdb_e2e::sql::Client;

/// A running database with a flush scheduler beside it.
pub trait Stage {
    /// Logs in. An address that has gone away is found anew.
    fn login(&mut self, user: &str, password: &str) -> Result<Client>;

    /// Logs in as root.
    fn root(&mut self) -> Result<Client>;

    /// What lies in the object store.
    fn cold_files(&self) -> Result<Vec<Object>>;

    /// Where it lies, for people.
    fn cold_place(&self) -> String;

    /// Shows what the scheduler reports of its work.
    fn show_scheduler(&self) -> Result<()>;

    /// How the instance is ended, for people.
    fn ending(&self) -> &'static str;

    /// Ends the instance without a chance to clean up, and waits until one serves again.
    fn crash(&mut self) -> Result<()>;

    /// What went wrong, in the words of the parts themselves.
    fn account(&self) -> String;

    /// The commands to try next.
    fn next_commands(&self) -> Result<String>;
}
