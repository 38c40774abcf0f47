//! Ownership of the object store's prefix: claimed in the background, with patience, when the store is first reached.
//!
//! A volume that has met its prefix before serves while the store is away. A new one must first prove that the prefix is not
//! another database's: until then it is not ready, and takes no rows. An empty volume before a prefix that holds a database is
//! recovered from it ([`crate::recovery`]); one that somebody else has taken over from does not go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Epoch;
use crate::EngineError;
use crate::cold::ColdTier;
use crate::cold::identity::{self, Identity, Ownership};
use crate::commit::Committer;
use crate::commit::clock::Clock;
use crate::engine::Readiness;
use crate::hot::Hot;
use crate::recovery::objects;
use crate::recovery::recover::{Recovery, Trouble};
use crate::schema::TableId;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often an owner asks whether its store still answers.
const PROBE_PERIOD: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
enum State {
    /// Nothing was heard from the store yet, or it can't be used now.
    Unproven(String),
    Claimed(Epoch),
    Foreign(String),
    /// The volume is older than what the prefix holds, or another one has taken over.
    Behind(String),
    /// The volume is empty, the prefix is not, and the recovery is on its way.
    Recovering(String),
    /// The volume is empty, the prefix is not, and a person must act.
    Empty(String),
}

/// Tables that take nothing for the rest of this process's life, and why.
pub type StoppedTables = Arc<Mutex<HashMap<TableId, String>>>;

/// Who owns the prefix, as far as this process knows.
pub struct Owner {
    hot: Arc<Hot>,
    cold: Arc<ColdTier>,
    committer: Committer,
    clock: Arc<dyn Clock>,
    /// Shared with the flushes: what a recovery could not read stays stopped.
    stopped: StoppedTables,
    /// Whether the volume had met its prefix before this start.
    known: bool,
    state: ArcSwap<State>,
    /// Says when a try to claim has ended.
    tried: watch::Sender<u64>,
}

impl Owner {
    /// Owns nothing yet.
    pub fn new(
        hot: Arc<Hot>,
        cold: Arc<ColdTier>,
        committer: Committer,
        clock: Arc<dyn Clock>,
        stopped: StoppedTables,
    ) -> Result<Self, EngineError> {
        let known = hot.prefix_proven()?;
        let message = format!("the object store ({}) has not answered yet", cold.store().name());
        let state = ArcSwap::from_pointee(State::Unproven(message));
        Ok(Self { hot, cold, committer, clock, stopped, known, state, tried: watch::Sender::new(0) })
    }

    /// Claims an epoch, however long it takes, and then returns.
    pub async fn claim(&self, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = self.try_claim() => {}
                () = stop.cancelled() => return,
            }
            if matches!(**self.state.load(), State::Claimed(_)) {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = stop.cancelled() => return,
            }
        }
    }

    /// One try to claim an epoch; on an empty volume before a prefix that holds a database, one to recover it.
    pub(crate) async fn try_claim(&self) {
        let state = self.claimed().await.unwrap_or_else(|error| State::Unproven(error.to_string()));
        match &state {
            State::Claimed(_) => {}
            State::Unproven(reason) | State::Recovering(reason) => {
                tracing::warn!(%reason, "the object store is not claimed yet; trying again")
            }
            State::Foreign(reason) | State::Behind(reason) | State::Empty(reason) => {
                tracing::error!(%reason, "the object store can't be claimed")
            }
        }
        self.state.store(Arc::new(state));
        self.tried.send_modify(|tries| *tries += 1);
    }

    async fn claimed(&self) -> Result<State, EngineError> {
        let (store, id) = (self.cold.store(), self.hot.volume().database_id);
        // Before an epoch is claimed: whoever must not go on takes none.
        if let Some(why) = self.displaced(id).await? {
            return Ok(State::Behind(behind(store.name(), &why)));
        }
        Ok(match identity::claim(store, id, self.known, self.now_ms()).await? {
            Ownership::Claimed(epoch) => {
                self.hot.set_prefix_proven(true)?;
                tracing::info!(%epoch, store = store.name(), "claimed the object store");
                State::Claimed(epoch)
            }
            Ownership::Foreign(identity) => State::Foreign(foreign(store.name(), id, &identity)),
            Ownership::VolumeEmpty(identity) => self.recover(&identity).await,
        })
    }

    /// Why the newest mirror of the catalog does not let this volume go on; none where it does, or is not this database's.
    async fn displaced(&self, database_id: uuid::Uuid) -> Result<Option<String>, EngineError> {
        if !self.known {
            return Ok(None);
        }
        let newest = match objects::newest(self.cold.store()).await {
            // The next one replaces it: this volume knows the catalog itself.
            Err(error @ EngineError::Corrupt { .. }) => {
                tracing::warn!(%error, "the newest mirror of the catalog can't be read; a new one is written");
                None
            }
            newest => newest?,
        };
        let own = newest.filter(|mirror| mirror.database_id == database_id);
        Ok(own.and_then(|mirror| mirror.displaces(self.hot.volume_id(), &self.committer.catalog())))
    }

    async fn recover(&self, found: &Identity) -> State {
        let (store, id) = (self.cold.store().name(), found.database_id);
        let tell = |done: usize, all: usize| {
            let message = format!(
                "the volume is empty: database {id} is being recovered from {store}; {done} of {all} tables are done"
            );
            self.state.store(Arc::new(State::Recovering(message)));
        };
        tell(0, 0);
        // So that nobody waits for the end to learn that it is recovering.
        self.tried.send_modify(|tries| *tries += 1);
        let recovery = Recovery { hot: &self.hot, cold: &self.cold, committer: &self.committer, now_ms: self.now_ms() };
        match recovery.run(found, tell).await {
            Ok(done) => {
                let (epoch, stopped) = (done.epoch, done.stopped.len());
                self.stopped.lock().extend(done.stopped);
                tracing::warn!(
                    %epoch, store, stopped,
                    "recovered database {id}: what was flushed is there; rows that were only on the lost volume are gone, and so are \
                     passwords other than root's, which are to be set again"
                );
                State::Claimed(epoch)
            }
            Err(Trouble::Later(error)) => State::Recovering(format!(
                "the volume is empty, and the recovery of database {id} from {store} waits: {error}"
            )),
            Err(Trouble::Stuck(error)) => State::Empty(stuck(store, found, &error)),
        }
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_micros() / 1000
    }

    /// Asks the store now and then, so that its loss is known before a flush meets it.
    pub async fn probe(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PROBE_PERIOD) => {}
                () = stop.cancelled() => return,
            }
            // The store itself remembers how it answered.
            if let Err(error) = identity::read_identity(self.cold.store()).await {
                tracing::debug!(%error, "the object store did not answer a probe");
            }
        }
    }

    /// Why the store can't be used now, as far as is known; none where it answers and the prefix is this process's.
    pub fn store_trouble(&self) -> Option<String> {
        match &**self.state.load() {
            State::Claimed(_) | State::Recovering(_) => self.cold.store().trouble().map(|trouble| trouble.to_string()),
            State::Unproven(reason) | State::Foreign(reason) | State::Behind(reason) | State::Empty(reason) => {
                Some(reason.clone())
            }
        }
    }

    /// Returns once the first try to claim has ended.
    pub async fn first_try(&self) {
        // The sender lives as long as `self` does.
        let _ = self.tried.subscribe().wait_for(|tries| *tries > 0).await;
    }

    /// This process's epoch. Without one no Delta commit is made.
    pub fn epoch(&self) -> Result<Epoch, EngineError> {
        match &**self.state.load() {
            State::Claimed(epoch) => Ok(*epoch),
            State::Unproven(reason) => Err(EngineError::Unavailable(reason.clone())),
            State::Foreign(reason) | State::Behind(reason) | State::Recovering(reason) | State::Empty(reason) => {
                Err(EngineError::Unavailable(reason.clone()))
            }
        }
    }

    /// Why writes must wait; none where they need not.
    pub fn not_ready(&self) -> Option<Readiness> {
        let not_ready = |reason, message: &String| Some(Readiness::NotReady { reason, message: message.clone() });
        match &**self.state.load() {
            State::Claimed(_) => None,
            State::Unproven(_) if self.known => None,
            State::Unproven(message) => not_ready("ObjectStoreUnavailable", message),
            State::Foreign(message) => not_ready("VolumeForeign", message),
            State::Behind(message) => not_ready("VolumeBehind", message),
            State::Recovering(message) => not_ready("Recovering", message),
            State::Empty(message) => not_ready("VolumeEmpty", message),
        }
    }
}

fn foreign(store: &str, id: uuid::Uuid, found: &Identity) -> String {
    format!(
        "this volume belongs to database {id}, and the object store ({store}) to database {}: give the instance the volume or \
         the prefix that belongs to it; nothing was changed",
        found.database_id
    )
}

fn behind(store: &str, why: &str) -> String {
    format!(
        "this volume is not the newest of its database: {why}, as the mirror of the catalog in {store} says. Attach the newest volume, or \
         start with an empty one, which is recovered from the object store; nothing was changed, and what this volume has not flushed is \
         in it only"
    )
}

fn stuck(store: &str, found: &Identity, error: &EngineError) -> String {
    format!(
        "the volume is empty, and database {} can't be recovered from {store}: {error}. A new database needs an empty prefix; nothing was \
         changed",
        found.database_id
    )
}
