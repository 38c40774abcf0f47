//! What a person sees while a command runs: steps, how long each took, a spinner where the output is a terminal.
//!
//! On a terminal the running steps share one line that moves; elsewhere each step is a plain line when it starts, one
//! every half a minute while it runs, and another when it ends, so that a log reads from top to bottom.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{LazyLock, Mutex, MutexGuard, Once};
use std::time::{Duration, Instant};

use anyhow::Result;

/// How far a step has come, for people; `None` where there is nothing to tell yet.
type Progress = Box<dyn Fn() -> Option<String> + Send>;

/// A step that runs.
struct Running {
    name: String,
    started: Instant,
    progress: Progress,
}

/// The steps that run now, by their order of start.
#[derive(Default)]
struct Board {
    running: BTreeMap<u64, Running>,
    next: u64,
    frame: usize,
}

static BOARD: LazyLock<Mutex<Board>> = LazyLock::new(Mutex::default);
static TICKER: Once = Once::new();
const FRAMES: [&str; 4] = ["|", "/", "-", "\\"];
/// How often the spinner moves on a terminal.
const FRAME_TIME: Duration = Duration::from_millis(200);
/// How often a step that runs is told of elsewhere: a log that stands still for longer looks like a program that hangs.
const LINE_TIME: Duration = Duration::from_secs(30);

fn board() -> MutexGuard<'static, Board> {
    BOARD.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Runs `work` as a step: tells its name, its end and the time it took.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    step_with_progress(name, Box::new(|| None), work)
}

/// The same, where `progress` says how far it has come. It is asked from time to time, on another thread.
pub fn step_with_progress<T>(name: &str, progress: Progress, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let id = begin(Running { name: name.to_owned(), started, progress });
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

fn begin(step: Running) -> u64 {
    TICKER.call_once(start_ticker);
    let mut board = board();
    let id = board.next;
    board.next += 1;
    if !is_terminal() {
        print_line(&format!("   ...  {}", step.name));
    }
    board.running.insert(id, step);
    draw(&board);
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
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(if is_terminal() { FRAME_TIME } else { LINE_TIME });
            let mut board = board();
            board.frame += 1;
            if is_terminal() {
                draw(&board);
            } else {
                board.running.values().filter(|step| step.started.elapsed() >= LINE_TIME).for_each(tell_step);
            }
        }
    });
}

fn tell_step(step: &Running) {
    print_line(&format!("   ...  {}", account(step)));
}

/// `build the workspace 2 min 30 s, 120 of about 560 crates`.
fn account(step: &Running) -> String {
    let progress = (step.progress)().map_or_else(String::new, |progress| format!(", {progress}"));
    format!("{} {}{progress}", step.name, duration(step.started.elapsed()))
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
    let steps: Vec<String> = board.running.values().map(account).collect();
    let line: String = steps.join("  |  ").chars().take(100).collect();
    let _ = write!(std::io::stdout(), "\r\x1b[2K    {frame}   {line}");
    let _ = std::io::stdout().flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_tells_how_far_it_has_come() {
        let mut step = Running {
            name: "build".to_owned(),
            started: Instant::now() - Duration::from_secs(150),
            progress: Box::new(|| Some("120 of about 560 crates".to_owned())),
        };
        assert_eq!(account(&step), "build 2 min 30 s, 120 of about 560 crates");
        step.progress = Box::new(|| None);
        assert_eq!(account(&step), "build 2 min 30 s");
    }
}
