//! What a person sees while a command runs: steps, how long each took, a spinner where the output is a terminal.
//!
//! On a terminal the running steps share one line that moves; elsewhere each step is a plain line when it starts and
//! another when it ends, so that a log reads from top to bottom.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{LazyLock, Mutex, MutexGuard, Once};
use std::time::{Duration, Instant};

use anyhow::Result;

/// The steps that run now, by their order of start.
#[derive(Default)]
struct Board {
    running: BTreeMap<u64, (String, Instant)>,
    next: u64,
    frame: usize,
}

static BOARD: LazyLock<Mutex<Board>> = LazyLock::new(Mutex::default);
static TICKER: Once = Once::new();
const FRAMES: [&str; 4] = ["|", "/", "-", "\\"];

fn board() -> MutexGuard<'static, Board> {
    BOARD.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Runs `work` as a step: tells its name, its end and the time it took.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let id = begin(name, started);
    let result = work();
    let mark = if result.is_ok() { "done" } else { "FAILED" };
    end(id, &format!("{mark:>6}  {name}  ({})", duration(started.elapsed())));
    result
}

/// Prints a headline above a group of steps.
pub fn headline(text: &str) {
    say(&format!("\n== {text}"));
}

/// Prints a line without disturbing the spinner.
pub fn say(text: &str) {
    let board = board();
    clear_line();
    print_line(text);
    draw(&board);
}

/// Prints lines that belong to the step above, indented.
pub fn detail(text: &str) {
    for line in text.lines() {
        say(&format!("        {line}"));
    }
}

/// A duration as people read it.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        _ => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

fn begin(name: &str, started: Instant) -> u64 {
    TICKER.call_once(start_ticker);
    let mut board = board();
    let id = board.next;
    board.next += 1;
    board.running.insert(id, (name.to_owned(), started));
    if is_terminal() {
        draw(&board);
    } else {
        print_line(&format!("   ...  {name}"));
    }
    id
}

fn end(id: u64, line: &str) {
    let mut board = board();
    board.running.remove(&id);
    clear_line();
    print_line(line);
    draw(&board);
}

fn start_ticker() {
    if !is_terminal() {
        return;
    }
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let mut board = board();
            board.frame += 1;
            draw(&board);
        }
    });
}

/// A reader that went away is no reason to stop: the work goes on.
fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn clear_line() {
    if is_terminal() {
        let _ = write!(std::io::stdout(), "\r\x1b[2K");
    }
}

fn draw(board: &Board) {
    if !is_terminal() || board.running.is_empty() {
        return;
    }
    let frame = FRAMES[board.frame % FRAMES.len()];
    let steps: Vec<String> =
        board.running.values().map(|(name, started)| format!("{name} {}", duration(started.elapsed()))).collect();
    let line: String = steps.join("  |  ").chars().take(100).collect();
    let _ = write!(std::io::stdout(), "\r\x1b[2K    {frame}   {line}");
    let _ = std::io::stdout().flush();
}
