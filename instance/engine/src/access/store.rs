//! The records: users in the family `meta`, entries of the audit log in one of their own.

use rocksdb::WriteBatch;

use crate::EngineError;
use crate::access::{Access, AuditEntry, AuditKind, StoredEntry, UserAccess};
use crate::codec;
use crate::hot::HotSnapshot;
use crate::hot::store::{Family, Hot};
use crate::schema::UserId;

const USER_FORMAT: u8 = 1;
const ENTRY_FORMAT: u8 = 1;
/// What the keys of users' records begin with.
const USER_PREFIX: &[u8] = b"user_access/";

/// All that is stored.
pub(crate) fn load(hot: &Hot) -> Result<Access, EngineError> {
    let (snapshot, mut access) = (hot.snapshot(), Access::default());
    snapshot.each(Family::Meta, USER_PREFIX, |user, bytes| {
        let user = String::from_utf8_lossy(user);
        let record = codec::decode(USER_FORMAT, bytes, &format!("record of the log-ins of '{user}'"))?;
        access.users.insert(UserId::from(user.as_ref()), record);
        Ok(())
    })?;
    for kind in AuditKind::ALL {
        snapshot.each(Family::SystemAuditLog, &[kind.tag()], |id, _| {
            access.audit.known(kind, number(id)?);
            Ok(())
        })?;
    }
    Ok(access)
}

/// The audit log, oldest first.
pub(super) fn entries(snapshot: &HotSnapshot) -> Result<Vec<(u64, AuditEntry)>, EngineError> {
    let mut entries = Vec::new();
    for kind in AuditKind::ALL {
        snapshot.each(Family::SystemAuditLog, &[kind.tag()], |id, bytes| {
            let id = number(id)?;
            entries.push((id, codec::decode(ENTRY_FORMAT, bytes, &format!("entry {id} of the audit log"))?));
            Ok(())
        })?;
    }
    entries.sort_by_key(|(id, _)| *id);
    Ok(entries)
}

/// Puts a user's record into a batch.
pub(crate) fn stage_user(hot: &Hot, batch: &mut WriteBatch, user: &UserId, access: &UserAccess) {
    batch.put_cf(hot.family(Family::Meta), user_key(user), codec::encode(USER_FORMAT, access));
}

/// Forgets a user's record.
pub(crate) fn unstage_user(hot: &Hot, batch: &mut WriteBatch, user: &UserId) {
    batch.delete_cf(hot.family(Family::Meta), user_key(user));
}

/// Puts an entry into a batch, and takes out the one that goes for it.
pub(crate) fn stage_audit(hot: &Hot, batch: &mut WriteBatch, stored: &StoredEntry, entry: &AuditEntry) {
    let family = hot.family(Family::SystemAuditLog);
    batch.put_cf(family, entry_key(stored.kind, stored.id), codec::encode(ENTRY_FORMAT, entry));
    if let Some(evicted) = stored.evicted {
        batch.delete_cf(family, entry_key(stored.kind, evicted));
    }
}

fn user_key(user: &UserId) -> Vec<u8> {
    [USER_PREFIX, user.as_str().as_bytes()].concat()
}

fn entry_key(kind: AuditKind, id: u64) -> Vec<u8> {
    [&[kind.tag()][..], &id.to_be_bytes()].concat()
}

fn number(key: &[u8]) -> Result<u64, EngineError> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| EngineError::Corrupt {
        what: "the audit log".into(),
        reason: format!("its key '{}' is no number", key.escape_ascii()),
    })
}
