//! The statements that run now: who sees them, and who may stop them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use kalamdb_engine::catalog::Role;
use kalamdb_engine::schema::UserId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{ErrorCode, Identity, SqlError};

/// A statement that runs.
#[derive(Debug, Clone)]
pub struct RunningQuery {
    /// What KILL QUERY names it by.
    pub id: Uuid,
    /// Who sent it.
    pub user: UserId,
    /// The namespace of its unqualified names.
    pub namespace: String,
    /// Its text.
    pub sql: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    stop: CancellationToken,
}

/// All of them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<Mutex<BTreeMap<Uuid, RunningQuery>>>);

/// A statement's place among them, until it is dropped.
pub struct Ticket {
    id: Uuid,
    stop: CancellationToken,
    running: Running,
    /// Whether it has begun a commit that has not failed.
    commits: watch::Sender<bool>,
}

impl Running {
    /// A statement begins.
    pub fn begin(&self, sql: &str, namespace: &str, identity: &Identity) -> Ticket {
        let (id, stop) = (Uuid::now_v7(), CancellationToken::new());
        let query = RunningQuery {
            id,
            user: identity.user.clone(),
            namespace: namespace.to_owned(),
            sql: sql.to_owned(),
            started_at: Utc::now(),
            stop: stop.clone(),
        };
        self.lock().insert(id, query);
        Ticket { id, stop, running: self.clone(), commits: watch::Sender::new(false) }
    }

    /// Those that the user may know of, oldest first: its own, and from DBA on all.
    pub fn visible_to(&self, identity: &Identity) -> Vec<RunningQuery> {
        let known = self.lock();
        known.values().filter(|query| may_know(query, identity)).cloned().collect()
    }

    /// Stops the statement of that id: it ends soon, and answers that it was stopped.
    pub fn kill(&self, id: &str, identity: &Identity) -> Result<(), SqlError> {
        let known = self.lock();
        let found = id.parse::<Uuid>().ok().and_then(|id| known.get(&id)).filter(|query| may_know(query, identity));
        match found {
            Some(query) => {
                query.stop.cancel();
                Ok(())
            }
            None => Err(SqlError::not_found("running query", id)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, RunningQuery>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn may_know(query: &RunningQuery, identity: &Identity) -> bool {
    identity.role >= Role::Dba || query.user == identity.user
}

impl Ticket {
    /// Waits until somebody stops the statement; answers why it ends.
    pub async fn killed(&self) -> SqlError {
        self.stop.cancelled().await;
        SqlError::new(ErrorCode::Cancelled, format!("the statement was stopped by KILL QUERY '{}'", self.id))
    }

    /// A commit of the statement's, which is not stopped half-way; see [`Self::stoppable`].
    pub async fn commit<T, E>(&self, commit: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.commits.send_replace(true);
        let ended = commit.await;
        self.commits.send_replace(ended.is_ok());
        ended
    }

    /// Returns where the statement may still end without its effect: never once it has committed, and while a commit is under way only if
    /// that fails.
    pub async fn stoppable(&self) {
        // It ends with an error only where the sender is gone, which is here.
        let _ = self.commits.subscribe().wait_for(|commits| !commits).await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.running.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    /// Whether a statement that KILL has met ends by it now.
    fn ends(ticket: &Ticket) -> bool {
        ticket.killed().now_or_never().expect("it was killed");
        ticket.stoppable().now_or_never().is_some()
    }

    #[test]
    fn a_commit_under_way_is_waited_for_and_counts() {
        let identity = Identity { user: "ann".into(), role: Role::User, address: None };
        let running = Running::default();
        for is_taken in [true, false] {
            let ticket = running.begin("CREATE NAMESPACE n", "default", &identity);
            assert!(ticket.killed().now_or_never().is_none());
            running.kill(&ticket.id.to_string(), &identity).unwrap();
            assert!(ends(&ticket), "nothing is committed yet");
            let (answer, answered) = oneshot::channel();
            let mut commit = Box::pin(ticket.commit(async { answered.await.unwrap() }));
            assert!(commit.as_mut().now_or_never().is_none());
            assert!(!ends(&ticket), "the commit is under way");
            answer.send(if is_taken { Ok(()) } else { Err(()) }).unwrap();
            assert_eq!(commit.now_or_never().unwrap().is_ok(), is_taken);
            assert_eq!(ends(&ticket), !is_taken);
        }
    }
}
