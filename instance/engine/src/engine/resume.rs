//! Whether a client that went away may go on from what it has seen, and what it has missed.

use crate::commit::judge::resume_is_admitted;
use crate::hot::changes::Change;
use crate::hot::volume::Life;
use crate::schema::{Table, UserId};
use crate::seq::Seq;
use crate::{Engine, EngineError};

/// What a client has seen of a table: everything up to a sequence, in the life in which it was told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The life of the volume.
    pub life: Life,
    /// The last sequence.
    pub seq: Seq,
}

/// What a client that comes back is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Resumed {
    /// The oldest changes that it has missed.
    Changes(Vec<Change>),
    /// What it has missed is not known any more, or what it has seen is of a history that this volume never had.
    StartOver,
}

impl Engine {
    /// The present life of the volume, which a client names when it comes back.
    pub fn life(&self) -> Life {
        self.inner.hot.lives().life
    }

    /// At most `limit` of the changes that a client of the table, or of one user's part of it, has missed, oldest first.
    pub fn resume(
        &self,
        table: &Table,
        user: Option<&UserId>,
        seen: Seen,
        limit: usize,
    ) -> Result<Resumed, EngineError> {
        let snapshot = self.inner.hot.snapshot();
        let floor = snapshot.tier_record(table.id)?.change_floor;
        if !resume_is_admitted(self.inner.hot.lives(), floor, seen) {
            return Ok(Resumed::StartOver);
        }
        snapshot.changes(table, user, seen.seq, limit).map(Resumed::Changes)
    }
}
