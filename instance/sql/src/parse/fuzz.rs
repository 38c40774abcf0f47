//! No text makes the parser, or anything that judges statements before they run, panic.
//!
//! The seeds are the statements of `tests/slt`, cut, doubled and mixed. `KALAMDB_FUZZ_CASES` says how many; a failure is told as the shortest
//! text that was found.

use std::path::Path;
use std::sync::LazyLock;

use kalamdb_engine::catalog::{Catalog, Role};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{STACK_BYTES, parse_batch};
use crate::{Identity, audit, authorize, observe, transaction};

/// What a continuous integration run takes.
const CASES: u32 = 4000;
/// Pieces that statements are made of, and that they are not.
const PIECES: [&str; 36] = [
    "(",
    ")",
    ",",
    ";",
    "'",
    "\"",
    "--",
    "/*",
    "*/",
    "$1",
    "$",
    "::",
    "->",
    "->>",
    "?",
    "\\",
    "\0",
    "ü",
    "𝔘",
    "0x",
    "1e999",
    "NULL",
    "IF",
    "TABLE",
    "USER",
    "STORAGE",
    "WITH",
    "SELECT",
    "FROM",
    "BEGIN",
    "COMMIT",
    "RETURNING",
    "ON CONFLICT",
    "CAST(",
    "CASE WHEN",
    "x'",
];

static SEEDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/slt");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    files.flat_map(|file| statements(&file)).collect()
});

/// The lines behind each `statement` or `query`, up to the expected rows.
fn statements(file: &str) -> Vec<String> {
    let records = file.split("\n\n").map(|record| {
        let lines = record.lines().filter(|line| !line.starts_with('#') && !line.starts_with("connection"));
        lines.skip(1).take_while(|line| *line != "----").collect::<Vec<_>>().join("\n")
    });
    records.filter(|text| !text.is_empty()).collect()
}

/// One change of a text. Places are shares of its length.
#[derive(Debug, Clone)]
enum Edit {
    Insert(f64, &'static str),
    InsertChar(f64, char),
    Cut(f64, f64),
    Double(f64, f64),
    Splice(f64, usize, f64),
    Repeat(f64, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = || 0.0..1.0f64;
    prop_oneof![
        (place(), prop::sample::select(PIECES.as_slice())).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        (place(), any::<char>()).prop_map(|(at, one)| Edit::InsertChar(at, one)),
        (place(), 0.0..0.3f64).prop_map(|(at, share)| Edit::Cut(at, share)),
        (place(), 0.0..0.3f64).prop_map(|(at, share)| Edit::Double(at, share)),
        (place(), any::<usize>(), place()).prop_map(|(at, other, from)| Edit::Splice(at, other, from)),
        (place(), 1..300usize).prop_map(|(at, times)| Edit::Repeat(at, times)),
    ]
}

fn apply(text: &str, edit: &Edit) -> String {
    let place = |text: &str, share: f64| text.floor_char_boundary((text.len() as f64 * share) as usize);
    let part = |at: f64, share: f64| place(text, at)..place(text, (at + share).min(1.0)).max(place(text, at));
    let with = |at: f64, piece: &str| {
        let at = place(text, at);
        format!("{}{piece}{}", &text[..at], &text[at..])
    };
    match edit {
        Edit::Insert(at, piece) => with(*at, &format!(" {piece} ")),
        Edit::InsertChar(at, one) => with(*at, &one.to_string()),
        Edit::Cut(at, share) => {
            let cut = part(*at, *share);
            format!("{}{}", &text[..cut.start], &text[cut.end..])
        }
        Edit::Double(at, share) => with(*at, &text[part(*at, *share)]),
        Edit::Splice(at, other, from) => {
            let other = &SEEDS[other % SEEDS.len()];
            format!("{}{}", &text[..place(text, *at)], &other[place(other, *from)..])
        }
        Edit::Repeat(at, times) => with(*at, &"(".repeat(*times)),
    }
}

/// All that is done with a text before a statement runs.
fn judge(text: &str) {
    let Ok(batch) = parse_batch(text) else { return };
    let catalog = Catalog::default();
    let identity = Identity { user: "ann".into(), role: Role::Service, address: None };
    let _ = transaction::check(&batch);
    for parsed in &batch {
        let _ = authorize::check(&parsed.statement, &catalog, "default", &identity);
        let _ = observe::subject(&parsed.statement, "default");
        let _ = audit::change(parsed, "default", &identity, 0);
    }
}

#[test]
fn no_text_makes_the_parser_panic() {
    let cases = std::env::var("KALAMDB_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let texts = (any::<usize>(), prop::collection::vec(edit(), 0..6));
    let run = move || {
        let ended = TestRunner::new(config).run(&texts, |(seed, edits)| {
            let seed = SEEDS[seed % SEEDS.len()].clone();
            judge(&edits.iter().fold(seed, |text, edit| apply(&text, edit)));
            Ok(())
        });
        ended.unwrap();
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap().join().unwrap();
}

#[test]
fn the_seeds_are_statements() {
    assert!(SEEDS.len() > 300, "{} seeds", SEEDS.len());
    let good = SEEDS.iter().filter(|seed| parse_batch(seed).is_ok()).count();
    assert!(good * 10 > SEEDS.len() * 8, "{good} of {} can be read", SEEDS.len());
}
