//! Commits of the catalog.

use kalamdb_engine::EngineError;
use kalamdb_engine::catalog::CatalogChange;

use super::{Scope, Statements};

impl Statements {
    /// Commits a change together with its entry in the audit log. Once begun it goes on to its end: a client that goes away takes neither
    /// with it, and KILL and the statement's time come too late.
    pub(super) async fn change_catalog(&self, change: CatalogChange, scope: &Scope<'_>) -> Result<(), EngineError> {
        let (engine, recorded) = (self.engine.clone(), scope.audited.cloned().into_iter().collect());
        let commit = async {
            let commit = tokio::spawn(async move { engine.change_catalog_recorded(change, recorded).await });
            let broke_off =
                |error| Err(EngineError::Unavailable(format!("a change of the catalog broke off: {error}")));
            commit.await.unwrap_or_else(broke_off)
        };
        match scope.ticket {
            Some(ticket) => ticket.commit(commit).await,
            None => commit.await,
        }
    }
}
