//! Tables whose job failed rest for a while before the instance starts the next by itself.

use std::collections::HashMap;

use kalamdb_api::flush::FlushState;
use tokio::time::Instant;

use super::jobs::Jobs;
use super::safety;
use crate::schema::TableName;

/// The jobs that one watch has started, and the tables that rest.
#[derive(Default)]
pub struct Rests {
    /// Jobs whose end is not known yet.
    started: HashMap<TableName, String>,
    /// How many jobs in a row have failed, and until when the table rests.
    failed: HashMap<TableName, (u32, Instant)>,
}

impl Rests {
    /// A job was started for the table.
    pub fn start(&mut self, table: &TableName, id: String) {
        self.started.insert(table.clone(), id);
    }

    /// Whether the table rests.
    pub fn rests(&self, table: &TableName) -> bool {
        self.failed.get(table).is_some_and(|(_, until)| *until > Instant::now())
    }

    /// Learns how the jobs ended; answers with the tables whose job failed.
    pub fn learn(&mut self, jobs: &Jobs) -> Vec<TableName> {
        let mut failed = Vec::new();
        self.started.retain(|table, id| {
            let Some(job) = jobs.get(id) else { return false };
            if job.state == FlushState::Failed {
                let failures = self.failed.get(table).map_or(0, |(failures, _)| *failures) + 1;
                self.failed.insert(table.clone(), (failures, Instant::now() + safety::pause_after(failures)));
                failed.push(table.clone());
            } else if job.state.is_final() {
                self.failed.remove(table);
            }
            !job.state.is_final()
        });
        failed
    }
}
