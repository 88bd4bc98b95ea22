//! Passwords: which are accepted, and Argon2id (RFC 9106) on a bounded pool.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use crate::auth::AuthError;

/// Shortest, in characters. Nothing else is asked of a password but that it is not a common one: NIST SP 800-63B §3.1.1.
const SHORTEST: usize = 8;

/// Longest, in bytes; checked before anything is computed.
const LONGEST: usize = 1024;

/// How many characters are looked at for how easy they are to guess.
const LOOKED_AT: usize = 64;

/// At once, 19 MiB each.
const AT_ONCE: usize = 2;

/// The word of this product, which one would try first.
const CONTEXT_WORD: &str = "sconce";

/// Fewer guesses than this, and a password is one of those that are tried first.
const FEWEST_GUESSES: u64 = 1_000_000;

/// Hashes and checks passwords, a few at a time.
#[derive(Clone)]
pub struct Passwords {
    places: Arc<Semaphore>,
    /// Checked in place of the hash of a user that is not there, so that both take the same time.
    dummy: Arc<str>,
}

impl Passwords {
    /// A pool.
    ///
    /// # Errors
    /// [`AuthError::Crypto`].
    pub async fn open() -> Result<Self, AuthError> {
        let dummy = hash_now(&SecretString::from("nobody has this one"))?;
        Ok(Self { places: Arc::new(Semaphore::new(AT_ONCE)), dummy: dummy.into() })
    }

    /// Whether a new password is acceptable for this user.
    ///
    /// # Errors
    /// [`AuthError::WeakPassword`] with what is asked for.
    pub fn check_new(password: &SecretString, username: &str) -> Result<(), AuthError> {
        let text = password.expose_secret();
        if text.len() > LONGEST {
            return Err(AuthError::WeakPassword("must have at most 1024 bytes"));
        }
        if text.chars().count() < SHORTEST {
            return Err(AuthError::WeakPassword("must have at least 8 characters"));
        }
        // Only the beginning is looked at: a long one is not to be had by guessing anyway.
        let beginning: String = text.chars().take(LOOKED_AT).collect::<String>().to_lowercase();
        let names = [username, CONTEXT_WORD].map(str::to_lowercase);
        let without_names = names
            .iter()
            .filter(|name| name.chars().count() >= 4)
            .fold(beginning.clone(), |rest, name| rest.replace(name, ""));
        let few = |text: &str| zxcvbn::zxcvbn(text, &[]).guesses() < FEWEST_GUESSES;
        if few(&beginning) || (without_names != beginning && few(&without_names)) {
            return Err(AuthError::WeakPassword("is too easy to guess: it is common, or made of names"));
        }
        Ok(())
    }

    /// Hashes a password, as a PHC string.
    ///
    /// # Errors
    /// [`AuthError::Crypto`].
    pub async fn hash(&self, password: SecretString) -> Result<String, AuthError> {
        self.run(move || hash_now(&password)).await?
    }

    /// Whether the password is the one of the hash. Without a hash it takes as long, and is not.
    ///
    /// # Errors
    /// [`AuthError::Crypto`].
    pub async fn verify(&self, password: SecretString, hash: Option<String>) -> Result<bool, AuthError> {
        if password.expose_secret().len() > LONGEST {
            return Ok(false);
        }
        let (known, hash) = (hash.is_some(), hash.unwrap_or_else(|| self.dummy.to_string()));
        let matches = self.run(move || verify_now(&password, &hash)).await??;
        Ok(matches && known)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuthError> {
        let lost = |error: String| AuthError::Crypto(error);
        let place =
            Arc::clone(&self.places).acquire_owned().await.map_err(|error| lost(error.to_string()))?;
        let task = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        task.await.map_err(|error| lost(error.to_string()))
    }
}

fn hash_now(password: &SecretString) -> Result<String, AuthError> {
    let hash = Argon2::default().hash_password(password.expose_secret().as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| AuthError::Crypto(error.to_string()))
}

fn verify_now(password: &SecretString, hash: &str) -> Result<bool, AuthError> {
    let hash = PasswordHash::new(hash).map_err(|error| AuthError::Crypto(error.to_string()))?;
    Ok(Argon2::default().verify_password(password.expose_secret().as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_common_and_obvious_passwords_are_refused_and_any_other_accepted() {
        let check = |text: &str| Passwords::check_new(&SecretString::from(text), "margaret");
        for weak in [
            "",
            "7 chars",
            "password",
            "Password1",
            "12345678",
            "qwertyuiop",
            "aaaaaaaaaaaa",
            "sconce123",
            "margaret1987!",
            "abababab",
            "SCONCE2026!",
            "iloveyou",
        ] {
            assert!(check(weak).is_err(), "{weak}");
        }
        let long: String = (0..64).filter_map(|n| char::from_u32(0x4e00 + n * 37)).collect();
        for fine in ["correct horse battery", " leading space", "öäü‽ 密码密码密", "Tr0ub4dor&3", &long]
        {
            assert!(check(fine).is_ok(), "{fine}");
        }
        assert!(check(&"xyz".repeat(400_000)).is_err());
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_nothing_is_cut_off() {
        let passwords = Passwords::open().await.expect("it opens");
        let secret = |text: &str| SecretString::from(text.to_owned());
        let long = "x".repeat(100);
        let hash = passwords.hash(secret(&format!("{long}a"))).await.expect("it hashes");
        assert!(hash.starts_with("$argon2id$"));
        assert!(passwords.verify(secret(&format!("{long}a")), Some(hash.clone())).await.expect("it checks"));
        assert!(!passwords.verify(secret(&format!("{long}b")), Some(hash)).await.expect("it checks"));
        assert!(!passwords.verify(secret("nobody has this one"), None).await.expect("it checks"));
    }
}
