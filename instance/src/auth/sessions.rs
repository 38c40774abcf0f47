//! Log-ins whose tokens may still be used, for `system.sessions`: in memory, known again after a restart when their tokens are shown.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kalamdb_sql::relations::Session;
use uuid::Uuid;

/// Sessions that are listed at most; beyond it the one that was not seen for longest is left out, and its tokens stay good.
const LISTED: usize = 10_000;

/// The list.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<Uuid, Session>>);

impl Sessions {
    /// A session's token was shown; `session` says what is known of it where the list has forgotten it.
    pub fn seen(&self, session: &Session, from: Option<IpAddr>) {
        let mut listed = self.lock();
        if !listed.contains_key(&session.id) {
            make_room(&mut listed);
        }
        let known = listed.entry(session.id).or_insert_with(|| session.clone());
        known.last_seen_at = known.last_seen_at.max(session.last_seen_at);
        known.expires_at = known.expires_at.max(session.expires_at);
        if let Some(from) = from {
            known.address = Some(from.to_canonical().to_string());
        }
    }

    /// It was ended.
    pub fn ended(&self, session: Uuid) {
        self.lock().remove(&session);
    }

    /// Those that have not expired, the oldest first.
    pub fn listed(&self, now_ms: i64) -> Vec<Session> {
        let mut listed = self.lock();
        listed.retain(|_, session| session.expires_at > now_ms);
        let mut sessions: Vec<_> = listed.values().cloned().collect();
        sessions.sort_by_key(|session| (session.created_at, session.id));
        sessions
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(listed: &mut HashMap<Uuid, Session>) {
    if listed.len() >= LISTED {
        let oldest = listed.values().min_by_key(|session| session.last_seen_at).map(|session| session.id);
        oldest.map(|id| listed.remove(&id));
    }
}

#[cfg(test)]
mod tests {
    use kalamdb_engine::catalog::Role;

    use super::*;

    #[test]
    fn the_list_is_bounded_and_forgets_what_has_expired() {
        let sessions = Sessions::default();
        let session = |n: usize| Session {
            id: Uuid::from_u128(n as u128),
            user: "ann".into(),
            role: Role::User,
            address: None,
            created_at: n as i64,
            last_seen_at: n as i64,
            expires_at: 1_000_000 + n as i64,
        };
        (0..LISTED + 5).for_each(|n| sessions.seen(&session(n), None));
        let listed = sessions.listed(0);
        assert_eq!((listed.len(), listed[0].created_at), (LISTED, 5));
        sessions.seen(&session(7), Some(IpAddr::from([127, 0, 0, 1])));
        sessions.ended(Uuid::from_u128(8));
        let listed = sessions.listed(1_000_006);
        assert_eq!((listed[0].address.as_deref(), listed[1].created_at), (Some("127.0.0.1"), 9));
    }
}
