//! Tables whose Delta log could not be read when the volume was recovered: they stay stopped, and each start tries again.

use std::sync::Arc;

use super::Flusher;
use crate::EngineError;
use crate::recovery::fence::{Outcome, fence_at_end};
use crate::recovery::recover::{as_flushed, unreadable};
use crate::schema::Table;

impl Flusher {
    /// Stops them before anybody can write: nobody knows yet which sequences their files hold.
    pub(super) fn stop_unrecovered(&self) -> Result<(), EngineError> {
        for table in self.unrecovered()? {
            let reason = "its Delta log could not be recovered, and is read again once the object store answers".into();
            self.runner.stopped.lock().insert(table.id, reason);
        }
        Ok(())
    }

    fn unrecovered(&self) -> Result<Vec<Arc<Table>>, EngineError> {
        let (hot, mut found) = (self.runner.hot.snapshot(), Vec::new());
        for table in self.runner.committer.catalog().tables.values() {
            if hot.tier_record(table.id)?.tier.is_unrecovered() {
                found.push(table.clone());
            }
        }
        Ok(found)
    }

    /// Reads their logs again, once after each start.
    pub(super) async fn recover_unrecovered(&self) {
        let tables = self.unrecovered().unwrap_or_else(|error| {
            tracing::error!(%error, "the tables that are still to be recovered are not known");
            Vec::new()
        });
        for table in tables {
            match self.recover_log(&table).await {
                Ok(()) => {
                    tracing::info!(table = %table.name, "recovered the table");
                    self.runner.stopped.lock().remove(&table.id);
                }
                Err(error) => drop(self.runner.stop(&table, unreadable(&error))),
            }
        }
    }

    async fn recover_log(&self, table: &Arc<Table>) -> Result<(), EngineError> {
        let epoch = self.runner.owner.epoch()?;
        self.runner.keeper.await_named(table, epoch).await?;
        match fence_at_end(&self.runner.cold, table, epoch, self.runner.now_ms()).await? {
            Outcome::Fenced(fenced) => {
                let committer = &self.runner.committer;
                let altered = as_flushed(&committer.catalog(), table.id, &fenced, self.runner.now_ms());
                committer.recover_table(table.id, fenced, altered).await?;
                self.runner.keeper.catalog_changed();
                Ok(())
            }
            Outcome::TooLate => Err(EngineError::Unavailable(format!(
                "a later owner than epoch {epoch} has committed to table {}",
                table.name
            ))),
        }
    }
}
