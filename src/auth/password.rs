//! Passwords: which are accepted, and Argon2id (RFC 9106) on a bounded pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::AuthError;

/// Shortest, in characters. Nothing else is asked of a password but that it is not a common one: NIST SP 800-63B §3.1.1.
const SHORTEST: usize = 8;

/// Longest, in bytes; checked before anything is computed.
const LONGEST: usize = 1024;

/// How many characters are looked at for how easy they are to guess.
const LOOKED_AT: usize = 64;

/// At once, 19 MiB each.
const AT_ONCE: usize = 2;

/// More than this do not wait for a place, but are sent away.
const MOST_WAITING: usize = 512;

/// The word of this product, which one would try first.
const CONTEXT_WORD: &str = "sconce";

/// Fewer guesses than this, and a password is one of those that are tried first.
const FEWEST_GUESSES: u64 = 1_000_000;

/// Hashes and checks passwords, a few at a time.
#[derive(Clone)]
pub struct Passwords {
    places: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    /// Checked in place of the hash of a user that is not there, so that both take the same time.
    dummy: Arc<str>,
    /// How many were checked.
    checks: Arc<AtomicU64>,
}

/// A place among those who compute. What was begun keeps it to its end, though nobody waits for it any more.
pub struct Place {
    permit: Arc<OwnedSemaphorePermit>,
    dummy: Arc<str>,
    checks: Arc<AtomicU64>,
}

impl Passwords {
    /// A pool.
    ///
    /// # Errors
    /// [`AuthError::Crypto`].
    pub async fn open() -> Result<Self, AuthError> {
        let dummy = hash_now(&SecretString::from("nobody has this one"))?;
        Ok(Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            queue: Arc::new(Semaphore::new(MOST_WAITING)),
            dummy: dummy.into(),
            checks: Arc::default(),
        })
    }

    /// How many passwords were checked, those of unknown users among them.
    pub fn checks(&self) -> u64 {
        self.checks.load(Ordering::Relaxed)
    }

    /// Whether a new password is acceptable for this user.
    ///
    /// # Errors
    /// [`AuthError::WeakPassword`] with what is asked for.
    pub fn check_new(password: &SecretString, username: &str) -> Result<(), AuthError> {
        let text = password.expose_secret();
        if text.len() > LONGEST {
            return Err(weak("must have at most 1024 bytes"));
        }
        if text.chars().count() < SHORTEST {
            return Err(weak("must have at least 8 characters"));
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
            return Err(weak("is too easy to guess: it is common, or made of names"));
        }
        Ok(())
    }

    /// A place, once one is free.
    ///
    /// # Errors
    /// [`AuthError::Busy`] if too many are waiting already.
    pub async fn place(&self) -> Result<Place, AuthError> {
        let waiting = self.queue.try_acquire().map_err(|_| AuthError::Busy)?;
        let permit = Arc::clone(&self.places).acquire_owned().await;
        drop(waiting);
        let permit = permit.map_err(|error| AuthError::Crypto(error.to_string()))?;
        Ok(Place {
            permit: Arc::new(permit),
            dummy: Arc::clone(&self.dummy),
            checks: Arc::clone(&self.checks),
        })
    }

    /// Hashes a password, as a PHC string.
    ///
    /// # Errors
    /// [`AuthError::Busy`], [`AuthError::Crypto`].
    pub async fn hash(&self, password: SecretString) -> Result<String, AuthError> {
        self.place().await?.run(move || hash_now(&password)).await?
    }
}

const fn weak(reason: &'static str) -> AuthError {
    AuthError::WeakPassword { field: "password", reason }
}

impl Place {
    /// Whether the password is the one of the hash. Without a hash it takes as long, and is not.
    ///
    /// # Errors
    /// [`AuthError::Crypto`].
    pub async fn verify(&self, password: SecretString, hash: Option<String>) -> Result<bool, AuthError> {
        if password.expose_secret().len() > LONGEST {
            return Ok(false);
        }
        self.checks.fetch_add(1, Ordering::Relaxed);
        let (known, hash) = (hash.is_some(), hash.unwrap_or_else(|| self.dummy.to_string()));
        let matches = self.run(move || verify_now(&password, &hash)).await??;
        Ok(matches && known)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuthError> {
        let permit = Arc::clone(&self.permit);
        let task = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        task.await.map_err(|error| AuthError::Crypto(error.to_string()))
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
        let place = passwords.place().await.expect("there is one");
        assert!(place.verify(secret(&format!("{long}a")), Some(hash.clone())).await.expect("it checks"));
        assert!(!place.verify(secret(&format!("{long}b")), Some(hash)).await.expect("it checks"));
        assert!(!place.verify(secret("nobody has this one"), None).await.expect("it checks"));
        assert_eq!(passwords.checks(), 3);
    }

    #[tokio::test]
    async fn an_unknown_user_costs_what_a_known_one_does() {
        let passwords = Passwords::open().await.expect("it opens");
        let hash = passwords.hash(SecretString::from("of somebody")).await.expect("it hashes");
        let cost = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cost(&passwords.dummy), cost(&hash));
        assert_eq!(cost(&hash), ["", "argon2id", "v=19", "m=19456,t=2,p=1"]);
    }

    #[tokio::test]
    async fn few_compute_at_once_even_if_nobody_waits_for_them_and_not_too_many_wait() {
        let passwords = Passwords::open().await.expect("it opens");
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let ended = Arc::new(std::sync::Mutex::new(ended));
        for _ in 0..AT_ONCE {
            let (place, ended) = (passwords.place().await.expect("there is one"), Arc::clone(&ended));
            let work = place.run(move || ended.lock().expect("nobody panicked").recv().is_err());
            // Whoever asked goes away once it has begun.
            let mut work = Box::pin(work);
            assert!(futures_util::poll!(&mut work).is_pending());
        }
        let waiting: Vec<_> = (0..MOST_WAITING)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.place().await.map(drop) })
            })
            .collect();
        while passwords.queue.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(passwords.places.available_permits(), 0);
        assert!(matches!(passwords.place().await, Err(AuthError::Busy)));
        drop(end);
        for one in waiting {
            assert!(one.await.expect("it did not panic").is_ok());
        }
    }
}
