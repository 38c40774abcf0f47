//! Who may come in: passwords against hashes, tokens against their signature and the user table.

mod rate;
mod token;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use kalamdb_engine::catalog::{Catalog, Credentials, User};
use kalamdb_engine::schema::UserId;
use kalamdb_sql::Identity;
use kalamdb_sql::password::{self, HashCost};

pub use rate::RateLimit;
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
    token: Duration,
    refresh: Duration,
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

impl Authority {
    /// Takes the secret of the configuration, or the one kept in the data folder, made at the first start.
    pub fn open(config: &AuthConfig, data_dir: &Path, cost: HashCost) -> Result<Self> {
        Ok(Self {
            signer: token::Signer::open(config.jwt_secret.as_deref(), data_dir)?,
            token: config.token,
            refresh: config.refresh,
            decoy: password::hash("no user has this password", cost)?,
        })
    }

    /// Whether the password is the user's. Slow on purpose, on threads that may block.
    pub async fn verify(&self, user: Option<&User>, password: String) -> bool {
        let (hash, known) = match user.map(|user| &user.credentials) {
            Some(Credentials::Password(hash)) => (hash.clone(), true),
            _ => (self.decoy.clone(), false),
        };
        tokio::task::spawn_blocking(move || password::verify(&password, &hash)).await.is_ok_and(|right| right && known)
    }

    /// A new pair for the user.
    pub fn issue(&self, user: &User) -> Result<Tokens> {
        let now = chrono::Utc::now().timestamp();
        let expires = |after: Duration| now.saturating_add(i64::try_from(after.as_secs()).unwrap_or(i64::MAX));
        let (access_expires, refresh_expires) = (expires(self.token), expires(self.refresh));
        Ok(Tokens {
            access: self.signer.sign(&Claims::of(user, TokenKind::Access, now, access_expires))?,
            access_expires,
            refresh: self.signer.sign(&Claims::of(user, TokenKind::Refresh, now, refresh_expires))?,
            refresh_expires,
        })
    }

    /// The user of the token, with the role that it has now. A token of another role, of a user who is gone, or from before the
    /// user was last changed is no good: so a new password ends all sessions.
    pub fn identify(&self, text: &str, kind: TokenKind, catalog: &Catalog) -> Result<Identity, TokenError> {
        let claims = self.signer.check(text)?;
        let user = catalog.users.get(&UserId::from(claims.sub.as_str())).ok_or(TokenError::Invalid)?;
        let is_current = claims.role == kalamdb_sql::functions::role_name(user.role)
            && claims.token_type == kind
            && claims.iat >= user.updated_at.div_euclid(1000);
        if !is_current {
            return Err(TokenError::Invalid);
        }
        Ok(Identity { user: user.id.clone(), role: user.role })
    }
}

/// Compares in a time that does not tell where the texts differ.
pub fn is_same_secret(given: &str, wanted: &str) -> bool {
    let difference = given.bytes().zip(wanted.bytes()).fold(0u8, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0 && given.len() == wanted.len()
}
