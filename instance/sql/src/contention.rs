//! Starting over where others were faster.
//!
//! Attempts are not counted: of those that collide one always wins, so that whoever goes on gets its turn, and only time is a reason to
//! give up.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::{ErrorCode, SqlError};

/// The first pause before a statement starts over; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause: who has waited long must not fall behind those that have just come.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Makes attempts until one ends otherwise than by a conflict, or the time is up; `reason` says how others were faster, for whoever reads
/// the error then.
pub async fn starting_over<T, F>(limit: Duration, reason: &str, attempt: impl Fn() -> F) -> Result<T, SqlError>
where
    F: Future<Output = Result<T, SqlError>>,
{
    let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        match attempt().await {
            Err(error) if error.code == ErrorCode::Conflict => {}
            result => return result,
        }
        // Those that collided must not keep in step.
        let jittered = pause.mul_f64(0.5 + chance());
        if begun.elapsed() + jittered >= limit {
            let text = format!("{reason} again and again for {} s; try again", limit.as_secs());
            return Err(SqlError::new(ErrorCode::Conflict, text));
        }
        tokio::time::sleep(jittered).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How often an operation is tried that others overtake so many times, and what comes of it.
    async fn attempts(limit: Duration, overtaken: u32, then: ErrorCode) -> (u32, SqlError) {
        let made = Cell::new(0);
        let attempt = || {
            made.set(made.get() + 1);
            let code = if made.get() <= overtaken { ErrorCode::Conflict } else { then };
            std::future::ready(Err::<(), _>(SqlError::new(code, "it")))
        };
        let error = starting_over(limit, "others were faster", attempt).await.unwrap_err();
        (made.get(), error)
    }

    #[tokio::test]
    async fn conflicts_are_not_counted_and_other_ends_are_ends() {
        let (made, error) = attempts(Duration::from_secs(3600), 30, ErrorCode::DuplicateKey).await;
        assert_eq!((made, error.code), (31, ErrorCode::DuplicateKey));
    }

    #[tokio::test]
    async fn when_the_time_is_up_the_conflict_is_told() {
        let (made, error) = attempts(Duration::ZERO, 30, ErrorCode::DuplicateKey).await;
        assert_eq!((made, error.code), (1, ErrorCode::Conflict));
        assert!(error.message.contains("others were faster"), "{}", error.message);
    }
}
