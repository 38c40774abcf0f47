//! Whether what a write read still holds, and what its commit touches beside the row. Pure; the names are the model's.

use crate::commit::record::Read;
use crate::engine::Seen;
use crate::flush::{Intent, IntentKind};
use crate::hot::TableTier;
use crate::hot::row::RowHeader;
use crate::hot::volume::Lives;
use crate::plant::{Plant, planted};
use crate::seq::Seq;

/// The hot version that reads see: one above `flushed_through`.
pub fn visible_hot(stored: Option<RowHeader>, tier: &TableTier) -> Option<RowHeader> {
    stored.filter(|header| header.seq > tier.flushed_through)
}

/// What the write read still holds. A hot version counts only above `flushed_through`; otherwise the cold version decides.
pub fn is_current(visible: Option<&RowHeader>, read: &Read, tier: &TableTier) -> bool {
    match (read, visible) {
        (Read::Generated, _) => true,
        (Read::Looked { seq, .. }, Some(hot)) => *seq == (!hot.deleted).then_some(hot.seq),
        (Read::Looked { cold_version, .. }, None) => *cold_version == tier.cold_version,
    }
}

/// The same in a stream table, which has no cold tier: `live` is the version that has not expired.
pub fn is_current_in_stream(live: Option<&RowHeader>, read: &Read) -> bool {
    match read {
        Read::Generated => true,
        Read::Looked { seq, .. } => *seq == live.filter(|hot| !hot.deleted).map(|hot| hot.seq),
    }
}

/// The flush that may carry a version which a commit supersedes; after a restart too, for the intent is stored.
pub fn is_dirtied<'a>(superseded: Option<&RowHeader>, intents: &'a [Intent]) -> Option<&'a Intent> {
    let hot = superseded.filter(|_| !planted(Plant::NoDirtyKeys))?;
    intents.iter().find(|intent| intent.kind == IntentKind::Flush && hot.seq <= intent.w)
}

/// Clients whom this refuses start over: their changes are trimmed, or belong to a history that this volume never had.
pub fn resume_is_admitted(lives: &Lives, floor: Seq, seen: Seen) -> bool {
    lives.know(seen.life, seen.seq) && seen.seq >= floor
}

/// Judged when the row is deleted, not when it was scanned.
pub fn may_delete_hot(stored: Option<Seq>, tier: &TableTier) -> bool {
    stored.is_some_and(|seq| seq <= tier.flushed_through || planted(Plant::Step5WithoutSeq))
}
