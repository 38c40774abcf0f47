//! The bugs of the storage model, planted in the real code one at a time: the model test must catch each within few seeds.

use super::case;
use super::program::{Move, Scenario, Span};
use crate::plant::Plant;
use crate::plant::testing::plant;

/// Seeds within which each must be caught.
const SEEDS: u64 = 400;

/// The environment names the only one to plant, for who looks into it.
const ONLY: &str = "KALAMDB_PLANT";

/// Which random programs catch it; none where it takes what chance seldom brings together, and a program of its own does.
fn scenario_of(plant: Plant) -> Option<Scenario> {
    Some(match plant {
        Plant::VacuumIgnoresReaders | Plant::RemovedWhenPrepared => return None,
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
    })
}

/// A program that catches it, and the invariant that does not hold then.
fn program_of(plant: Plant) -> (&'static str, Vec<Move>) {
    let vacuum_at = |task| [Move::Vacuum(0, 0), Move::Run(task, 20)];
    let replaces_a_file = [Move::Write(0, vec![(0, 0, false)]), Move::Group(0, 1), Move::Flush(0, 0)];
    match plant {
        // The reader's is the first task.
        Plant::VacuumIgnoresReaders => {
            let flushes_and_waits = [Move::Run(1, 20), Move::Age(Span::Week)];
            let moves = [&[Move::Hold(0)][..], &replaces_a_file, &flushes_and_waits, &vacuum_at(1)];
            ("snapshots_stay_true", moves.concat())
        }
        // Its commit is on its way for a week.
        Plant::RemovedWhenPrepared => {
            let stalls = [Move::Run(0, 5), Move::Age(Span::Week), Move::Run(0, 20)];
            ("outside_reader_sees_flushed_rows", [&replaces_a_file[..], &stalls, &vacuum_at(0)].concat())
        }
        plant => unreachable!("random programs catch {plant:?}"),
    }
}

/// The first seed that catches it, and what it says.
fn caught(planted: Plant) -> Option<(u64, String)> {
    case::prepare();
    plant(Some(planted));
    let scenario = scenario_of(planted)?;
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
    let is_of_group = |planted: &Plant| scenario_of(*planted).is_some_and(|scenario| GROUPS[group].contains(&scenario));
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
            let is_tried = |scenario: Scenario| GROUPS.iter().any(|group| group.contains(&scenario));
            assert!(Plant::ALL.into_iter().filter_map(scenario_of).all(is_tried));
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

#[test]
fn bugs_that_chance_does_not_reach_are_caught_by_programs_of_their_own() {
    case::prepare();
    let runtime = case::runtime();
    for planted in Plant::ALL.into_iter().filter(|planted| scenario_of(*planted).is_none()) {
        let (invariant, program) = program_of(planted);
        assert_eq!(case::violation_of(&runtime, &program), None, "{planted:?} is not planted");
        plant(Some(planted));
        let found = case::violation_of(&runtime, &program);
        plant(None);
        assert_eq!(found.as_ref().map(|found| found.invariant), Some(invariant), "{planted:?}: {found:?}");
    }
}
