//! Bugs that the model test plants at the rules of the storage model, one at a time, to show that it catches each of them.
//!
//! The names are those of the model. Outside tests nothing is ever planted, and the compiler leaves all of it out.

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Commits do not note the keys that they supersede during a flush.
    NoDirtyKeys,
    /// The keys that were noted are forgotten at a restart.
    DirtyKeysInMemory,
    /// Members of a group are not judged by those before them.
    GroupBlindToItself,
    /// The end of a flush deletes what it has scanned, whatever has been written since.
    Step5WithoutSeq,
    /// A compaction leaves masked rows out.
    CompactionAppliesMasks,
    /// A compaction commits onto a newer version than the one it read.
    CompactionRebases,
    /// A commit counts as ours by its number alone.
    RecoveryByNumber,
    /// A new epoch gives earlier intents up without a commit of its own.
    NoFencingCommit,
    /// What no version names is deleted, whoever may still name it.
    VacuumForAgeAlone,
    /// A flush takes rows at and below `flushed_through` too.
    RowsUpToW,
    /// A flush reads rows as they are when it writes them.
    SnapshotAfterStep1,
    /// A hot row at or below `flushed_through` counts for a write.
    ComparesRawHotSeq,
    /// A fence's intent is not stored.
    FenceWithoutIntent,
    /// An intent replaces those before it.
    OneIntentSlot,
    /// An older epoch fences after a newer one.
    EpochsFenceInAnyOrder,
    /// A client resumes in a life that this volume does not know.
    ResumeBySeqAlone,
    /// What somebody in this process still reads is deleted once its time has come.
    VacuumIgnoresReaders,
    /// What a commit removed counts as gone from when that was prepared.
    RemovedWhenPrepared,
    /// The folder of a dropped table goes while the newest mirror still names the table.
    FolderBeforeMirror,
    /// A change that rows must hold to is made although rows were written since they were looked through.
    AlterTrustsItsLook,
    /// A look-up finds rows of stream tables until they are dropped.
    ExpiredRowsAreRead,
}

/// Whether that rule is broken in the engine that the calling thread works for.
#[cfg(not(test))]
pub(crate) const fn planted(_: Plant) -> bool {
    false
}

#[cfg(test)]
pub(crate) use testing::planted;

#[cfg(test)]
pub(crate) mod testing {
    //! What is planted, by thread: a committer's thread inherits it from the one that starts it.

    use std::cell::Cell;

    use super::Plant;

    thread_local! {
        static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
    }

    impl Plant {
        /// All of them.
        pub const ALL: [Self; 21] = [
            Self::NoDirtyKeys,
            Self::DirtyKeysInMemory,
            Self::GroupBlindToItself,
            Self::Step5WithoutSeq,
            Self::CompactionAppliesMasks,
            Self::CompactionRebases,
            Self::RecoveryByNumber,
            Self::NoFencingCommit,
            Self::VacuumForAgeAlone,
            Self::RowsUpToW,
            Self::SnapshotAfterStep1,
            Self::ComparesRawHotSeq,
            Self::FenceWithoutIntent,
            Self::OneIntentSlot,
            Self::EpochsFenceInAnyOrder,
            Self::ResumeBySeqAlone,
            Self::VacuumIgnoresReaders,
            Self::RemovedWhenPrepared,
            Self::FolderBeforeMirror,
            Self::AlterTrustsItsLook,
            Self::ExpiredRowsAreRead,
        ];
    }

    pub fn planted(plant: Plant) -> bool {
        PLANTED.get() == Some(plant)
    }

    /// What is planted on this thread.
    pub fn current() -> Option<Plant> {
        PLANTED.get()
    }

    /// Plants it on this thread, in place of what was planted before.
    pub fn plant(plant: Option<Plant>) {
        PLANTED.set(plant);
    }
}
