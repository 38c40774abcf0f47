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
        Plant::FolderBeforeMirror => Scenario::Dropped,
        Plant::AlterTrustsItsLook => Scenario::Altered,
        Plant::ExpiredRowsAreRead => Scenario::Streams,
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

/// Scenarios whose bugs are caught by one test, so that the tests share the work.
const GROUPS: [&[Scenario]; 6] = [
    &[Scenario::Flush],
    &[Scenario::Compaction, Scenario::Lost],
    &[Scenario::Owners],
    &[Scenario::Newcomers, Scenario::Resumed],
    &[Scenario::Altered, Scenario::Streams],
    &[Scenario::Dropped],
];

fn each_is_caught(group: usize) {
    let mut missed = Vec::new();
    let only = std::env::var(ONLY).ok();
    let is_meant = |planted: &Plant| only.as_ref().is_none_or(|only| format!("{planted:?}") == *only);
    let is_of_group = |planted: &Plant| GROUPS[group].contains(&scenario_of(*planted));
    for planted in Plant::ALL.into_iter().filter(is_of_group).filter(is_meant) {
        let began = std::time::Instant::now();
        match caught(planted) {
            Some((seed, violation)) => println!("{planted:?}: seed {seed}, {:?}, {violation}", began.elapsed()),
            None => missed.push(planted),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

macro_rules! groups {
    ($($name:ident: $group:literal;)*) => {
        $(#[test]
        fn $name() {
            each_is_caught($group);
        })*

        #[test]
        fn every_planted_bug_has_its_test() {
            let groups = [$($group),*];
            assert_eq!(groups.len(), GROUPS.len());
            let is_tried = |planted: &Plant| GROUPS.iter().any(|group| group.contains(&scenario_of(*planted)));
            assert!(Plant::ALL.iter().all(is_tried));
        }
    };
}

groups! {
    bugs_of_flushes_are_caught: 0;
    bugs_of_compactions_and_vacuums_are_caught: 1;
    bugs_of_owners_are_caught: 2;
    bugs_of_recoveries_and_resumes_are_caught: 3;
    bugs_of_alters_and_streams_are_caught: 4;
    bugs_of_drops_are_caught: 5;
}
