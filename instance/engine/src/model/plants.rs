//! The bugs of the storage model, planted in the real code one at a time: the model test must catch each within few seeds.

use super::case;
use super::program::Scenario;
use crate::plant::Plant;
use crate::plant::testing::plant;

/// Seeds within which each must be caught.
const SEEDS: u64 = 400;

/// The environment names the only one to plant, for who looks into it.
const ONLY: &str = "KALAMDB_PLANT";

/// Which programs catch it.
fn scenario_of(plant: Plant) -> Scenario {
    match plant {
        Plant::NoDirtyKeys
        | Plant::DirtyKeysInMemory
        | Plant::GroupBlindToItself
        | Plant::Step5WithoutSeq
        | Plant::RowsUpToW
        | Plant::SnapshotAfterStep1
        | Plant::ComparesRawHotSeq => Scenario::Flush,
        Plant::CompactionAppliesMasks | Plant::CompactionRebases => Scenario::Compaction,
        Plant::RecoveryByNumber | Plant::NoFencingCommit | Plant::FenceWithoutIntent | Plant::OneIntentSlot => {
            Scenario::Owners
        }
        Plant::VacuumForAgeAlone => Scenario::Lost,
        Plant::EpochsFenceInAnyOrder => Scenario::Newcomers,
        Plant::ResumeBySeqAlone => Scenario::Resumed,
    }
}

/// The first seed that catches it, and what it says.
fn caught(planted: Plant) -> Option<(u64, String)> {
    case::prepare();
    plant(Some(planted));
    let scenario = scenario_of(planted);
    let runtime = case::runtime();
    let found = (0..SEEDS).find_map(|seed| Some((seed, case::violation(&runtime, scenario, seed)?)));
    plant(None);
    found.map(|(seed, violation)| (seed, format!("{}: {}", violation.invariant, violation.fault)))
}

#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    let only = std::env::var(ONLY).ok();
    let is_meant = |planted: &Plant| only.as_ref().is_none_or(|only| format!("{planted:?}") == *only);
    for planted in Plant::ALL.into_iter().filter(is_meant) {
        let began = std::time::Instant::now();
        match caught(planted) {
            Some((seed, violation)) => println!("{planted:?}: seed {seed}, {:?}, {violation}", began.elapsed()),
            None => missed.push(planted),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
