//! Tokens of trusted issuers (OpenID Connect): RS256 or ES256, checked against keys of the configuration. Nothing is fetched: whoever
//! changes an issuer's keys changes the configuration.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::TokenError;

/// The issuers whose tokens count.
#[derive(Default)]
pub(super) struct TrustedIssuers(Vec<Issuer>);

struct Issuer {
    name: String,
    audience: String,
    user_claim: String,
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// One issuer, as the configuration writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    issuer: String,
    audience: String,
    #[serde(default = "subject")]
    user_claim: String,
    jwks: Option<JwkSet>,
    jwks_file: Option<PathBuf>,
}

fn subject() -> String {
    "sub".into()
}

/// Whom a good token names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Vouched {
    /// The user.
    pub(super) user: String,
}

impl TrustedIssuers {
    /// Of `auth.oidc_issuers`: a JSON array, or the path of a file that holds one; empty is none.
    pub(super) fn read(setting: &str) -> Result<Self> {
        let setting = setting.trim();
        if setting.is_empty() {
            return Ok(Self::default());
        }
        let text = match setting.starts_with('[') {
            true => setting.to_owned(),
            false => std::fs::read_to_string(setting)
                .with_context(|| format!("failed to read the file {setting} of auth.oidc_issuers"))?,
        };
        let written: Vec<Written> =
            serde_json::from_str(&text).context("failed to read auth.oidc_issuers as a JSON array of issuers")?;
        written.into_iter().map(Issuer::read).collect::<Result<_>>().map(Self)
    }

    /// Whether the token is of a kind that issuers sign, and not one of our own.
    pub(super) fn may_have_signed(token: &str) -> bool {
        decode_header(token).is_ok_and(|header| matches!(header.alg, Algorithm::RS256 | Algorithm::ES256))
    }

    /// Whom the token names, if a trusted issuer signed it for us and it has not expired.
    pub(super) fn check(&self, token: &str) -> Result<Vouched, TokenError> {
        let mut verdict = TokenError::Invalid;
        for issuer in &self.0 {
            match issuer.check(token) {
                Err(TokenError::Invalid) => {}
                Err(TokenError::Expired) => verdict = TokenError::Expired,
                vouched => return vouched,
            }
        }
        Err(verdict)
    }
}

impl Issuer {
    fn read(written: Written) -> Result<Self> {
        let name = written.issuer;
        ensure!(
            !name.is_empty() && !written.audience.is_empty(),
            "an issuer of auth.oidc_issuers lacks issuer or audience"
        );
        let keys = match (written.jwks, written.jwks_file) {
            (Some(keys), None) => keys,
            (None, Some(path)) => {
                let shown = path.display();
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("failed to read the keys of {name} in {shown}"))?;
                serde_json::from_str(&text).with_context(|| format!("failed to read {shown} as a JWKS"))?
            }
            _ => bail!("issuer {name} of auth.oidc_issuers needs either jwks or jwks_file"),
        };
        let keys = keys.keys.iter().map(|jwk| Key::read(jwk).with_context(|| format!("a key of issuer {name}")));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        ensure!(!keys.is_empty(), "issuer {name} of auth.oidc_issuers has no key");
        Ok(Self { name, audience: written.audience, user_claim: written.user_claim, keys })
    }

    fn check(&self, token: &str) -> Result<Vouched, TokenError> {
        let header = decode_header(token).map_err(|_| TokenError::Invalid)?;
        let mut verdict = TokenError::Invalid;
        for key in self.keys.iter().filter(|key| key.fits(&header)) {
            match decode::<Map<String, Value>>(token, &key.key, &self.validation(key.algorithm)) {
                Ok(data) => return self.vouched(&data.claims),
                Err(error) if *error.kind() == ErrorKind::ExpiredSignature => verdict = TokenError::Expired,
                Err(_) => {}
            }
        }
        Err(verdict)
    }

    /// The algorithm is the key's, never the token's choice.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[&self.name]);
        validation.set_audience(&[&self.audience]);
        validation.required_spec_claims = HashSet::from(["exp", "iss", "aud"].map(str::to_owned));
        validation.validate_nbf = true;
        validation.leeway = 0;
        validation
    }

    fn vouched(&self, claims: &Map<String, Value>) -> Result<Vouched, TokenError> {
        let user = claims.get(&self.user_claim).and_then(Value::as_str).filter(|user| !user.is_empty());
        user.map(|user| Vouched { user: user.to_owned() }).ok_or(TokenError::Invalid)
    }
}

impl Key {
    fn read(jwk: &Jwk) -> Result<Self> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
            _ => bail!("it is neither RSA nor EC on P-256"),
        };
        let key = DecodingKey::from_jwk(jwk).context("it can't be read")?;
        Ok(Self { id: jwk.common.key_id.clone(), algorithm, key })
    }

    fn fits(&self, header: &jsonwebtoken::Header) -> bool {
        self.algorithm == header.alg && (header.kid.is_none() || self.id.is_none() || self.id == header.kid)
    }
}

#[cfg(test)]
mod tests;
