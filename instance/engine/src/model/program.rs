//! Programs: what is begun, and who goes on, move by move. A seed gives a program, and a program gives one history.

use proptest::prelude::*;
use proptest::strategy::{Union, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::wire::Fate;

/// One move. Numbers that name a process, a table or a task are taken modulo how many there are.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// Rows are looked up, to be committed together: (table, row, whether it is deleted).
    Write(u8, Vec<(u8, u8, bool)>),
    /// The same in a transaction.
    Transact(u8, Vec<(u8, u8, bool)>),
    /// So many writers of a process commit, in one group.
    Group(u8, u8),
    /// A flush job of a process and a table.
    Flush(u8, u8),
    /// A compaction job.
    Compact(u8, u8),
    /// A vacuum.
    Vacuum(u8, u8),
    /// A vacuum of the folders of dropped tables.
    VacuumDropped(u8),
    /// A reader takes its snapshot.
    Read(u8),
    /// A reader takes its snapshot, and looks into every table at once, so that it holds what it will read.
    Hold(u8),
    /// A task goes on to its next point; a Delta commit that it sends there meets this fate.
    Turn(u16, Fate),
    /// A task goes on for so many points, with nobody between them.
    Run(u16, u8),
    /// A commit that was on its way for long arrives.
    Arrive(u8),
    /// The process is killed, or stalls, and a new one has its volume. Its Delta commit may still be on its way.
    Restart(u8),
    /// A process with an empty volume starts beside the others.
    StartEmpty,
    /// A copy of a volume is set aside.
    Save(u8),
    /// A process starts with it, beside the others.
    Restore,
    /// A client goes away, to resume later.
    Leave(u8),
    /// The oldest changes of a table go.
    Trim(u8, u8),
    /// A table gets a column.
    AddColumn(u8),
    /// A table loses the last column that was added.
    DropColumn(u8),
    /// That column gets another name.
    RenameColumn(u8),
    /// A column, or the key, gets another type, for which the rows are looked through: (table, column, type).
    Modify(u8, u8, u8),
    /// A column takes NULL from now on, or none, for which the rows are looked through: (table, column, whether).
    SetNullable(u8, u8, bool),
    /// A table is dropped, and one of its name made.
    Recreate(u8),
    /// A table is dropped.
    Drop(u8),
    /// One that was dropped is made anew.
    Make(u8),
    /// A stream table is made, where there is none.
    MakeStream,
    /// The stream table is dropped.
    DropStream,
    /// What has expired in stream tables is dropped.
    DropExpired(u8),
    /// Time goes by.
    Wait(Until),
    /// So much time passes that what was removed may go.
    Age(Span),
    /// The same, and a table and what was dropped are vacuumed at once.
    Sweep(Span, u8),
}

/// A long time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Longer than what was removed stays for readers outside.
    Week,
    /// Longer than entries of a log stay that a checkpoint has replaced.
    Month,
}

/// Up to where time goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// A few readings of the clock before the next row of a stream table expires.
    JustBefore,
    /// The moment at which it does.
    Expiry,
    /// Half of that time.
    Half,
}

/// What a program is mainly about: how often each kind of move comes, beside writes, flushes and turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Writes and flushes of one process after another.
    Flush,
    /// Readers with old snapshots.
    Readers,
    /// Compactions beside flushes.
    Compaction,
    /// One process follows another, commits are late or lost, vacuums delete.
    Owners,
    /// Volumes are lost: empty ones recover, and the old owner lives on.
    Lost,
    /// Two empty volumes at once.
    Newcomers,
    /// Copies of old volumes.
    Restored,
    /// Clients that resume.
    Resumed,
    /// Tables are altered, dropped and made.
    Tables,
    /// Columns get other types, and take NULL or do not, beside writers.
    Altered,
    /// Tables are dropped and made, and their folders vacuumed.
    Dropped,
    /// What was removed goes, and checkpoints replace entries of the log.
    Expired,
    /// Stream tables, whose rows expire.
    Streams,
    /// All of it.
    Wide,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Flush,
        Self::Readers,
        Self::Compaction,
        Self::Owners,
        Self::Lost,
        Self::Newcomers,
        Self::Restored,
        Self::Resumed,
        Self::Tables,
        Self::Altered,
        Self::Dropped,
        Self::Expired,
        Self::Streams,
        Self::Wide,
    ];

    /// Moves of a program, at least and at most.
    fn length(self) -> std::ops::Range<usize> {
        match self {
            Self::Wide => 40..90,
            Self::Resumed => 8..24,
            _ => 16..48,
        }
    }

    fn moves(self) -> Vec<(u32, BoxedStrategy<Move>)> {
        // Newcomers are about owners: rows are there already. What a client is told hangs on no job.
        let often = if self == Self::Newcomers { 2 } else { 10 };
        let (turns, runs) = if self == Self::Resumed { (4, 2) } else { (16, 16) };
        let is_long = matches!(self, Self::Newcomers | Self::Expired | Self::Dropped);
        let points = if is_long { 2..16u8 } else { 2..10 };
        let rows = move || writes(matches!(self, Self::Streams | Self::Wide));
        let mut moves = vec![
            (often, rows().prop_map(|(owner, rows)| Move::Write(owner, rows)).boxed()),
            (2, rows().prop_map(|(owner, rows)| Move::Transact(owner, rows)).boxed()),
            (often, (number(), 1..4u8).prop_map(|(owner, writers)| Move::Group(owner, writers)).boxed()),
            (5, of_table(Move::Flush)),
            (turns, turn(Just(Fate::Lands).boxed())),
            (runs, (any::<u16>(), points).prop_map(|(task, points)| Move::Run(task, points)).boxed()),
        ];
        let fates = prop_oneof![6 => Just(Fate::Lands), 1 => Just(Fate::AnswerLost), 1 => Just(Fate::Lost), 1 => Just(Fate::Late)];
        let mut also = |weight, strategy| moves.push((weight, strategy));
        let is = |scenarios: &[Self]| scenarios.contains(&self) || self == Self::Wide;
        if is(&[Self::Readers]) {
            also(6, number().prop_map(Move::Read).boxed());
        }
        if is(&[Self::Readers, Self::Compaction, Self::Owners, Self::Lost, Self::Newcomers, Self::Restored]) {
            also(if self == Self::Newcomers { 10 } else { 5 }, of_table(Move::Compact));
        }
        if is(&[Self::Flush, Self::Compaction, Self::Owners, Self::Tables]) {
            also(2, number().prop_map(Move::Restart).boxed());
        }
        if is(&[Self::Owners]) {
            also(16, turn(fates.boxed()));
            also(2, number().prop_map(Move::Arrive).boxed());
            also(3, number().prop_map(Move::Restart).boxed());
        }
        if is(&[Self::Owners, Self::Lost, Self::Newcomers]) {
            also(4, of_table(Move::Vacuum));
        }
        if is(&[Self::Lost]) {
            also(2, Just(Move::StartEmpty).boxed());
        }
        if is(&[Self::Newcomers]) {
            also(5, Just(Move::StartEmpty).boxed());
        }
        if is(&[Self::Restored, Self::Resumed]) {
            also(3, number().prop_map(Move::Save).boxed());
            also(3, Just(Move::Restore).boxed());
        }
        if is(&[Self::Resumed]) {
            also(4, number().prop_map(Move::Leave).boxed());
            also(3, of_table(Move::Trim));
            also(1, number().prop_map(Move::Restart).boxed());
        }
        if is(&[Self::Tables]) {
            also(3, number().prop_map(Move::AddColumn).boxed());
            also(2, number().prop_map(Move::DropColumn).boxed());
            also(2, number().prop_map(Move::RenameColumn).boxed());
            also(1, number().prop_map(Move::Recreate).boxed());
            also(3, of_table(Move::Compact));
            also(1, Just(Move::StartEmpty).boxed());
            also(3, number().prop_map(Move::Read).boxed());
        }
        if is(&[Self::Altered]) {
            let column = || (prop_oneof![2 => Just(0u8), 1 => Just(1)], number());
            also(4, column().prop_map(|(table, _)| Move::AddColumn(table)).boxed());
            also(6, (column(), number()).prop_map(|((table, column), to)| Move::Modify(table, column, to)).boxed());
            let nullable = (column(), prop::bool::weighted(0.2));
            also(6, nullable.prop_map(|((table, column), whether)| Move::SetNullable(table, column, whether)).boxed());
            also(1, number().prop_map(Move::RenameColumn).boxed());
            also(1, number().prop_map(Move::DropColumn).boxed());
            also(2, of_table(Move::Compact));
            also(2, number().prop_map(Move::Read).boxed());
            also(1, number().prop_map(Move::Restart).boxed());
            also(1, Just(Move::StartEmpty).boxed());
        }
        if is(&[Self::Dropped]) {
            also(2, number().prop_map(Move::Recreate).boxed());
            also(2, number().prop_map(Move::Drop).boxed());
            also(3, number().prop_map(Move::Make).boxed());
            also(5, number().prop_map(Move::VacuumDropped).boxed());
        }
        if is(&[Self::Dropped, Self::Expired]) {
            let span = || prop_oneof![2 => Just(Span::Week), 1 => Just(Span::Month)];
            also(2, span().prop_map(Move::Age).boxed());
            also(5, (span(), 0..2u8).prop_map(|(span, table)| Move::Sweep(span, table)).boxed());
            also(4, number().prop_map(Move::Hold).boxed());
            also(4, of_table(Move::Vacuum));
            also(6, of_table(Move::Compact));
            also(2, number().prop_map(Move::Restart).boxed());
            also(1, number().prop_map(Move::Read).boxed());
            also(if self == Self::Dropped { 2 } else { 1 }, Just(Move::StartEmpty).boxed());
        }
        if is(&[Self::Streams]) {
            let until = prop_oneof![Just(Until::JustBefore), Just(Until::Expiry), Just(Until::Half)];
            also(10, until.prop_map(Move::Wait).boxed());
            also(5, number().prop_map(Move::DropExpired).boxed());
            also(4, number().prop_map(Move::Read).boxed());
            also(2, number().prop_map(Move::Leave).boxed());
            also(2, number().prop_map(Move::Restart).boxed());
            also(2, Just(Move::MakeStream).boxed());
            also(1, Just(Move::DropStream).boxed());
        }
        moves
    }

    /// Programs of it.
    pub fn programs(self) -> impl Strategy<Value = Vec<Move>> {
        let moves = prop::collection::vec(Union::new_weighted(self.moves()), self.length());
        let first = (self == Self::Streams).then_some(Move::MakeStream);
        moves.prop_map(move |moves| first.clone().into_iter().chain(moves).collect())
    }

    /// The program of a seed, as a tree by which it can be made simpler.
    pub fn program(self, seed: u64) -> impl ValueTree<Value = Vec<Move>> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8] = self as u8;
        let chance = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), chance);
        self.programs().new_tree(&mut runner).expect("every strategy has a value")
    }
}

fn number() -> BoxedStrategy<u8> {
    any::<u8>().boxed()
}

fn of_table(of: fn(u8, u8) -> Move) -> BoxedStrategy<Move> {
    // The first table twice as often as the other, so that its jobs meet.
    (number(), prop_oneof![2 => Just(0u8), 1 => Just(1)]).prop_map(move |(owner, table)| of(owner, table)).boxed()
}

fn turn(fates: BoxedStrategy<Fate>) -> BoxedStrategy<Move> {
    (any::<u16>(), fates).prop_map(|(task, fate)| Move::Turn(task, fate)).boxed()
}

fn writes(streams: bool) -> impl Strategy<Value = (u8, Vec<(u8, u8, bool)>)> {
    // Few rows again and again, so that writers, jobs and readers meet at them.
    let table = if streams {
        prop_oneof![1 => Just(0u8), 1 => Just(1), 4 => Just(2)].boxed()
    } else {
        prop_oneof![3 => Just(0u8), 1 => Just(1)].boxed()
    };
    let row = (table, prop_oneof![5 => 0..2u8, 1 => 2..6u8], prop::bool::weighted(0.3));
    (number(), prop_oneof![4 => prop::collection::vec(row.clone(), 1..2), 1 => prop::collection::vec(row, 2..4)])
}
