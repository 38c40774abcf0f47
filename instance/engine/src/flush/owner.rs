//! Ownership of the object store's prefix: claimed in the background, with patience, when the store is first reached.
//!
//! A volume that has met its prefix before serves while the store is away. A new one must first prove that the prefix is not
//! another database's: until then it is not ready, and takes no rows.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Epoch;
use crate::EngineError;
use crate::cold::ColdTier;
use crate::cold::identity::{self, Identity, Ownership};
use crate::commit::clock::Clock;
use crate::engine::Readiness;
use crate::hot::Hot;

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
    Empty(String),
}

/// Who owns the prefix, as far as this process knows.
pub struct Owner {
    hot: Arc<Hot>,
    cold: Arc<ColdTier>,
    clock: Arc<dyn Clock>,
    /// Whether the volume had met its prefix before this start.
    known: bool,
    state: ArcSwap<State>,
    /// Says when a try to claim has ended.
    tried: watch::Sender<u64>,
}

impl Owner {
    /// Owns nothing yet.
    pub fn new(hot: Arc<Hot>, cold: Arc<ColdTier>, clock: Arc<dyn Clock>) -> Result<Self, EngineError> {
        let known = hot.prefix_proven()?;
        let message = format!("the object store ({}) has not answered yet", cold.store().name());
        let state = ArcSwap::from_pointee(State::Unproven(message));
        Ok(Self { hot, cold, clock, known, state, tried: watch::Sender::new(0) })
    }

    /// Claims an epoch, however long it takes, and then returns.
    pub async fn claim(&self, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            self.try_claim().await;
            self.tried.send_modify(|tries| *tries += 1);
            if matches!(**self.state.load(), State::Claimed(_)) {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = stop.cancelled() => return,
            }
        }
    }

    async fn try_claim(&self) {
        let (store, id) = (self.cold.store(), self.hot.volume().database_id);
        let state = match identity::claim(store, id, self.known, self.clock.now_micros() / 1000).await {
            Ok(Ownership::Claimed(epoch)) => match self.hot.set_prefix_proven(true) {
                Ok(()) => {
                    tracing::info!(%epoch, store = store.name(), "claimed the object store");
                    State::Claimed(epoch)
                }
                Err(error) => State::Unproven(error.to_string()),
            },
            Ok(Ownership::Foreign(identity)) => State::Foreign(foreign(store.name(), id, &identity)),
            Ok(Ownership::VolumeEmpty(identity)) => State::Empty(empty(store.name(), &identity)),
            Err(error) => State::Unproven(error.to_string()),
        };
        match &state {
            State::Claimed(_) => {}
            State::Unproven(reason) => tracing::warn!(%reason, "the object store is not claimed yet; trying again"),
            State::Foreign(reason) | State::Empty(reason) => {
                tracing::error!(%reason, "the object store can't be claimed")
            }
        }
        self.state.store(Arc::new(state));
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
            State::Claimed(_) => self.cold.store().trouble().map(|trouble| trouble.to_string()),
            State::Unproven(reason) | State::Foreign(reason) | State::Empty(reason) => Some(reason.clone()),
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
            State::Unproven(reason) | State::Foreign(reason) | State::Empty(reason) => {
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

fn empty(store: &str, found: &Identity) -> String {
    format!(
        "the volume is empty, and the object store ({store}) holds database {}: attach that database's volume, or name an \
         empty prefix for a new database; nothing was changed",
        found.database_id
    )
}
