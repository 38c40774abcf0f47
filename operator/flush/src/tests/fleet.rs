//! The scheduler against instances that answer over real HTTP: jobs that complete, fail, hang, and an operator that restarts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use kalamdb_api::flush::{FLUSH_JOBS_PATH, FlushJob, FlushRequest, FlushState};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::*;

/// An instance's tables and jobs.
#[derive(Default)]
struct State_ {
    rows: BTreeMap<String, u64>,
    jobs: BTreeMap<String, FlushJob>,
    posts: usize,
    last_flush: f64,
    /// How jobs end; they keep running where there is none.
    end: Option<FlushState>,
    /// The next posts get no answer but an error, though the job is taken.
    drop_answers: usize,
}

type Shared = Arc<Mutex<State_>>;

async fn metrics(State(state): State<Shared>) -> String {
    let state = state.lock().expect("not poisoned");
    let mut text: String = state
        .rows
        .iter()
        .filter(|(_, rows)| **rows > 0)
        .map(|(table, rows)| format!("kalamdb_unflushed_rows{{table_name=\"{table}\"}} {rows}\n"))
        .collect();
    let running = state.jobs.values().filter(|job| !job.state.is_final()).count();
    text += &format!("kalamdb_flush_jobs{{state=\"running\"}} {running}\n");
    if state.last_flush > 0.0 {
        text += &format!("kalamdb_last_flush_timestamp_seconds {}\n", state.last_flush);
    }
    text
}

fn authorized(headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|value| value == "Bearer secret")
}

async fn post_job(
    State(state): State<Shared>,
    headers: HeaderMap,
    Json(request): Json<FlushRequest>,
) -> Result<(StatusCode, Json<FlushJob>), StatusCode> {
    if !authorized(&headers) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let mut state = state.lock().expect("not poisoned");
    state.posts += 1;
    let known = state.jobs.get(&request.id).cloned();
    let job = known.clone().unwrap_or_else(|| FlushJob {
        id: request.id.clone(),
        table: request.table,
        reason: request.reason,
        state: FlushState::Running,
        rows: 0,
        bytes: 0,
        message: None,
        created_at: 0,
        started_at: None,
        finished_at: None,
    });
    state.jobs.insert(request.id, job.clone());
    if state.drop_answers > 0 {
        state.drop_answers -= 1;
        return Err(StatusCode::BAD_GATEWAY);
    }
    Ok((if known.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED }, Json(job)))
}

async fn get_job(
    State(state): State<Shared>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<FlushJob>, StatusCode> {
    if !authorized(&headers) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let mut state = state.lock().expect("not poisoned");
    let mut job = state.jobs.get(&id).cloned().ok_or(StatusCode::NOT_FOUND)?;
    if let Some(end) = state.end {
        job.state = end;
        job.message = Some("the bucket is gone".to_owned());
        if end == FlushState::Completed {
            job.rows = state.rows.insert(job.table.clone(), 0).unwrap_or(0);
            state.last_flush += 1.0;
        }
        state.jobs.insert(id, job.clone());
    }
    Ok(Json(job))
}

async fn start_instance(shared: &Shared) -> String {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route(FLUSH_JOBS_PATH, post(post_job))
        .route(&format!("{FLUSH_JOBS_PATH}/{{id}}"), get(get_job))
        .with_state(shared.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    format!("http://{address}")
}

/// An instance that takes connections and never answers.
async fn start_hanging() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            open.push(connection);
        }
    });
    format!("http://{address}")
}

fn target(url: String, token: &str) -> Target {
    Target {
        id: TargetId(url.clone()),
        store: StoreKey(url.clone()),
        url,
        token: Token::new(token),
        limits: Limits { max_bytes: 1 << 30, max_rows: 100, max_age: Duration::from_secs(600), max_concurrent: 2 },
    }
}

#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<String>>,
}

impl Observer for Recorder {
    fn scraped(&self, _: &TargetId, result: Result<&Sample, &ScrapeError>) {
        if let Err(error) = result {
            self.events.lock().expect("not poisoned").push(error.to_string());
        }
    }
    fn started(&self, job: &Job) {
        self.events.lock().expect("not poisoned").push(format!("started {}", job.table));
    }
    fn ended(&self, job: &Job, outcome: &Outcome, _: Duration) {
        self.events.lock().expect("not poisoned").push(format!("{} {}: {:?}", outcome.label(), job.table, outcome));
    }
}

impl Recorder {
    fn count(&self, beginning: &str) -> usize {
        self.events.lock().expect("not poisoned").iter().filter(|event| event.starts_with(beginning)).count()
    }

    async fn wait_for(&self, beginning: &str, times: usize) {
        let seen = async {
            while self.count(beginning) < times {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), seen).await;
        assert!(
            waited.is_ok(),
            "never saw {beginning:?} {times} times in {:?}",
            self.events.lock().expect("not poisoned")
        );
    }
}

fn fast() -> Settings {
    let millis = Duration::from_millis;
    let backoff = Backoff { base: millis(20), cap: millis(100) };
    let settings = Settings::default();
    Settings {
        interval: millis(50),
        scrape_timeout: millis(2000),
        gather: millis(30),
        retry: backoff,
        patience: dispatch::Patience { request_timeout: millis(2000), backoff, poll: backoff, silence: millis(1000) },
        ..settings
    }
}

struct Started {
    recorder: Arc<Recorder>,
    shutdown: CancellationToken,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn start(targets: Vec<Target>) -> Started {
    let (recorder, shutdown) = (Arc::new(Recorder::default()), CancellationToken::new());
    let discovery = Arc::new(StaticTargets(targets));
    tokio::spawn(scheduler::run(fast(), discovery, recorder.clone(), Arc::new(|| 0.5), shutdown.clone()));
    Started { recorder, shutdown }
}

fn instance_with(table: &str, rows: u64, end: Option<FlushState>) -> Shared {
    let state = State_ { rows: BTreeMap::from([(table.to_owned(), rows)]), end, ..State_::default() };
    Arc::new(Mutex::new(state))
}

#[tokio::test]
async fn a_due_table_is_flushed_once_and_an_instance_that_hangs_does_not_stop_it() {
    let due = instance_with("shop.orders", 100, Some(FlushState::Completed));
    let targets = vec![target(start_hanging().await, "secret"), target(start_instance(&due).await, "secret")];
    let scheduler = start(targets);
    scheduler.recorder.wait_for("completed shop.orders", 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(due.lock().expect("not poisoned").posts, 1);

    due.lock().expect("not poisoned").rows.insert("shop.orders".to_owned(), 500);
    scheduler.recorder.wait_for("completed shop.orders", 2).await;
    assert_eq!(due.lock().expect("not poisoned").jobs.len(), 2, "the next flush has another id");
}

#[tokio::test]
async fn a_failed_job_is_told_and_tried_again_under_another_id() {
    let instance = instance_with("shop.orders", 100, Some(FlushState::Failed));
    let scheduler = start(vec![target(start_instance(&instance).await, "secret")]);
    scheduler.recorder.wait_for("failed shop.orders: Failed { message: \"the bucket is gone\" }", 2).await;
    instance.lock().expect("not poisoned").end = Some(FlushState::Completed);
    scheduler.recorder.wait_for("completed shop.orders", 1).await;
}

#[tokio::test]
async fn a_lost_answer_repeats_the_post_and_starts_nothing_twice() {
    let instance = instance_with("shop.orders", 100, Some(FlushState::Completed));
    instance.lock().expect("not poisoned").drop_answers = 2;
    let scheduler = start(vec![target(start_instance(&instance).await, "secret")]);
    scheduler.recorder.wait_for("completed shop.orders", 1).await;
    let state = instance.lock().expect("not poisoned");
    assert_eq!((state.posts, state.jobs.len()), (3, 1));
}

#[tokio::test]
async fn a_scheduler_that_restarts_repeats_nothing() {
    let instance = instance_with("shop.orders", 100, None);
    let url = start_instance(&instance).await;
    let first = start(vec![target(url.clone(), "secret")]);
    first.recorder.wait_for("started shop.orders", 1).await;
    while instance.lock().expect("not poisoned").posts == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(first);

    let second = start(vec![target(url, "secret")]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(instance.lock().expect("not poisoned").jobs.len(), 1, "the job of the first scheduler still runs");

    // That job fails; the second scheduler derives its id once more, finds that it has ended, and takes the next.
    {
        let mut state = instance.lock().expect("not poisoned");
        state.jobs.values_mut().for_each(|job| job.state = FlushState::Failed);
        state.end = Some(FlushState::Completed);
    }
    second.recorder.wait_for("completed shop.orders", 1).await;
    assert_eq!(instance.lock().expect("not poisoned").jobs.len(), 2);
}

#[tokio::test]
async fn a_wrong_token_is_told_and_not_hammered() {
    let instance = instance_with("shop.orders", 100, None);
    let scheduler = start(vec![target(start_instance(&instance).await, "wrong")]);
    scheduler.recorder.wait_for("refused shop.orders", 3).await;
    let events = scheduler.recorder.events.lock().expect("not poisoned").join("\n");
    assert!(events.contains("status 401"), "{events}");
}
