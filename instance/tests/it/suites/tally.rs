//! How many queries passed, and why others did not.

use std::collections::BTreeMap;
use std::fmt;

/// How a query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The same rows, or a refusal where one was expected.
    Passed,
    /// Left out: it shows DataFusion's plans or settings.
    OfDataFusion,
    /// Left out: its table is made of files, views or functions that we do not have, or lacks for one of the other reasons.
    NoTable,
    /// Refused: a type that no table of ours has.
    NoType,
    /// Refused: a statement or function that this version does not have.
    NotAvailable,
    /// Refused, though DataFusion answers.
    Refused,
    /// Other rows.
    Different,
    /// The same rows in another order, where the query asks for none.
    Order,
    /// The same, but for fractions of a microsecond or a time zone, which the protocol does not carry.
    Times,
    /// The same, but for `_seq` and `_deleted`, which `*` shows at a table of ours.
    SystemColumns,
    /// Accepted, though DataFusion refuses.
    Accepted,
}

impl Class {
    const ALL: [Self; 11] = [
        Self::Passed,
        Self::OfDataFusion,
        Self::NoTable,
        Self::NoType,
        Self::NotAvailable,
        Self::Refused,
        Self::Different,
        Self::Order,
        Self::Times,
        Self::SystemColumns,
        Self::Accepted,
    ];

    fn about(self) -> &'static str {
        match self {
            Self::Passed => "the same rows, or refused where a refusal is expected",
            Self::OfDataFusion => "left out: plans and settings of DataFusion itself",
            Self::NoTable => "left out: the table needs files, views, functions or statements that are not there",
            Self::NoType => "refused: a type that the protocol does not have (unsigned, lists, structs, intervals, …)",
            Self::NotAvailable => "refused with NOT_AVAILABLE: not in this version",
            Self::Refused => "refused for another reason",
            Self::Different => {
                "other rows: a type that tables do not have came back as the nearest one, a limit without ORDER BY, `* REPLACE` with `_updated`"
            }
            Self::Order => "the same rows in another order, where the query asks for none",
            Self::Times => "the same but for nanoseconds or a time zone, which the protocol does not carry",
            Self::SystemColumns => "the same but for `_seq` and `_deleted` behind `*`",
            Self::Accepted => "answered where DataFusion's test expects a refusal",
        }
    }

    /// Of an error's text.
    pub fn of_error(text: &str, otherwise: Self) -> Self {
        match text {
            _ if text.contains("SKIP: plan") => Self::OfDataFusion,
            _ if text.contains("SKIP: table") => Self::NoTable,
            _ if text.contains("SKIP: type") => Self::NoType,
            _ if otherwise == Self::Passed => Self::Passed,
            _ if text.contains("NOT_AVAILABLE") => Self::NotAvailable,
            _ if text.contains("_seq") || text.contains("_deleted") => Self::SystemColumns,
            _ => otherwise,
        }
    }

    fn is_left_out(self) -> bool {
        matches!(self, Self::OfDataFusion | Self::NoTable | Self::NoType)
    }

    pub fn is_failure(self) -> bool {
        self != Self::Passed && !self.is_left_out()
    }
}

/// Counts by class.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<Class, usize>);

impl Tally {
    pub fn count(&mut self, class: Class) {
        *self.0.entry(class).or_default() += 1;
    }

    pub fn add(&mut self, other: Self) {
        other.0.into_iter().for_each(|(class, count)| *self.0.entry(class).or_default() += count);
    }

    fn of(&self, class: Class) -> usize {
        self.0.get(&class).copied().unwrap_or_default()
    }

    fn judged(&self) -> usize {
        self.0.iter().filter(|(class, _)| !class.is_left_out()).map(|(_, count)| count).sum()
    }

    /// Share of the judged queries that passed, in percent, rounded down.
    pub fn percent(&self) -> usize {
        self.of(Class::Passed) * 100 / self.judged().max(1)
    }

    pub fn report(&self) -> String {
        let lines = Class::ALL.map(|class| format!("{:>6}  {}", self.of(class), class.about()));
        format!("{}\n{}", self, lines.join("\n"))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, judged) = (self.of(Class::Passed), self.judged());
        let left_out: usize = self.0.values().sum::<usize>() - judged;
        write!(f, "{passed:>5} of {judged:>5} queries pass ({} %), {left_out} left out", self.percent())
    }
}
