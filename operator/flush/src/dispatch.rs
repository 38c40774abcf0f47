//! Posts one flush job and follows it to its end.
//!
//! A post that got no answer is repeated under the same id, so it starts nothing twice. Where the id names a job that ended
//! before this dispatch began (an operator that restarted derives old ids again), the next attempt's id is taken.

use std::sync::Arc;
use std::time::Duration;

use kalamdb_api::flush::{FLUSH_JOBS_PATH, FlushJob, FlushRequest, FlushState};
use reqwest::StatusCode;
use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::scrape::with_causes;
use crate::{Discovery, Job, JobId};

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The rows are in the cold tier.
    Completed {
        /// Rows written.
        rows: u64,
        /// Bytes of Parquet written.
        bytes: u64,
    },
    /// There was nothing to flush.
    Skipped,
    /// The instance tried and failed; the rows are in the hot tier.
    Failed {
        /// What the instance says.
        message: String,
    },
    /// The instance refused the request.
    Refused {
        /// Status and answer.
        message: String,
    },
    /// The instance did not tell how it ended. Posting again under another id is harmless: a flush never flushes a row
    /// twice.
    Lost {
        /// What went wrong last.
        message: String,
    },
}

/// How patient a dispatch is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// One request.
    pub request_timeout: Duration,
    /// Between requests that failed.
    pub backoff: Backoff,
    /// Between questions about a job that runs.
    pub poll: Backoff,
    /// How long an instance may be silent before its job is given up.
    pub silence: Duration,
}

/// What a dispatch needs.
#[derive(Clone)]
pub struct Dispatcher {
    /// The HTTP client.
    pub client: reqwest::Client,
    /// Where instances are now.
    pub discovery: Arc<dyn Discovery>,
    /// How long to wait for what.
    pub patience: Patience,
    /// Random numbers in 0..1.
    pub jitter: Arc<dyn Fn() -> f64 + Send + Sync>,
}

/// No job has that many ended predecessors with the same epoch, unless the instance answers nonsense.
const MAX_PROBES: u32 = 64;

/// The longest message that is kept of what an instance says, in characters.
const MAX_MESSAGE: usize = 500;

enum Posted {
    /// The job is the instance's now, or was before.
    Known(FlushJob),
    /// A job of this id ended before we first asked for it.
    Past,
}

enum Failure {
    /// It may go better next time.
    Passing(String),
    /// It will not.
    Lasting(String),
}

impl Outcome {
    /// The outcome's name in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Completed { .. } => "completed",
            Self::Skipped => "skipped",
            Self::Failed { .. } => "failed",
            Self::Refused { .. } => "refused",
            Self::Lost { .. } => "lost",
        }
    }

    /// What went wrong, if anything did.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Completed { .. } | Self::Skipped => None,
            Self::Failed { message } | Self::Refused { message } | Self::Lost { message } => Some(message),
        }
    }
}

impl Dispatcher {
    /// Posts `job` and follows it to its end.
    pub async fn run(&self, job: &Job) -> Outcome {
        for attempt in job.attempt..job.attempt.saturating_add(MAX_PROBES) {
            let id = JobId::derive(&job.target, &job.table, job.epoch, attempt);
            match self.post(job, &id).await {
                Ok(Posted::Known(posted)) => return self.follow(job, &id, posted).await,
                Ok(Posted::Past) => {}
                Err(outcome) => return outcome,
            }
        }
        Outcome::Lost { message: format!("the instance knows {MAX_PROBES} ended jobs for one flush of {}", job.table) }
    }

    async fn post(&self, job: &Job, id: &JobId) -> Result<Posted, Outcome> {
        let request = FlushRequest { id: id.to_string(), table: job.table.0.clone(), reason: job.reason };
        let mut unanswered = false;
        let mut silence = Silence::new(self);
        loop {
            match self.ask(job, |client, url| client.post(format!("{url}{FLUSH_JOBS_PATH}")).json(&request)).await {
                // A job that has ended already is ours if an earlier post of this dispatch may have reached the instance.
                Ok((StatusCode::OK, posted)) if posted.state.is_final() && !unanswered => return Ok(Posted::Past),
                Ok((_, posted)) => return Ok(Posted::Known(posted)),
                Err(Failure::Lasting(message)) => return Err(Outcome::Refused { message }),
                Err(Failure::Passing(message)) => {
                    unanswered = true;
                    silence.wait_or_give_up(message).await?;
                }
            }
        }
    }

    async fn follow(&self, job: &Job, id: &JobId, mut state: FlushJob) -> Outcome {
        let mut polls = 0;
        let mut silence = Silence::new(self);
        while !state.state.is_final() {
            polls += 1;
            sleep(self.patience.poll.delay(polls, 0.0)).await;
            match self.ask(job, |client, url| client.get(format!("{url}{FLUSH_JOBS_PATH}/{id}"))).await {
                Ok((_, seen)) => {
                    state = seen;
                    silence = Silence::new(self);
                }
                Err(Failure::Lasting(message)) => return Outcome::Lost { message },
                Err(Failure::Passing(message)) => {
                    if let Err(outcome) = silence.wait_or_give_up(message).await {
                        return outcome;
                    }
                }
            }
        }
        ended(state)
    }

    async fn ask(
        &self,
        job: &Job,
        request: impl FnOnce(&reqwest::Client, &str) -> reqwest::RequestBuilder,
    ) -> Result<(StatusCode, FlushJob), Failure> {
        let target = self
            .discovery
            .target(&job.target)
            .ok_or_else(|| Failure::Passing("the instance is not running".to_owned()))?;
        let passing = |error: reqwest::Error| Failure::Passing(with_causes(&error));
        let answer = request(&self.client, &target.url)
            .bearer_auth(target.token.expose())
            .timeout(self.patience.request_timeout)
            .send()
            .await
            .map_err(passing)?;
        let status = answer.status();
        if status.is_success() {
            return Ok((status, answer.json().await.map_err(passing)?));
        }
        let body = answer.text().await.unwrap_or_default();
        let message = cut(&format!("{} answered with status {}: {}", target.url, status.as_u16(), body.trim()));
        match status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT
        {
            true => Err(Failure::Passing(message)),
            false => Err(Failure::Lasting(message)),
        }
    }
}

/// How long an instance has been silent, and how often it was asked meanwhile.
struct Silence<'a> {
    dispatcher: &'a Dispatcher,
    since: Instant,
    failures: u32,
}

impl<'a> Silence<'a> {
    fn new(dispatcher: &'a Dispatcher) -> Self {
        Self { dispatcher, since: Instant::now(), failures: 0 }
    }

    async fn wait_or_give_up(&mut self, message: String) -> Result<(), Outcome> {
        if self.since.elapsed() >= self.dispatcher.patience.silence {
            return Err(Outcome::Lost { message });
        }
        self.failures += 1;
        sleep(self.dispatcher.patience.backoff.delay(self.failures, (self.dispatcher.jitter)())).await;
        Ok(())
    }
}

fn ended(job: FlushJob) -> Outcome {
    let message = || cut(job.message.as_deref().unwrap_or("the instance gives no reason"));
    match job.state {
        FlushState::Completed => Outcome::Completed { rows: job.rows, bytes: job.bytes },
        FlushState::Skipped | FlushState::Cancelled => Outcome::Skipped,
        FlushState::Failed => Outcome::Failed { message: message() },
        FlushState::Queued | FlushState::Running => Outcome::Lost { message: "the job has not ended".to_owned() },
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
}
