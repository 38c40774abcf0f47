//! The example rows: flights out of New York City in 2013, read from the CSV of `examples/`.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Rows of one INSERT.
pub const ROWS_PER_INSERT: usize = 1000;

/// How a field of the CSV becomes a literal of SQL.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Integer,
    Timestamp,
}

/// The columns that are loaded as they stand; `flight_date` is made of three fields.
const FIELDS: [(&str, Kind); 14] = [
    ("time_hour", Kind::Timestamp),
    ("carrier", Kind::Text),
    ("flight", Kind::Integer),
    ("origin", Kind::Text),
    ("dest", Kind::Text),
    ("tailnum", Kind::Text),
    ("sched_dep_time", Kind::Integer),
    ("dep_time", Kind::Integer),
    ("dep_delay", Kind::Integer),
    ("sched_arr_time", Kind::Integer),
    ("arr_time", Kind::Integer),
    ("arr_delay", Kind::Integer),
    ("air_time", Kind::Integer),
    ("distance", Kind::Integer),
];

/// One flight: the values of an INSERT, and what is needed to know the right answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flight {
    /// Month of the scheduled departure, New York time.
    pub month: u8,
    /// Day of the month of the scheduled departure, New York time.
    pub day: u8,
    /// Miles.
    pub distance: i64,
    /// It never took off.
    pub cancelled: bool,
    values: String,
}

/// What a correct answer adds up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of flights.
    pub flights: i64,
    /// Sum of their distances.
    pub miles: i64,
}

/// Reads the file and checks every value that is read as a number.
pub fn read(path: &Path) -> Result<Vec<Flight>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    parse(&text).with_context(|| format!("failed to read the flights in {}", path.display()))
}

/// What the flights add up to.
pub fn totals<'a>(flights: impl IntoIterator<Item = &'a Flight>) -> Totals {
    flights
        .into_iter()
        .fold(Totals::default(), |sum, flight| Totals { flights: sum.flights + 1, miles: sum.miles + flight.distance })
}

/// The query whose one row is [`Totals`].
pub fn totals_query(table: &str) -> String {
    format!("SELECT COUNT(*) AS flights, SUM(distance) AS miles FROM {table}")
}

/// INSERT statements of at most [`ROWS_PER_INSERT`] rows each, with the number of their rows.
pub fn inserts(table: &str, flights: &[Flight]) -> impl Iterator<Item = (usize, String)> {
    let columns: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    let head = format!("INSERT INTO {table} (flight_date, {}) VALUES\n", columns.join(", "));
    flights.chunks(ROWS_PER_INSERT).map(move |chunk| {
        let rows: Vec<&str> = chunk.iter().map(|flight| flight.values.as_str()).collect();
        (chunk.len(), format!("{head}{}", rows.join(",\n")))
    })
}

fn parse(text: &str) -> Result<Vec<Flight>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().context("the file is empty")?.split(',').collect();
    lines
        .enumerate()
        .map(|(index, line)| {
            let record = Record { header: &header, fields: line.split(',').collect() };
            flight(&record).with_context(|| format!("line {}", index + 2))
        })
        .collect()
}

/// One line. The data hold no commas within a field, so that a comma is always an end.
struct Record<'a> {
    header: &'a [&'a str],
    fields: Vec<&'a str>,
}

impl Record<'_> {
    fn field(&self, name: &str) -> Result<&str> {
        let at = self.header.iter().position(|column| *column == name);
        at.and_then(|at| self.fields.get(at).copied()).with_context(|| format!("there is no field {name}"))
    }

    fn number(&self, name: &str) -> Result<i64> {
        let text = self.field(name)?;
        text.parse().with_context(|| format!("{name} is {text:?}, not a whole number"))
    }

    fn literal(&self, name: &str, kind: Kind) -> Result<String> {
        let text = self.field(name)?;
        if text == "NA" || text.is_empty() {
            return Ok("NULL".to_owned());
        }
        Ok(match kind {
            Kind::Text => format!("'{}'", text.replace('\'', "''")),
            Kind::Integer => self.number(name)?.to_string(),
            // The data write UTC as `2013-01-01T10:00:00Z`.
            Kind::Timestamp => match text.strip_suffix('Z').and_then(|text| text.split_once('T')) {
                Some((date, time)) => format!("'{date} {time}'"),
                None => bail!("{name} is {text:?}, not a time such as 2013-01-01T10:00:00Z"),
            },
        })
    }
}

fn flight(record: &Record<'_>) -> Result<Flight> {
    let [year, month, day] = ["year", "month", "day"].map(|name| record.number(name));
    let (year, month, day) = (year?, month?, day?);
    let literals: Vec<String> = FIELDS.iter().map(|(name, kind)| record.literal(name, *kind)).collect::<Result<_>>()?;
    Ok(Flight {
        month: u8::try_from(month).context("month is no month")?,
        day: u8::try_from(day).context("day is no day")?,
        distance: record.number("distance")?,
        cancelled: record.field("dep_time")? == "NA",
        values: format!("('{year:04}-{month:02}-{day:02}', {})", literals.join(", ")),
    })
}

#[cfg(test)]
mod tests;
