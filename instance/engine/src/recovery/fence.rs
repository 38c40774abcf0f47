//! How an owner who knows nothing of a table takes it over: an empty commit at the end of its log, which nobody before can follow.

use std::sync::Arc;

use uuid::Uuid;

use crate::EngineError;
use crate::cold::end::LogEnd;
use crate::cold::log::{DeltaLog, Put, met_another, schema_actions};
use crate::cold::{ColdSnapshot, ColdTier};
use crate::flush::{Epoch, Intent, IntentKind};
use crate::hot::tier::TableTier;
use crate::hot::volume::HighWater;
use crate::plant::{Plant, planted};
use crate::point::point;
use crate::schema::{SchemaVersion, Table};
use crate::seq::Seq;

/// How often the end of a log is looked for again where an earlier owner commits meanwhile: it can do so only as often as it has jobs.
const TRIES: usize = 20;

/// A table that this epoch has taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced {
    /// Where its tiers meet from now on.
    pub tier: TableTier,
    /// No flushed row is above it.
    pub high_water: HighWater,
    /// The schema that every flushed row holds to; none where there is no row.
    pub holds_to: Option<SchemaVersion>,
}

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
    /// The table is this epoch's.
    Fenced(Fenced),
    /// A later epoch was first: fences follow the order of epochs, so a new one must be claimed.
    TooLate,
}

/// `fence_and_recover` of the model, up to the batch: fences the table at its log's end, and says what the log knows. No intent is stored,
/// for the volume is empty: a process that dies here has changed nothing, and the next one fences again.
pub async fn fence_at_end(
    cold: &ColdTier,
    table: &Arc<Table>,
    epoch: Epoch,
    now_ms: i64,
) -> Result<Outcome, EngineError> {
    let log = cold.log(table.uuid);
    for _ in 0..TRIES {
        let end = log.end(table).await?;
        let is_too_late = end.as_ref().is_some_and(|end| end.epoch >= epoch);
        if is_too_late && !planted(Plant::EpochsFenceInAnyOrder) {
            return Ok(Outcome::TooLate);
        }
        check_schema(table, end.as_ref())?;
        let (version, w) = end.as_ref().map_or((0, Seq::ZERO), |end| (end.version + 1, end.w));
        let intent = Intent { kind: IntentKind::Fence, epoch, job: Uuid::new_v4(), version, w };
        point!("recovery.looked");
        if put(&log, table, &intent, now_ms).await? {
            let holds_to = end.as_ref().filter(|end| end.has_files).and_then(|end| end.schema_version);
            let high_water = end.map(|end| end.high_water).unwrap_or_default();
            let tier = TableTier { flushed_through: w, cold_version: version };
            return Ok(Outcome::Fenced(Fenced { tier, high_water, holds_to }));
        }
    }
    Err(EngineError::Unavailable(format!("an earlier owner goes on committing to table {}; stop it", table.name)))
}

/// Whether the version is ours. What occupies it decides, whatever the put answered.
async fn put(log: &DeltaLog, table: &Table, intent: &Intent, now_ms: i64) -> Result<bool, EngineError> {
    let actions = if intent.version == 0 { schema_actions(table, &ColdSnapshot::empty()) } else { Vec::new() };
    let put = log.put(intent, DeltaLog::encode(intent, &actions, now_ms)).await;
    crash_point!("recovery.table_put");
    match (log.read(intent.version).await?, put) {
        (Some(commit), _) => Ok(commit.intent.as_ref() == Some(intent)),
        (None, Err(error)) => Err(error),
        (None, Ok(Put::Taken)) => Err(met_another(intent)),
        (None, Ok(Put::Landed)) => Err(EngineError::Corrupt {
            what: format!("Delta log of table {}", table.name),
            reason: format!("version {} was put and is not there", intent.version),
        }),
    }
}

/// A flush waits for the mirror, so that a log never knows more than the newest mirror.
fn check_schema(table: &Table, end: Option<&LogEnd>) -> Result<(), EngineError> {
    match end.map(|end| (end.version, end.schema_version)) {
        None => Ok(()),
        Some((_, Some(described))) if described <= table.version => Ok(()),
        Some((version, described)) => Err(EngineError::Corrupt {
            what: format!("catalog, which knows table {} up to schema version {}", table.name, table.version.0),
            reason: format!(
                "version {version} of its Delta log has schema version {}: the mirror that the catalog came from is not the newest one",
                described.unwrap_or(SchemaVersion(0)).0
            ),
        }),
    }
}
