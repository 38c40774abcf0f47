//! Commits about who came in and who did what.

use rocksdb::WriteBatch;

use crate::EngineError;
use crate::access::{self, Access, AccessChange, UserAccess};
use crate::catalog::Effect;
use crate::commit::Committer;
use crate::commit::queue::{Outcome, QUEUE_UNIT};
use crate::commit::record::CommitRecord;
use crate::commit::writer::Writer;
use crate::schema::UserId;

impl Committer {
    /// Keeps these, all or none.
    pub async fn access(&self, changes: Vec<AccessChange>) -> Result<(), EngineError> {
        self.submit(CommitRecord::Access(changes), QUEUE_UNIT).await.map(drop)
    }
}

impl Writer {
    pub(super) fn change_access(&mut self, changes: Vec<AccessChange>) -> Result<Outcome, EngineError> {
        let (mut batch, shared) = (WriteBatch::default(), self.shared.clone());
        let sync = self.sync && changes.iter().any(AccessChange::is_durable);
        let mut known = shared.access.lock();
        for change in changes {
            self.stage_access(&mut batch, &mut known, change);
        }
        // Under the lock: nobody may see, or be let in by, what a crash could undo.
        self.write(batch, sync);
        Ok(Outcome::Done)
    }

    /// What goes into the batch of another change.
    pub(super) fn stage_recorded(&self, batch: &mut WriteBatch, changes: Vec<AccessChange>) {
        let mut known = self.shared.access.lock();
        changes.into_iter().for_each(|change| self.stage_access(batch, &mut known, change));
    }

    fn stage_access(&self, batch: &mut WriteBatch, known: &mut Access, change: AccessChange) {
        let (user, after): (UserId, Box<dyn FnOnce(UserAccess) -> UserAccess>) = match change {
            AccessChange::Failed { user, at, policy } => (user, Box::new(move |access| access.failed(at, policy))),
            AccessChange::LoggedIn { user, at } => (user, Box::new(move |access| access.logged_in(at))),
            AccessChange::Revoked { user, session, until, at } => {
                (user, Box::new(move |access| access.revoked(session, until, at)))
            }
            AccessChange::Audited { kind, entry } => {
                let stored = known.audit.add(kind, self.audit_entries);
                return access::stage_audit(&self.shared.hot, batch, &stored, &entry.bounded());
            }
        };
        // A user who was dropped meanwhile leaves no record to whoever gets the name next.
        if !self.shared.catalog.load().users.contains_key(&user) {
            return;
        }
        let access = after(known.users.get(&user).cloned().unwrap_or_default());
        access::stage_user(&self.shared.hot, batch, &user, &access);
        known.users.insert(user, access);
    }

    /// What changes of users mean for their log-ins: a dropped one's are forgotten, a changed one may come in again.
    pub(super) fn stage_access_of(&self, batch: &mut WriteBatch, effects: &[Effect]) {
        let mut known = self.shared.access.lock();
        for effect in effects {
            match effect {
                Effect::DropUser(user) => {
                    known.users.remove(user);
                    access::unstage_user(&self.shared.hot, batch, user);
                }
                Effect::PutUser(user) => {
                    if let Some(access) = known.users.get_mut(&user.id) {
                        *access = std::mem::take(access).unlocked();
                        access::stage_user(&self.shared.hot, batch, &user.id, access);
                    }
                }
                _ => {}
            }
        }
    }
}
