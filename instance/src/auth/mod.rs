//! Who may come in: passwords against hashes, tokens against their signature, the user table and the sessions that were ended.

mod oidc;
mod rate;
mod sessions;
mod token;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use kalamdb_engine::Engine;
use kalamdb_engine::access::LockPolicy;
use kalamdb_engine::catalog::{Catalog, Credentials, User};
use kalamdb_engine::schema::UserId;
use kalamdb_sql::Identity;
use kalamdb_sql::functions::role_name;
use kalamdb_sql::password::{self, HashCost};
use kalamdb_sql::relations::Session;
use uuid::Uuid;

use oidc::TrustedIssuers;
pub use rate::RateLimit;
pub use sessions::Sessions;
pub use token::{Claims, TokenError, TokenKind};

use crate::configuration::AuthConfig;

/// The user that every database has.
pub fn root() -> UserId {
    UserId::from("root")
}

/// Whether root has no password yet, so that nobody can log in.
pub fn needs_setup(catalog: &Catalog) -> bool {
    catalog.users.get(&root()).is_none_or(|user| user.credentials == Credentials::None)
}

/// Signs and checks tokens, and verifies passwords.
pub struct Authority {
    signer: token::Signer,
    issuers: TrustedIssuers,
    sessions: Arc<Sessions>,
    token: Duration,
    refresh: Duration,
    lock: LockPolicy,
    /// What an unknown user's password is compared with, so that the answer takes as long as for a known one.
    decoy: String,
}

/// A pair of tokens, with the moments at which they expire in seconds since the Unix epoch.
pub struct Tokens {
    /// For requests.
    pub access: String,
    /// When it expires.
    pub access_expires: i64,
    /// For new pairs.
    pub refresh: String,
    /// When it expires.
    pub refresh_expires: i64,
}

/// What a good token says: who, and by which log-in. Those of trusted issuers belong to none.
pub struct Presented {
    /// The user, with the role that it has now.
    pub identity: Identity,
    /// The log-in.
    pub session: Option<Session>,
}

impl Authority {
    /// Takes the secret of the configuration, or the one kept in the data folder, made at the first start.
    pub fn open(config: &AuthConfig, data_dir: &Path, cost: HashCost) -> Result<Self> {
        Ok(Self {
            signer: token::Signer::open(config.jwt_secret.as_deref(), data_dir)?,
            issuers: TrustedIssuers::read(&config.oidc_issuers)?,
            sessions: Arc::default(),
            token: config.token,
            refresh: config.refresh,
            lock: config.lock,
            decoy: password::hash("no user has this password", cost)?,
        })
    }

    /// Log-ins whose tokens may still be used.
    pub fn sessions(&self) -> Arc<Sessions> {
        self.sessions.clone()
    }

    /// When wrong passwords lock a user.
    pub fn lock_policy(&self) -> LockPolicy {
        self.lock
    }

    /// Whether the password is the user's; none for a user who is not let in, which takes as long. Slow on purpose, on threads that may
    /// block.
    pub async fn verify(&self, user: Option<&User>, password: String) -> bool {
        let (hash, known) = match user.map(|user| &user.credentials) {
            Some(Credentials::Password(hash)) => (hash.clone(), true),
            _ => (self.decoy.clone(), false),
        };
        tokio::task::spawn_blocking(move || password::verify(&password, &hash)).await.is_ok_and(|right| right && known)
    }

    /// A new pair for the user, of that log-in.
    pub fn issue(&self, user: &User, session: Uuid) -> Result<Tokens> {
        let now = chrono::Utc::now().timestamp();
        let expires = |after: Duration| now.saturating_add(i64::try_from(after.as_secs()).unwrap_or(i64::MAX));
        let (access_expires, refresh_expires) = (expires(self.token), expires(self.refresh));
        let sign = |kind, expires| self.signer.sign(&Claims::of(user, kind, session, now, expires));
        Ok(Tokens {
            access: sign(TokenKind::Access, access_expires)?,
            access_expires,
            refresh: sign(TokenKind::Refresh, refresh_expires)?,
            refresh_expires,
        })
    }

    /// The user of the token, with the role that it has now. A token of another role, of a user who is gone, from before the
    /// user was last changed, or of a log-in that was ended is no good: so a new password ends all sessions.
    pub fn identify(&self, text: &str, kind: TokenKind, engine: &Engine) -> Result<Presented, TokenError> {
        if kind == TokenKind::Access && TrustedIssuers::may_have_signed(text) {
            return self.identify_vouched(text, engine);
        }
        let claims = self.signer.check(text)?;
        let catalog = engine.catalog();
        let user = catalog.users.get(&UserId::from(claims.sub.as_str())).ok_or(TokenError::Invalid)?;
        let is_current = claims.role == role_name(user.role)
            && claims.token_type == kind
            && claims.is_of(user)
            && !engine.is_revoked(&user.id, claims.sid, claims.iat);
        if !is_current {
            return Err(TokenError::Invalid);
        }
        let session = claims.sid.map(|id| session_of(id, user, claims.iat, claims.exp));
        Ok(Presented { identity: identity_of(user), session })
    }

    /// A trusted issuer says who it is; what that user may do is for the user table to say. It vouches for nobody who has a password.
    fn identify_vouched(&self, text: &str, engine: &Engine) -> Result<Presented, TokenError> {
        let vouched = self.issuers.check(text)?;
        let catalog = engine.catalog();
        let user = catalog.users.get(&UserId::from(vouched.user.as_str()));
        let user = user.filter(|user| !matches!(user.credentials, Credentials::Password(_)) && user.id != root());
        user.map(|user| Presented { identity: identity_of(user), session: None }).ok_or(TokenError::Invalid)
    }
}

fn identity_of(user: &User) -> Identity {
    Identity { user: user.id.clone(), role: user.role, address: None }
}

/// The log-in as a token of it tells. `issued` and `expires` in seconds since the Unix epoch.
fn session_of(id: Uuid, user: &User, issued: i64, expires: i64) -> Session {
    Session {
        id,
        user: user.id.clone(),
        role: user.role,
        address: None,
        created_at: issued.saturating_mul(1000),
        last_seen_at: chrono::Utc::now().timestamp_millis(),
        expires_at: expires.saturating_mul(1000),
    }
}

/// Compares in a time that does not tell where the texts differ.
pub fn is_same_secret(given: &str, wanted: &str) -> bool {
    let difference = given.bytes().zip(wanted.bytes()).fold(0u8, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0 && given.len() == wanted.len()
}
