//! Passwords: Argon2id hashes, and the rules for new ones. All of it is slow on purpose: call it where blocking is allowed.

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::{ErrorCode, SqlError};

/// The shortest password, in characters.
const SHORTEST: usize = 8;
/// The longest password, in characters.
const LONGEST: usize = 72;
/// Passwords that everybody tries first.
const COMMON: [&str; 40] = [
    "password",
    "passw0rd",
    "password1",
    "password123",
    "12345678",
    "123456789",
    "1234567890",
    "qwertyui",
    "qwerty123",
    "qwertyuiop",
    "iloveyou",
    "11111111",
    "00000000",
    "abc12345",
    "letmein1",
    "adminadmin",
    "administrator",
    "admin123",
    "admin1234",
    "welcome1",
    "welcome123",
    "changeme",
    "changeme123",
    "qwerty12",
    "1q2w3e4r",
    "1q2w3e4r5t",
    "1qaz2wsx",
    "zaq12wsx",
    "asdfghjkl",
    "87654321",
    "987654321",
    "12341234",
    "12121212",
    "88888888",
    "football",
    "baseball",
    "superman",
    "sunshine",
    "princess",
    "trustno1",
];

/// What one hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
}

impl Default for HashCost {
    /// What OWASP recommends for Argon2id.
    fn default() -> Self {
        Self { memory_kib: 19_456, iterations: 2 }
    }
}

/// Refuses passwords that are too short, too long or too common.
pub fn check_strength(password: &str) -> Result<(), SqlError> {
    let length = password.chars().count();
    let reason = if !(SHORTEST..=LONGEST).contains(&length) {
        format!("a password has {SHORTEST} to {LONGEST} characters, this one has {length}")
    } else if COMMON.contains(&password.to_lowercase().as_str()) {
        "the password is one of the most common ones; choose another".into()
    } else {
        return Ok(());
    };
    Err(SqlError::new(ErrorCode::InvalidValue, reason))
}

/// The PHC string of a new hash.
pub fn hash(password: &str, cost: HashCost) -> Result<String, SqlError> {
    let failed = |error: String| SqlError::new(ErrorCode::Internal, format!("failed to hash a password: {error}"));
    let params = Params::new(cost.memory_kib, cost.iterations, 1, None).map_err(|error| failed(error.to_string()))?;
    let salt = SaltString::generate(&mut OsRng);
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = hasher.hash_password(password.as_bytes(), &salt).map_err(|error| failed(error.to_string()))?;
    Ok(hash.to_string())
}

/// Whether the password belongs to the hash. The cost is the hash's own.
pub fn verify(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_verifies_its_own_password_only() {
        let hash = hash("correct horse", HashCost { memory_kib: 64, iterations: 1 }).unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(verify("correct horse", &hash));
        assert!(!verify("wrong horse", &hash));
        assert!(!verify("correct horse", "no hash"));
    }

    #[test]
    fn short_long_and_common_passwords_are_refused() {
        for bad in ["short", "PASSWORD", &"x".repeat(73)] {
            assert!(check_strength(bad).is_err(), "{bad}");
        }
        assert!(check_strength("plenty-of-flights").is_ok());
    }
}
