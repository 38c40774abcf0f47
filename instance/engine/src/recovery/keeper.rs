//! Keeps the mirror up with the catalog: soon after each change, and at the latest before a Delta commit names what it lacks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use super::mirror::{Mirror, MirrorName, dropped_before};
use super::objects;
use crate::EngineError;
use crate::catalog::Catalog;
use crate::cold::ColdTier;
use crate::commit::Committer;
use crate::commit::clock::Clock;
use crate::flush::Epoch;
use crate::hot::Hot;
use crate::schema::{Table, TableId};

/// Changes that come within it share a mirror.
const GATHER: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Writes the mirrors of one process.
pub struct Keeper {
    hot: Arc<Hot>,
    committer: Committer,
    cold: Arc<ColdTier>,
    clock: Arc<dyn Clock>,
    /// The catalog that this process mirrored last.
    mirrored: Mutex<Option<Arc<Catalog>>>,
    changed: Notify,
}

impl Keeper {
    /// Has mirrored nothing yet.
    pub fn new(hot: Arc<Hot>, committer: Committer, cold: Arc<ColdTier>, clock: Arc<dyn Clock>) -> Self {
        Self { hot, committer, cold, clock, mirrored: Mutex::default(), changed: Notify::new() }
    }

    /// The catalog has changed: the mirror follows soon.
    pub fn catalog_changed(&self) {
        self.changed.notify_one();
    }

    /// Returns once a mirror of this epoch names the table in this version: before that no Delta log may.
    pub async fn await_named(&self, table: &Table, epoch: Epoch) -> Result<(), EngineError> {
        let mut mirrored = self.mirrored.lock().await;
        let names = |mirrored: &Option<Arc<Catalog>>| {
            let versions = mirrored.as_ref().map_or(&[][..], |catalog| catalog.versions_of(table.id));
            versions.iter().any(|known| known.version == table.version)
        };
        if !names(&mirrored) {
            self.write(&mut mirrored, epoch).await?;
        }
        // A table that was dropped meanwhile is in no mirror any more.
        let gone = || EngineError::NotFound { what: "table", name: table.name.to_string() };
        if names(&mirrored) { Ok(()) } else { Err(gone()) }
    }

    /// Returns once the newest mirror, which is of this epoch, does not name the dropped table.
    pub async fn await_forgotten(&self, table: TableId, epoch: Epoch) -> Result<(), EngineError> {
        let mut mirrored = self.mirrored.lock().await;
        match &*mirrored {
            Some(catalog) if catalog.versions_of(table).is_empty() => Ok(()),
            _ => self.write(&mut mirrored, epoch).await,
        }
    }

    /// Mirrors the catalog at once, and then after each change, until `stop`.
    pub async fn run(&self, epoch: Epoch, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.keep_up(epoch).await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = stop.cancelled() => return,
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the catalog is not mirrored yet; flushes of what the mirror lacks wait for it");
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            let pause = if pause == FIRST_PAUSE { GATHER } else { pause };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn keep_up(&self, epoch: Epoch) -> Result<(), EngineError> {
        let mut mirrored = self.mirrored.lock().await;
        let newest = self.committer.catalog();
        match &*mirrored {
            Some(known) if Arc::ptr_eq(known, &newest) => Ok(()),
            _ => self.write(&mut mirrored, epoch).await,
        }
    }

    async fn write(&self, mirrored: &mut Option<Arc<Catalog>>, epoch: Epoch) -> Result<(), EngineError> {
        let catalog = self.committer.catalog();
        // A mirror that knew more than its volume would displace it at its next start.
        let hot = self.hot.clone();
        tokio::task::spawn_blocking(move || hot.sync()).await.expect("syncing does not panic")?;
        let mut mirror = Mirror {
            database_id: self.hot.volume().database_id,
            volume: self.hot.volume_id(),
            name: MirrorName { epoch, number: 0 },
            written_at: self.clock.now_micros() / 1000,
            high_water: self.committer.shared().clock.high_water(),
            catalog: Catalog::clone(&catalog),
            dropped: dropped_before(&catalog, self.hot.snapshot().dropped_tables()?),
        };
        objects::put(self.cold.store(), &mut mirror).await?;
        *mirrored = Some(catalog);
        Ok(())
    }
}
