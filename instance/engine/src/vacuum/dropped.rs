//! Folders of dropped tables: they go as files do that left their table, once nobody in this process reads or writes there any more.

use std::time::Duration;

use crate::EngineError;
use crate::cold::{identity, log};
use crate::flush::Flusher;
use crate::flush::run::Runner;
use crate::hot::DroppedTable;
use crate::plant::{Plant, planted};
use crate::point::point;

impl Runner {
    /// Deletes a dropped table's folder; answers with how many objects there were. None where it must stay for now: its time has not
    /// come, it is still read or written, or the prefix has a later owner, whose catalog may have the table. The mirror forgets the
    /// table first: whoever recovers from it would bring the table back, without its rows.
    pub(crate) async fn vacuum_dropped(
        &self,
        table: &DroppedTable,
        retention: Duration,
    ) -> Result<Option<usize>, EngineError> {
        let age = Duration::from_millis(u64::try_from(self.now_ms() - table.at_ms).unwrap_or(0));
        if age < retention || self.alive.lock().values().any(|id| *id == table.id) {
            return Ok(None);
        }
        // A reader with an old snapshot may have brought it back.
        self.cold.forget(table.uuid);
        if !self.cold.pinned(table.uuid).is_empty() {
            return Ok(None);
        }
        let (store, own) = (self.cold.store(), self.owner.epoch()?);
        if identity::highest_epoch(store).await? != Some(own) {
            return Ok(None);
        }
        if !planted(Plant::FolderBeforeMirror) {
            self.keeper.await_forgotten(table.id, own).await?;
        }
        crash_point!("vacuum.dropped_unnamed");
        // Again: a recovery that claims its epoch after this finds that mirror.
        if identity::highest_epoch(store).await? != Some(own) {
            return Ok(None);
        }
        point!("vacuum.dropped_judged");
        let deleted = store.delete_folder(&log::table_folder(table.uuid)).await?;
        crash_point!("vacuum.folder_deleted");
        self.hot.forget_dropped(table)?;
        crash_point!("vacuum.dropped_forgotten");
        Ok(Some(deleted))
    }
}

impl Flusher {
    /// Deletes the folders of dropped tables whose time has come.
    pub(crate) async fn vacuum_dropped_visibly(&self) {
        let dropped = match self.runner.hot.snapshot().dropped_tables() {
            Ok(dropped) => dropped,
            Err(error) => return tracing::warn!(%error, "the list of dropped tables can't be read"),
        };
        for table in dropped {
            if self.stop.is_cancelled() {
                return;
            }
            match self.runner.vacuum_dropped(&table, self.tending.vacuum.retention).await {
                Ok(None) => {}
                Ok(Some(objects)) => {
                    tracing::info!(uuid = %table.uuid, objects, "deleted the folder of a dropped table")
                }
                Err(error) => {
                    tracing::warn!(uuid = %table.uuid, %error, "the folder of a dropped table is still there; the next vacuum goes on")
                }
            }
        }
    }
}
