//! JSON Web Tokens, HS256 with a secret of this database.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use kalamdb_engine::catalog::User;
use kalamdb_sql::functions::role_name;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `iss` of our tokens.
const ISSUER: &str = "kalamdb";
/// The file of the generated secret, in the data folder.
const SECRET_FILE: &str = "jwt-secret";
const SECRET_BYTES: usize = 32;

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// Requests.
    Access,
    /// New pairs of tokens.
    Refresh,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// Who issued it.
    pub iss: String,
    /// When it expires, in seconds since the Unix epoch.
    pub exp: i64,
    /// When it was issued.
    pub iat: i64,
    /// The user's address.
    pub email: Option<String>,
    /// The role at that time.
    pub role: String,
    /// What it is good for.
    pub token_type: TokenKind,
    /// Makes each token another.
    #[serde(default)]
    pub jti: String,
    /// The log-in that it belongs to. Tokens that others made with the same secret have none, and can't be revoked one by one.
    #[serde(default)]
    pub sid: Option<Uuid>,
    /// Which state of the user it was issued for: when that was last changed, in milliseconds since the Unix epoch. Tokens that others made
    /// have none, and are held to the second of `iat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usr: Option<i64>,
}

impl Claims {
    /// For that user.
    pub fn of(user: &User, kind: TokenKind, session: Uuid, now: i64, expires: i64) -> Self {
        Self {
            sub: user.id.to_string(),
            iss: ISSUER.into(),
            exp: expires,
            iat: now,
            email: user.email.clone(),
            role: role_name(user.role).into(),
            token_type: kind,
            jti: Uuid::new_v4().to_string(),
            sid: Some(session),
            usr: Some(user.updated_at),
        }
    }

    /// Whether the user was not changed since.
    pub fn is_of(&self, user: &User) -> bool {
        match self.usr {
            Some(changed) => changed == user.updated_at,
            None => self.iat >= user.updated_at.div_euclid(1000),
        }
    }
}

/// Why a token is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was good once: log in again.
    #[error("Token expired")]
    Expired,
    /// It is forged, malformed, of another database, or its user has changed.
    #[error("Invalid credentials")]
    Invalid,
}

/// Signs and checks.
pub(super) struct Signer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl Signer {
    pub(super) fn open(configured: Option<&str>, data_dir: &Path) -> Result<Self> {
        let secret = match configured {
            Some(secret) => secret.as_bytes().to_vec(),
            None => kept_secret(data_dir)?,
        };
        // The algorithm is fixed here, not taken from the token: `alg: none` and foreign algorithms are refused.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        validation.leeway = 0;
        Ok(Self {
            encoding: EncodingKey::from_secret(&secret),
            decoding: DecodingKey::from_secret(&secret),
            validation,
        })
    }

    pub(super) fn sign(&self, claims: &Claims) -> Result<String> {
        encode(&Header::new(Algorithm::HS256), claims, &self.encoding).context("failed to sign a token")
    }

    pub(super) fn check(&self, token: &str) -> Result<Claims, TokenError> {
        match decode::<Claims>(token, &self.decoding, &self.validation) {
            Ok(data) => Ok(data.claims),
            Err(error) if *error.kind() == ErrorKind::ExpiredSignature => Err(TokenError::Expired),
            Err(_) => Err(TokenError::Invalid),
        }
    }
}

/// The secret in the data folder; made, for its owner's eyes only, when it is not there yet.
fn kept_secret(data_dir: &Path) -> Result<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = data_dir.join(SECRET_FILE);
    let shown = path.display();
    match std::fs::read(&path) {
        Ok(secret) => {
            ensure!(
                secret.len() == SECRET_BYTES,
                "{shown} does not hold {SECRET_BYTES} bytes: delete it, and all log in again"
            );
            return Ok(secret);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("failed to read {shown}")),
    }
    let secret: [u8; SECRET_BYTES] = rand::random();
    let written = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(&secret).and_then(|()| file.sync_all()));
    written.with_context(|| format!("failed to write {shown}"))?;
    Ok(secret.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(expires: i64) -> Claims {
        Claims {
            sub: "alice".into(),
            iss: ISSUER.into(),
            exp: expires,
            iat: 0,
            email: None,
            role: "user".into(),
            token_type: TokenKind::Access,
            jti: "1".into(),
            sid: None,
            usr: None,
        }
    }

    #[test]
    fn only_our_own_unexpired_tokens_are_good() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::open(None, folder.path()).unwrap();
        let again = Signer::open(None, folder.path()).unwrap();
        let good = signer.sign(&claims(i64::MAX / 2)).unwrap();
        assert_eq!(again.check(&good).unwrap().sub, "alice");
        let other = Signer::open(Some("another secret of thirty-two bytes"), folder.path()).unwrap();
        assert_eq!(other.check(&good), Err(TokenError::Invalid));
        assert_eq!(signer.check(&signer.sign(&claims(1)).unwrap()), Err(TokenError::Expired));
        let foreign = Claims { iss: "elsewhere".into(), ..claims(i64::MAX / 2) };
        assert_eq!(signer.check(&signer.sign(&foreign).unwrap()), Err(TokenError::Invalid));
        // {"alg":"none","typ":"JWT"}, with the good token's claims and no signature.
        let payload = good.split('.').nth(1).unwrap();
        let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
        assert_eq!(signer.check(&unsigned), Err(TokenError::Invalid));
    }
}
